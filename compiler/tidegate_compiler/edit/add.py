"""Adding an object to an inventory: where it goes, in which style, and to which groups."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.diagnostics import Where, did_you_mean, show
from tidegate_compiler.edit import part
from tidegate_compiler.edit.allocate import allocate
from tidegate_compiler.edit.change import Change, EditError, editor, finished, text_of, tree_of
from tidegate_compiler.edit.editor import Editor, FlawedError, LayoutError
from tidegate_compiler.edit.survey import KINDS, Survey, files_of
from tidegate_compiler.edit.writing import Fields
from tidegate_schema.names import is_name

_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,200}\.yaml")


@dataclass(frozen=True)
class Added:
    """The change, the fields of the new object, and every place that was written to, with what."""

    change: Change
    fields: Fields
    places: tuple[tuple[Where, str], ...]


def add(
    files: Mapping[str, bytes],
    known: Survey,
    kind: str,
    name: str,
    fields: Fields,
    file: str | None = None,
    groups: Sequence[str] = (),
) -> Added:
    """Add an object, and for a client its memberships. A test has no name. EditError says why not."""
    if kind != "test":
        there = known.places[kind].get(name)
        if there is not None:
            raise EditError(f"{there}: {kind} {show(name)} is there already; choose another name")
    target = _home(files, known, kind, name, file, groups)
    label = "test" if kind == "test" else f"{kind} {name}"
    edited: dict[str, bytes | None] = {}
    edited[target], line = _written(files, target, None if kind == "test" else name, fields)
    places = [(Where(target, line), label)]
    for group in dict.fromkeys(groups):
        where = known.place("group", group)
        after = Change(files, edited).after
        work = editor(after, where.file)
        try:
            line = work.add_item((group, "members"), name)
        except (LayoutError, KeyError, AssertionError):
            raise EditError(
                f"{where}: group {show(group)} has no list of members that can be added to; edit it by hand"
            ) from None
        edited[where.file] = finished(where.file, work)
        places.append((Where(where.file, line), f"{name} in members of group {group}"))
    return Added(Change(files, edited), fields, tuple(places))


def _written(
    files: Mapping[str, bytes], file: str, name: str | None, fields: Fields
) -> tuple[bytes | None, int]:
    """Return a file's bytes with an object, or a test (None), at its end, and the line of that."""
    done = None if name is None else _at_the_end(file, text_of(files, file), name, fields)
    if done is not None:
        return done[0].encode("utf-8"), done[1]
    work = editor(files, file)
    try:
        line = work.add_test(fields) if name is None else work.add_object(name, fields)
    except LayoutError as error:
        raise EditError(f"{Where(file)}: {error}") from None
    return finished(file, work), line


def _at_the_end(file: str, text: str, name: str, fields: Fields) -> tuple[str, int] | None:
    """Edit the last two objects alone, which show how objects are written and stand apart; see `part`."""
    line = 0

    def append(lines: str) -> str | None:
        nonlocal line
        try:
            work = Editor(lines)
            line = work.add_object(name, fields)
            return work.finish()
        except (LayoutError, FlawedError):
            return None

    done = part.edited(
        file,
        text,
        lambda names: (max(len(names) - 2, 0), len(names)),
        append,
        lambda objects: {**objects, name: fields},
    )
    return (done[0], done[1] + line) if done else None


def gateways(known: Survey, chosen: Sequence[str]) -> list[str]:
    """Return a client's gateways: those chosen, or the only one there is."""
    if chosen:
        for name in chosen:
            known.place("gateway", name)
        return list(dict.fromkeys(chosen))
    names = sorted(known.places["gateway"])
    if len(names) == 1:
        return names
    if not names:
        raise EditError(
            "there is no gateway that the client could use; add one: tidegate inventory add gateway"
        )
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    raise EditError(f"there are several gateways ({shown}); choose with --gateway")


def addresses(known: Survey, chosen: Sequence[str]) -> list[str]:
    """Return a client's addresses: those chosen, or the next free one of each family of the overlay."""
    if chosen:
        return list(dict.fromkeys(chosen))
    if not known.overlay:
        raise EditError("overlay.yaml has no prefixes to take an address from; write them, or use --address")
    return [str(address) for address in allocate(known.overlay, known.taken)]


def _home(
    files: Mapping[str, bytes],
    known: Survey,
    kind: str,
    name: str,
    chosen: str | None,
    groups: Sequence[str],
) -> str:
    """Return the file for a new object: the chosen one, that of its neighbours, or one of its own."""
    folder = KINDS[kind]
    if chosen is not None:
        directory, _, base = chosen.rpartition("/")
        if directory not in ("", folder) or not _FILE.fullmatch(base):
            raise EditError(
                f"--file {show(chosen)}: write {folder}/FILE.yaml; letters, digits, '.', '_', '-'"
            )
        return f"{folder}/{base}"
    there = files_of(files, kind)
    if len(there) == 1:
        return there[0]
    if kind == "test":
        if there:
            raise EditError(f"there are several files of tests ({', '.join(there[:5])}); choose with --file")
        return f"{folder}/access.yaml"
    if kind == "client" and groups:
        neighbours = {where.file for where in _members(files, known, groups)}
        if len(neighbours) == 1:
            return neighbours.pop()
    return f"{folder}/{name}.yaml"


def _members(files: Mapping[str, bytes], known: Survey, groups: Sequence[str]) -> list[Where]:
    """Return where the clients stand that are in these groups already."""
    found: list[Where] = []
    for group in groups:
        tree: Any = tree_of(files, known.place("group", group).file)
        fields = tree.value[group].node.value
        members = fields["members"].node.value if isinstance(fields, dict) and "members" in fields else []
        for member in members if isinstance(members, list) else ():
            if isinstance(member.value, str) and member.value in known.places["client"]:
                found.append(known.places["client"][member.value])
    return found


def check_name(text: str) -> str:
    """Return a new object's name; ValueError when it is none."""
    if not is_name(text):
        raise ValueError("a name is 1 to 63 of a-z, 0-9 and '-', and does not begin with '-'")
    return text


def check_members(known: Survey, kind: str, names: Sequence[str]) -> None:
    """Raise EditError for the first name that no object of a kind has."""
    for name in names:
        if name not in known.places[kind]:
            hint = did_you_mean(name, known.places[kind])
            raise EditError(f"there is no {kind} {show(name)}{hint}")
