"""The forwarder's events by flow: a flow-open for a flow that it allows, a deny for one that it refuses.

    packet ──► template known? ── no ──► a record
                     └── yes ─► allowed: nothing, or a record again after long silence
                                refused: counted, and told in one record with the others of FOLD_SECONDS

A flow is known by its template, so it is another one under another generation, rule or client. What is known is
bounded; a flood of flows has each told again. How flows go on and end is told from the connection table
(`gateway.flowrecords`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tidegate_agents.events.ring import Ring
from tidegate_agents.events.spsc import BATCH_MOST
from tidegate_schema import event

FOLD_SECONDS = 10.0
MOST = 65536
"""Flows that are known; some 25 MB."""


@dataclass(slots=True)
class _Seen:
    """A flow that has been told of."""

    last: float
    known: bytes
    flags: int = 0
    packets: int = 0
    octets: int = 0


class FlowLog:
    """Gathers the records of a batch and publishes them at once."""

    def __init__(self, ring: Ring, silence: float) -> None:
        """`silence`: seconds after which an allowed flow, when it goes on, is told of again."""
        self._ring = ring
        self._silence = silence
        self._seen: dict[bytes, _Seen] = {}
        self._folded: dict[bytes, _Seen] = {}
        self._made: list[tuple[bytes, int, bytes, int, int]] = []
        self.due = math.inf
        """When `publish` has something to tell though no packet comes, monotonic seconds."""

    def saw(
        self, template: event.Template, allow: bool, flags: int, packets: int, octets: int, now: float
    ) -> None:
        """Note what came of a flow at monotonic time `now`: so many packets with so many bytes, and its TCP flags."""
        same, known = template
        seen = self._seen.get(same)
        if seen is None:
            if len(self._seen) >= MOST:
                self._fold_out(len(self._folded))
                self._seen.clear()
            self._seen[same] = _Seen(now, known)
        elif allow:
            silent, seen.last = now - seen.last, now
            if silent < self._silence:
                return
        else:
            if not seen.packets:
                seen.flags = flags
                self._folded[same] = seen
                self.due = min(self.due, now + FOLD_SECONDS)
            seen.packets += packets
            seen.octets += octets
            return
        # Of an allowed flow the connection table counts every packet, this one too.
        self._made.append((same, flags, known, 0, 0) if allow else (same, flags, known, packets, octets))

    def publish(self, monotonic_ns: int, wall_ns: int, *, final: bool = False) -> None:
        """Publish what has been noted; with `final` also what is still being counted."""
        if final:
            self._fold_out(len(self._folded))
        elif monotonic_ns >= self.due * 1e9:
            self._fold_out(BATCH_MOST)  # the rest at the next step: packets wait meanwhile
        times = event.TIMES.pack(monotonic_ns, wall_ns)
        for start in range(0, len(self._made), BATCH_MOST):
            batch = self._made[start : start + BATCH_MOST]
            *_, seq = self._ring.claim()
            records = [event.STAMPED.pack(number, times, *told) for number, told in enumerate(batch, seq)]
            self._ring.write(memoryview(b"".join(records)))
            self._ring.publish(len(batch))
        self._made.clear()

    def _fold_out(self, most: int) -> None:
        """Have so many of the counted told."""
        for _ in range(min(most, len(self._folded))):
            same, seen = self._folded.popitem()
            self._made.append((same, seen.flags, seen.known, seen.packets, seen.octets))
            seen.packets = seen.octets = 0
        if not self._folded:
            self.due = math.inf
