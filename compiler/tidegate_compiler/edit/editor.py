"""One file of the inventory, edited by the places of its values; all other bytes stay as they are.

Every edit is made twice: on the text, and on the values that the text had. `finish` reads the new text and refuses it
unless it says exactly what the edited values say, so that no layout, however odd, can make an edit hit something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate_compiler.edit.spans import LIST, MAPPING, Span, spans
from tidegate_compiler.edit.writing import Fields, in_block, in_flow, style_of, word
from tidegate_compiler.yamltree import Flaw, parse, plain

Path = tuple[str | int, ...]

_ITEM_END = re.compile(
    r"[ \t]*,?[ \t]*(#.*)?\r?(\n|\Z)"
)  # what may follow an item that has its line to itself
_COMMA = re.compile(r"\s*,")
_DASH = re.compile(r"^[ \t]*-", re.MULTILINE)


class LayoutError(Exception):
    """The file is laid out in a way that cannot be edited safely; one line that says what to do."""


class FlawedError(ValueError):
    """The text is no sound YAML: its first flaw."""

    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.message)
        self.flaw = flaw


class Editor:
    """A YAML text under edit. FlawedError when it is not sound to begin with."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._eol = "\r\n" if "\r\n" in text else "\n"
        tree, flaws = parse(text)
        if flaws:
            raise FlawedError(flaws[0])
        self._values: Any = None if tree is None else plain(tree)
        self._root = spans(text).root
        self._stale = False

    def finish(self) -> str:
        """Return the new text; LayoutError unless it says what it is meant to say and nothing else."""
        tree, flaws = parse(self.text)
        values = None if tree is None else plain(tree)
        if flaws or _told(values or None) != _told(self._values or None):
            raise LayoutError("the file is laid out in a way that is not edited safely; edit it by hand")
        return self.text

    @property
    def values(self) -> Any:
        """Return what the text says, or will have to say when it is finished."""
        return self._values

    def is_flow(self, path: Path) -> bool:
        """Tell whether a value is written in brackets or braces."""
        return self._find(path).flow

    # Adding ---------------------------------------------------------------------------------------------------------

    def add_object(self, name: str, fields: Fields) -> int:
        """Append an object to a file that is a mapping; return its line, from 1."""
        if self._values is None:
            self._values = {}
        if not isinstance(self._values, dict) or name in self._values:
            raise LayoutError("the file is no mapping to which this name could be added")
        self._values[name] = _plain(fields)
        root = self._fresh()
        style = style_of(root)
        if root is not None and root.flow:
            return self._in_brackets(root, f"{word(name, style.quote)}: {in_flow(fields, style.quote)}")
        column = root.column if root is not None else 0
        pad = " " * column
        if style.flow:
            return self._at_end([f"{pad}{word(name)}: {in_flow(fields)}"])
        return self._at_end([f"{pad}{word(name)}:", *in_block(fields, style, column + style.step)])

    def add_test(self, fields: Fields) -> int:
        """Append an entry to a file that is a list; return its line, from 1."""
        if self._values is None:
            self._values = []
        if not isinstance(self._values, list):
            raise LayoutError("the file is no list to which a test could be added")
        self._values.append(_plain(fields))
        root = self._fresh()
        if root is not None and root.flow:
            return self._in_brackets(root, in_flow(fields, style_of(root).quote))
        pad = " " * (root.column if root is not None else 0)
        last = root.items[-1] if root is not None and root.items else None
        if last is None or last.flow or last.kind != MAPPING:
            return self._at_end([f"{pad}- {in_flow(fields)}"])
        lines = in_block(fields, style_of(root), 0)
        return self._at_end([f"{pad}{'  ' if i else '- '}{line}" for i, line in enumerate(lines)])

    def add_item(self, path: Path, item: str) -> int:
        """Append a text to the list at `path`, in the list's own style; return its line, from 1."""
        values = value_at(self._values, path)
        found = self._find(path)
        if not isinstance(values, list) or found.kind != LIST:
            raise LayoutError("there is no list to which this could be added")
        values.append(item)
        if found.flow:
            quote = bool(found.items) and all(i.style == '"' for i in found.items)
            return self._in_brackets(found, word(item, quote))
        last = found.items[-1]
        start, after = self._dash(found, len(found.items) - 1)
        prefix = self.text[self._line(start) : after]
        if prefix.strip(" \t-"):
            raise LayoutError("the list does not begin on a line of its own; edit it by hand")
        gap = prefix[len(prefix.rstrip(" \t")) :] if after == last.start else " "
        self._stale = True
        end = self._content_end(last.end)
        return self._splice(end, end, f"{self._eol}{' ' * found.column}-{gap or ' '}{word(item)}") + 1

    def _in_brackets(self, parent: Span, new: str) -> int:
        """Append to a collection in brackets: on a line of its own if the last item has one."""
        self._stale = True
        if not parent.items:
            return self._splice(parent.start + 1, parent.start + 1, new)
        last = parent.items[-1]
        start = parent.keys[-1].start if parent.keys else last.start
        begin = self._line(start)
        if self.text[begin:start].strip(" \t") or not _ITEM_END.match(self.text, last.end):
            return self._splice(last.end, last.end, f", {new}")
        comma = _COMMA.match(self.text, last.end)
        inserted = self.text[begin:start] + new + ("," if comma else "")
        end = self._content_end(last.end)
        line = self._splice(end, end, self._eol + inserted) + 1
        if not comma:
            self._splice(last.end, last.end, ",")
        return line

    def _at_end(self, lines: Sequence[str]) -> int:
        """Append lines behind the last thing that is written, in front of blank lines and an end marker."""
        self._stale = True
        root = self._root
        scan = root.end if root is not None else 0
        end = len(self.text[:scan].rstrip()) if root is None else self._content_end(scan)
        position = scan
        while position < len(self.text):
            stop = self._next_line(position)
            line = self.text[position:stop].strip()
            if position != scan and line == "...":
                break
            if line:
                end = self._content_end(position)
            position = stop
        body = self._eol.join(lines)
        if not self.text[:end].strip():
            self._splice(0, 0, body + self._eol)
            return 1
        blank = self._eol if self._spaced(root, len(lines) > 1) else ""
        return self._splice(end, end, self._eol + blank + body) + (2 if blank else 1)

    def _spaced(self, root: Span | None, several_lines: bool) -> bool:
        """Tell whether the file's objects stand apart by blank lines."""
        if root is None or not root.items:
            return False
        if len(root.items) == 1:
            return several_lines
        begins = (root.keys or root.items)[-1].start
        between = self.text[root.items[-2].end : self._line(begins)]
        return any(not line.strip() for line in between.split("\n")[1:-1])

    # Removing -------------------------------------------------------------------------------------------------------

    def remove(self, paths: Sequence[Path]) -> None:
        """Take out the values at these paths, none of them inside another."""
        places = []
        for path in paths:
            parent = self._find(path[:-1])
            step = path[-1]
            index = step if isinstance(step, int) else parent.index(step)
            assert index is not None
            places.append((parent.items[index].start, parent, index, path))
        for _, parent, index, path in sorted(places, key=lambda place: place[0], reverse=True):
            del value_at(self._values, path[:-1])[path[-1]]
            if parent.flow:
                self._out_of_brackets(parent, index)
            else:
                self._out_of_block(parent, index)
            del parent.items[index]
            if parent.keys:
                del parent.keys[index]

    def _out_of_block(self, parent: Span, index: int) -> None:
        item = parent.items[index]
        start = parent.keys[index].start if parent.keys else self._dash(parent, index)[0]
        begin, top = self._line(start), parent is self._root
        if self.text[begin:start].strip(" \t"):
            raise LayoutError("what is to go does not begin on a line of its own; edit the file by hand")
        stop = self._next_line(max(item.end, parent.keys[index].end if parent.keys else start))
        if top:
            stop = self._inner_comments(stop, parent.column)
        before, after = self._is_blank_before(begin), self._is_blank_at(stop)
        if top and before and after:
            begin = self._line(begin - 1)
        elif top and begin == 0 and after:
            stop = self._next_line(stop)
        if self.text[begin:stop].endswith("\n") or begin == 0:
            self._splice(begin, stop, "")
        else:  # the last line, and it has no end: what ends the line before it goes
            self._splice(self._content_end(begin - 1), stop, "")

    def _out_of_brackets(self, parent: Span, index: int) -> None:
        item = parent.items[index]
        starts = parent.keys or parent.items
        start, line = starts[index].start, self._line(starts[index].start)
        is_last = index == len(parent.items) - 1
        comma = _COMMA.match(self.text, item.end)
        alone = _ITEM_END.match(self.text, item.end)
        previous = parent.items[index - 1] if index else None
        if not self.text[line:start].strip(" \t") and alone and line > parent.start:
            self._splice(line, alone.end(), "")
            if is_last and previous is not None and comma is None:
                self._drop_comma(previous.end)
            return
        following = None if is_last else starts[index + 1]
        if previous is not None and "\n" not in self.text[previous.end : start]:
            self._splice(previous.end, item.end, "")
        elif following is not None and "\n" not in self.text[item.end : following.start]:
            self._splice(start, following.start, "")
        elif following is not None or comma:
            assert comma is not None
            self._splice(start, comma.end(), "")
        else:
            self._splice(start, item.end, "")
            if previous is not None:
                self._drop_comma(previous.end)

    def _drop_comma(self, position: int) -> None:
        """Take out the comma that follows an item, past comments."""
        found = re.compile(r"(?:\s|#.*)*?,").match(self.text, position)
        if found is not None:
            self._splice(found.end() - 1, found.end(), "")

    def _inner_comments(self, stop: int, column: int) -> int:
        """Return where an object ends whose last value ends at `stop`: comments indented under it are its own."""
        end = position = stop
        while position < len(self.text):
            line = self.text[position : self._next_line(position)]
            position = self._next_line(position)
            if not line.strip():
                continue
            if not line.lstrip(" ").startswith("#") or len(line) - len(line.lstrip(" ")) <= column:
                break
            end = position
        return end

    # Places ---------------------------------------------------------------------------------------------------------

    def line_of(self, offset: int) -> int:
        """Return the line, from 1, of an offset."""
        return self.text.count("\n", 0, offset) + 1

    def _fresh(self) -> Span | None:
        """Return the tree of the text as it is now."""
        if self._stale:
            self._root = spans(self.text).root
            self._stale = False
        return self._root

    def _find(self, path: Path) -> Span:
        node = self._fresh()
        for step in path:
            assert node is not None
            index = step if isinstance(step, int) else node.index(step)
            assert index is not None
            node = node.items[index]
        assert node is not None
        return node

    def _dash(self, parent: Span, index: int) -> tuple[int, int]:
        """Return where the dash of a block list's item stands, and where the item or the rest of its line begins."""
        if index == 0:
            dash = parent.start
        else:
            gap = self.text[self._next_line(parent.items[index - 1].end) : parent.items[index].start]
            found = _DASH.search(gap)
            if found is None:
                raise LayoutError(
                    "the list's items do not begin on lines of their own; edit the file by hand"
                )
            dash = parent.items[index].start - len(gap) + found.end() - 1
        same_line = "\n" not in self.text[dash : parent.items[index].start]
        return dash, parent.items[index].start if same_line else dash + 1

    def _line(self, offset: int) -> int:
        return self.text.rfind("\n", 0, offset) + 1

    def _next_line(self, offset: int) -> int:
        return self.text.find("\n", offset) + 1 or len(self.text)

    def _content_end(self, offset: int) -> int:
        """Return the end of the line that `offset` is in, in front of its line break."""
        end = self.text.find("\n", offset)
        if end < 0:
            return len(self.text)
        return end - 1 if end and self.text[end - 1] == "\r" else end

    def _is_blank_before(self, begin: int) -> bool:
        return begin > 0 and not self.text[self._line(begin - 1) : begin].strip()

    def _is_blank_at(self, stop: int) -> bool:
        line = self.text[stop : self._next_line(stop)].strip()
        return line in ("", "...")

    def _splice(self, begin: int, end: int, new: str) -> int:
        """Replace a piece of the text; return its line."""
        self.text = self.text[:begin] + new + self.text[end:]
        if self._root is not None and not new:
            self._root.shift(end, begin - end)
        return self.line_of(begin)


def value_at(values: Any, path: Path) -> Any:
    """Return the value at a path."""
    for step in path:
        values = values[step]
    return values


def _plain(fields: Fields) -> dict[str, Any]:
    return {
        key: value if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else list(value)
        for key, value in fields.items()
    }


def _told(values: Any) -> str:
    """Return values with the order of their keys, for comparison."""
    return json.dumps(values)
