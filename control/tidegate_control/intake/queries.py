"""The questions to the events, in the SQL that DuckDB and ClickHouse have in common; pure.

Both stores have a table whose columns are called as the members of an event, without those that follow from others
(`COLUMNS`), and the times as numbers: `wall_ns`, `start_ns`. A value gets into a query by `literal` only, which refuses
whatever could end the quotes around it: ClickHouse takes parameters in later releases only.
"""

# ruff: noqa: S608 - every value comes through `literal`, every name from this module

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from tidegate_control.intake.store import BUCKETS_MOST, LIMIT_MOST, Bucket, Filters, FlowGroup, Page, Window

EVENTS, RINGS = "tidegate_events", "tidegate_rings"
TEXT, COUNT, SMALL, BYTE, WIDE = "text", "count", "small", "byte", "wide"
COLUMNS = {
    "observer.name": TEXT,
    "tidegate.epoch": TEXT,
    "event.sequence": COUNT,
    "tidegate.monotonic_ns": COUNT,
    "event.action": TEXT,
    "tidegate.mode": TEXT,
    "tidegate.verdict": TEXT,
    "event.reason": TEXT,
    "tidegate.generation": WIDE,
    "tidegate.client.id": TEXT,
    "source.address": TEXT,
    "source.port": SMALL,
    "destination.address": TEXT,
    "destination.port": SMALL,
    "network.iana_number": BYTE,
    "tidegate.tcp.flags": BYTE,
    "source.packets": COUNT,
    "source.bytes": COUNT,
    "destination.packets": COUNT,
    "destination.bytes": COUNT,
    "tidegate.end": TEXT,
    "rule.name": TEXT,
}
"""Of what kind each column is; `network.transport` and `event.end` follow from others."""
_GROUP = {
    "client_id": "tidegate.client.id",
    "destination": "destination.address",
    "protocol": "network.iana_number",
    "port": "destination.port",
    "verdict": "tidegate.verdict",
    "reason": "event.reason",
    "gateway": "observer.name",
    "mode": "tidegate.mode",
    "rule": "rule.name",
}
"""What tells one group from another: the first members of a FlowGroup."""
_FILTERS = {**_GROUP, "source": "source.address"}
_BEGINS = "\"event.action\" IN ('flow-open', 'deny', 'packet')"
_PLAIN = re.compile(r"[A-Za-z0-9:._-]*")
assert FlowGroup._fields[: len(_GROUP)] == tuple(_GROUP)


def literal(value: int | str) -> str:
    """Return a value as SQL; ValueError for text that is no name, address, number or word of an event."""
    if isinstance(value, str) and _PLAIN.fullmatch(value):
        return f"'{value}'"
    if type(value) is int:
        return str(value)
    raise ValueError("not a value of an event")


def flows(table: str, window: Window, filters: Filters, page: Page) -> str:
    """Return the question for a page of groups and one row more."""
    order = _quoted(_GROUP.values())
    return (
        f"{_groups(table, window, filters)} ORDER BY last_ns DESC, {order}"
        f" LIMIT {page.limit + 1} OFFSET {page.offset}"
    )


def aggregated(table: str, window: Window) -> str:
    """Return the question for every group."""
    return _groups(table, window, Filters())


def top_denied(table: str, window: Window, limit: int) -> str:
    """Return the question for the groups with the most denied packets."""
    if not 1 <= limit <= LIMIT_MOST:
        raise ValueError(f"1 to {LIMIT_MOST} rows")
    order = _quoted(_GROUP.values())
    return f"{_groups(table, window, Filters(verdict='deny'))} ORDER BY packets DESC, {order} LIMIT {limit}"


def hits(table: str, window: Window) -> str:
    """Return the question for what each policy decided."""
    by = _quoted(("rule.name", "observer.name", "tidegate.verdict"))
    return (
        f'SELECT {by}, sum(CASE WHEN {_BEGINS} THEN 1 ELSE 0 END) AS count, max("wall_ns") AS last_ns'
        f" FROM {table} WHERE {_where(window, Filters())} AND \"rule.name\" <> '' GROUP BY {by} ORDER BY {by}"
    )


def timeline(table: str, window: Window, filters: Filters, step_ns: int) -> str:
    """Return the question for counts by part of the window and verdict; parts without any are left out."""
    since = window.since_ns
    start = f'("wall_ns" - {since}) - ("wall_ns" - {since}) % {step_ns}'
    return (
        f'SELECT {start} AS start, "tidegate.verdict" AS verdict, count(*) AS count FROM {table}'
        f" WHERE {_where(window, filters)} AND {_BEGINS} GROUP BY start, verdict"
    )


def step_of(window: Window, buckets: int) -> int:
    """Return the nanoseconds of one of so many parts."""
    if not 1 <= buckets <= BUCKETS_MOST:
        raise ValueError(f"1 to {BUCKETS_MOST} parts")
    return max(-(-(window.until_ns - window.since_ns) // buckets), 1)


def filled(window: Window, step_ns: int, rows: Iterable[Sequence[Any]]) -> list[Bucket]:
    """Return the rows of `timeline` with those parts of the window that have none."""
    counts = {(start, verdict): count for start, verdict, count in rows}
    starts = range(0, window.until_ns - window.since_ns, step_ns)
    return [
        Bucket(window.since_ns + start, counts.get((start, "allow"), 0), counts.get((start, "deny"), 0))
        for start in starts
    ]


def _groups(table: str, window: Window, filters: Filters) -> str:
    by = _quoted(_GROUP.values())
    return (
        f'SELECT {by}, min("wall_ns") AS first_ns, max("wall_ns") AS last_ns,'
        f" sum(CASE WHEN {_BEGINS} THEN 1 ELSE 0 END) AS count,"
        f' sum("source.packets" + "destination.packets") AS packets, sum("source.bytes" + "destination.bytes") AS bytes'
        f" FROM {table} WHERE {_where(window, filters)} GROUP BY {by}"
    )


def _where(window: Window, filters: Filters) -> str:
    given = {name: getattr(filters, name) for name in _FILTERS}
    terms = [f'"{_FILTERS[name]}" = {literal(value)}' for name, value in given.items() if value is not None]
    span = f'"wall_ns" >= {window.since_ns} AND "wall_ns" < {window.until_ns}'
    return " AND ".join((span, "\"event.action\" <> 'gap'", *terms))


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)
