"""What ClickHouse alone needs: events and accounts are two inserts, so either can be missing after a kill."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tidegate_control.intake.books import Books, Posting
from tidegate_control.intake.clickhouse import ClickHouseStore, received
from tidegate_control.intake.store import Added, StoreError, Unavailable, open_store
from unit.agents.receivers import PASSWORD, USER, ClickHouse
from unit.control.intake.kit import EPOCH, NOW_S, Clock, batches, numbers, record

Open = Callable[[], ClickHouseStore]
SENT = [record(n) for n in range(3)]


@pytest.fixture
def opened(server: ClickHouse, clock: Clock, request: pytest.FixtureRequest) -> Iterator[Open]:
    database = f"alone_{request.node.name[:50]}"
    server.do(f"CREATE DATABASE {database}")
    with contextlib.ExitStack() as undo:

        def call() -> ClickHouseStore:
            made = ClickHouseStore(f"clickhouse://{USER}@127.0.0.1:{server.port}/{database}", PASSWORD, clock)
            undo.callback(made.close)
            return made

        yield call
    server.do(f"DROP DATABASE {database}")


def insert(store: ClickHouseStore) -> None:
    """Insert events as `add` does, and be killed before their account."""
    posting = Books(()).post(batches(SENT), 0)
    store._write(Posting(posting.added, posting.text, {}), NOW_S)


def test_events_that_were_inserted_twice_are_one_each(opened: Open) -> None:
    store = opened()
    assert store.add(batches(SENT)) == [Added(3)]
    insert(store)
    assert numbers(store) == 3


def test_events_without_an_account_are_found_at_the_next_start(opened: Open) -> None:
    opened()
    insert(opened())
    again = opened()
    (account,) = again.accounts()
    assert (account.received, account.duplicates, account.rings[0].epoch) == (3, 0, EPOCH)
    assert again.add(batches(SENT)) == [Added(0, 3)]


def test_after_an_insert_of_which_the_end_is_unknown_the_accounts_are_read_anew(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = opened()
    do = store._link.do

    def lost(statement: str, *given: Any, **settings: Any) -> None:
        do(statement, *given, **settings)
        raise Unavailable("events: ClickHouse: the answer is lost")

    with monkeypatch.context() as patch:
        patch.setattr(store._link, "do", lost)
        with pytest.raises(Unavailable):
            store.add(batches(SENT))
    assert store.accounts()[0].received == 3
    assert store.add(batches(SENT)) == [Added(0, 3)]
    assert numbers(store) == 3


def test_a_wrong_password_is_one_line_that_does_not_tell_it(server: ClickHouse) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(f"clickhouse://{USER}@127.0.0.1:{server.port}/default", "wr0ng-secret")
    assert "wr0ng-secret" not in str(refused.value)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("value", ["gw", "{", "}{", '{"received_s":1,'])
def test_a_line_is_given_its_time_once_whatever_is_in_it(value: str) -> None:
    events = [{"observer.name": value, "event.sequence": number} for number in range(3)]
    text = b"".join(json.dumps(event, separators=(",", ":")).encode() + b"\n" for event in events)
    assert [json.loads(line) for line in received(text, 7).splitlines()] == [
        {"received_s": 7, **event} for event in events
    ]
