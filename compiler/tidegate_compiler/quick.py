"""The fast path of loading: a file that is beyond doubt right, as plain Python values.

py-yaml12 reads fast but not strictly: it takes the last of two equal keys, the first of two documents, follows
aliases and keeps no positions. So a file is read here only when its text holds nothing on which parsers disagree,
when its keys are as many as its text has separators, and when its schema accepts it. Everything else, and every
file with a problem, is read by `yamltree`, which says what is wrong and where. A property test holds both together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import yaml12

from tidegate_compiler.yamltree import parse
from tidegate_schema.validation import is_valid

Objects: TypeAlias = Mapping[str, Mapping[str, Any]]

KINDS = frozenset({"overlay", "gateways", "clients", "groups", "resources", "policies"})
_COMMENT = re.compile(r"(?:^|(?<=[ \n]))#[^\n]*")
_SINGLE_QUOTED = re.compile(r"'[^'\"\s]*'")
# What a quoted string of an inventory never has; \0 is a single-quoted one.
_NOT_SIMPLE = re.compile(r"[\s\\'\0]")
_MARK = "\0"  # stands for a quoted string; no text has one of its own
# A separator apart from its key: behind a quoted one it needs no space after it, so that counting would miss it, and
# at the beginning of a line parsers differ. Two colons begin an address, which is no separator.
_LATE_SEPARATOR = re.compile(rf"{_MARK}[ \n]*:|[ \n]:(?!:)")
# All but anchors, aliases, tags, block scalars, directives, escapes, merge and explicit keys, tabs, what YAML reserves,
# quotes that are still there (so a string with a space in it), and all that is not printable ASCII.
_PLAIN = bytes(set(range(ord(" "), ord("~") + 1)) - set(b"&*!|>%@`\\?\"'<")) + b"\n\0"
_MARKS = ("---", "...")  # of a document, at the beginning of a line
# The fast parser recurses on the machine's stack, without a limit: deep nesting would end the process.
_INDENT = " " * 16
_DEEP_LISTS = re.compile(r"^ *- +- +- ", re.MULTILINE)
_SEPARATOR = "\1"  # stands for a colon that ends a key
_NO_STRUCTURE = bytes(set(range(256)) - set(b"[]{},\1"))
# An entry of a mapping in braces that has no separator, so that a later one of the same name could make up for it.
_WITHOUT_SEPARATOR = (b"{}", b",}", b"{,\1", b",,\1")
_FLOW_DEPTH = 4
_OBJECT = re.compile(r"^([a-z0-9][a-z0-9-]*):(?=[ \n])", re.MULTILINE)


def read(kind: str, text: str) -> Objects | None:
    """Return a file's objects by name, or None when only the careful reader may judge the text. Never raises.

    The text holds no control characters but tabs and line ends.
    """
    if kind not in KINDS:
        return None
    without_comments = _COMMENT.sub("", text) if "#" in text else text
    bare = _without_quoted(without_comments)
    if bare is None or not bare.isascii() or bare.encode("ascii").translate(None, _PLAIN):
        return None
    structure = _structure(bare)
    if _is_deep(bare, structure) or any(part in structure for part in _WITHOUT_SEPARATOR):
        return None
    if (" :" in bare or "\n:" in bare) and _LATE_SEPARATOR.search(bare):
        return None
    if not _begins_with_a_key(bare) or any(_begins_a_line(mark, bare) for mark in _MARKS):
        return None
    try:
        found: Any = yaml12.parse_yaml(text)
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    if type(found) is not dict or not is_valid(kind, found):
        return None
    # A key that stands twice has two separators and one entry, and no entry is without.
    return found if structure.count(_SEPARATOR.encode()) + bare.endswith(":") == _entries(found) else None


def _without_quoted(text: str) -> str | None:
    """Return a text with a mark for each quoted string in it; None when one is a key, or not simple."""
    if "'" in text:
        text = _SINGLE_QUOTED.sub(_MARK, text)
    parts = text.split('"')
    if len(parts) > 1:
        if len(parts) % 2 == 0 or _NOT_SIMPLE.search("".join(parts[1::2])):
            return None
        text = _MARK.join(parts[::2])
    return None if f"{_MARK}:" in text else text  # a quoted key may have its separator without a space


def _structure(bare: str) -> bytes:
    """Return what makes collections in a text: its brackets and commas, and a mark for each separator."""
    marked = bare.replace(": ", _SEPARATOR).replace(":\n", _SEPARATOR)
    return marked.encode("ascii").translate(None, _NO_STRUCTURE)


def _begins_with_a_key(bare: str) -> bool:
    """Tell whether a text has its first key at the beginning of a line: the fast parser passes over what follows a
    mapping in braces, or one that is indented.
    """
    first = bare.lstrip(" \n")
    return not first.startswith("{") and not bare[: len(bare) - len(first)].endswith(" ")


def _begins_a_line(mark: str, bare: str) -> bool:
    return bare.startswith(mark) or f"\n{mark}" in bare


def _is_deep(bare: str, structure: bytes) -> bool:
    """Tell whether collections nest deeper than any of an inventory, or brackets do not match."""
    if _begins_a_line(_INDENT, bare) or (("- -" in bare or "-  " in bare) and _DEEP_LISTS.search(bare)):
        return True
    brackets = structure.translate(None, b",\1")
    for _ in range(_FLOW_DEPTH):
        brackets = brackets.replace(b"[]", b"").replace(b"{}", b"")
    return bool(brackets)


def _entries(value: Any) -> int:
    count = 0
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if type(one) is dict:
            count += len(one)
            waiting.extend(one.values())
        elif type(one) is list and one and type(one[0]) is not str:
            waiting.extend(one)
    return count


def places(text: str, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Return the line and column, from 1, of each object's name in a text that `read` accepted."""
    found = {name: (line, 1) for name, line in _lines(text).items()}
    if found.keys() == set(names):
        return found
    root, _ = parse(text)  # written in a way that a look at the beginnings of lines does not see through
    assert root is not None
    assert isinstance(root.value, dict)
    return {name: (member.line, member.column) for name, member in root.value.items()}


def _lines(text: str) -> dict[str, int]:
    lines: dict[str, int] = {}
    line, last = 1, 0
    for match in _OBJECT.finditer(text):
        line += text.count("\n", last, match.start())
        last = match.start()
        if match[1] in lines:
            return {}
        lines[match[1]] = line
    return lines
