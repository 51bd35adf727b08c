"""Strict YAML with a position on every key and value.

Built on ruamel.yaml's event stream, not its constructor, because here
  * every scalar follows the YAML 1.2 core schema, so a date stays text and `yes` is text;
  * every key is text;
  * anchors, aliases, tags, merge keys, directives and a second document are refused: parsers disagree on
    them, and a reviewer must see what the gateway will do;
  * nesting and size are bounded, and nothing in the text can make this module raise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from tidegate_compiler.yamlwords import explain

MAX_DEPTH = 16
MAX_NODES = 1_000_000

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
    flaws: list[Flaw] = []
    try:
        return _build(_events(text), flaws), flaws
    except MarkedYAMLError as error:
        mark, words = explain(error, text)
        flaws.append(_flaw("TG005", mark, f"not YAML: {words}"))
    except (YAMLError, ValueError, ArithmeticError, LookupError, AssertionError, TypeError, AttributeError):
        # The last six are ruamel.yaml's own slips on malformed text; to the user all are one thing.
        flaws.append(Flaw("TG005", 1, 1, "not YAML: the parser cannot read this file"))
    except _TooBigError as error:
        flaws.append(_flaw("TG008", error.mark, str(error)))
    return None, flaws


def plain(node: Node) -> Any:
    """Return the tree as Python values, as a schema validator wants them."""
    if isinstance(node.value, dict):
        return {key: plain(member.node) for key, member in node.value.items()}
    if isinstance(node.value, list):
        return [plain(item) for item in node.value]
    return node.value


class _TooBigError(Exception):
    def __init__(self, message: str, mark: Any) -> None:
        super().__init__(message)
        self.mark = mark


def _flaw(code: str, mark: Any, message: str) -> Flaw:
    return Flaw(code, mark.line + 1, mark.column + 1, message) if mark else Flaw(code, 1, 1, message)


def _events(text: str) -> Iterator[Any]:
    yield from YAML(typ="safe", pure=True).parse(text)


@dataclass(slots=True)
class _Open:
    """A collection whose end has not come yet; `key` is the mapping key that waits for its value."""

    node: Node
    key: ScalarEvent | None = None
    skip_value: bool = False


def _build(events: Iterator[Any], flaws: list[Flaw]) -> Node | None:
    root: Node | None = None
    stack: list[_Open] = []
    count = 0
    documents = 0
    for event in events:
        mark = event.start_mark
        if isinstance(event, DocumentStartEvent):
            documents += 1
            if documents > 1:
                flaws.append(_flaw("TG006", mark, "a second document; one file is one document"))
                break
            if event.version or event.tags:
                flaws.append(_flaw("TG006", mark, "a %YAML or %TAG directive; remove it"))
            continue
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            stack.pop()
            continue
        if not isinstance(event, AliasEvent | ScalarEvent | MappingStartEvent | SequenceStartEvent):
            continue
        count += 1
        if count > MAX_NODES:
            raise _TooBigError(f"more than {MAX_NODES} values in one file; split it", mark)
        _refuse_features(event, flaws)
        parent = stack[-1] if stack else None
        if parent is not None and isinstance(parent.node.value, dict) and parent.key is None:
            _take_key(parent, event, flaws)
            if isinstance(event, ScalarEvent | AliasEvent):
                continue
            node = _node_of(event)  # a collection as key: read on so that later problems are found too
        else:
            node = _node_of(event)
            if parent is None:
                root = node
            else:
                nothing = isinstance(event, ScalarEvent) and event.start_mark.index == event.end_mark.index
                _attach(parent, node, nothing, flaws)
        if isinstance(event, MappingStartEvent | SequenceStartEvent):
            if len(stack) >= MAX_DEPTH:
                raise _TooBigError(f"nested deeper than {MAX_DEPTH} levels; no inventory needs that", mark)
            stack.append(_Open(node))
    return root


def _refuse_features(event: Any, flaws: list[Flaw]) -> None:
    if isinstance(event, AliasEvent):
        flaws.append(_flaw("TG006", event.start_mark, "an alias (*name); write the value out"))
        return
    if event.anchor:
        flaws.append(_flaw("TG006", event.start_mark, "an anchor (&name); remove it and write values out"))
    if event.tag:
        flaws.append(_flaw("TG006", event.start_mark, "a tag (!type); remove it"))


def _take_key(parent: _Open, event: Any, flaws: list[Flaw]) -> None:
    if isinstance(event, ScalarEvent):
        if event.value == "<<" and event.implicit[0]:
            flaws.append(_flaw("TG006", event.start_mark, "a merge key (<<); write the fields out"))
            parent.skip_value = True
        parent.key = event
        return
    if not isinstance(event, AliasEvent):
        flaws.append(_flaw("TG006", event.start_mark, "a key that is not text; write a plain name"))
    parent.key = ScalarEvent(None, None, (True, False), "", event.start_mark, event.end_mark)
    parent.skip_value = True


def _attach(parent: _Open, node: Node, nothing: bool, flaws: list[Flaw]) -> None:
    """Put a node into its parent; `nothing` says that no character of it was written."""
    if isinstance(parent.node.value, list):
        parent.node.value.append(node)
        return
    key, skip = parent.key, parent.skip_value
    parent.key, parent.skip_value = None, False
    assert key is not None
    assert isinstance(parent.node.value, dict)
    if skip:
        return
    if nothing:  # the parser puts it where the next thing stands
        node = Node(node.value, key.start_mark.line + 1, key.start_mark.column + 1)
    if key.value in parent.node.value:
        first = parent.node.value[key.value]
        flaws.append(
            _flaw(
                "TG007",
                key.start_mark,
                f"the key {key.value[:60]!a} stands twice, first in line {first.line}; remove or rename one",
            )
        )
        return
    parent.node.value[key.value] = Member(key.start_mark.line + 1, key.start_mark.column + 1, node)


def _node_of(event: Any) -> Node:
    value: Value
    if isinstance(event, MappingStartEvent):
        value = {}
    elif isinstance(event, SequenceStartEvent):
        value = []
    elif isinstance(event, ScalarEvent):
        value = core_schema(event.value) if event.implicit[0] else event.value
    else:
        value = None
    return Node(value, event.start_mark.line + 1, event.start_mark.column + 1)


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
