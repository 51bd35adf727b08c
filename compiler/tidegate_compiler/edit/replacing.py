"""One file of the inventory, its values replaced where they stand: what `editor` need not know to add and remove."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate_compiler.edit.editor import Editor, LayoutError, Path, value_at
from tidegate_compiler.edit.spans import LIST, MAPPING, SCALAR, Span
from tidegate_compiler.edit.writing import Style, flow_value, in_block, quoted, word
from tidegate_compiler.yamlplain import is_plain

Value = str | Sequence[str] | Mapping[str, str]


class Replacing(Editor):
    """A YAML text under edit. Every method raises LayoutError where the text is laid out in a way it does not know."""

    def replace_scalar(self, path: Path, text: str) -> None:
        """Write another text in place of a scalar, in its quotes; what stands behind it stays."""
        found = self._find(path)
        if found.kind != SCALAR or found.start == found.end:
            raise LayoutError("there is no value to replace")
        value_at(self._values, path[:-1])[path[-1]] = text
        self._put(found.start, found.end, _in_quotes_of(found, text))

    def insert_item(self, path: Path, index: int, text: str) -> None:
        """Put a text into a list in front of the item at `index`, on a line of its own where the others have one."""
        values, found = value_at(self._values, path), self._find(path)
        if found.kind != LIST or not found.items:
            raise LayoutError("there is no list to which this could be added")
        if index == len(found.items):
            self.add_item(path, text)
            return
        values.insert(index, text)
        new = word(text, all(item.style == '"' for item in found.items))
        if found.flow:
            self._into_brackets(found, index, new)
            return
        start, after = self._dash(found, max(index - 1, 0))
        if self.text[self._line(start) : after].strip(" \t-"):
            raise LayoutError("the list does not begin on a line of its own; edit it by hand")
        gap = self.text[start + 1 : after] or " "
        # The first one goes right behind the key, so that a comment in front of the old first item stays with it.
        end = self._content_end(found.items[index - 1].end if index else self._key(path).end)
        self._put(end, end, f"{self._eol}{' ' * found.column}-{gap}{new}")

    def add_field(self, path: Path, field: str, value: Value) -> None:
        """Append a field to a mapping, in its style."""
        values, found = value_at(self._values, path), self._find(path)
        if found.kind != MAPPING or not found.items:
            raise LayoutError("there is no mapping to which this could be added")
        values[field] = _copied(value)
        quote = found.flow and all(key.style == '"' for key in found.keys)
        if found.flow:
            self._in_brackets(found, f"{word(field, quote)}: {flow_value(value, quote)}")
            return
        lists = [
            item.column - key.column
            for key, item in zip(found.keys, found.items, strict=True)
            if item.kind == LIST and not item.flow
        ]
        lines = in_block({word(field): value}, Style(lists=lists[-1] if lists else None), found.column)
        end = self._content_end(max(found.keys[-1].end, found.items[-1].end))
        self._put(end, end, "".join(f"{self._eol}{line}" for line in lines))

    def replace_value(self, path: Path, value: Value) -> None:
        """Write another value in place of one of any kind; comments inside it are lost."""
        parent, step = self._find(path[:-1]), path[-1]
        index = step if isinstance(step, int) else parent.index(step)
        assert index is not None
        item = parent.items[index]
        value_at(self._values, path[:-1])[step] = _copied(value)
        in_lines = item.kind == LIST and not item.flow and isinstance(value, list | tuple) and len(value) > 0
        if not parent.keys:
            self._put(item.start, item.end, flow_value(value))
            return
        key = parent.keys[index]
        if in_lines:
            lines = "".join(f"{self._eol}{' ' * item.column}- {word(one)}" for one in value)
            self._put(self._content_end(key.end), self._content_end(item.end), lines)
            return
        colon = self.text.find(":", key.end)
        if colon < 0 or self.text[key.end : colon].strip():
            raise LayoutError("a key and its value are apart; edit the file by hand")
        end = item.end if item.end > item.start else colon + 1
        self._put(colon + 1, end, f" {flow_value(value, parent.flow and key.style == chr(34))}")

    def _into_brackets(self, parent: Span, index: int, new: str) -> None:
        """Put an item in front of another one in brackets: on a line of its own if that one has one."""
        start = parent.items[index].start
        begin = self._line(start)
        if self.text[begin:start].strip(" \t"):
            self._put(start, start, f"{new}, ")
        else:
            self._put(start, start, f"{new},{self._eol}{self.text[begin:start]}")

    def _key(self, path: Path) -> Span:
        parent = self._find(path[:-1])
        index = parent.index(str(path[-1])) if parent.keys else None
        if index is None:
            raise LayoutError("a list inside a list is not edited; edit the file by hand")
        return parent.keys[index]

    def _put(self, begin: int, end: int, new: str) -> None:
        self._stale = True
        self._splice(begin, end, new)


def _in_quotes_of(old: Span, text: str) -> str:
    if old.style == "'" and text.isprintable() and "'" not in text:
        return f"'{text}'"
    if old.style in ("'", '"') or not is_plain(text):
        return quoted(text)
    return text


def _copied(value: Value) -> Any:
    return value if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else list(value)
