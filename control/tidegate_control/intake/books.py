"""The accounts of all rings, in memory beside the store that keeps them: pure but for a lock.

post ──► what is new, and the accounts as they would be ──► the store makes both durable ──► keep
"""

from __future__ import annotations

import collections
import itertools
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from tidegate_control.intake.received import RANGES_MOST, Ring
from tidegate_control.intake.store import NS, Account, Added, Batch

RINGS_MOST = 4096
"""Rings of one gateway; a reboot makes a few new ones, and they are forgotten with their events."""
RANGES_OF_GATEWAY, FEW = 50_000, 10
"""Ranges of all rings of one gateway, from when on each that gets events keeps only FEW: a gateway that leaves gaps on
purpose must not take the memory of all."""
Key = tuple[str, str]
"""Gateway and epoch."""


@dataclass(frozen=True)
class Posting:
    """What some batches come to."""

    added: list[Added]
    text: bytes
    """The lines that are new, of all batches."""
    rings: dict[Key, Ring]
    """The accounts that change."""


class Books:
    """Every ring's account as the store has it."""

    def __init__(self, rings: Iterable[Ring]) -> None:
        self._lock = threading.Lock()
        self._rings: dict[Key, Ring] = {}
        self._count: collections.Counter[str] = collections.Counter()
        self._ranges: collections.Counter[str] = collections.Counter()
        self.keep(rings)

    def post(self, batches: Sequence[Batch], now_ns: int) -> Posting:
        """Return what these batches come to; nothing is kept of it yet."""
        added: list[Added] = []
        texts: list[bytes] = []
        changed: dict[Key, Ring] = {}
        for batch in batches:
            key = batch.gateway, batch.epoch
            ring = changed.get(key) or self._rings.get(key)
            if ring is None and batch.epoch and self._is_full(batch.gateway, changed):
                added.append(Added(late=len(batch.numbers)))
                continue
            most = RANGES_MOST if self._ranges[batch.gateway] < RANGES_OF_GATEWAY else FEW
            taken = (ring or Ring(*key)).take(batch.numbers, most)
            changed[key] = replace(
                taken.ring,
                dropped=max(taken.ring.dropped, batch.dropped),
                refused=taken.ring.refused + batch.refused,
                last_seen_ns=max(now_ns, taken.ring.last_seen_ns),
            )
            if taken.fresh is None:
                texts.append(batch.text)
                new = len(batch.numbers)
            else:
                texts.append(_lines(batch.text, taken.fresh))
                new = len(taken.fresh)
            added.append(Added(new, taken.duplicates, taken.late))
        return Posting(added, b"".join(texts), changed)

    def keep(self, rings: Iterable[Ring]) -> None:
        """Take over accounts that are durable now."""
        with self._lock:
            for ring in rings:
                key = ring.gateway, ring.epoch
                before = self._rings.get(key)
                self._count[ring.gateway] += before is None
                self._ranges[ring.gateway] += len(ring.ranges) - (len(before.ranges) if before else 0)
                self._rings[key] = ring

    def accounts(self) -> list[Account]:
        """Return what is known of each gateway, by name."""
        with self._lock:
            rings = sorted(
                self._rings.values(), key=lambda ring: (ring.gateway, -ring.last_seen_ns, ring.epoch)
            )
        found = []
        for gateway, group in itertools.groupby(rings, lambda ring: ring.gateway):
            every = tuple(group)
            real = tuple(ring for ring in every if ring.epoch)
            refused = sum(ring.refused for ring in every)
            found.append(Account(gateway, every[0].last_seen_ns, real, refused))
        return found

    def expired(self, cut_s: int) -> list[Key]:
        """Return the rings of which nothing has come since."""
        with self._lock:
            return [key for key, ring in self._rings.items() if ring.last_seen_ns < cut_s * NS]

    def forget(self, keys: Iterable[Key]) -> None:
        """Let go of accounts that are kept no longer."""
        with self._lock:
            for key in keys:
                ring = self._rings.pop(key, None)
                if ring is not None:
                    self._count[key[0]] -= 1
                    self._ranges[key[0]] -= len(ring.ranges)

    def _is_full(self, gateway: str, changed: Iterable[Key]) -> bool:
        new = sum(key[0] == gateway and key not in self._rings for key in changed)
        return self._count[gateway] + new >= RINGS_MOST


def _lines(text: bytes, places: Sequence[int]) -> bytes:
    lines = text.splitlines(keepends=True)
    return b"".join(lines[place] for place in places)
