"""The run, as one visible list of steps: read -> load -> check -> resolve -> render -> write.

Everything between `read` and `write` is pure: the same bytes in, the same bytes out, no clock, no network.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from tidegate_compiler import files, output
from tidegate_compiler.check import Checked, Reading, check, known
from tidegate_compiler.check.step import is_as_right
from tidegate_compiler.collector import without_collector as without_collector
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.load import Documents, load
from tidegate_compiler.model import Inventory
from tidegate_compiler.progress import stage
from tidegate_compiler.render import render
from tidegate_compiler.resolve import Fleet
from tidegate_compiler.stepwise import parts as partial_runs
from tidegate_compiler.stepwise import record

if TYPE_CHECKING:
    from tidegate_compiler.cache import Cache
    from tidegate_compiler.stepwise.parts import Part


@dataclass(frozen=True)
class Compiled:
    """An inventory without errors, the files that it was read from, and its hosts.

    Of an inventory that differs little from the last one, it may be a part alone: `others` is then how many clients are
    left out, none of which has changed.
    """

    inventory: Inventory
    fleet: Fleet
    content: Mapping[str, bytes]
    diagnostics: tuple[Diagnostic, ...]
    others: int = 0

    @cached_property
    def digest(self) -> str:
        """Return what names the inventory in its output; a plan, which writes none, does without."""
        return files.digest(self.content)

    @cached_property
    def files(self) -> Mapping[str, bytes]:
        """Return the files that the hosts are sent, by path."""
        with without_collector():
            stage("rendering")
            return render(self.fleet, self.digest)


def validate_files(
    content: Mapping[str, bytes],
    unreadable: list[Diagnostic] | None = None,
    at: int | None = None,
    careful: Collection[str] = (),
    like: Documents = (),
    cache: Cache | None = None,
) -> Checked:
    """Judge an inventory given as {path: bytes}; see `check` for `at`, `load` for the others."""
    return _judged(content, unreadable or [], at, careful, like, cache)[1]


def _judged(
    content: Mapping[str, bytes],
    unreadable: list[Diagnostic],
    at: int | None = None,
    careful: Collection[str] = (),
    like: Documents = (),
    cache: Cache | None = None,
    known: Reading | None = None,
) -> tuple[Documents, Checked]:
    with without_collector():
        documents, problems = load(content, careful, known.documents if known else like, cache)
        reading = Reading.of(documents, known)
        while True:
            stage("checking")
            checked = check(documents, [*unreadable, *problems], content, at, reading=reading)
            if not checked.rough:
                return documents, checked
            again, more = load({file: content[file] for file in checked.rough}, checked.rough)
            exact = {document.file: document for document in again}
            # Each round leaves fewer documents that were read the fast way, so this ends.
            documents = tuple(
                exact.get(d.file, d) for d in documents if d.file in exact or d.file not in checked.rough
            )
            problems = [*problems, *more]
            reading = Reading.of(documents)


def compile_files(
    content: Mapping[str, bytes], unreadable: list[Diagnostic] | None = None, cache: Cache | None = None
) -> Compiled | Checked:
    """Compile an inventory given as {path: bytes}; what comes back as Checked has errors."""
    documents, checked = _judged(content, unreadable or [], cache=cache)
    compiled = _compiled(content, checked)
    if cache is not None and isinstance(compiled, Compiled):
        _remember(cache, content, documents, compiled)
    return compiled


def _remember(cache: Cache, content: Mapping[str, bytes], documents: Documents, compiled: Compiled) -> None:
    record.remember(cache, files.digests(content), documents, compiled.fleet, compiled.diagnostics)


def compile_both(
    old: tuple[Mapping[str, bytes], list[Diagnostic]],
    new: tuple[Mapping[str, bytes], list[Diagnostic]],
    cache: Cache | None = None,
) -> tuple[Compiled | Checked, Compiled | Checked]:
    """Compile two inventories, each as `files.read` returns it; what is the same in both is made once.

    Of the old one only errors are told.
    """
    with without_collector():
        if cache is not None and not old[1] and not new[1]:
            parts = partial_runs.both(cache, old[0], new[0])
            if parts is not None:
                return _of_part(parts[0], old[0]), _of_part(parts[1], new[0])
        documents, problems = load(old[0], cache=cache)
        reading = Reading.of(documents)
        theirs, after = _judged(*new, cache=cache, known=reading)
        is_right = not old[1] and not problems
        if is_right and (after.inventory is None or not is_as_right(reading, after.inventory, theirs)):
            is_right = (
                check(documents, [], old[0], with_warnings=False, reading=reading).inventory is not None
            )
        before = known(reading, after) if is_right else validate_files(*old, cache=cache)
        first = _compiled(old[0], before)
        second = _compiled(new[0], after, first.fleet if isinstance(first, Compiled) else None)
        if cache is not None and isinstance(second, Compiled):
            _remember(cache, new[0], theirs, second)
        return first, second


def _compiled(
    content: Mapping[str, bytes], checked: Checked, like: Fleet | None = None
) -> Compiled | Checked:
    if checked.inventory is None:
        return checked
    fleet = Fleet(checked.inventory, checked.grants, like)
    return Compiled(checked.inventory, fleet, content, checked.diagnostics)


def _of_part(part: Part, content: Mapping[str, bytes]) -> Compiled:
    return Compiled(part.fleet.inventory, part.fleet, content, part.warnings, part.others)


def validate(
    root: Path, at: int | None = None, careful: Collection[str] = (), cache: Cache | None = None
) -> Checked:
    """Judge an inventory on disk. Raises OSError when `root` is no readable directory."""
    content, unreadable = files.read(root)
    return validate_files(content, unreadable, at, careful, cache=cache)


def compile_inventory(root: Path, cache: Cache | None = None) -> Compiled | Checked:
    """Compile an inventory on disk. Raises OSError when `root` is no readable directory."""
    content, unreadable = files.read(root)
    return compile_files(content, unreadable, cache=cache)


def write(compiled: Compiled, out: Path) -> output.Written:
    """Make `out` hold exactly these files; OutputError when it is somebody else's directory."""
    return output.write(out, compiled.files)
