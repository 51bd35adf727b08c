"""A source line with a caret, safe on any terminal: escaped, cut around the column, the caret where the eye is.

12 | engineers: {members: [alcie-laptop]}
   |                       ^
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from tidegate_compiler.diagnostics import LOG_COMMAND

WIDTH = 96
_BEFORE = 56
_REACH = 256  # characters looked at on either side; a key that begins further away is seen as one, too
_CUT = "..."
# 32 characters of base64 or hexadecimal in a row, or the value of a field called a key, however mangled.
_KEYS = (
    re.compile(r"[A-Za-z0-9+/]{6}([A-Za-z0-9+/]{26,}={0,2})"),
    re.compile(r"""(?i)key["']?[ \t]*:[ \t]*["']?[^,{}"']{6}([^,}"']+)"""),
)


def excerpt(line: str, number: int, column: int, encoding: str = "utf-8") -> tuple[str, str]:
    """Return two lines: the source line behind its number, and the caret under `column` (from 1).

    `encoding` is the terminal's: what it lacks is told escaped, which is wider.
    """
    at = min(column - 1, len(line))
    first = max(0, at - _REACH)
    cells = _cells(line[first : at + _REACH], encoding)
    before, after = cells[: at - first], cells[at - first :]
    room = WIDTH if first == 0 and _width(cells) <= WIDTH else _BEFORE
    while _width(before) > room:
        before.pop(0)
        first += 1
    while _width(before) + _width(after) > WIDTH:
        after.pop()
    begin = _CUT if first > 0 else ""
    end = _CUT if at + len(after) < len(line) else ""
    gutter = str(number).rjust(4)
    caret = " " * (len(begin) + _width(before))
    return f"{gutter} | {begin}{''.join(before + after)}{end}", f"{' ' * len(gutter)} | {caret}^"


def _cells(text: str, encoding: str) -> list[str]:
    """Return every character as it is shown: itself, escaped, or nothing."""
    cells = [_cell(char, encoding) for char in text]
    for command in LOG_COMMAND.finditer(text):
        cells[command.start() + 1] = r"\x23"
    for key in (found for pattern in _KEYS for found in pattern.finditer(text)):
        cells[key.start(1) : key.end(1)] = [_CUT, *[""] * (len(key[1]) - 1)]
    return cells


def _cell(char: str, encoding: str) -> str:
    """Return a character itself, or escaped.

    Escaped are those that show nothing, that reorder what stands beside them (letters written from right to
    left included), that sit on another one, or that the terminal cannot show: each would move the caret, or lie.
    """
    if "\udc80" <= char <= "\udcff":  # a byte that is not UTF-8
        return f"\\x{ord(char) - 0xDC00:02x}"
    if (
        char.isprintable()
        and unicodedata.bidirectional(char) not in ("R", "AL", "AN")
        and not unicodedata.category(char).startswith("M")
    ):
        try:
            char.encode(encoding)
        except UnicodeEncodeError:
            pass
        else:
            return char
    return char.encode("unicode_escape").decode("ascii")


def _width(cells: Iterable[str]) -> int:
    wide = ("W", "F")
    return sum(2 if unicodedata.east_asian_width(char) in wide else 1 for cell in cells for char in cell)
