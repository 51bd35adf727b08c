"""kill -9 of the server, and of ClickHouse, while gateways send: what had its ACK is there, once."""

from __future__ import annotations

import contextlib
import http.client
import random
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_control.intake import queries
from tidegate_control.intake.store import EventStore, open_store
from tidegate_schema import jsonfile
from unit.agents.flusherkit import fill, home, start
from unit.agents.kit import until
from unit.agents.receivers import PASSWORD, USER, ClickHouse, clickhouse
from unit.control.intake.kit import EVER, ndjson, record
from unit.control.intake.serverkit import Server

BATCH, SENDERS, KILLS, BETWEEN = 40, 3, 2, 8
"""Events of a batch; gateways' rings that send at once; kills; batches with an ACK from one kill to the next."""


class Sender(threading.Thread):
    """Sends a ring's events batch by batch, each until it has its ACK, as flushers after each other do."""

    def __init__(self, server: Server, number: int) -> None:
        super().__init__(daemon=True)
        self.epoch = f"{number:016x}"
        self.acked: list[int] = []
        self.again = 0
        self.stopping = threading.Event()
        self._token = server.token
        self._connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)

    def run(self) -> None:
        first = 0
        while not self.stopping.is_set():
            numbers = range(first, first + BATCH)
            if self._post(ndjson([record(n) for n in numbers], epoch=self.epoch)):
                self.acked += numbers
                first += BATCH
            else:
                self.again += 1
                self.stopping.wait(0.01)
        self._connection.close()

    def _post(self, body: bytes) -> bool:
        headers = {"authorization": f"Bearer {self._token}", "content-type": "application/x-ndjson"}
        try:
            self._connection.request("POST", "/v1/events", body, headers)
            with (
                self._connection.getresponse() as answer
            ):  # else one that a kill cuts off keeps the socket open
                answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return False
        return answer.status == 200


@pytest.fixture
def running(url: str, tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "server").mkdir()
    made = Server(url, tmp_path / "server")
    made.start()
    yield made
    made.kill()


def identities(store: EventStore) -> Counter[tuple[str, int]]:
    """Return every event as often as queries show it."""
    table = f"{queries.EVENTS} FINAL" if hasattr(store, "_link") else queries.EVENTS
    rows = store._ask(f'SELECT "tidegate.epoch", "event.sequence" FROM {table}')  # type: ignore[attr-defined]
    return Counter(rows)


def check(store: EventStore, senders: list[Sender]) -> None:
    """Every event with an ACK is there, none twice; and the accounts say what is there."""
    found = identities(store)
    assert set(found.values()) == {1}
    acked = {(sender.epoch, number) for sender in senders for number in sender.acked}
    assert acked <= set(found)
    # Beyond them there can be the one batch of each that was on its way.
    assert len(found) - len(acked) <= BATCH * len(senders)
    (account,) = store.accounts()
    assert account.received == len(found)
    assert account.missing == 0


def sending(server: Server) -> list[Sender]:
    senders = [Sender(server, n) for n in range(SENDERS)]
    for sender in senders:
        sender.start()
    return senders


def more_acks(senders: list[Sender]) -> None:
    """Wait until some more batches have their ACK."""
    wanted = sum(len(sender.acked) for sender in senders) + BETWEEN * BATCH
    until("batches are acknowledged", lambda: sum(len(sender.acked) for sender in senders) >= wanted, 60)


def stopped(senders: list[Sender]) -> None:
    for sender in senders:
        sender.stopping.set()
    for sender in senders:
        sender.join(30)
        assert not sender.is_alive()


def test_the_server_is_killed_while_gateways_send(running: Server, url: str) -> None:
    rng = random.Random(7)
    senders = sending(running)
    for _ in range(KILLS):
        more_acks(senders)
        threading.Event().wait(rng.random() * 0.02)  # anywhere in what it does
        running.kill()
        running.start()
    more_acks(senders)
    running.kill()
    stopped(senders)
    assert sum(sender.again for sender in senders) > 0
    store = open_store(url, PASSWORD)
    check(store, senders)
    store.close()


def test_clickhouse_is_killed_while_gateways_send(tmp_path: Path) -> None:
    program = clickhouse()
    if program is None:
        pytest.skip("clickhouse-server is not installed")
    with contextlib.ExitStack() as undo:
        for name in ("clickhouse", "server"):
            (tmp_path / name).mkdir()
        place = tmp_path / "clickhouse"
        database = undo.enter_context(contextlib.closing(ClickHouse(place, program)))
        server = Server(f"clickhouse://{USER}@127.0.0.1:{database.port}/default", tmp_path / "server")
        undo.callback(server.kill)
        server.start()
        senders = sending(server)
        for _ in range(2):
            more_acks(senders)
            database.close()  # kill -9
            database = undo.enter_context(contextlib.closing(ClickHouse(place, program, database.port)))
        more_acks(senders)
        stopped(senders)
        server.stop()
        store = open_store(server.store, PASSWORD)
        check(store, senders)
        store.close()


@pytest.mark.parametrize("log_format", ["ndjson", "otlp"])
def test_a_real_flusher_s_events_are_all_there(
    running: Server, url: str, tmp_path: Path, log_format: str
) -> None:
    path = tmp_path / "events.ring"
    ring.create(path, 1024)
    fill(path, *range(1, 501))
    endpoint = f"{running.url}/v1/{'events' if log_format == 'ndjson' else 'logs'}"
    chosen: dict[str, Any] = {
        "authorization": f"Bearer {running.token}",
        "log_format": log_format,
        "post_timeout": 20.0,
    }
    with start(path, endpoint, **chosen) as process:
        until("the ring is empty", lambda: Ring(path).pending() == 0, 30)
        process.terminate()
        assert process.wait(10) == 0
    told = jsonfile.parse((home(path) / "status.json").read_bytes())
    assert (told["sent"], told["dropped_by_reason"]) == (500, {})
    running.stop()
    store = open_store(url, PASSWORD)
    assert identities(store) == Counter((Ring(path).epoch, n) for n in range(500))
    assert sum(group.bytes for group in store.aggregated(EVER)) == sum(range(1, 501))
    store.close()
