"""What became of events, counted so that a flusher that is killed leaves the truth behind.

Events that are lost are counted in the status file *before* their records are freed, with the sequence number up to
which everything is accounted for. A successor goes on from these counts, and skips what its predecessor had counted
and not freed any more. So what was made is at any time what has arrived, is counted as lost, or is in the ring.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable, Mapping
from typing import Any

from tidegate_agents.events.batches import Batch

_RATE_SECONDS = 10.0
_REASONS_MOST = 1000  # a sender knows 300 statuses and a few words


class Ledger:
    """Counts of all rings together."""

    def __init__(self) -> None:
        self.sent = 0
        self.lost: collections.Counter[str] = collections.Counter()
        self.last_ack: float | None = None
        """Unix seconds."""
        self.settled: dict[str, int] = {}
        """By ring epoch, the sequence number up to which everything is accounted for."""
        self._acks: collections.deque[tuple[float, int]] = collections.deque()

    def count(self, epoch: str, batches: Iterable[Batch]) -> bool:
        """Take in batches that are done; tells whether any event of theirs was lost."""
        has_lost = False
        for batch in batches:
            self.settled[epoch] = batch.last
            self.sent += batch.delivered
            self.lost += batch.lost
            has_lost |= bool(batch.lost)
        return has_lost

    def acknowledged(self, events: int) -> None:
        """Note an ACK that comes now."""
        self.last_ack = time.time()
        self._acks.append((time.monotonic(), events))
        self._forget()

    def rate(self) -> float:
        """Return the events a second that were acknowledged lately."""
        self._forget()
        return sum(events for _, events in self._acks) / _RATE_SECONDS

    def _forget(self) -> None:
        while self._acks and self._acks[0][0] < time.monotonic() - _RATE_SECONDS:
            self._acks.popleft()

    def go_on_from(self, status: Mapping[str, Any]) -> None:
        """Take over the counts of a predecessor's status; ValueError, KeyError or TypeError when it holds none."""
        lost = {str(reason): _count(count) for reason, count in dict(status["dropped_by_reason"]).items()}
        settled = {
            str(ring["epoch"]): _count(ring["settled"]) for ring in status["rings"] if "settled" in ring
        }
        last_ack = status["last_ack"]
        if len(lost) > _REASONS_MOST or not isinstance(last_ack, float | None):
            raise ValueError("no status of a flusher")
        self.sent = _count(status["sent"])
        self.lost.update(lost)
        self.settled |= settled
        self.last_ack = last_ack


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 64:
        raise ValueError("no count")
    return value
