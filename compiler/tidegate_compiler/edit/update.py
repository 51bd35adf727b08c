"""Giving an object other fields in place: whatever stays the same in it keeps its bytes, and so does all around it.

The edit is tried as finely as can be: item by item; then field by field; then the whole object. The first that the
proof of `editor.finish` accepts is taken, so what is finer may fail on an odd layout without harm.

Of a large file only the object's own lines are edited, see `part`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Any

from tidegate_compiler.diagnostics import Where, show
from tidegate_compiler.edit import part
from tidegate_compiler.edit.change import Change, EditError, editor, text_of
from tidegate_compiler.edit.editor import FlawedError, LayoutError, Path, value_at
from tidegate_compiler.edit.replacing import Replacing, Value
from tidegate_compiler.edit.writing import Fields

_MANY = 2_000_000
"""Items of a list times changes of it, from which on the list is written anew: every insertion reads it again."""


def update(files: Mapping[str, bytes], file: str, step: str | int, fields: Fields) -> Change:
    """Replace the fields of an object (by its name) or a test (by its position) of a file. EditError says why not."""
    text = text_of(files, file)
    made = _in_its_lines(file, text, step, fields) if isinstance(step, str) else None
    if made is None:
        editor(files, file)  # names the flaw of a file that has one
        made = _edited(text, step, fields)
    if made is None:
        raise EditError(
            f"{Where(file)}: {show(step)} is laid out in a way that is not edited safely; edit the file by hand"
        )
    return Change(files, {file: made.encode("utf-8")})


def _in_its_lines(file: str, text: str, name: str, fields: Fields) -> str | None:
    """Edit the object's lines alone; None where the whole file must be edited."""

    def own(names: list[str]) -> tuple[int, int]:
        index = names.index(name) if name in names else -1
        return index, index + 1

    done = part.edited(
        file, text, own, lambda lines: _edited(lines, name, fields), lambda objects: {**objects, name: fields}
    )
    return done[0] if done else None


def _edited(text: str, step: str | int, fields: Fields) -> str | None:
    for way in (_finely, _by_field, _as_a_whole):
        try:
            work = Replacing(text)
            way(work, (step,), fields)
            return work.finish()
        except (LayoutError, FlawedError, AssertionError, LookupError, TypeError):
            continue  # a coarser way may do; none is taken that `finish` has not proved
    return None


def _as_a_whole(work: Replacing, path: Path, fields: Fields) -> None:
    work.replace_value(path, fields)  # type: ignore[arg-type]


def _by_field(work: Replacing, path: Path, fields: Fields) -> None:
    _mapping(work, path, fields, lambda place, _, value: work.replace_value(place, value))


def _finely(work: Replacing, path: Path, fields: Fields) -> None:
    def replace(place: Path, old: Any, new: Value) -> None:
        if isinstance(new, str) and not isinstance(old, dict | list):
            work.replace_scalar(place, new)
        elif isinstance(new, list | tuple) and isinstance(old, list) and old and new:
            _list(work, place, old, list(new))
        elif isinstance(new, Mapping) and isinstance(old, dict) and old and new:
            _mapping(work, place, new, replace)
        else:
            work.replace_value(place, new)

    _mapping(work, path, fields, replace)


def _mapping(
    work: Replacing, path: Path, fields: Mapping[str, Any], replace: Callable[[Path, Any, Any], None]
) -> None:
    """Make a mapping say other fields: those that differ first, then the new ones, then without those that go."""
    old = dict(value_at(work.values, path))
    for field, value in fields.items():
        if field not in old:
            work.add_field(path, field, value)
        elif old[field] != value:
            replace((*path, field), old[field], value)
    gone = [(*path, field) for field in old if field not in fields]
    if gone:
        work.remove(gone)


def _list(work: Replacing, path: Path, old: list[Any], new: list[str]) -> None:
    """Make a list say other items; those that it keeps are not touched."""
    kept = _kept(old, new)
    if len(old) * (len(old) + len(new) - 2 * len(kept)) > _MANY:
        work.replace_value(path, new)
        return
    in_flow = work.is_flow(path)
    stops = [*kept, (len(old), len(new))]
    starts = [(-1, -1), *kept]
    for (i, j), (k, m) in reversed(list(zip(starts, stops, strict=True))):
        going, coming = list(range(i + 1, k)), new[j + 1 : m]
        # In brackets one takes another's place; on lines of its own an item goes with its comment.
        pairs = min(len(going), len(coming)) if in_flow else 0
        for index, text in zip(going[:pairs], coming[:pairs], strict=True):
            work.replace_scalar((*path, index), text)
        for text in reversed(coming[pairs:]):
            work.insert_item(path, k, text)
        if going[pairs:]:
            work.remove([(*path, index) for index in going[pairs:]])


def _kept(old: list[Any], new: list[str]) -> list[tuple[int, int]]:
    """Return as many (index in old, index in new) of equal items as there are in the same order in both."""
    places = {item: index for index, item in reversed(list(enumerate(new)))}
    tails: list[int] = []  # of the best chain of each length so far, the place in `new` that it ends at
    ends: list[Any] = []  # the chains themselves, each (index, place, the chain before it)
    for index, item in enumerate(old):
        place = places.get(item) if isinstance(item, str) else None
        if place is None:
            continue
        length = bisect_left(tails, place)
        chain = (index, place, ends[length - 1] if length else None)
        tails[length : length + 1] = [place]
        ends[length : length + 1] = [chain]
    found: list[tuple[int, int]] = []
    last = ends[-1] if ends else None
    while last is not None:
        found.append(last[:2])
        last = last[2]
    return found[::-1]
