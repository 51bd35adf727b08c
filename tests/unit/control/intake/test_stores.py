"""What both stores hold and answer: the same questions, the same answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_control.intake import books, queries
from tidegate_control.intake.store import (
    DAY_S,
    LIMIT_MOST,
    NS,
    Added,
    Batch,
    Bucket,
    EventStore,
    Filters,
    FlowGroup,
    Hit,
    Page,
    StoreError,
    Window,
    open_store,
)
from tidegate_schema import event
from tidegate_schema.event import Kind
from tidegate_schema.policy import Reason
from unit.agents.kit import raw
from unit.control.intake.kit import EPOCH, EVER, NOW_S, OTHER_EPOCH, Clock, batches, flow, numbers, record

NOW_NS = NOW_S * NS
DENIED: dict[str, Any] = {"kind": Kind.DENY, "verdict": 0, "reason": int(Reason.DENIED), "rule": 1}
OTHER_CLIENT = b"\xcd" * 16


def day() -> list[event.Event]:
    """Return one flow that opens, lasts and closes; one of another client; a denied one; a stranger; and a gap."""
    to_other = {"destination": event.mapped(raw("10.20.0.81")), "client_id": OTHER_CLIENT}
    return [
        flow(0, Kind.FLOW_OPEN, packets=0, length=0),
        flow(1, Kind.FLOW_UPDATE, packets=5, length=500, reply_packets=7, reply_length=7000),
        flow(2, Kind.FLOW_CLOSE, packets=1, length=50, reply_packets=1, reply_length=60, end=1),
        flow(3, Kind.FLOW_OPEN, packets=0, length=0, **to_other),
        record(4, packets=9, length=900, wall_ns=NOW_NS + 60 * NS, **DENIED),
        record(5, packets=2, length=80, client_id=event.NO_CLIENT, kind=Kind.DENY, verdict=0, known=1,
               rule=event.NO_RULE, reason=int(Reason.UNKNOWN_SOURCE), protocol=1, source_port=0, destination_port=0),
        flow(6, Kind.GAP),
    ]  # fmt: skip


def group(**members: Any) -> FlowGroup:
    made: dict[str, Any] = {
        "client_id": "ab" * 16, "destination": "10.20.0.80", "protocol": 6, "port": 443, "verdict": "allow",
        "reason": "allowed", "gateway": "fra1", "mode": "enforce", "rule": "eng-reads-prod-db",
        "first_ns": NOW_NS, "last_ns": NOW_NS + 2, "count": 1, "packets": 14, "bytes": 7610,
    }  # fmt: skip
    return FlowGroup(**made | members)


GROUPS = {
    "flow": group(),
    "other": group(
        client_id="cd" * 16, destination="10.20.0.81", first_ns=NOW_NS + 3, last_ns=NOW_NS + 3, packets=0, bytes=0
    ),
    "denied": group(
        verdict="deny", reason="denied", rule="nobody-reads-payroll",
        first_ns=NOW_NS + 60 * NS, last_ns=NOW_NS + 60 * NS, packets=9, bytes=900,
    ),
    "stranger": group(
        client_id="", verdict="deny", reason="unknown-source", rule="", protocol=1, port=0,
        first_ns=NOW_NS + 5, last_ns=NOW_NS + 5, packets=2, bytes=80,
    ),
}  # fmt: skip


@pytest.fixture
def filled(store: EventStore) -> EventStore:
    assert store.add(batches(day())) == [Added(7)]
    return store


def test_events_become_groups_of_those_that_say_the_same(filled: EventStore) -> None:
    assert Counter(filled.aggregated(EVER)) == Counter(GROUPS.values())


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, {"flow", "other", "denied", "stranger"}),
    ({"client_id": "ab" * 16}, {"flow", "denied"}),
    ({"client_id": ""}, {"stranger"}),
    ({"destination": "10.20.0.81"}, {"other"}),
    ({"source": "10.64.0.11", "protocol": 6}, {"flow", "other", "denied"}),
    ({"port": 0}, {"stranger"}),
    ({"protocol": 1}, {"stranger"}),
    ({"verdict": "deny"}, {"denied", "stranger"}),
    ({"reason": "unknown-source"}, {"stranger"}),
    ({"mode": "observe"}, set()),
    ({"rule": "nobody-reads-payroll"}, {"denied"}),
    ({"rule": ""}, {"stranger"}),
    ({"gateway": "fra1"}, {"flow", "other", "denied", "stranger"}),
    ({"gateway": "ams1"}, set()),
]


@pytest.mark.parametrize(
    ("given", "expected"), FILTERS, ids=[",".join(x[0]) + str(n) for n, x in enumerate(FILTERS)]
)
def test_filters(filled: EventStore, given: dict[str, Any], expected: set[str]) -> None:
    found = filled.flows(EVER, Filters(**given), Page())
    assert Counter(found.rows) == Counter(GROUPS[name] for name in expected)
    assert not found.more


def test_pages_follow_each_other_the_latest_first(filled: EventStore) -> None:
    pages = [filled.flows(EVER, Filters(), Page(1, offset)) for offset in range(5)]
    assert [page.rows for page in pages] == [[GROUPS[n]] for n in ("denied", "stranger", "other", "flow")] + [
        []
    ]
    assert [page.more for page in pages] == [True, True, True, False, False]


def test_a_window_has_its_begin_and_not_its_end(filled: EventStore) -> None:
    assert filled.flows(Window(NOW_NS + 3, NOW_NS + 5), Filters(), Page()).rows == [GROUPS["other"]]


def test_a_timeline_counts_what_begins_and_leaves_no_part_out(filled: EventStore) -> None:
    minute = 60 * NS
    found = filled.timeline(Window(NOW_NS - minute, NOW_NS + 2 * minute), Filters(), 3)
    assert found == [Bucket(NOW_NS - minute, 0, 0), Bucket(NOW_NS, 2, 1), Bucket(NOW_NS + minute, 0, 1)]
    assert sum(b.allowed for b in filled.timeline(EVER, Filters(client_id="ab" * 16), 1000)) == 1


def test_top_denied_are_those_with_the_most_packets(filled: EventStore) -> None:
    assert filled.top_denied(EVER, 10) == [GROUPS["denied"], GROUPS["stranger"]]
    assert filled.top_denied(EVER, 1) == [GROUPS["denied"]]


def test_hits_are_what_policies_decided(filled: EventStore) -> None:
    assert filled.hits(EVER) == [
        Hit("eng-reads-prod-db", "fra1", "allow", 2, NOW_NS + 3),
        Hit("nobody-reads-payroll", "fra1", "deny", 1, NOW_NS + 60 * NS),
    ]


def test_an_event_that_comes_again_is_there_once_and_counted(filled: EventStore) -> None:
    more = [*day()[4:], record(7)]
    assert filled.add(batches(more)) == [Added(1, 3)]
    assert filled.add(batches(day())) == [Added(0, 7)]
    assert numbers(filled) == 5
    (account,) = filled.accounts()
    assert (account.received, account.duplicates, account.missing) == (8, 10, 0)


def test_one_event_twice_in_one_batch_and_in_two_of_one_commit(store: EventStore) -> None:
    (one,) = batches([record(1), record(1), record(2)])
    assert store.add([one, one]) == [Added(2, 1), Added(0, 3)]
    assert numbers(store) == 2


def test_the_same_number_of_another_ring_or_gateway_is_another_event(store: EventStore) -> None:
    for gateway in ("fra1", "ams1"):
        for epoch in (EPOCH, OTHER_EPOCH):
            assert store.add(batches([record(1)], gateway, epoch)) == [Added(1)]
    assert numbers(store) == 4


def test_accounts_tell_gaps_drops_and_when_a_gateway_was_seen(
    opened: Callable[[], EventStore], clock: Clock
) -> None:
    store = opened()
    store.add(batches([record(n) for n in (10, 11, 15, 19)], dropped=3))
    clock.now += 60
    store.add(batches([record(0)], epoch=OTHER_EPOCH))
    store.add([Batch("fra1", "", refused=2)])
    store.add(batches([record(7)], gateway="ams1"))
    store.close()
    for store in (opened(),):
        ams1, fra1 = store.accounts()
        assert (ams1.gateway, ams1.received, ams1.missing, ams1.refused) == ("ams1", 1, 0, 0)
        assert (fra1.received, fra1.missing, fra1.dropped, fra1.refused) == (5, 6, 3, 2)
        assert fra1.last_seen_ns == (NOW_S + 60) * NS
        new, old = fra1.rings
        assert (new.epoch, new.gaps) == (OTHER_EPOCH, ())
        assert (old.epoch, old.gaps, old.last_seen_ns) == (EPOCH, ((12, 14), (16, 18)), NOW_NS)


def test_what_is_new_is_known_after_a_restart(opened: Callable[[], EventStore]) -> None:
    store = opened()
    store.add(batches(day()))
    store.close()
    again = opened()
    assert again.add(batches(day())) == [Added(0, 7)]
    assert Counter(again.aggregated(EVER)) == Counter(GROUPS.values())


def test_every_column_is_what_the_event_said(filled: EventStore) -> None:
    columns = ", ".join(f'"{name}"' for name in queries.COLUMNS)
    query = f'SELECT {columns}, "wall_ns", "start_ns" FROM {queries.EVENTS} ORDER BY "event.sequence"'
    rows = list(filled._ask(query))  # type: ignore[attr-defined]
    for row, one in zip(rows, day(), strict=True):
        said = event.to_json(one, "fra1", EPOCH, ["eng-reads-prod-db", "nobody-reads-payroll"])
        blank = {"text": ""}
        expected = tuple(said.get(name, blank.get(kind, 0)) for name, kind in queries.COLUMNS.items())
        assert row == (*expected, one.wall_ns, one.start_ns if "event.start" in said else 0)


def test_retention_deletes_whole_days_of_receipt_and_nothing_else(
    opened: Callable[[], EventStore], clock: Clock
) -> None:
    store = opened()
    clock.now = NOW_S // DAY_S * DAY_S + 100
    store.add(batches(day()))
    clock.now += DAY_S
    store.add(batches([record(50)]))
    store.add(batches([record(1)], gateway="ams1"))
    assert store.expire(int(clock.now) - DAY_S) == 0
    assert numbers(store) == 6
    assert store.expire(int(clock.now)) == 7
    assert numbers(store) == 2
    # The ring lives, so what was received of it is still known, and is not taken a second time.
    assert store.add(batches(day())) == [Added(0, 7)]
    clock.now += 2 * DAY_S
    assert store.expire(int(clock.now)) == 2
    assert (numbers(store), store.accounts()) == (0, [])
    store.close()
    assert opened().accounts() == []


def test_a_gateway_cannot_have_rings_without_bound(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(books, "RINGS_MOST", 2)
    every = [
        *batches([record(1)]),
        *batches([record(1)], epoch=OTHER_EPOCH),
        *batches([record(1)], epoch="0" * 16),
    ]
    assert store.add(every) == [Added(1), Added(1), Added(late=1)]
    assert store.add(batches([record(1)], gateway="ams1")) == [Added(1)]


@given(st.text(max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_text_gets_into_a_query_that_could_end_its_quotes(text: str) -> None:
    for name in ("gateway", "client_id", "source", "destination", "verdict", "reason", "mode", "rule"):
        try:
            filters = Filters(**{name: text})
        except ValueError:
            continue
        assert f"'{text}'" in queries.flows("t", EVER, filters, Page())
        assert not set(text) & set("'\"\\;\n ")


@pytest.mark.parametrize("text", ["'", "a'b", "\\", "a b", "fra1\n", "é", '"', ";"])
def test_a_literal_is_plain(text: str) -> None:
    with pytest.raises(ValueError, match="not a value"):
        queries.literal(text)
    assert queries.literal("fd64::1") == "'fd64::1'"


@pytest.mark.parametrize(
    "ask",
    [
        lambda: Page(0),
        lambda: Page(LIMIT_MOST + 1),
        lambda: Page(1, -1),
        lambda: Page(1, 10**9),
        lambda: Window(2, 1),
        lambda: Window(-1, 1),
        lambda: queries.top_denied("t", EVER, 0),
        lambda: queries.step_of(EVER, 0),
        lambda: queries.step_of(EVER, 10**9),
        lambda: Filters(port=65536),
        lambda: Filters(port=True),
        lambda: Filters(protocol=-1),
    ],
)
def test_questions_have_bounds(ask: Callable[[], object]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        ask()


@pytest.mark.parametrize(
    ("url", "named"),
    [
        ("sqlite:///x", "write duckdb:///PATH"),
        ("duckdb://x", "write duckdb:///PATH"),
        ("clickhouse://127.0.0.1:1/db", "clickhouse://USER@HOST:PORT/DATABASE"),
        ("clickhouse://u@127.0.0.1:1/d%27b", "clickhouse://USER@HOST:PORT/DATABASE"),
        ("clickhouse://u:secret@127.0.0.1:1/db", "no password before the host"),
        ("clickhouse://u@127.0.0.1:1/db?x=1", "nothing behind the database"),
        ("clickhouse://u@192.0.2.1:8123/db", "readable on the way"),
        ("clickhouse://u@127.0.0.1:1/db", "ClickHouse: [Errno 111] Connection refused"),
        ("duckdb:///nowhere-at-all/x.duckdb", "No such file"),
    ],
)
def test_what_cannot_be_opened_is_one_line(url: str, named: str) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(url)
    assert named in str(refused.value)
    assert "secret" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1
