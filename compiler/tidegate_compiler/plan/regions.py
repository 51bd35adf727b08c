"""Exact sets of packets as boxes, and the sweep that tells where two sides differ.

A box is a product of half-open intervals of integers, one per axis, within one address family:

    destination x protocol (0 to 255) x port (0 to 65535) x time (Unix seconds)

A protocol without ports has the full range of ports, so that all boxes have the same four axes. The sweep cuts
one axis after the other where some box begins or ends, asks at the innermost cell, and joins neighbours with
equal answers again: the result is the same whatever boxes the same set was written with. Cells in which no box
is marked as changed are skipped unasked, so the work follows the change and not the size of the policy.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any, Generic, NamedTuple, TypeVar

from tidegate_schema.ports import ANY_PROTOCOL, LAST_PORT, PortRange

L = TypeVar("L")
Tag = Any
Interval = tuple[int, int]
Box = tuple[Interval, Interval, Interval, Interval]

AXES = 4
FOREVER = 253402300800
"""10000-01-01T00:00:00Z, one second past the last that a bundle can name; as an end it means "no end"."""
EVERY_PROTOCOL = (0, 256)
EVERY_PORT = (0, LAST_PORT + 1)


def ports_box(ports: PortRange) -> tuple[Interval, Interval]:
    """Return the protocol and port intervals that a range admits."""
    if ports.protocol == ANY_PROTOCOL:
        return EVERY_PROTOCOL, EVERY_PORT
    return (ports.protocol, ports.protocol + 1), (ports.first, ports.last + 1)


class _Entry(NamedTuple):
    """One interval of a box at some axis; `rest` is the entry of the next axis, and the tag behind the last."""

    low: int
    high: int
    rest: Any
    changed: bool


class Sweep(Generic[L]):
    """Asks `answer` about the tags of the boxes that cover a cell; None is "nothing to tell here".

    Equal cells are asked once, in all calls of `over` together. `answer` must depend on the set of tags alone,
    and be None where no tag was given as changed.
    """

    def __init__(self, answer: Callable[[frozenset[Tag]], L | None]) -> None:
        self._answer = answer
        self._known: dict[frozenset[_Entry], Any] = {}

    def over(self, boxes: Iterable[tuple[Box, Tag, bool]]) -> Iterator[tuple[Box, L]]:
        """Yield disjoint boxes with their answers, in order; takes (box, tag, changed)."""
        entries = set()
        for box, tag, changed in boxes:
            rest: Any = tag
            for low, high in reversed(box):
                rest = _Entry(low, high, rest, changed)
            entries.add(rest)
        yield from _boxes(self._cut(frozenset(entries), 0) or ())

    def _below(self, entries: frozenset[Any], axis: int) -> Any:
        if axis == AXES:
            return self._answer(entries)
        if entries not in self._known:
            self._known[entries] = self._cut(entries, axis)
        return self._known[entries]

    def _cut(self, entries: frozenset[_Entry], axis: int) -> Any:
        begins: dict[int, list[_Entry]] = {}
        ends: dict[int, list[_Entry]] = {}
        for entry in entries:
            begins.setdefault(entry.low, []).append(entry)
            ends.setdefault(entry.high, []).append(entry)
        active: Counter[Any] = Counter()
        changed = 0
        slices: list[tuple[int, int, Any]] = []
        for low, high in pairwise(sorted({*begins, *ends})):
            for entry in ends.get(low, ()):
                active[entry.rest] -= 1
                changed -= entry.changed
                if not active[entry.rest]:
                    del active[entry.rest]
            for entry in begins.get(low, ()):
                active[entry.rest] += 1
                changed += entry.changed
            if not changed:
                continue
            found = self._below(frozenset(active), axis + 1)
            if found is None:
                continue
            if slices and slices[-1][1] == low and slices[-1][2] == found:
                slices[-1] = (slices[-1][0], high, found)
            else:
                slices.append((low, high, found))
        return tuple(slices) or None


def _boxes(slices: Any) -> Iterator[tuple[Box, Any]]:
    for *to, protocols in slices:
        for *protocol, ports in protocols:
            for *port, times in ports:
                for *time, found in times:
                    yield (_pair(to), _pair(protocol), _pair(port), _pair(time)), found


def _pair(bounds: list[Any]) -> Interval:
    low, high = bounds
    return low, high


class Spans:
    """A union of intervals that tells quickly whether another one meets it."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        self._lows: list[int] = []
        self._highs: list[int] = []
        for low, high in sorted(intervals):
            if self._highs and low <= self._highs[-1]:
                self._highs[-1] = max(self._highs[-1], high)
            else:
                self._lows.append(low)
                self._highs.append(high)

    def meet(self, interval: Interval) -> bool:
        """Tell whether some integer lies in both."""
        index = bisect_left(self._lows, interval[1]) - 1
        return index >= 0 and self._highs[index] > interval[0]


def union(boxes: Iterable[Box]) -> list[Box]:
    """Return disjoint boxes that hold the same packets, the same list for the same set."""
    sweep: Sweep[bool] = Sweep(lambda tags: True if tags else None)
    return [box for box, _ in sweep.over((box, None, True) for box in boxes)]
