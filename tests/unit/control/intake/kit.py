"""Events as gateways write them, and an application that has the intake alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tidegate_agents.events.ndjson import Ndjson
from tidegate_agents.events.otlp import Otlp
from tidegate_control.intake import lines
from tidegate_control.intake.store import NS, Batch, EventStore, Window
from tidegate_schema import event
from tidegate_schema.event import Event, Kind
from unit.agents.kit import fields
from unit.agents.test_flusher_codecs import Named

EPOCH, OTHER_EPOCH = "0123456789abcdef", "fedcba9876543210"
POLICIES = ["eng-reads-prod-db", "nobody-reads-payroll"]
NOW_S = 1_796_000_000
EVER = Window(0, (1 << 63) - 1)


class Clock:
    """The time that a store is told."""

    def __init__(self, now: float = NOW_S) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def record(seq: int = 0, **changes: Any) -> Event:
    """Return a packet's record, as `unit.agents.kit.fields` makes it, received at NOW_S and allowed by POLICIES[0]."""
    made = {"wall_ns": NOW_S * NS + seq, "generation": 3, "rule": 0, **changes}
    return Event(seq, *fields(100, **made))


def flow(seq: int, kind: Kind, **changes: Any) -> Event:
    return record(seq, kind=kind, start_ns=NOW_S * NS if kind != Kind.FLOW_OPEN else 0, **changes)


def ndjson(records: Iterable[Event], gateway: str = "fra1", epoch: str = EPOCH) -> bytes:
    """Return records as a gateway posts them."""
    codec = Ndjson(gateway, epoch, Named(POLICIES))
    text, unreadable = codec.encode(b"".join(event.LAYOUT.pack(*one) for one in records))
    assert not unreadable
    return bytes(text)


def otlp(records: Iterable[Event], gateway: str = "fra1", epoch: str = EPOCH) -> bytes:
    codec = Otlp(gateway, epoch, Named(POLICIES))
    part, unreadable = codec.encode(b"".join(event.LAYOUT.pack(*one) for one in records))
    assert not unreadable
    return b"".join(codec.wrap([part]))


def batches(
    records: Iterable[Event], gateway: str = "fra1", epoch: str = EPOCH, dropped: int = 0
) -> Sequence[Batch]:
    reading = lines.read(ndjson(records, gateway, epoch), gateway, dropped=dropped)
    assert not reading.refused
    return reading.batches


def numbers(store: EventStore) -> int:
    """Return how many events the store shows, each as often as it does."""
    return sum(group.count for group in store.aggregated(EVER))
