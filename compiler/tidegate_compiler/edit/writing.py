"""How values are written, so that every YAML parser of any version reads the text that was meant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tidegate_compiler.edit.spans import LIST, MAPPING, Span
from tidegate_compiler.yamlplain import is_plain

Fields = Mapping[str, "str | Sequence[str] | Mapping[str, str]"]


def word(text: str, quote: bool = False) -> str:
    """Return a text as a YAML scalar: plain where that is safe, else in double quotes on one line."""
    return quoted(text) if quote or not is_plain(text) else text


def quoted(text: str) -> str:
    """Return a text in double quotes on one line; what is not printable, escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _escaped(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


@dataclass(frozen=True)
class Style:
    """How objects of a file are written.

    `flow`: on one line in braces. `step`: indentation of fields. `lists`: None for `[a, b]`, else how far a block
    list's dashes are indented from its key. `quote`: every word in quotes, as JSON has it.
    """

    flow: bool = False
    step: int = 2
    lists: int | None = None
    quote: bool = False


def style_of(root: Span | None) -> Style:
    """Return the style of a file's last object that shows one."""
    if root is None or not root.items:
        return Style(flow=root is not None and root.flow)
    quote = root.flow and bool(root.keys) and all(key.style == '"' for key in root.keys)
    item = next((found for found in reversed(root.items) if found.kind == MAPPING and found.items), None)
    if item is None:
        return Style(flow=root.flow, quote=quote)
    if root.flow or item.flow:
        return Style(flow=True, quote=quote)
    parent = root.keys[0].column if root.keys else root.column
    lists = next((i for i, found in enumerate(item.items) if found.kind == LIST), None)
    dashes = None
    if lists is not None and not item.items[lists].flow:
        dashes = item.items[lists].column - item.keys[lists].column
    return Style(step=max(1, item.keys[0].column - parent), lists=dashes, quote=quote)


def in_flow(fields: Fields, quote: bool = False) -> str:
    """Return an object on one line: `{a: b, c: [d]}`."""
    return "{" + ", ".join(f"{word(k, quote)}: {flow_value(v, quote)}" for k, v in fields.items()) + "}"


def flow_value(value: str | Sequence[str] | Mapping[str, str], quote: bool = False) -> str:
    """Return a value on one line."""
    if isinstance(value, str):
        return word(value, quote)
    if isinstance(value, Mapping):
        return in_flow(value, quote)
    return "[" + ", ".join(word(item, quote) for item in value) + "]"


def in_block(fields: Fields, style: Style, indent: int) -> list[str]:
    """Return an object's fields, a line or more each, `indent` columns in."""
    lines = []
    for key, value in fields.items():
        if style.lists is None or isinstance(value, str | Mapping) or not value:
            lines.append(f"{' ' * indent}{key}: {flow_value(value)}")
            continue
        lines.append(f"{' ' * indent}{key}:")
        lines += [f"{' ' * (indent + style.lists)}- {word(item)}" for item in value]
    return lines
