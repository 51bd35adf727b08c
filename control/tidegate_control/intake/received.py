"""Which events of a ring have been received: ranges of sequence numbers, from which follow duplicates and gaps.

    numbers    0 ······ 99   missing   150 ··· 199   missing   230 ·· 239
    ranges    (0, 99)                  (150, 199)              (230, 239)

A batch is new where it is in no range, so no row has to be looked up. What is kept has a bound: of more than
RANGES_MOST ranges the oldest gap is closed. What would still come into it cannot be told from a duplicate, and so is
late: it is neither stored nor acknowledged. Pure; a ring is a value.
"""

from __future__ import annotations

import bisect
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

RANGES_MOST = 1000
Range = tuple[int, int]
"""First and last number, both of them in it."""


@dataclass(frozen=True)
class Ring:
    """The account of one ring of a gateway."""

    gateway: str
    epoch: str
    ranges: tuple[Range, ...] = ()
    """Sorted; between two of them at least one number is missing."""
    floor: int = 0
    """What is below is late."""
    closed: int = 0
    """Numbers that were missing below the floor when their gap was closed."""
    duplicates: int = 0
    dropped: int = 0
    """As the gateway tells, the highest so far."""
    refused: int = 0
    last_seen_ns: int = 0

    @property
    def received(self) -> int:
        """How many events have come."""
        return sum(last - first + 1 for first, last in self.ranges) - self.closed

    @property
    def gaps(self) -> tuple[Range, ...]:
        """The numbers that are missing, but for those of closed gaps."""
        return tuple((a[1] + 1, b[0] - 1) for a, b in itertools.pairwise(self.ranges))

    @property
    def missing(self) -> int:
        """How many events between the first and the last have not come."""
        return self.closed + sum(last - first + 1 for first, last in self.gaps)

    def take(self, numbers: Sequence[int], most: int | None = None) -> Taken:
        """Return the ring after events with these numbers have come, in any order, and which of them are new.

        At most `most` ranges are kept, RANGES_MOST by default.
        """
        most = RANGES_MOST if most is None else most
        if not numbers:
            return Taken(self, (), 0, 0)
        spans = _spans(numbers)
        count = sum(last - first + 1 for first, last in spans)
        if count == len(numbers) and spans[0][0] >= self.floor and not any(map(self._meets, spans)):
            return Taken(self._with(spans, most), None, 0, 0)
        fresh, late, seen = [], 0, set[int]()
        for index, number in enumerate(numbers):
            if number < self.floor:
                late += 1
            elif number not in seen and not self._meets((number, number)):
                seen.add(number)
                fresh.append(index)
        duplicates = len(numbers) - late - len(fresh)
        ring = self._with(_spans(sorted(seen)), most) if seen else self
        return Taken(replace(ring, duplicates=self.duplicates + duplicates), fresh, duplicates, late)

    def _meets(self, span: Range) -> bool:
        """Tell whether a number of the span has been here."""
        at = bisect.bisect_right(self.ranges, (span[1], span[1]))
        if at < len(self.ranges) and self.ranges[at][0] <= span[1]:
            return True
        return at > 0 and self.ranges[at - 1][1] >= span[0]

    def _with(self, spans: Sequence[Range], most: int) -> Ring:
        ranges = _merged(sorted((*self.ranges, *spans)))
        floor, closed = self.floor, self.closed
        excess = len(ranges) - most
        if excess > 0:
            head = ranges[: excess + 1]
            floor = head[-1][0]
            closed += sum(b[0] - a[1] - 1 for a, b in itertools.pairwise(head))
            ranges[: excess + 1] = [(head[0][0], head[-1][1])]
        return replace(self, ranges=tuple(ranges), floor=floor, closed=closed)

    def dump(self) -> str:
        """Return what is kept of it beside its names."""
        kept = {name: value for name, value in vars(self).items() if name not in ("gateway", "epoch")}
        return json.dumps(kept, separators=(",", ":"))

    @classmethod
    def load(cls, gateway: str, epoch: str, text: str) -> Ring:
        """Read what `dump` has written."""
        kept = json.loads(text)
        return cls(gateway, epoch, tuple((first, last) for first, last in kept.pop("ranges")), **kept)


class Taken(NamedTuple):
    """What became of a batch in an account."""

    ring: Ring
    fresh: Sequence[int] | None
    """Places in the batch of what is new; None: all of it."""
    duplicates: int
    late: int


def _spans(numbers: Sequence[int]) -> list[Range]:
    """Return numbers as sorted ranges without one twice."""
    first, last = numbers[0], numbers[-1]
    if last - first + 1 == len(numbers) and list(numbers) == list(range(first, last + 1)):
        return [(first, last)]  # as a flusher sends them, unless its ring was full
    return _merged([(number, number) for number in sorted(numbers)])


def _merged(ranges: list[Range]) -> list[Range]:
    """Return sorted ranges with those joined that touch."""
    merged: list[Range] = []
    for first, last in ranges:
        if merged and first <= merged[-1][1] + 1:
            if last > merged[-1][1]:
                merged[-1] = (merged[-1][0], last)
        else:
            merged.append((first, last))
    return merged
