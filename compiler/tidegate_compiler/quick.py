"""The fast path of loading: a file that is beyond doubt right, as plain Python values and its objects' lines.

py-yaml12 reads fast but not strictly: it takes the last of two equal keys, the first of two documents, follows
aliases and keeps no positions. So a file is read here only when its text holds nothing on which parsers disagree,
when its keys are as many as its text has separators, and when its schema accepts it. Everything else, and every
file with a problem, is read by `yamltree`, which says what is wrong and where. A property test holds both together.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jsonschema_rs
import yaml12

from tidegate_schema import validation

KINDS = frozenset({"gateways", "clients", "groups", "resources", "policies"})
_COMMENT = re.compile(r"(?:^|(?<=[ \n]))#[^\n]*")
_QUOTED = re.compile(r"\"[^\"\\\s]*\"|'[^'\s]*'")
# Anchors, aliases, tags, block scalars, directives, escapes, merge and explicit keys, tabs, what YAML reserves, quotes
# that are still there (so a string with a space in it), a document's marks, and all that is not printable ASCII.
_DOUBTFUL = re.compile(r"[&*!|>%@`\\?\"'<]|[^ -~\n]|^(?:---|\.\.\.)", re.MULTILINE)
# The fast parser recurses on the machine's stack, without a limit: deep nesting would end the process.
_DEEP = re.compile(r"^ {16}|^ *- +- +- ", re.MULTILINE)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_FLOW_DEPTH = 4
_SEPARATOR = re.compile(r":(?=[ \n]|\Z)")
_OBJECT = re.compile(r"^([a-z0-9][a-z0-9-]*):(?=[ \n])", re.MULTILINE)


class Quick(NamedTuple):
    """A file's objects by name, valid by their schema, and the line of each name; the column is 1."""

    objects: Mapping[str, Mapping[str, Any]]
    lines: Mapping[str, int]


def read(kind: str, text: str) -> Quick | None:
    """Return a file's objects, or None when only the careful reader may judge the text. Never raises."""
    if kind not in KINDS:
        return None
    without_comments = _COMMENT.sub("", text) if "#" in text else text
    if '":' in without_comments or "':" in without_comments:
        return None  # a quoted key may have its separator without a space
    bare = _QUOTED.sub("q", without_comments)
    if _DOUBTFUL.search(bare) or _DEEP.search(bare) or _is_deep(bare):
        return None
    try:
        found = yaml12.parse_yaml(text)
        if type(found) is not dict or not _validator(kind).is_valid(found):
            return None
    except (ValueError, TypeError, OverflowError, RecursionError):
        return None
    # A key that stands twice has two separators and one entry. Entries without one have no value, which no schema
    # of these kinds accepts, so they cannot make up for it.
    if len(_SEPARATOR.findall(bare)) != _entries(found):
        return None
    lines = _lines(text)
    objects: Any = found  # its schema has accepted it
    return Quick(objects, lines) if list(lines) == list(found) else None


def _is_deep(bare: str) -> bool:
    """Tell whether flow collections nest deeper than any of an inventory, or do not match."""
    brackets = bare.encode("ascii").translate(None, _NO_BRACKETS)
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


@functools.cache
def _validator(kind: str) -> Any:
    return jsonschema_rs.validator_for(validation.schema(kind))
