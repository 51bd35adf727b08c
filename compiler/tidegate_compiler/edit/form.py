"""`fmt`: the one way an inventory's file is laid out. Comments, order, brackets and meaning are kept.

* Fields are two columns in, and the dashes of a list two more; one space after ':' and before a trailing comment.
* Objects that take several lines stand apart by one blank line; elsewhere one blank line stays one, several become one.
* What was in brackets stays so: on one line, or, if it was on several, with an item on each.
* A text in single quotes gets double ones, and so does every text that a YAML 1.1 parser would misread: dates, IPv6
  addresses, yes and no. Line ends stay what they are in the file's first line.
"""

from __future__ import annotations

import bisect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from tidegate_compiler.edit.editor import LayoutError
from tidegate_compiler.edit.spans import LIST, SCALAR, Span, spans
from tidegate_compiler.edit.writing import quoted, word
from tidegate_compiler.yamltree import core_schema, parse, plain

_STEP = 2
_HEADER = re.compile(r"[|>][^\n]*#")


@dataclass(frozen=True)
class Comment:
    """A comment: where it begins, and its text from '#' on."""

    offset: int
    text: str


def form(text: str) -> str:
    """Return a flawless text in its canonical form. LayoutError when that cannot be shown to mean the same."""
    found = spans(text)
    comments = _comments(text, found.root)
    printer = _Printer(text, found.root, comments)
    eol = "\r\n" if "\r\n" in text[: text.find("\n") + 1] else "\n"
    lines = printer.lines(found.marker)
    made = "".join(line + eol for line in lines)
    if _meaning(made) != _meaning(text) or _told(comments) != _told(_comments(made, spans(made).root)):
        raise LayoutError("cannot be formatted without touching its meaning or its comments; do it by hand")
    return made


def _meaning(text: str) -> str:
    tree, flaws = parse(text)
    return "flawed" if flaws else json.dumps(None if tree is None else plain(tree))


def _told(comments: Sequence[Comment]) -> list[str]:
    return sorted(comment.text for comment in comments)


def _comments(text: str, root: Span | None) -> list[Comment]:
    """Find the comments: every '#' between scalars begins one, for nothing else stands there but signs."""
    found: list[Comment] = []
    position = 0
    for scalar in [*(root.scalars() if root is not None else ()), None]:
        stop = scalar.start if scalar is not None else len(text)
        while (start := text.find("#", position, stop)) >= 0:
            position = text.find("\n", start)
            position = len(text) if position < 0 else position
            found.append(Comment(start, text[start:position].rstrip()))
        if scalar is not None:
            if scalar.style in ("|", ">") and _HEADER.match(text, scalar.start):
                raise LayoutError("a comment beside '|' or '>' cannot be kept; move it to a line of its own")
            position = max(position, scalar.end)
    return found


class _Printer:
    """Writes the tree line by line, and each comment when its place comes."""

    def __init__(self, text: str, root: Span | None, comments: Sequence[Comment]) -> None:
        self._text = text
        self._root = root
        self._comments = comments
        self._next = 0  # the first comment that is not written yet
        self._out: list[str] = []
        self._starts = [scalar.start for scalar in root.scalars()] if root is not None else []

    def lines(self, marker: int | None) -> list[str]:
        """Return the lines of the canonical form."""
        if marker is not None:
            self._flush(marker, 0)
            self._out.append("---")
            self._trail(marker + 3)
        if self._root is not None and (self._root.kind != SCALAR or self._root.text):
            if self._root.kind == SCALAR or self._root.flow:
                self._flush(self._root.start, 0)
                self._value("", self._root, 0)
            else:
                self._block(self._root, 0)
        self._flush(len(self._text) + 1, 0)
        while self._out and not self._out[-1]:
            self._out.pop()
        return self._out

    # Blocks ---------------------------------------------------------------------------------------------------------

    def _block(self, node: Span, indent: int) -> None:
        """Write a collection in block style."""
        pad = " " * indent
        before: Span | None = None
        for position, item in enumerate(node.items):
            starts = node.keys[position] if node.keys else _first(item)
            apart = (
                node is self._root and before is not None and (self._is_long(before) or self._is_long(item))
            )
            inner = item.kind == SCALAR or item.flow
            self._flush(item.start if inner else starts.start, indent, starts.start, apart)
            before = item
            if node.kind == LIST:
                mark = len(self._out)
                if inner:
                    self._value(f"{pad}- ", item, indent + _STEP)
                    continue
                self._block(item, indent + _STEP)
                self._out[mark] = f"{pad}- {self._out[mark].lstrip(' ')}"
            elif inner:
                self._value(f"{pad}{self._key(node.keys[position])}: ", item, indent)
            else:
                self._out.append(f"{pad}{self._key(node.keys[position])}:")
                self._trail(node.keys[position].end)
                self._block(item, indent + _STEP)
        if node is not self._root:
            self._closing(node, indent)

    def _closing(self, node: Span, indent: int) -> None:
        """Write the comments behind a collection that are indented like it, not like what comes next."""
        index = bisect.bisect_left(self._starts, node.end)
        limit = self._starts[index] if index < len(self._starts) else len(self._text) + 1
        own = node.column + (1 if node.kind == LIST and self._is_unindented(node) else 0)
        while self._next < len(self._comments):
            comment = self._comments[self._next]
            column = comment.offset - (self._text.rfind("\n", 0, comment.offset) + 1)
            if comment.offset >= limit or column < own or not self._own_line(comment):
                return
            self._flush(comment.offset + 1, indent)

    def _is_unindented(self, node: Span) -> bool:
        """Tell whether a list's dashes stand below their key, so that a comment there may be the next key's."""
        above = self._text.rfind("\n", 0, self._text.rfind("\n", 0, node.start) + 1)
        while above > 0:
            line = self._text[self._text.rfind("\n", 0, above) + 1 : above]
            if line.strip() and not line.lstrip().startswith("#"):
                return len(line) - len(line.lstrip(" ")) == node.column
            above = self._text.rfind("\n", 0, above)
        line = self._text[: max(above, 0)]
        return bool(line.strip()) and len(line) - len(line.lstrip(" ")) == node.column

    # Values ---------------------------------------------------------------------------------------------------------

    def _value(self, prefix: str, node: Span, indent: int, after: str = "", limit: int | None = None) -> None:
        """Write a scalar or a collection in brackets, what follows it, and the comment on its line."""
        if not self._is_long(node):
            self._out.append((prefix + self._inline(node)).rstrip() + after)
            self._trail(node.end, limit)
            return
        signs = "[]" if node.kind == LIST else "{}"
        self._out.append(prefix + signs[0])
        starts = node.keys or [_first(item) for item in node.items]
        self._trail(node.start + 1, starts[0].start if starts else node.end)
        pad = " " * (indent + _STEP)
        for position, item in enumerate(node.items):
            self._flush(
                item.start if item.kind == SCALAR or item.flow else starts[position].start, indent + _STEP
            )
            key = f"{self._key(node.keys[position])}: " if node.keys else ""
            is_last = position + 1 == len(node.items)
            self._value(
                pad + key,
                item,
                indent + _STEP,
                "" if is_last else ",",
                node.end if is_last else starts[position + 1].start,
            )
        self._flush(node.end, indent + _STEP)
        self._out.append(" " * indent + signs[1] + after)
        self._trail(node.end, limit)

    def _inline(self, node: Span) -> str:
        if node.kind == SCALAR:
            return self._word(node)
        if node.kind == LIST:
            return "[" + ", ".join(self._inline(item) or "null" for item in node.items) + "]"
        pairs = zip(node.keys, node.items, strict=True)
        return (
            "{" + ", ".join(f"{self._key(key)}: {self._inline(item) or 'null'}" for key, item in pairs) + "}"
        )

    def _word(self, node: Span) -> str:
        if node.style:
            return quoted(node.text)
        return word(node.text) if isinstance(core_schema(node.text), str) else node.text

    def _key(self, node: Span) -> str:
        return word(node.text, quote=bool(node.style))  # every key is text

    def _is_long(self, node: Span) -> bool:
        """Tell whether a value takes several lines in the canonical form."""
        if node.kind == SCALAR:
            return False
        return not node.flow or "\n" in self._text[node.start : node.end]

    # Comments -------------------------------------------------------------------------------------------------------

    def _flush(self, before: int, indent: int, start: int | None = None, apart: bool = False) -> None:
        """Write the comments that stand in front of an offset, and the blank lines among them.

        `start` is where what follows begins; with `apart` one blank line at least keeps it off what was before.
        """
        lead: list[Comment] = []
        while self._next < len(self._comments) and self._comments[self._next].offset < before:
            lead.append(self._comments[self._next])
            self._next += 1
        places = [comment.offset for comment in lead] + ([] if start is None else [start])
        blanks = [self._blank_before(place) for place in places]
        if apart and not any(blanks):
            blanks[0] = True
        for position, blank in enumerate(blanks):
            if blank and self._out and self._out[-1]:
                self._out.append("")
            if position < len(lead):
                self._out.append(" " * indent + lead[position].text)

    def _trail(self, end: int, limit: int | None = None) -> None:
        """Write the next comment behind the last line, if it stands on the line where a value ended."""
        if self._next == len(self._comments):
            return
        comment = self._comments[self._next]
        if limit is not None and comment.offset >= limit:
            return
        if "\n" not in self._text[end : comment.offset]:
            self._out[-1] += f" {comment.text}"
            self._next += 1

    def _own_line(self, comment: Comment) -> bool:
        return not self._text[self._text.rfind("\n", 0, comment.offset) + 1 : comment.offset].strip()

    def _blank_before(self, offset: int) -> bool:
        line = self._text.rfind("\n", 0, offset)
        return line > 0 and not self._text[self._text.rfind("\n", 0, line) + 1 : line].strip()


def _first(node: Span) -> Span:
    """Return the first thing written of a value: a block mapping begins with its key."""
    return _first(node.keys[0] if node.keys else node.items[0]) if not node.flow and node.items else node
