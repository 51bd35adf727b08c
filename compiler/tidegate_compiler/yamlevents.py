"""From ruamel.yaml's event stream to the tree; see `yamltree`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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

from tidegate_compiler.yamltree import Flaw, Member, Node, Value, core_schema
from tidegate_compiler.yamlwords import explain

MAX_DEPTH = 16
MAX_NODES = 1_000_000


def read(text: str) -> tuple[Node | None, list[Flaw]]:
    """Do what `yamltree.parse` does."""
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
