"""Every problem of an inventory at once: shape, values, references, addresses, policies. Never raises."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tidegate_compiler import parallel
from tidegate_compiler.check.addresses import addresses
from tidegate_compiler.check.policies import comparisons, expired, policies
from tidegate_compiler.check.read import Like, missing_overlay, read
from tidegate_compiler.check.references import references
from tidegate_compiler.check.structure import Unread, structure
from tidegate_compiler.diagnostics import Diagnostic, Rough, has_errors
from tidegate_compiler.files import KINDS
from tidegate_compiler.grants import Grant, grants
from tidegate_compiler.load import Document, Documents
from tidegate_compiler.model import Inventory

__all__ = ["Checked", "Reading", "check", "known"]

_LARGE = 20_000  # clients; a fork costs as much as a look at some thousand


@dataclass(frozen=True)
class Checked:
    """What came out: the inventory when it has no error, and every diagnostic in order of place.

    `rough` names the files that have to be read carefully before the diagnostics may be shown; `grants` are the
    inventory's.
    """

    inventory: Inventory | None
    diagnostics: tuple[Diagnostic, ...]
    rough: frozenset[str] = frozenset()
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True)
class Reading:
    """What was read of documents: the model, complete or not, and what `read` says of it."""

    documents: Documents
    inventory: Inventory
    problems: list[Diagnostic]
    told: set[str]

    @classmethod
    def of(cls, documents: Documents, like: Reading | None = None) -> Reading:
        """Read documents; objects that are the same in `like`, another reading, are not made again."""
        problems: list[Diagnostic] = []
        if like is None or like.problems or like.told:
            told: set[str] = set()
            return cls(documents, read(documents, problems, told), problems, told)
        known = Like(like.inventory, like.documents)
        return cls(documents, read(documents, problems, like.told, known), problems, like.told)


def check(
    documents: Documents,
    earlier: list[Diagnostic],
    files: Mapping[str, bytes],
    at: int | None = None,
    with_warnings: bool = True,
    reading: Reading | None = None,
) -> Checked:
    """Judge an inventory. `earlier` are the problems of reading and loading; `at` a Unix second, or None.

    With `at`, what has expired by then is reported too; without it, no clock plays any part. Without warnings, those
    that need a comparison of all policies are spared, and so are `grants`. `reading` is what was read of the documents,
    if that is known.
    """
    problems = [*earlier, *missing_overlay(documents, files)]
    unread: list[Unread] = []
    aliases = {(p.where, "TG014") for p in earlier if p.code == "TG006"}  # an alias has no value of its own
    for document in documents:
        if not isinstance(document, Document):
            continue  # its schema has accepted it
        found, left = structure(document)
        problems.extend(p for p in found if (p.where, p.code) not in aliases)
        unread.extend(left)
    reading = reading or Reading.of(documents)
    inventory = reading.inventory
    problems.extend(reading.problems)
    problems.extend(_never_lost(unread, problems))
    incomplete = _incomplete(earlier)
    problems.extend(
        references(inventory, incomplete)
    )  # before a fork, which makes a look at all values dearer
    # Of many clients another process looks at the addresses, meanwhile; where it finds something, this one does, too.
    is_large = len(inventory.client_rows) >= _LARGE
    with parallel.beside(
        lambda: not any(True for _ in addresses(inventory, incomplete)), is_large
    ) as are_clean:
        problems.extend(policies(inventory))
        every_grant = grants(inventory) if with_warnings and not has_errors(problems) else ()
        compared = list(comparisons(inventory, every_grant))
        if not are_clean():
            problems.extend(addresses(inventory, incomplete))
    sound = not has_errors(problems)
    if sound:
        problems.extend(compared)
        problems.extend(expired(inventory, at) if at is not None else ())
    told = reading.told | {problem.where.file for problem in problems if isinstance(problem.where, Rough)}
    if told:
        return Checked(None, (), frozenset(told))
    told_once = tuple(sorted(set(problems)))
    return Checked(inventory if sound else None, told_once, grants=every_grant)


def known(reading: Reading, like: Checked) -> Checked:
    """Return what `check` does of documents that are known to have no error, without warnings.

    What is the same in `like` is not made again.
    """
    return Checked(reading.inventory, (), grants=grants(reading.inventory, like.inventory, like.grants))


def _incomplete(earlier: list[Diagnostic]) -> frozenset[str]:
    """Return the kinds of which something could not be read; every kind, if a whole directory is misplaced."""
    if any(problem.code == "TG004" and "/" not in problem.where.file for problem in earlier):
        return frozenset(KINDS)
    return frozenset(problem.where.file.partition("/")[0] for problem in earlier)


def _never_lost(unread: list[Unread], problems: list[Diagnostic]) -> list[Diagnostic]:
    """Report the values that a schema refuses and no reader did, so that neither check alone decides."""
    reported = {problem.where for problem in problems}
    return [Diagnostic(u.where, "TG014", u.message) for u in unread if u.where not in reported]
