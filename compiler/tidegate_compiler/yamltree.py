"""Strict YAML with a position on every key and value.

Built on ruamel.yaml's event stream (`yamlevents`), not its constructor, because here
  * every scalar follows the YAML 1.2 core schema, so a date stays text and `yes` is text;
  * every key is text;
  * anchors, aliases, tags, merge keys, directives and a second document are refused: parsers disagree on
    them, and a reviewer must see what the gateway will do;
  * nesting and size are bounded, and nothing in the text can make this module raise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, TypeAlias

Scalar = str | int | float | bool | None
Value: TypeAlias = "Scalar | list[Node] | dict[str, Member]"


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it stands; line and column from 1."""

    value: Value
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Member:
    """A mapping's entry: where its key stands, and its value."""

    line: int
    column: int
    node: Node


@dataclass(frozen=True, slots=True)
class Flaw:
    """A problem of the text itself: diagnostic code, place, message."""

    code: str
    line: int
    column: int
    message: str


def parse(text: str) -> tuple[Node | None, list[Flaw]]:
    """Read one document; the tree (None when there is none to speak of) and every flaw. Never raises.

    A flawed tree is not to be used for anything but finding more problems.
    """
    from tidegate_compiler import (
        yamlevents,
    )  # ruamel.yaml, which a run does without that takes all files the fast way

    return yamlevents.read(text)


def plain(node: Node) -> Any:
    """Return the tree as Python values, as a schema validator wants them."""
    if isinstance(node.value, dict):
        return {key: plain(member.node) for key, member in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


_INT = re.compile(r"[-+]?[0-9]{1,18}|0o[0-7]{1,18}|0x[0-9a-fA-F]{1,15}")
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_WORDS: dict[str, Scalar] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def core_schema(text: str) -> Scalar:
    """Resolve a plain scalar: https://yaml.org/spec/1.2.2/#103-core-schema."""
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        if text.startswith("0x"):
            return int(text[2:], 16)
        return int(text[2:], 8) if text.startswith("0o") else int(text)
    if _FLOAT.fullmatch(text):
        return float(
            text.replace(".inf", "inf")
            .replace(".Inf", "inf")
            .replace(".INF", "inf")
            .replace(".nan", "nan")
            .replace(".NaN", "nan")
            .replace(".NAN", "nan")
        )
    return text
