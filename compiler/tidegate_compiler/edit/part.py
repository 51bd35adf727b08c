"""Some objects of a large file, edited without reading the rest of it with places, which is slow.

Only for files that the fast reader takes. The result is proved by the same reader: the whole file must say what it said
before, but for what was meant.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tidegate_compiler import quick
from tidegate_compiler.files import OVERLAY_FILE

Objects = Mapping[str, Mapping[str, Any]]


def edited(
    file: str,
    text: str,
    choose: Callable[[list[str]], tuple[int, int]],
    edit: Callable[[str], str | None],
    wanted: Callable[[Objects], Objects],
) -> tuple[str, int] | None:
    """Return a file's new text and the number of lines in front of the part; None where the whole must be edited.

    `choose` says which of the objects' names, in order of the file, the part is from and to; `edit` makes its new text;
    `wanted` makes what the file is to say from what it said.
    """
    kind = "overlay" if file == OVERLAY_FILE else file.partition("/")[0]
    objects = quick.read(kind, text)
    if not objects:
        return None
    places = quick.places(text, objects)
    names = sorted(places, key=places.__getitem__)
    first, stop = choose(names)
    if not 0 <= first < stop or any(places[name][1] != 1 for name in names):
        return None
    line = places[names[first]][0]
    begin = _offset(text, line)
    end = _offset(text, places[names[stop]][0]) if stop < len(names) else len(text)
    made = edit(text[begin:end])
    if made is None:
        return None
    whole = text[:begin] + made + text[end:]
    told = quick.read(kind, whole)
    if told is None or list(told.items()) != list(wanted(objects).items()):
        return None
    return whole, line - 1


def _offset(text: str, line: int) -> int:
    """Return where a line, from 1, begins."""
    position = 0
    for _ in range(line - 1):
        position = text.index("\n", position) + 1
    return position
