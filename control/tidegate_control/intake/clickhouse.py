"""Events in ClickHouse: a table that takes validated lines as they are, and forgets which came twice.

    tidegate_events   ReplacingMergeTree by (gateway, epoch, sequence number), a partition for each day of receipt
    tidegate_rings    ReplacingMergeTree by (gateway, epoch): each ring's account, the highest version counts

There are no transactions: events are inserted, then the accounts, then a batch is acknowledged. What is killed between
the two leaves events that no account has; `_load` looks for them. A batch that comes again after that, or of which
nobody knows how its insert ended, is inserted again, and FINAL shows each event once.

An insert is acknowledged when its part is written; from release 20.10 on the tables have it fsynced, too. One control
server writes; any number may read.
"""

# ruff: noqa: S608 - the names in a statement are this package's own, values go through `queries.literal`

from __future__ import annotations

import itertools
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from tidegate_control.intake import queries
from tidegate_control.intake.books import Books, Posting
from tidegate_control.intake.chlink import Link
from tidegate_control.intake.queries import COLUMNS, EVENTS, RINGS, literal
from tidegate_control.intake.received import Ring
from tidegate_control.intake.store import (
    DAY_S,
    NS,
    Account,
    Added,
    Batch,
    Bucket,
    Filters,
    FlowGroup,
    Flows,
    Hit,
    Page,
    StoreError,
    Window,
)

_FINAL = f"{EVENTS} FINAL"
_TYPES = {"text": "String", "count": "Int64", "wide": "UInt32", "small": "UInt16", "byte": "UInt8"}
_FSYNC_SINCE, _ASYNC_SINCE = (20, 10), (21, 11)
"""Releases that know fsync_after_insert, and async_insert, which would acknowledge too early."""
INSERT = f"INSERT INTO {EVENTS} FORMAT JSONEachRow"


_EPOCH = "1970-01-01T00:00:00.000000000Z"


def _ns(text: str) -> str:
    """Return the expression for a timestamp as a number; of every row, so none may be empty."""
    second = f"toDateTime(concat(substring({text}, 1, 10), ' ', substring({text}, 12, 8)), 'UTC')"
    return f"toInt64(toUnixTimestamp({second})) * {NS} + toInt64(substring({text}, 21, 9))"


def _tables(settings: str) -> tuple[str, ...]:
    start = f"if(`event.start` = '', '{_EPOCH}', `event.start`)"
    columns = ", ".join(f"`{name}` {_TYPES[kind]}" for name, kind in COLUMNS.items())
    return (
        f"CREATE TABLE IF NOT EXISTS {EVENTS} (received_s UInt32, `@timestamp` String, `event.start` String, {columns},"
        f" wall_ns Int64 MATERIALIZED {_ns('`@timestamp`')},"
        f" start_ns Int64 MATERIALIZED {_ns(start)})"
        f" ENGINE = ReplacingMergeTree PARTITION BY intDiv(received_s, {DAY_S})"
        f" ORDER BY (`observer.name`, `tidegate.epoch`, `event.sequence`){settings}",
        f"CREATE TABLE IF NOT EXISTS {RINGS} (gateway String, epoch String, state String, version UInt64)"
        f" ENGINE = ReplacingMergeTree(version) ORDER BY (gateway, epoch){settings}",
    )


class ClickHouseStore:
    """An EventStore in a database that is there; the tables are made."""

    def __init__(
        self,
        url: str,
        password: str = "",
        clock: Callable[[], float] = time.time,
        *,
        read_only: bool = False,
    ) -> None:
        """Look whether it answers: StoreError. With `read_only` no table is made, and no account is read."""
        self._clock = clock
        self._link = Link(url, password)
        self._lock = threading.Lock()
        """Held by who writes."""
        release = self._release()
        durable = (
            " SETTINGS fsync_after_insert = 1, fsync_part_directory = 1" if release >= _FSYNC_SINCE else ""
        )
        self._insert_settings = {"input_format_skip_unknown_fields": 1}
        if release >= _ASYNC_SINCE:
            self._insert_settings["async_insert"] = 0
        for statement in () if read_only else _tables(durable):
            self._link.do(statement)
        self._version = 0
        self._books: Books | None = Books(()) if read_only else self._load()

    def add(self, batches: Sequence[Batch]) -> list[Added]:
        """Insert what is new, then the accounts."""
        with self._lock:
            books = self._books or self._load()
            self._books = None  # until it is known how this ends
            now = self._clock()
            posting = books.post(batches, int(now * NS))
            self._write(posting, int(now))
            books.keep(posting.rings.values())
            self._books = books
        return posting.added

    def flows(self, window: Window, filters: Filters, page: Page) -> Flows:
        """Return groups of events, those with the latest event first."""
        rows = list(self._groups(queries.flows(_FINAL, window, filters, page)))
        return Flows(rows[: page.limit], len(rows) > page.limit)

    def timeline(self, window: Window, filters: Filters, buckets: int) -> list[Bucket]:
        """Return so many equal parts of the window."""
        step = queries.step_of(window, buckets)
        return queries.filled(window, step, self._ask(queries.timeline(_FINAL, window, filters, step)))

    def top_denied(self, window: Window, limit: int) -> list[FlowGroup]:
        """Return the groups with the most denied packets."""
        return list(self._groups(queries.top_denied(_FINAL, window, limit)))

    def hits(self, window: Window) -> list[Hit]:
        """Return what each policy decided."""
        return [Hit(*row) for row in self._ask(queries.hits(_FINAL, window))]

    def aggregated(self, window: Window) -> Iterator[FlowGroup]:
        """Return every group of the window."""
        return self._groups(queries.aggregated(_FINAL, window))

    def accounts(self) -> list[Account]:
        """Return what is known of each gateway."""
        books = self._books
        if books is None:
            with self._lock:
                books = self._books = self._books or self._load()
        return books.accounts()

    def expire(self, before_s: int) -> int:
        """Drop the partitions of days that are over, whole files; and the accounts of rings that are silent since."""
        cut = before_s // DAY_S * DAY_S
        with self._lock:
            books = self._books or self._load()
            ((count,),) = self._ask(f"SELECT count(*) AS count FROM {_FINAL} WHERE received_s < {cut}")
            where = f"database = {literal(self._link.database)} AND table = {literal(EVENTS)} AND active"
            days = self._ask(f"SELECT DISTINCT partition FROM system.parts WHERE {where}")
            for (day,) in list(days):
                if int(day) < cut // DAY_S:
                    self._link.do(f"ALTER TABLE {EVENTS} DROP PARTITION {int(day)}")
            gone = books.expired(cut)
            self._keep([(key, "") for key in gone])
            books.forget(gone)
            self._books = books
        return int(count)

    def close(self) -> None:
        """Let go of the server."""
        self._link.close()

    def _write(self, posting: Posting, now_s: int) -> None:
        if posting.text:
            self._link.do(INSERT, received(posting.text, now_s), **self._insert_settings)
        self._keep([(key, ring.dump()) for key, ring in posting.rings.items()])

    def _keep(self, states: Sequence[tuple[tuple[str, str], str]]) -> None:
        """Write accounts; an empty one stands for none."""
        self._version = max(self._version + 1, time.time_ns())
        rows = [
            json.dumps({"gateway": gateway, "epoch": epoch, "state": state, "version": self._version})
            for (gateway, epoch), state in states
        ]
        if rows:
            self._link.do(
                f"INSERT INTO {RINGS} FORMAT JSONEachRow", "\n".join(rows).encode(), **self._insert_settings
            )

    def _load(self) -> Books:
        """Read the accounts, and look for events that were inserted after them."""
        found = list(self._ask(f"SELECT gateway, epoch, state, version FROM {RINGS} FINAL"))
        self._version = max([self._version, *(row[3] for row in found)])
        rings = {(row[0], row[1]): Ring.load(*row[:3]) for row in found if row[2]}
        seen_ns = max((ring.last_seen_ns for ring in rings.values()), default=0)
        by = '"observer.name", "tidegate.epoch"'
        late = self._ask(
            f'SELECT {by}, "event.sequence", received_s FROM {EVENTS} WHERE received_s >= {seen_ns // NS} ORDER BY {by}'
        )
        for (gateway, epoch), group in itertools.groupby(late, lambda row: (row[0], row[1])):
            rows = list(group)
            ring = rings.get((gateway, epoch)) or Ring(gateway, epoch)
            taken = ring.take([row[2] for row in rows]).ring
            when = max(ring.last_seen_ns, *(row[3] * NS for row in rows))
            rings[gateway, epoch] = replace(taken, duplicates=ring.duplicates, last_seen_ns=when)
        return Books(rings.values())

    def _release(self) -> tuple[int, ...]:
        ((text,),) = self._ask("SELECT version() AS version")
        try:
            return tuple(int(part) for part in text.split(".")[:2])
        except ValueError:
            raise StoreError(f"events: ClickHouse: a release called {text[:40]!r}") from None

    def _groups(self, query: str) -> Iterator[FlowGroup]:
        return (FlowGroup(*row) for row in self._ask(query))

    def _ask(self, query: str) -> Iterator[tuple[Any, ...]]:
        return (tuple(row.values()) for row in self._link.rows(query))


def received(text: bytes, now_s: int) -> bytes:
    """Return lines, each with when it was received.

    A line is one flat object, and no event has a brace in a value: to look for one byte takes a thirtieth of the time.
    """
    member = b'"received_s":%d,' % now_s
    made = text.replace(b"{", b"{" + member)
    if len(made) - len(text) == len(member) * text.count(b"\n"):
        return made
    return b"".join(b"{" + member + line[1:] for line in text.splitlines(keepends=True))
