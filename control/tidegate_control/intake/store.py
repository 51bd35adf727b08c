"""Where events are kept: what a store takes, what it answers, and how one is opened.

All times are integers of nanoseconds since the Unix epoch (`_ns`), or of seconds where the name ends so (`_s`).
An event's own time (`@timestamp`, the gateway's clock) is what is asked for; when it was received (this machine's
clock) is what retention goes by, so that no gateway's clock makes its events live longer.

What an event does not say is "" or 0 in a store: a port 0 means no port is known.
"""

from __future__ import annotations

import ipaddress
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol

from tidegate_control.intake.received import Ring
from tidegate_schema import validation
from tidegate_schema.names import is_name

DAY_S = 86_400
NS = 1_000_000_000
LINE_MOST = 4096
"""Bytes of one line; a gateway's have some 700."""
LIMIT_MOST, OFFSET_MOST, BUCKETS_MOST = 1000, 1_000_000, 1000
_CLIENT_ID = re.compile(r"[0-9a-f]{32}")


class StoreError(Exception):
    """A store that did not do as asked; one line."""


class Unavailable(StoreError):  # noqa: N818 - it names the store's state
    """It does not answer, or has no room: the same may be asked again later."""


@dataclass(frozen=True)
class Batch:
    """Events of one ring that arrived together, read strictly."""

    gateway: str
    epoch: str
    """Of the ring; "" for what was refused and so is of no ring."""
    numbers: Sequence[int] = ()
    """The sequence number of each line."""
    text: bytes = b""
    """A line of JSON for each, which ends with a newline: ASCII, no member twice, blanks between tokens only."""
    dropped: int = 0
    """How many events the gateway says that the full ring has dropped so far; 0 also when it does not say."""
    refused: int = 0
    """Lines that came along and were not taken."""


class Added(NamedTuple):
    """What became of a batch's events."""

    new: int = 0
    duplicate: int = 0
    late: int = 0
    """Not taken: so old that nobody knows whether they have been here before (`received`)."""


@dataclass(frozen=True)
class Window:
    """A span of events' own time; the end is exclusive."""

    since_ns: int
    until_ns: int

    def __post_init__(self) -> None:
        """Refuse what is no span (ValueError)."""
        if not 0 <= self.since_ns <= self.until_ns < 1 << 63:
            raise ValueError("a window is from a time to a later one")

    @classmethod
    def last(cls, seconds: float, now: float) -> Window:
        """Return the seconds before the Unix time `now`."""
        return cls(max(int((now - seconds) * NS), 0), int(now * NS))


@dataclass(frozen=True)
class Filters:
    """Which events count; None: all. ValueError for what no event could have."""

    gateway: str | None = None
    client_id: str | None = None
    """"" for packets that were no client's."""
    source: str | None = None
    destination: str | None = None
    """An address in canonical form."""
    protocol: int | None = None
    port: int | None = None
    verdict: str | None = None
    reason: str | None = None
    mode: str | None = None
    rule: str | None = None
    """The policy that decided; "" where none did."""

    def __post_init__(self) -> None:
        """Check every value that is there: it becomes part of a query."""
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and not _CHECKS[field.name](value):
                raise ValueError(f"{field.name}: nothing that an event could have")


def _is_address(value: str) -> bool:
    try:
        return str(ipaddress.ip_address(value)) == value and "%" not in value
    except ValueError:
        return False


def _one_of(member: str) -> Callable[[object], bool]:
    return lambda value: value in validation.schema("event")["properties"][member]["enum"]


_CHECKS: dict[str, Callable[..., bool]] = {
    "gateway": is_name,
    "client_id": lambda value: not value or _CLIENT_ID.fullmatch(value) is not None,
    "source": _is_address,
    "destination": _is_address,
    "protocol": lambda value: type(value) is int and 0 <= value <= 0xFF,
    "port": lambda value: type(value) is int and 0 <= value <= 0xFFFF,
    "verdict": _one_of("tidegate.verdict"),
    "reason": _one_of("event.reason"),
    "mode": _one_of("tidegate.mode"),
    "rule": lambda value: not value or is_name(value),
}


@dataclass(frozen=True)
class Page:
    """Which part of a list is wanted."""

    limit: int = 50
    offset: int = 0

    def __post_init__(self) -> None:
        """Refuse what would be without bound (ValueError)."""
        if not (1 <= self.limit <= LIMIT_MOST and 0 <= self.offset <= OFFSET_MOST):
            raise ValueError(f"a page has 1 to {LIMIT_MOST} rows, from row {OFFSET_MOST} at most")


class FlowGroup(NamedTuple):
    """All events that say the same of who, where to, how, and what became of it."""

    client_id: str
    destination: str
    protocol: int
    port: int
    verdict: str
    reason: str
    gateway: str
    mode: str
    rule: str
    first_ns: int
    last_ns: int
    count: int  # type: ignore[assignment]  # a tuple's method of that name is not missed
    """Flow-opens, denies and packets; 0 when only later events of these flows are in the window."""
    packets: int
    """Both ways; of denies, all that they stand for."""
    bytes: int


class Flows(NamedTuple):
    """A page of groups, the latest first."""

    rows: list[FlowGroup]
    more: bool


class Bucket(NamedTuple):
    """A part of a timeline: flow-opens, denies and packets by verdict."""

    start_ns: int
    allowed: int
    denied: int


class Hit(NamedTuple):
    """How often a policy decided on a gateway."""

    rule: str
    gateway: str
    verdict: str
    count: int  # type: ignore[assignment]  # as in FlowGroup
    last_ns: int


@dataclass(frozen=True)
class Account:
    """What is known of one gateway's events."""

    gateway: str
    last_seen_ns: int
    rings: tuple[Ring, ...]
    """The one that was seen last comes first."""
    refused: int
    """Lines that were no event."""

    @property
    def received(self) -> int:
        """Events that are, or were until they expired, in the store."""
        return sum(ring.received for ring in self.rings)

    @property
    def missing(self) -> int:
        """Events between the first and the last of each ring that did not come."""
        return sum(ring.missing for ring in self.rings)

    @property
    def dropped(self) -> int:
        """Events for which a ring had no room, as the gateway tells: a part of what is missing."""
        return sum(ring.dropped for ring in self.rings)

    @property
    def duplicates(self) -> int:
        """Events that came again."""
        return sum(ring.duplicates for ring in self.rings)


class EventStore(Protocol):
    """Events of all gateways. Its methods may be called from several threads; each raises StoreError."""

    def add(self, batches: Sequence[Batch]) -> list[Added]:
        """Keep what is new, all of it or, on an error, nothing that is acknowledged; durable when it returns."""
        ...

    def flows(self, window: Window, filters: Filters, page: Page) -> Flows:
        """Return groups of events, those with the latest event first."""
        ...

    def timeline(self, window: Window, filters: Filters, buckets: int) -> list[Bucket]:
        """Return so many equal parts of the window, none left out (1 to BUCKETS_MOST)."""
        ...

    def top_denied(self, window: Window, limit: int) -> list[FlowGroup]:
        """Return the groups with the most denied packets."""
        ...

    def hits(self, window: Window) -> list[Hit]:
        """Return what each policy decided; policies without a hit are not there."""
        ...

    def aggregated(self, window: Window) -> Iterator[FlowGroup]:
        """Return every group of the window, in no order: what replay judges and suggest learns from."""
        ...

    def accounts(self) -> list[Account]:
        """Return what is known of each gateway, by name."""
        ...

    def expire(self, before_s: int) -> int:
        """Delete what was received on days (UTC) before that of `before_s`; return how many events that were."""
        ...

    def close(self) -> None:
        """Let go of it; nothing is asked afterwards."""
        ...


def open_store(
    url: str, password: str = "", clock: Callable[[], float] = time.time, *, read_only: bool = False
) -> EventStore:
    """Open `duckdb:///PATH`, `clickhouse://USER@HOST:PORT/DATABASE` or `clickhouses://…` (with TLS); StoreError.

    `clock` tells when something is received. What is opened with `read_only` is asked for flows alone.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "duckdb" and rest.startswith("/"):
        from tidegate_control.intake.duck import DuckStore

        return DuckStore(rest, clock, read_only=read_only)
    if scheme in ("clickhouse", "clickhouses"):
        from tidegate_control.intake.clickhouse import ClickHouseStore

        return ClickHouseStore(url, password, clock, read_only=read_only)
    raise StoreError(
        "events: write duckdb:///PATH or clickhouse://USER@HOST:PORT/DATABASE (clickhouses:// with TLS)"
    )
