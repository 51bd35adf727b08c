"""Exact sets of (destination, service, time), compared cell by cell.

Every axis is whole numbers, every interval half-open:

    destination    an address as a number, one family at a time
    service        protocol * 65536 + port, so that `any`, `proto/N` and `tcp/N-M` are intervals of one axis; a
                   protocol without ports is all of its 65536 numbers
    time           Unix seconds; without a beginning it is EVER.low, without an end EVER.high

The edges of all intervals cut the space into cells in which nothing changes, so that one point of each cell stands
for all of it. Cells of destinations with the same rights are compared once.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Collection, Iterable
from typing import NamedTuple


class Span(NamedTuple):
    """The whole numbers from `low` to just before `high`; empty when there are none."""

    low: int
    high: int

    def holds(self, value: int) -> bool:
        """Tell whether a number lies inside."""
        return self.low <= value < self.high

    def meet(self, other: Span) -> Span | None:
        """Return what both hold, or None."""
        low, high = max(self.low, other.low), min(self.high, other.high)
        return Span(low, high) if low < high else None


EVER = Span(-1, 1 << 62)
"""All of time; what is before 1970 is one second of it."""


class Right(NamedTuple):
    """What a rule says wherever it applies: allow or deny, which services, when."""

    deny: bool
    services: tuple[Span, ...]
    window: Span


class Claim(NamedTuple):
    """A right, and the destinations it is about."""

    destination: Span
    right: Right


class Place(NamedTuple):
    """One point of the space."""

    destination: int
    service: int
    time: int


Excess = tuple[Place | None, Place | None]
_Rights = frozenset[Right]


def excess(one: Iterable[Claim], other: Iterable[Claim]) -> Excess:
    """Return a point that only `one` allows and a point that only `other` allows, None where there is none.

    Default deny; allows add up; a deny wins wherever it matches.
    """
    found: list[Place | None] = [None, None]
    known: dict[tuple[_Rights, _Rights], Excess] = {}
    for low, rights, others in _strips(one, other):
        if rights == others:
            continue
        if (rights, others) not in known:
            known[rights, others] = _corners(rights, others)
        for side, corner in enumerate(known[rights, others]):
            if found[side] is None and corner is not None:
                found[side] = corner._replace(destination=low)
    return found[0], found[1]


def _strips(one: Iterable[Claim], other: Iterable[Claim]) -> Iterable[tuple[int, _Rights, _Rights]]:
    """Yield where each cell of destinations begins, and the rights of both sides in it."""
    events: list[tuple[int, int, int, Right]] = []
    for side, claims in enumerate((one, other)):
        for (low, high), right in claims:
            events += [(low, 1, side, right), (high, -1, side, right)]
    active: tuple[Counter[Right], Counter[Right]] = (Counter(), Counter())
    events.sort(key=lambda event: event[0])
    for low, here in itertools.groupby(events, key=lambda event: event[0]):
        for _, change, side, right in here:
            active[side][right] += change
            if not active[side][right]:
                del active[side][right]
        yield low, frozenset(active[0]), frozenset(active[1])


def _corners(one: _Rights, other: _Rights) -> Excess:
    found: list[Place | None] = [None, None]
    services = {edge for right in one | other for span in right.services for edge in span}
    for service in sorted(services):
        ones, others = _serving(one, service), _serving(other, service)
        times = sorted({edge for right in (*ones, *others) for edge in right.window})
        for low, high in itertools.pairwise(times):
            verdicts = _allows(ones, low), _allows(others, low)
            if verdicts[0] != verdicts[1]:
                side = 0 if verdicts[0] else 1
                found[side] = found[side] or Place(0, service, _moment(low, high))
    return found[0], found[1]


def _serving(rights: _Rights, service: int) -> list[Right]:
    return [right for right in rights if any(span.holds(service) for span in right.services)]


def _allows(rights: Collection[Right], time: int) -> bool:
    verdicts = {right.deny for right in rights if right.window.holds(time)}
    return verdicts == {False}


def _moment(low: int, high: int) -> int:
    """Return the instant of a cell that says most: the first one, or the last one where there is no first."""
    if low != EVER.low:
        return low
    return 0 if high == EVER.high else high - 1


def clip(spans: Iterable[Span], to: Iterable[Span]) -> tuple[Span, ...]:
    """Return what the spans of both lists share, pair by pair."""
    return tuple(both for one, other in itertools.product(spans, tuple(to)) if (both := one.meet(other)))
