"""The recorder's work, a step at a time: read news, go on looking, publish; nothing here waits.

While the supervisor cuts connections, no step is to be done. For both run in one Python, and on a busy machine each
turn that the one gives to the other may cost milliseconds.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from tidegate_agents.events import ring
from tidegate_agents.events.spsc import BATCH_MOST
from tidegate_agents.gateway import connections
from tidegate_agents.gateway.connections import Connection, Flow, Malformed
from tidegate_agents.gateway.flownews import Look, News, Overrun
from tidegate_agents.gateway.judgements import STEP_NS, Judgement, attribute
from tidegate_agents.gateway.ledger import NOTHING, Amount, Ledger
from tidegate_agents.gateway.netlink import split
from tidegate_agents.gateway.ruleset import APPROVED
from tidegate_schema import event
from tidegate_schema.event import End, Kind
from tidegate_schema.policy import Reason

NEVER = float("inf")
_AT_ONCE = 256
_MOMENT_SECONDS = 1.0
_LOOK_SECONDS, _LOOK_AGAIN_SECONDS = 60.0, 10.0
_LAST_STEPS = 100
_PORTS_KEPT = 16
_PORTED = frozenset({6, 17, 132})
_NOBODYS = (0, event.NO_RULE, event.NO_CLIENT, bytes(16), bytes(16), 0, 0)


@dataclass
class Counts:
    """What has been done since the agent started."""

    told: int = 0
    """Records made, also those that found the ring full."""
    dropped: int = 0
    """Those that did."""
    gaps: int = 0
    """Records of these that say that others may be missing."""
    unreadable: int = 0
    """Messages of the kernel's."""


class ClockSetError(Exception):
    """CLOCK_REALTIME was set before it was known which connections are older than the session."""


class Shared:
    """What the supervisor writes and the recorder's thread reads; each change is one assignment.

    Only the clock is looked at by both: what the one notes may be lost to the other, and is noted again.
    """

    def __init__(self) -> None:
        self._ahead_ns = 0
        self.judgements: tuple[Judgement, ...] = ()
        self.ports: tuple[int, ...] = ()
        self.is_cutting = False
        self.interval = NEVER

    def add_port(self, port: int) -> None:
        """Note by which socket connections are about to be cut."""
        if port not in self.ports:
            self.ports = (*self.ports, port)[-_PORTS_KEPT:]

    def latest_ns(self) -> int:
        """Return the latest moment, CLOCK_REALTIME, at which a connection that there is may have begun.

        That is now, unless the clock was set back: then it is now by the clock that was the furthest ahead of those
        seen here. So this is to be called every now and then.
        """
        monotonic = time.monotonic_ns()
        self._ahead_ns = max(self._ahead_ns, time.time_ns() - monotonic)
        return monotonic + self._ahead_ns


class Session:
    """Between one beginning to listen and its end."""

    def __init__(self, shared: Shared, counts: Counts, made: ring.Ring, news: News) -> None:
        """Begin, with the producer's side of a ring; `shared` has a judgement already."""
        self._shared, self._counts, self._news = shared, counts, news
        self._writer = _Writer(made, counts)
        self._take_time()
        # Moments of CLOCK_MONOTONIC, which nobody sets.
        self._began_ns = self._read_until_ns = self._monotonic_ns
        self._missing_since_ns: int | None = None
        self._clock_ns = self._wall_ns - self._monotonic_ns
        latest_ns = shared.latest_ns()
        self._is_set_back = latest_ns > self._wall_ns + STEP_NS
        self._ledger = Ledger(latest_ns)
        self._look: Look | None = None
        self.has_looked = False
        """Whether it knows what was before it."""
        self._looked, self._look_due = time.monotonic(), 0.0

    def close(self) -> None:
        """End."""
        if self._look is not None:
            self._look.close()

    def patience(self) -> float:
        """Return for how many seconds nothing but news can make anything due."""
        if self._look is not None:
            return 0.0
        return max(0.0, min(_MOMENT_SECONDS, self._next_look() - time.monotonic()))

    def step(self) -> int | None:
        """Do a piece of what there is to do.

        Returns the moment, CLOCK_MONOTONIC, until which all news has been recorded; None while some waits. OSError,
        and ClockSetError: then a new session is to take its place.
        """
        self._take_time()
        is_set = abs(self._wall_ns - self._monotonic_ns - self._clock_ns) > STEP_NS
        if is_set and not self._ledger.knows_older:
            raise ClockSetError("the clock was set")
        is_all = self._read()
        self._go_on_looking()
        self._writer.publish()
        return self._read_until_ns if is_all else None

    def finish(self) -> None:
        """Record what news waits, or say that some of it may be missing."""
        for _ in range(_LAST_STEPS):
            self._take_time()
            if self._read():
                break
        else:
            self._miss(self._read_until_ns)
            self._tell_missing()
        self._writer.publish()

    def gap(self, since_ns: int) -> None:
        """Say that records may be missing since then, CLOCK_REALTIME; whoever reads the ring sees it at once."""
        self._take_time()
        self._counts.gaps += 1
        said = (Kind.GAP, 0, 0, Reason.OBSERVED, 0, 0, 0, event.VERSION, End.NONE, 0, 0, 0, 0)
        since_ns = min(since_ns, self._wall_ns)  # of a clock that was set back
        self._writer.put(self._monotonic_ns, self._wall_ns, *_NOBODYS, *said, since_ns)
        self._writer.publish()

    def _take_time(self) -> None:
        self._wall_ns, self._monotonic_ns = time.time_ns(), time.monotonic_ns()

    # News ---------------------------------------------------------------------------------------------------

    def _read(self) -> bool:
        """Take in news; tells whether that was all."""
        count = 0
        try:
            for data in self._news.read(_AT_ONCE):
                self._ended(data)
                count += 1
        except Overrun:
            self._miss(self._read_until_ns)
            return False
        self._read_until_ns = self._monotonic_ns
        if count == _AT_ONCE:
            return False
        if self._missing_since_ns is not None:
            self._tell_missing()
            self._look_due = time.monotonic() + _LOOK_AGAIN_SECONDS
        return True

    def _miss(self, since_ns: int) -> None:
        """Have a gap told once all news has been read: until then there may be more of it."""
        known = self._missing_since_ns
        self._missing_since_ns = since_ns if known is None else min(known, since_ns)

    def _tell_missing(self) -> None:
        assert self._missing_since_ns is not None
        self.gap(self._missing_since_ns + time.time_ns() - time.monotonic_ns())
        self._missing_since_ns = None

    def _ended(self, data: bytes) -> None:
        for kind, port, body in split(data):
            try:
                connection = connections.read(body)
                if kind == connections.DELETE and connection.mark == APPROVED:
                    self._close(connection, End.REVOKED if port in self._shared.ports else End.ENDED)
            except Malformed:
                self._counts.unreadable += 1

    def _close(self, connection: Connection, end: End) -> None:
        flow = connections.flow(connection.original)
        amount = self._ledger.close(connection)
        if amount is None:
            self._miss(self._began_ns)
        self._put(
            Kind.FLOW_CLOSE, connection, flow, amount or NOTHING, end, connection.stop_ns or self._wall_ns
        )

    # Looks --------------------------------------------------------------------------------------------------

    def _next_look(self) -> float:
        return min(self._look_due, self._looked + self._shared.interval)

    def _go_on_looking(self) -> None:
        if self._look is None:
            if time.monotonic() >= self._next_look():
                self._look = Look()
                self._ledger.look()
            return
        bodies, at_ns, is_last = self._look.piece()
        for body in bodies:
            self._seen(body, at_ns)
        if is_last:
            self._ledger.found_all()
            self._end_look(NEVER)
            if self._is_set_back and not self.has_looked:
                self._miss(self._began_ns)  # what began meanwhile has counted as older
            self.has_looked = True
        elif self._look.lasts() > _LOOK_SECONDS or self._ledger.is_strained:
            self._ledger.gave_up()
            self._end_look(time.monotonic() + _LOOK_AGAIN_SECONDS)

    def _end_look(self, due: float) -> None:
        assert self._look is not None
        self._look.close()
        self._look = None
        self._looked, self._look_due = time.monotonic(), due

    def _seen(self, body: bytes, at_ns: int) -> None:
        tell = self._shared.interval != NEVER  # else flows are told of only when they close
        try:
            connection = connections.read(body)
            flow = connections.flow(connection.original)
            amount = self._ledger.see(connection, tell=tell) if connection.mark == APPROVED else None
        except Malformed:
            self._counts.unreadable += 1
        else:
            if amount is not None:
                self._put(Kind.FLOW_UPDATE, connection, flow, amount, End.NONE, at_ns)

    # Records ------------------------------------------------------------------------------------------------

    def _put(
        self, kind: Kind, connection: Connection, flow: Flow, amount: Amount, end: End, at_ns: int
    ) -> None:
        start_ns, clock_ns = connection.start_ns, self._wall_ns - self._monotonic_ns
        who = attribute(self._shared.judgements, flow, start_ns, at_ns, clock_ns)
        has_ports = flow.protocol in _PORTED
        ports = (flow.source_port, flow.port) if has_ports else (0, 0)
        known = event.KNOWN_ADDRESSES | (event.KNOWN_PORTS if has_ports else 0)
        self._writer.put(
            *(self._monotonic_ns, self._wall_ns, who.generation, who.rule, who.client_id),
            *(event.mapped(flow.source), event.mapped(flow.destination), *ports),
            *(kind, who.mode, 1, who.reason, flow.protocol, 0, known, event.VERSION, end, *amount, start_ns),
        )


class _Writer:
    """The producer of a ring: puts records, and publishes them at once."""

    def __init__(self, made: ring.Ring, counts: Counts) -> None:
        self._ring, self._counts = made, counts
        self._number = 0

    def put(self, *fields: Any) -> None:
        """Write a record: the fields of Event behind `seq`."""
        if not self._number:
            self._file, self._first, self._room, self._mask, self._sequence = self._ring.claim()
        number = self._number
        self._number += 1
        self._counts.told += 1
        if number < self._room:
            at = ring.HEADER_BYTES + (self._first + number & self._mask) * event.RECORD_BYTES
            event.LAYOUT.pack_into(self._file, at, self._sequence + number, *fields)
        else:
            self._counts.dropped += 1
        if self._number == BATCH_MOST:
            self.publish()

    def publish(self) -> None:
        """Make what was put visible."""
        if self._number:
            self._ring.publish(self._number)
            self._number = 0
