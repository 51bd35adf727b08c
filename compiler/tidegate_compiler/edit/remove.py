"""Taking an object out of an inventory together with every reference to it, each of which is named.

An empty list is never left behind: a policy without `from` or `to`, a group without members and a client without
gateways go as well, which needs `cascade`. So does whatever may widen access: a deny that goes, or covers less.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate_compiler.diagnostics import Where
from tidegate_compiler.edit.change import Change, EditError, editor, finished, tree_of
from tidegate_compiler.edit.editor import LayoutError, Path
from tidegate_compiler.edit.survey import KINDS, Reference, Survey, references

WIDENS = "this may WIDEN access"


@dataclass(frozen=True)
class Loss:
    """Something that goes: its place and a line about it. `widens`: access may be gained; `needs_cascade`: more
    than a mere mention goes.
    """

    where: Where
    text: str
    widens: bool = False
    needs_cascade: bool = False

    def __str__(self) -> str:
        """Return `file:line:column: text`."""
        return f"{self.where}: {self.text}" + (f"; {WIDENS}" if self.widens else "")


@dataclass(frozen=True)
class Removal:
    """The change and everything it takes out, the object itself first."""

    change: Change
    losses: tuple[Loss, ...]


def remove(files: Mapping[str, bytes], known: Survey, kind: str, name: str, cascade: bool) -> Removal:
    """Take out an object (a test by `file:line`). EditError when it is not there."""
    taken: dict[str, set[Path]] = defaultdict(set)
    if kind == "test":
        where, path = _test(files, name)
        taken[where.file].add(path)
        losses = [Loss(where, "the test")]
    else:
        losses = _plan(files, known, kind, name, taken)
    refused = not cascade and any(loss.needs_cascade for loss in losses)
    return Removal(Change(files, {} if refused else _edited(files, taken)), tuple(losses))


def _plan(
    files: Mapping[str, bytes], known: Survey, kind: str, name: str, taken: dict[str, set[Path]]
) -> list[Loss]:
    losses: list[Loss] = []
    todo = [(kind, name, "")]
    gone: set[tuple[str, str]] = set()
    left: dict[tuple[str, Path], int] = {}  # entries that remain in a list or window that loses some
    while todo:
        kind, name, why = todo.pop(0)
        if (kind, name) in gone:
            continue
        gone.add((kind, name))
        where = known.place(kind, name)
        denies = kind == "policy" and _is_deny(files, where.file, name)
        taken[where.file] = {path for path in taken[where.file] if path[0] != name} | {(name,)}
        losses.append(Loss(where, f"the {'deny ' if denies else ''}{kind} {name}{why}", denies, bool(why)))
        for found in references(files, kind, name):
            if (found.kind, found.owner) in gone:
                continue
            losses.append(_loss(found, kind, name))
            group = (found.file, found.path[:-1])
            if found.kind == "test":
                taken[found.file].add(found.path)
                continue
            left[group] = left.get(group, found.siblings) - 1
            taken[found.file].add(found.path)
            if left[group] > 0:
                continue
            field = found.path[1]
            if field in ("not_before", "expires"):  # an empty window says nothing, so its field goes
                taken[found.file] = {p for p in taken[found.file] if p[:2] != group[1]} | {group[1]}
            else:
                todo.append((found.kind, found.owner, f", which is left with an empty '{field}'"))
    return losses


def _loss(found: Reference, kind: str, name: str) -> Loss:
    if found.kind == "test":
        return Loss(found.where, f"the test about {kind} {name}")
    # A client that is gone is denied anyway; a group's members and a resource's address remain.
    narrowed = found.denies and kind != "client"
    text = f"{kind} {name} from '{found.path[1]}' of {found.kind} {found.owner}" + (
        ", a deny" if narrowed else ""
    )
    return Loss(found.where, text, narrowed, narrowed)


def _is_deny(files: Mapping[str, bytes], file: str, name: str) -> bool:
    tree = tree_of(files, file)
    assert tree is not None
    assert isinstance(tree.value, dict)
    fields = tree.value[name].node.value
    return isinstance(fields, dict) and "action" in fields and fields["action"].node.value == "deny"


def _test(files: Mapping[str, bytes], name: str) -> tuple[Where, Path]:
    file, _, line = name.rpartition(":")
    tree = tree_of(files, file) if file in files and file.startswith(KINDS["test"] + "/") else None
    for index, node in enumerate(tree.value if tree is not None and isinstance(tree.value, list) else ()):
        if str(node.line) == line:
            return Where(file, node.line, node.column), (index,)
    raise EditError(f"{Where(file or 'tests')}: there is no test there; name it as tests/FILE.yaml:LINE")


def _edited(files: Mapping[str, bytes], taken: Mapping[str, set[Path]]) -> dict[str, bytes | None]:
    edited: dict[str, bytes | None] = {}
    for file, paths in sorted(taken.items()):
        if not paths:
            continue
        work = editor(files, file)
        try:
            work.remove(sorted(paths, key=str))
        except LayoutError as error:
            raise EditError(f"{Where(file)}: {error}") from None
        edited[file] = finished(file, work)
    return edited
