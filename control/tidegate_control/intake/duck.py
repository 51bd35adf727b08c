"""Events in DuckDB: one file, which this process alone has open.

Lines that were read strictly are read once more by DuckDB itself, out of memory that has a name under /proc: that is
its fastest way in without a library of columns. Rows and accounts are one transaction. COMMIT returns when the log
beside the file is on the disk: DuckDB writes it and calls fdatasync before it returns
(`tests/unit/control/intake/test_durable.py` watches it do so).
"""

# ruff: noqa: S608 - the names in a statement are this package's own

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb

from tidegate_control.intake import queries
from tidegate_control.intake.books import Books, Posting
from tidegate_control.intake.queries import COLUMNS, EVENTS, RINGS
from tidegate_control.intake.received import Ring
from tidegate_control.intake.store import (
    DAY_S,
    LINE_MOST,
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
    Unavailable,
    Window,
)

TYPES = {"text": "VARCHAR", "count": "BIGINT", "wide": "UINTEGER", "small": "USMALLINT", "byte": "UTINYINT"}
_CONFIG: dict[str, str | bool | int | float | list[str]] = {"autoinstall_known_extensions": False}
"""Nothing is fetched from anywhere."""
_ROWS_AT_ONCE = 4096
_COLUMNS = ", ".join(f'"{name}" {TYPES[kind]} NOT NULL' for name, kind in COLUMNS.items())
_TABLES = (
    f"CREATE TABLE IF NOT EXISTS {EVENTS}"
    f" (received_s BIGINT NOT NULL, wall_ns BIGINT NOT NULL, start_ns BIGINT NOT NULL, {_COLUMNS})",
    f"CREATE TABLE IF NOT EXISTS {RINGS} (gateway VARCHAR NOT NULL, epoch VARCHAR NOT NULL, state VARCHAR NOT NULL)",
)
READ = ", ".join(
    f"'{name}': '{kind}'"
    for name, kind in {
        **{name: TYPES[kind] for name, kind in COLUMNS.items()},
        "@timestamp": "TIMESTAMP_NS",
        "event.start": "TIMESTAMP_NS",
    }.items()
)
VALUES = ", ".join(
    (
        'epoch_ns("@timestamp")',
        'coalesce(epoch_ns("event.start"), 0)',
        *(f"""coalesce("{name}", {"''" if kind == "text" else 0})""" for name, kind in COLUMNS.items()),
    )
)


class DuckStore:
    """An EventStore in one file."""

    def __init__(
        self,
        path: str,
        clock: Callable[[], float] = time.time,
        *,
        memory_bytes: int = 1 << 30,
        read_only: bool = False,
    ) -> None:
        """Open the file, or make it; its directory must be for its owner alone. DuckDB takes `memory_bytes` at most.

        With `read_only` nothing is made or changed, no account is read, and what is no such file is refused.
        """
        self._clock, self._memory, self._read_only = clock, memory_bytes, read_only
        self._path = Path(path)
        self._lock = threading.Lock()
        """Held by who writes, or opens it anew."""
        self._input = os.memfd_create("tidegate-intake", os.MFD_CLOEXEC)
        try:
            if not read_only:
                _check_private(self._path.parent)
            self._database, self._books = self._open()
        except BaseException:
            os.close(self._input)
            raise

    def add(self, batches: Sequence[Batch]) -> list[Added]:
        """Keep what is new, and the accounts, in one transaction."""
        now = self._clock()
        with self._lock:
            posting = self._books.post(batches, int(now * NS))
            try:
                self._write(posting, int(now))
            except duckdb.Error as error:
                self._open_anew()
                raise _refusal(error) from None
            self._books.keep(posting.rings.values())
        return posting.added

    def flows(self, window: Window, filters: Filters, page: Page) -> Flows:
        """Return groups of events, those with the latest event first."""
        rows = [FlowGroup(*row) for row in self._ask(queries.flows(EVENTS, window, filters, page))]
        return Flows(rows[: page.limit], len(rows) > page.limit)

    def timeline(self, window: Window, filters: Filters, buckets: int) -> list[Bucket]:
        """Return so many equal parts of the window."""
        step = queries.step_of(window, buckets)
        rows = self._ask(queries.timeline(EVENTS, window, filters, step))
        return queries.filled(window, step, rows)

    def top_denied(self, window: Window, limit: int) -> list[FlowGroup]:
        """Return the groups with the most denied packets."""
        return [FlowGroup(*row) for row in self._ask(queries.top_denied(EVENTS, window, limit))]

    def hits(self, window: Window) -> list[Hit]:
        """Return what each policy decided."""
        return [Hit(*row) for row in self._ask(queries.hits(EVENTS, window))]

    def aggregated(self, window: Window) -> Iterator[FlowGroup]:
        """Return every group of the window."""
        return (FlowGroup(*row) for row in self._ask(queries.aggregated(EVENTS, window)))

    def accounts(self) -> list[Account]:
        """Return what is known of each gateway."""
        return self._books.accounts()

    def expire(self, before_s: int) -> int:
        """Delete, and let the file have the room again."""
        cut = before_s // DAY_S * DAY_S
        with self._lock:
            gone = self._books.expired(cut)
            try:
                self._database.begin()
                row = self._database.execute(f"DELETE FROM {EVENTS} WHERE received_s < ?", [cut]).fetchone()
                for key in gone:
                    self._database.execute(f"DELETE FROM {RINGS} WHERE gateway = ? AND epoch = ?", key)
                self._database.commit()
                self._database.execute("CHECKPOINT")
            except duckdb.Error as error:
                self._open_anew()
                raise _refusal(error) from None
            self._books.forget(gone)
        assert row is not None
        return int(row[0])

    def close(self) -> None:
        """Close the file, which is whole then without the log beside it."""
        with self._lock:
            self._database.close()
            os.close(self._input)

    def _write(self, posting: Posting, now_s: int) -> None:
        self._database.begin()
        if posting.text:
            os.ftruncate(self._input, 0)
            _write_all(self._input, posting.text)
            self._database.execute(f"INSERT INTO {EVENTS} SELECT {now_s}, {VALUES} FROM {self._source()}")
        for key, ring in posting.rings.items():
            self._database.execute(f"DELETE FROM {RINGS} WHERE gateway = ? AND epoch = ?", key)
            self._database.execute(f"INSERT INTO {RINGS} VALUES (?, ?, ?)", [*key, ring.dump()])
        self._database.commit()

    def _source(self) -> str:
        options = f"format = 'newline_delimited', columns = {{{READ}}}, maximum_object_size = {LINE_MOST * 2}"
        return f"read_json('/proc/self/fd/{self._input}', {options})"

    def _ask(self, query: str) -> Iterator[tuple[Any, ...]]:
        try:
            with self._database.cursor() as cursor:
                cursor.execute(query)
                while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                    yield from rows
        except duckdb.Error as error:
            raise _refusal(error) from None

    def _open(self) -> tuple[duckdb.DuckDBPyConnection, Books]:
        try:
            made = duckdb.connect(
                str(self._path),
                read_only=self._read_only,
                config={**_CONFIG, "memory_limit": f"{self._memory}B"},
            )
            if not self._read_only:
                self._path.chmod(0o600)
            for statement in _fenced(self._input):
                made.execute(statement)
            for statement in () if self._read_only else _TABLES:
                made.execute(statement)
            if self._read_only:  # whoever made the file may have written anything for an account
                made.execute(f"SELECT 1 FROM {RINGS}, {EVENTS} LIMIT 0")
                return made, Books(())
            rows = made.execute(f"SELECT gateway, epoch, state FROM {RINGS}").fetchall()
        except duckdb.CatalogException:
            raise StoreError(f"events: {self._path}: no events of a control server in this file") from None
        except (duckdb.Error, OSError) as error:
            raise _refusal(error) from None
        return made, Books(Ring.load(*row) for row in rows)

    def _open_anew(self) -> None:
        """After an error nothing is certain but what is in the file."""
        self._database.close()
        self._database, self._books = self._open()


def _fenced(fd: int) -> tuple[str, ...]:
    """Return what lets DuckDB open nothing but its own file and the batch in memory, whatever it is asked."""
    return (
        f"SET allowed_paths = ['/proc/self/fd/{fd}']",
        "SET enable_external_access = false",
        "SET lock_configuration = true",
    )


def _refusal(error: Exception) -> StoreError:
    line = " ".join(str(error).split())[:300]
    if "Could not set lock on file" in line:
        line = "another process has this file open, the control server perhaps: end it, or read a copy (with its .wal)"
    kind = StoreError if isinstance(error, duckdb.ProgrammingError | duckdb.DataError) else Unavailable
    return kind(f"events: DuckDB: {line}")


def _check_private(directory: Path) -> None:
    try:
        mode = directory.stat().st_mode
    except OSError as error:
        raise StoreError(f"events: {directory}: {error.strerror}") from None
    if mode & 0o077:
        raise StoreError(f"events: {directory}: others may look into it; chmod 700 {directory}")


def _write_all(fd: int, data: bytes) -> None:
    view, at = memoryview(data), 0
    while at < len(data):
        at += os.pwrite(fd, view[at:], at)
