"""One ring's way out: records are taken in batches, several of which may be on their way, and freed in their order.

    tail                         taken                    head
     │ batch 1 │ batch 2 │ batch 3 │ records that wait      │
       sent      done      sent

A batch that is done gives its records back when all before it are done, too. Pure but for the ring.
"""

from __future__ import annotations

import collections
import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from tidegate_agents.events.ring import Ring

_AT_ONCE = 5000  # records; measured: half of that takes a tenth longer for each, a fifth half as long again
_SKIPPED_AT_ONCE = (
    5000  # records; measured: half of that takes a tenth longer for each, a fifth half as long again
)

Part: TypeAlias = bytes | memoryview
"""A part of a body: bytes, one after the other."""


class Codec(Protocol):
    """Turns the records of one ring into what is posted."""

    content_type: str
    overhead: int
    """Bytes of a body beside its parts, at most."""

    def encode(self, records: bytes | memoryview) -> tuple[Part, int]:
        """Return a part of a body, of these records, and how many of them it leaves out, since they cannot be read.

        The part may be overwritten by the next one.
        """
        ...

    def wrap(self, parts: Iterable[Part]) -> Iterable[Part]:
        """Return the body that is made of these parts."""
        ...


@dataclass(frozen=True)
class Conditions:
    """When to flush: usage OR time."""

    usage: float
    """Share of the ring in use, 0 to 1."""
    interval: float
    """Seconds the oldest event may wait."""

    def due(self, waiting: int, capacity: int, waited: float) -> bool:
        """Tell whether a flush is due for `waiting` events of which the oldest was seen `waited` seconds ago."""
        return waiting > 0 and (waiting >= self.usage * capacity or waited >= self.interval)


@dataclass(frozen=True)
class Limits:
    """The most that one batch holds."""

    records: int
    octets: int
    """Bytes of its body before compression. One event is sent whatever it takes."""


@dataclass
class Batch:
    """Records that are sent together."""

    records: int = 0
    """How many of the ring's records it stands for."""
    first: int = 0
    last: int = 0
    """Sequence numbers of the first and last record."""
    body: bytes = b""
    """As it is posted; empty when nothing of it can be read."""
    lost: collections.Counter[str] = field(default_factory=collections.Counter)
    """Events of it that did not arrive, by reason."""
    is_done: bool = False

    @property
    def delivered(self) -> int:
        """How many of its events have arrived, once it is done."""
        return self.records - self.lost.total()

    def fail(self, reason: str) -> None:
        """Count everything that could be read as lost."""
        self.lost[reason] += self.delivered


class Outbox:
    """The consumer of a ring."""

    def __init__(
        self,
        ring: Ring,
        conditions: Conditions,
        limits: Limits,
        codec: Codec,
        pack: Callable[[Iterable[Part]], bytes],
    ) -> None:
        """`pack` joins, or compresses, what a body is made of; each part before it takes the next one."""
        self.ring = ring
        self._sequence = struct.Struct(f"<Q{ring.record_bytes - 8}x")
        self.content_type = codec.content_type
        self._codec, self._pack = codec, pack
        self._conditions, self._limits = conditions, limits
        self._batches: collections.deque[Batch] = collections.deque()
        self._taken = 0
        """Records in these batches, and of those that are settled."""
        self._settled = 0
        """Records of batches that are done and not freed yet."""
        self._flushing = 0
        """How many more records are part of the flush that is under way."""
        self._since: float | None = None
        """When the oldest record that waits was first seen."""

    def waiting(self) -> int:
        """Return how many records are in no batch yet."""
        return self.ring.pending() - self._taken

    def is_due(self, now: float) -> bool:
        """Tell whether a batch should be taken at monotonic time `now`."""
        waiting = self.waiting()
        if waiting <= 0:
            self._flushing, self._since = 0, None
            return False
        if self._since is None:
            self._since = now
        if self._flushing <= 0 and self._conditions.due(waiting, self.ring.capacity, now - self._since):
            self._flushing, self._since = waiting, now  # those that come later wait anew
        return self._flushing > 0

    def take(self) -> Batch:
        """Return the next records that wait as a batch, as many as the limits let."""
        records = self.ring.peek(self._limits.records, self._taken)
        batch = Batch()
        body = self._pack(self._codec.wrap(self._parts(records, batch)))
        (batch.first,), (batch.last,) = (
            self._sequence.unpack_from(records, n * self.ring.record_bytes) for n in (0, batch.records - 1)
        )
        batch.body = body if batch.delivered else b""
        self._batches.append(batch)
        self._taken += batch.records
        self._flushing -= batch.records
        return batch

    def _parts(self, records: bytes, batch: Batch) -> Iterator[Part]:
        """Yield parts of a body, some thousand records each at most; and count into `batch`."""
        size = self.ring.record_bytes
        view, every = memoryview(records), len(records) // size
        left = self._limits.octets - self._codec.overhead
        step = _AT_ONCE
        while batch.records < every:
            some = view[batch.records * size : (batch.records + step) * size]
            part, unreadable = self._codec.encode(some)
            if len(part) > max(left, 0) and (step > 1 or batch.records > 0):
                if step == 1:
                    return
                step = max(len(some) // size * left // len(part), 1)  # at last one by one
                continue
            left -= len(part)
            batch.records += len(some) // size
            if unreadable:
                batch.lost["unreadable-record"] += unreadable
            yield part

    def done(self) -> list[Batch]:
        """Take out the oldest batches that are done; `free` then gives back what they stand for."""
        done = list(itertools.takewhile(lambda batch: batch.is_done, self._batches))
        for batch in done:
            self._batches.popleft()
            self._settled += batch.records
        return done

    def free(self) -> None:
        """Give the records of what is done back to the producer."""
        self.ring.free(self._settled)
        self._taken -= self._settled
        self._settled = 0

    def skip(self, last: int) -> None:
        """Free the records up to the sequence number `last`, which a predecessor has accounted for and not freed."""
        while records := self.ring.peek(_SKIPPED_AT_ONCE):
            numbers = (number for (number,) in self._sequence.iter_unpack(records))
            count = sum(1 for _ in itertools.takewhile(lambda number: number <= last, numbers))
            self.ring.free(count)
            if count < _SKIPPED_AT_ONCE:
                return
