"""Where every key and value of a YAML text begins and ends, as offsets into the text.

Only for texts that `yamltree.parse` has found no flaw in: no anchors, tags or second document, bounded depth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.events import (
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

SCALAR, MAPPING, LIST = "scalar", "mapping", "list"


@dataclass(slots=True)
class Span:
    """One value, `text[start:end]`; `column` from 0. A collection in block style ends where its last value does.

    `keys` and `items` are of one length for a mapping; `style` is a scalar's quote or block sign, "" when plain.
    """

    kind: str
    start: int
    end: int
    column: int
    flow: bool = False
    style: str = ""
    text: str = ""
    keys: list[Span] = field(default_factory=list)
    items: list[Span] = field(default_factory=list)

    def index(self, key: str) -> int | None:
        """Return the position of a mapping's key."""
        return next((i for i, found in enumerate(self.keys) if found.text == key), None)

    def get(self, key: str) -> Span | None:
        """Return a mapping's value."""
        position = self.index(key) if self.kind == MAPPING else None
        return None if position is None else self.items[position]

    def scalars(self) -> Iterator[Span]:
        """Yield every scalar in order of the text."""
        if self.kind == SCALAR:
            yield self
        for position, item in enumerate(self.items):
            if self.keys:
                yield from self.keys[position].scalars()
            yield from item.scalars()

    def shift(self, at: int, by: int) -> None:
        """Follow a change of the text in front of `at`: what lies behind moves by so many characters."""
        if self.end < at:
            return
        if self.start >= at:
            self.start += by
        self.end += by
        for child in (*self.keys, *self.items):
            child.shift(at, by)


@dataclass(frozen=True)
class Spans:
    """A text's tree, None when it holds no value; `marker` is the offset of its `---`, if it has one."""

    root: Span | None
    marker: int | None


def spans(text: str) -> Spans:
    """Read a flawless text."""
    root: Span | None = None
    marker: int | None = None
    stack: list[Span] = []
    waiting: list[Span | None] = []  # of every open mapping, the key that has no value yet
    for event in YAML(typ="safe", pure=True).parse(text):
        start, end = event.start_mark, event.end_mark
        if isinstance(event, DocumentStartEvent) and event.explicit:
            marker = start.index
        if isinstance(event, MappingEndEvent | SequenceEndEvent):
            done = stack.pop()
            waiting.pop()
            last = done.items[-1].end if done.items else done.end
            done.end = max(last, end.index) if done.flow else last
            continue
        if isinstance(event, ScalarEvent):
            node = Span(
                SCALAR, start.index, end.index, start.column, style=event.style or "", text=event.value
            )
            if node.style in ("|", ">"):
                node.end = node.start + len(text[node.start : node.end].rstrip())
        elif isinstance(event, MappingStartEvent | SequenceStartEvent):
            kind = MAPPING if isinstance(event, MappingStartEvent) else LIST
            node = Span(kind, start.index, end.index, start.column, flow=bool(event.flow_style))
        else:
            continue
        if not stack:
            root = node
        elif stack[-1].kind == LIST:
            stack[-1].items.append(node)
        elif waiting[-1] is None:
            waiting[-1] = node
        else:
            stack[-1].keys.append(waiting[-1])
            stack[-1].items.append(node)
            waiting[-1] = None
        if node.kind != SCALAR:
            stack.append(node)
            waiting.append(None)
    return Spans(root, marker)
