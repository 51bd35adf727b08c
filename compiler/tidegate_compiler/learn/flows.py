"""Recorded flows, summed up: what replay and suggest read, wherever the events are kept. Pure.

    events ──► FlowGroup per (slot, gateway, client, destination, protocol, port, verdict, reason)

A slot is a day (UTC) or a part of one: where verdicts depend on the time, it is cut wherever a rule of the candidate
begins or ends, so that within a slot no verdict changes. Memory grows with the number of groups, not of events.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple, Protocol

DAY = 86400
NO_PORT = -1
"""The port of a protocol that has ports, when the event does not tell it: a later fragment."""
UNKNOWN = -1
"""The protocol of bytes that are no IP packet."""


class TooManyFlowsError(Exception):
    """More differs than memory is meant to hold; one line."""

    def __init__(self, most: int) -> None:
        super().__init__(f"more than {most:,} different flows; ask about fewer days, or one gateway, at once")


class FlowGroup(NamedTuple):
    """Events of one slot that differ in nothing a policy asks about.

    `client_id` is "" for an unknown source, `destination` "" for bytes that are no packet; `first` and `last` are Unix
    seconds; `flows` says how many flows, or refused or logged packets, these were; `octets` are bytes, both ways.
    """

    gateway: str
    client_id: str
    destination: str
    protocol: int
    port: int
    verdict: str
    reason: str
    first: float
    last: float
    flows: int
    octets: int


@dataclass(frozen=True)
class Window:
    """From `begin` until just before `end`, Unix seconds; None is without limit on that side."""

    begin: int | None = None
    end: int | None = None


class Slots:
    """A window cut into days, and where `instants` say so; each slot is known by the second at which it begins."""

    def __init__(self, window: Window, instants: Iterable[float] = ()) -> None:
        self.window = window
        self._cuts = sorted({int(one) for one in instants if one == int(one)} | {window.begin or 0})

    def of(self, moment: float) -> int | None:
        """Return the slot of a Unix second, None for one outside the window."""
        begin, end = self.window.begin, self.window.end
        if (begin is not None and moment < begin) or (end is not None and moment >= end):
            return None
        day = int(moment // DAY) * DAY
        position = bisect_right(self._cuts, moment)
        return max(day, self._cuts[position - 1]) if position else day

    def spans(self) -> Iterator[tuple[int, Window]]:
        """Yield every slot of a window that has both ends, in order."""
        begin, end = self.window.begin, self.window.end
        assert begin is not None, "a store is asked about a window with two ends"
        assert end is not None, "a store is asked about a window with two ends"
        days = range(begin // DAY * DAY + DAY, end, DAY)
        ends = sorted({begin, end, *days, *(one for one in self._cuts if begin < one < end)})
        yield from ((first, Window(first, last)) for first, last in pairwise(ends))


class Source(Protocol):
    """Somewhere that flows are recorded."""

    window: Window

    def read(self, slots: Slots) -> Iterator[tuple[int, FlowGroup]]:
        """Yield each group with its slot; a group may come in several parts, which add up."""
        ...
