"""The flusher against real endpoints on loopback, kind and hostile: it posts, counts, and is never held up."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import json
import math
import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_agents.events import batches, ring
from tidegate_agents.events.batches import Conditions, Limits, Outbox
from tidegate_agents.events.flusher import gzip, joined
from tidegate_agents.events.names import PolicyNames
from tidegate_agents.events.ndjson import Ndjson
from tidegate_agents.events.otlp import Otlp
from tidegate_agents.events.ring import HEADER_BYTES, Ring
from tidegate_agents.events.sender import Sender, retry_after
from tidegate_agents.process import is_mapped
from tidegate_schema import event, jsonfile, validation
from unit.agents.flusherkit import TIMEOUT, USER, Driven, fill, home, start
from unit.agents.kit import NOW, LogServer, drip, fields, log_server, raw_bytes, silence, status, until


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ring.create(tmp_path / "events.ring", 64)
    return tmp_path / "events.ring"


DRIVEN: list[Driven] = []


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    while DRIVEN:
        DRIVEN.pop().close()


def flusher(paths: Path | list[Path], url: str, **options: Any) -> Driven:
    DRIVEN.append(Driven(paths, url, **options))
    return DRIVEN[-1]


# Conditions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pending", "waited", "due"),
    [
        *((0, 0.0, False), (0, 99.0, False), (1, 0.0, False), (1, 0.999, False), (1, 1.0, True)),
        *((31, 0.0, False), (32, 0.0, True), (64, 0.0, True), (31, 1.0, True)),
    ],
)
def test_a_flush_is_due_on_usage_or_time(pending: int, waited: float, due: bool) -> None:
    assert Conditions(0.5, 1.0).due(pending, 64, waited) is due


@given(st.integers(0, 64), st.floats(0, 10), st.floats(0.001, 1), st.floats(0.05, 3600))
def test_a_flush_is_due_exactly_then(pending: int, waited: float, usage: float, interval: float) -> None:
    expected = pending != 0 and not (pending < usage * 64 and waited < interval)
    assert Conditions(usage, interval).due(pending, 64, waited) is expected


def test_the_oldest_event_s_waiting_counts(path: Path) -> None:
    with log_server(status(204)) as server:
        one = flusher(path, server.url)
        assert not one.step(100.0)
        fill(path, 1)
        assert not one.step(200.0)
        fill(path, 2)
        assert not one.step(200.999)
        assert one.step(201.0)
        assert not one.step(201.0)
        fill(path, 3)
        assert not one.step(300.0)  # its waiting begins anew
        assert one.step(301.0)
        fill(path, *range(32))
        assert one.step(301.0)  # half full: at once
        assert one.sent == 35


def test_what_comes_during_a_flush_waits_its_own_time(path: Path) -> None:
    fill(path, 1, 2)
    with log_server(status(204)) as server:
        one = flusher(path, server.url, batch=1)
        assert not one.step(100.0)
        assert one.step(101.0)
        fill(path, 3)
        assert one.step(101.0)
        assert one.sent == 2
        assert not one.step(101.999)
        assert one.step(102.0)


# Answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_is_an_ack_and_frees(path: Path, code: int) -> None:
    fill(path, 1, 2, 3)
    with log_server(status(code)) as server:
        one = flusher(path, server.url)
        assert one.step(0.0, final=True)
        assert (one.sent, dict(one.failed)) == (3, {})
        assert Ring(path).pending() == 0
        assert [line["source.bytes"] for line in server.lines()] == [1, 2, 3]
        assert one.ledger.last_ack is not None


def garbage(count: int) -> bytes:
    return b"\x00\xff" * count


BAD: list[tuple[str, Any]] = [
    *((f"http-{code}", status(code)) for code in (400, 401, 413, 429, 500, 503)),
    ("http-429", status(429, "Retry-After: 3600\r\n")),
    ("http-304", status(304)),
    ("protocol", raw_bytes(b"")),
    ("protocol", raw_bytes(b"garbage\r\n\r\n")),
    ("protocol", raw_bytes(garbage(100))),
    ("protocol", raw_bytes(b"HTTP/1.1 abc OK\r\n\r\n")),
    *(("protocol", status(code)) for code in (600, 999)),
    ("protocol", raw_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort")),
    ("protocol", raw_bytes(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n")),
    ("protocol", raw_bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")),
    ("protocol", raw_bytes(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000)),
    ("endless-answer", drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 10_000, 0)),
    ("endless-answer", drip(b"HTTP/1.1 500 X\r\n\r\n", b"x" * 10_000, 0)),
    ("timeout", silence),
    ("timeout", drip(b"HTTP/1.1 200 OK\r\n\r\n", b"x", 0.02)),
    ("timeout", drip(b"HTTP/1.1 200 OK\r\nX: ", b"y", 0.02)),
    ("timeout", drip(b"", b"H", 10)),
    ("timeout", drip(b"", b"HTTP/1.1 100 Continue\r\n\r\n", 0.005)),
    ("timeout", drip(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n", 0.02)),
]


@pytest.mark.parametrize(
    ("reason", "answer"), BAD, ids=[f"{n}-{reason}" for n, (reason, _) in enumerate(BAD)]
)
def test_any_other_answer_drops_the_batch_counts_it_and_the_next_goes_on(
    path: Path, reason: str, answer: Any
) -> None:
    fill(path, 1, 2, 3)
    with log_server(answer, status(200)) as server:
        one = flusher(path, server.url, batch=2, retry_after_max=0)
        began = time.monotonic()
        assert one.step(0.0, final=True)
        assert time.monotonic() - began < TIMEOUT + 1
        assert (one.sent, dict(one.failed), one.ledger.last_ack) == (0, {reason: 2}, None)
        assert one.step(0.0, final=True)
        assert (one.sent, dict(one.failed)) == (1, {reason: 2})
        assert Ring(path).pending() == 0
        assert [line["source.bytes"] for line in server.lines()][-1] == 3


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_never_followed(path: Path, code: int) -> None:
    fill(path, 1)
    with log_server(status(200)) as target, log_server(status(code, f"Location: {target.url}\r\n")) as server:
        one = flusher(path, server.url)
        one.step(0.0, final=True)
        assert dict(one.failed) == {f"http-{code}": 1}
        assert len(server.requests) == 1
        assert target.requests == []


def test_a_refused_connection_is_counted(path: Path) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        fill(path, 1, 2)
        one = flusher(path, f"http://127.0.0.1:{closed.getsockname()[1]}/")
        one.step(0.0, final=True)
        assert dict(one.failed) == {"connect": 2}


@pytest.mark.parametrize(
    "url",
    ["http://a..b/", "http://[::1/", "http://", "http://x:99999/", "gopher://x/", "http://" + "a" * 300 + "/",
     "http://xn--/", "http://\u2028/", "https://127.0.0.1:1/", "http://%zz/", "http://0/"],
)  # fmt: skip
def test_an_endpoint_that_is_none_is_counted(path: Path, url: str) -> None:
    fill(path, 1)
    one = flusher(path, url, timeout=0.3)
    one.step(0.0, final=True)
    assert sum(one.failed.values()) == 1
    assert set(one.failed) <= {"connect", "protocol", "timeout"}


def test_a_proxy_in_the_environment_is_not_used(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(path, 1)
    with log_server(status(200)) as proxy, log_server(status(200)) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("ALL_PROXY", proxy.url)
        one = flusher(path, server.url)
        one.step(0.0, final=True)
        assert (one.sent, proxy.requests) == (1, [])


def test_nothing_the_receiver_says_steers_what_comes_after(path: Path) -> None:
    said = (
        'Retry-After: 99999\r\nSet-Cookie: a=b\r\nAlt-Svc: h2=":1"\r\nRefresh: 0; url=http://127.0.0.1/\r\n'
    )
    with log_server(status(200, said), status(503, said), status(200)) as server:
        one = flusher(path, server.url, retry_after_max=0)
        for number in range(3):
            fill(path, number)
            assert one.step(0.0, final=True)
        assert len(server.requests) == 3
        assert [line["source.bytes"] for line in server.lines()] == [0, 1, 2]
        assert all("cookie" not in headers for _, headers, _ in server.requests)
        assert len({line for line, _, _ in server.requests}) == 1


def test_one_connection_serves_many_batches(path: Path) -> None:
    with log_server(status(200, body=b"thank you")) as server:
        one = flusher(path, server.url)
        for number in range(5):
            fill(path, number)
            one.step(0.0, final=True)
        assert one.sent == 5


def test_a_connection_that_was_closed_while_idle_costs_no_batch(path: Path) -> None:
    closed = threading.Event()
    going = threading.Event()

    def close_later(connection: socket.socket, _ended: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 204 X\r\n\r\n")
        going.wait(5)
        connection.shutdown(socket.SHUT_RDWR)
        closed.set()

    with log_server(close_later) as server:
        one = flusher(path, server.url)
        for number in range(3):
            fill(path, number)
            one.step(0.0, final=True)
            going.set()
            assert closed.wait(5)  # and nobody has looked at the connection since
            closed.clear()
            going.clear()
        assert (one.sent, one.failed) == (3, {})
        assert [line["source.bytes"] for line in server.lines()] == [0, 1, 2]


def test_an_endpoint_that_closes_instead_of_answering_is_asked_once_more_at_most(path: Path) -> None:
    fill(path, 1, 2)
    with log_server(status(204), raw_bytes(b"")) as server:
        one = flusher(path, server.url, batch=1)
        one.step(0.0, final=True)
        one.step(0.0, final=True)
        assert (one.sent, one.failed) == (1, {"protocol": 1})
        assert len(server.requests) == 3


@pytest.mark.parametrize("stray", [b"HTTP/1.1 200 X\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 408 X\r\n\r\n"])
def test_what_comes_while_a_connection_is_idle_answers_no_batch(stray: bytes) -> None:
    going, said = threading.Event(), threading.Event()

    def speak_later(connection: socket.socket, _ended: threading.Event) -> None:
        connection.sendall(b"HTTP/1.1 204 X\r\n\r\n")
        going.wait(5)
        connection.sendall(stray)
        said.set()

    async def go(url: str) -> list[str | None]:
        sender = Sender(url, 5)
        first = await sender.post(b"1", {})
        going.set()
        assert said.wait(5)  # which holds the loop up: it has not looked at the connection since
        second = await sender.post(b"2", {})
        sender.close()
        return [first.reason, second.reason]

    with log_server(speak_later, status(500)) as server:
        assert asyncio.run(go(server.url)) == [None, "http-500"]
        assert server.bodies() == [b"1", b"2"]


def test_what_comes_right_behind_an_answer_answers_no_batch(path: Path) -> None:
    twice = b"HTTP/1.1 204 X\r\n\r\n" * 2
    with log_server(lambda connection, _: connection.sendall(twice), status(500)) as server:
        one = flusher(path, server.url)
        for number in range(2):
            fill(path, number)
            one.step(0.0, final=True)
        assert (one.sent, one.failed) == (1, {"http-500": 1})


def test_a_broken_answer_is_no_reason_to_ask_again(path: Path) -> None:
    with log_server(status(204), raw_bytes(b"HTTP/1.1 20"), status(204)) as server:
        one = flusher(path, server.url)
        for number in range(2):
            fill(path, number)
            one.step(0.0, final=True)
        assert (one.sent, one.failed) == (1, {"protocol": 1})
        assert len(server.requests) == 2


def test_a_connection_on_which_a_body_is_still_to_be_sent_is_used_for_no_other() -> None:
    """An answer may come before the receiver has read everything; what it then reads would be the rest."""
    kept: list[asyncio.StreamWriter] = []

    async def refuse_unread(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 X\r\nContent-Length: 0\r\n\r\n")

    async def go() -> list[str | None]:
        server = await asyncio.start_server(refuse_unread, "127.0.0.1", 0)
        sender = Sender(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/", 5)
        reasons = [(await sender.post(bytes(1 << 26), {})).reason for _ in range(2)]
        sender.close()
        server.close()
        for writer in kept:
            writer.transport.abort()
        return reasons

    assert asyncio.run(go()) == ["http-413", "http-413"]
    assert len(kept) == 2


# What is sent -------------------------------------------------------------------------------------------------


def test_headers_say_what_the_batch_is(path: Path) -> None:
    fill(path, *range(70))  # 64 fit
    with log_server(status(204)) as server:
        one = flusher(path, server.url, batch=40)
        one.step(0.0)
        one.step(0.0, final=True)
        (line, headers, _), (_, second, _) = server.requests
        assert line == "POST /events HTTP/1.1"
        epoch = Ring(path).epoch
        assert headers["content-type"] == "application/x-ndjson"
        assert headers["user-agent"] == "tidegate"
        assert (headers["tidegate-gateway"], headers["tidegate-epoch"]) == ("fra1", epoch)
        assert (headers["tidegate-sequence"], second["tidegate-sequence"]) == ("0-39", "40-63")
        assert headers["tidegate-dropped"] == "6"
        assert headers["content-encoding"] == "gzip"
        assert headers["accept-encoding"] == "identity"
        assert "authorization" not in headers
        (text, _) = server.bodies()
        assert text.endswith(b"\n")
        assert text.count(b"\n") == 40


def test_every_line_is_a_valid_event_with_its_policy_s_name(path: Path) -> None:
    (path.parent / "3.json").write_bytes(jsonfile.canonical(["eng-reads-prod-db"]))
    fill(path, *range(10))
    with log_server(status(204)) as server:
        flusher(path, server.url).step(0.0, final=True)
        lines = server.lines()
    assert [validation.errors("event", line) for line in lines] == [[]] * 10
    assert {(line["observer.name"], line["tidegate.epoch"], line["rule.name"]) for line in lines} == {
        ("fra1", Ring(path).epoch, "eng-reads-prod-db")
    }


def corrupt(path: Path, number: int, at: int, value: int) -> None:
    with path.open("r+b") as file:
        file.seek(HEADER_BYTES + number * event.RECORD_BYTES + at)
        file.write(bytes([value]))


@pytest.mark.parametrize(("at", "value"), [(91, 0), (91, 9), (84, 0), (84, 200), (85, 7), (86, 2), (87, 200)])
def test_a_record_that_cannot_be_read_is_counted_and_the_rest_goes_on(
    path: Path, at: int, value: int
) -> None:
    fill(path, *range(5))
    corrupt(path, 2, at, value)
    with log_server(status(204)) as server:
        one = flusher(path, server.url)
        assert one.step(0.0, final=True)
        assert (one.sent, dict(one.failed)) == (4, {"unreadable-record": 1})
        assert [line["source.bytes"] for line in server.lines()] == [0, 1, 3, 4]
        assert server.requests[0][1]["tidegate-sequence"] == "0-4"


def test_a_batch_of_nothing_readable_is_not_posted(path: Path) -> None:
    fill(path, 1, 2)
    for number in range(2):
        corrupt(path, number, 91, 77)
    with log_server(status(204)) as server:
        one = flusher(path, server.url)
        assert one.step(0.0, final=True)
        assert (dict(one.failed), server.requests, Ring(path).pending()) == ({"unreadable-record": 2}, [], 0)


def test_its_status_is_plain(path: Path) -> None:
    fill(path, 1)
    with log_server(status(500)) as server:
        one = flusher(path, server.url)
        one.step(0.0, final=True)
        shown = json.loads(json.dumps(one.flusher.status()))
    assert shown["dropped_by_reason"] == {"http-500": 1}
    assert (shown["pending"], shown["sent"], shown["pid"]) == (0, 0, os.getpid())
    assert (shown["in_flight"], shown["rate"], shown["last_ack"], shown["paused_until"]) == (0, 0, None, None)
    assert shown["rings"] == [{"epoch": Ring(path).epoch, "capacity": 64, "pending": 0, "settled": 0}]


# Being left alone ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("0", 0), ("7", 7), ("3600", 3600), ("9999999999", 9999999999)),
        *(("", 0), ("-1", 0), ("+5", 0), (" 5", 0), ("5.5", 0), ("\u0665", 0), ("1e3", 0), ("5, 6", 0)),
        *(
            ("99999999999", 99999999999),
            ("9" * 5000, math.inf),
            ("soon", 0),
            ("Fri, 99 Foo 2026 99:99:99 GMT", 0),
            ("Mon, 01 Jan", 0),
        ),
        (email.utils.formatdate(NOW + 90, usegmt=True), 90),
        (email.utils.formatdate(NOW - 90, usegmt=True), 0),
        ("Friday, 15-Jan-27 08:02:00 GMT", 120),  # RFC 850, which RFC 9110 has readers know
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    assert retry_after(value, NOW) == seconds


@given(st.text())
def test_no_retry_after_is_an_error_or_less_than_nothing(value: str) -> None:
    assert retry_after(value, NOW) >= 0


def test_an_endpoint_that_asks_for_it_is_left_alone_for_as_long(path: Path) -> None:
    fill(path, 1, 2)
    with log_server(status(503, "Retry-After: 1\r\n"), status(200)) as server:
        one = flusher(path, server.url, batch=1)
        one.step(time.monotonic(), final=True)
        asked = time.monotonic()
        paused = one.flusher.status()["paused_until"]
        assert abs(paused - time.time() - 1) < 0.5
        assert not one.step(asked, final=True)  # the ring absorbs
        assert not one.step(asked + 0.9, final=True)
        assert (one.failed, Ring(path).pending(), len(server.requests)) == ({"http-503": 1}, 1, 1)
        assert one.step(asked + 1.0, final=True)
        assert (one.sent, Ring(path).pending()) == (1, 0)


@pytest.mark.parametrize("code", [301, 400, 413, 429, 500, 503])
def test_any_failure_may_ask_for_a_pause_and_gets_what_the_setting_allows(path: Path, code: int) -> None:
    fill(path, 1, 2)
    with log_server(status(code, "Retry-After: 99999\r\n"), status(200)) as server:
        one = flusher(path, server.url, batch=1, retry_after_max=30)
        one.step(time.monotonic(), final=True)
        asked = time.monotonic()
        assert not one.step(asked + 29, final=True)
        assert one.step(asked + 30, final=True)
        assert one.sent == 1


def test_while_it_is_left_alone_a_full_ring_drops_and_counts(path: Path) -> None:
    fill(path, 0)
    with log_server(status(503, "Retry-After: 30\r\n"), status(200)) as server:
        one = flusher(path, server.url)
        one.step(time.monotonic(), final=True)
        fill(path, *range(70))
        assert not one.step(time.monotonic() + 1, final=True)
        assert one.step(time.monotonic() + 31)
        shown = one.flusher.status()
        assert (one.sent, shown["dropped_ring_full"]) == (64, 6)


# Several batches ----------------------------------------------------------------------------------------------


def test_so_many_batches_are_in_flight_and_no_more(path: Path) -> None:
    fill(path, *range(10))
    with log_server(silence) as server:
        one = flusher(path, server.url, batch=2, most=3, timeout=0.5)
        one.step(0.0, final=True)
        assert len(server.requests) == 3
        assert (one.failed, Ring(path).pending()) == ({"timeout": 6}, 4)


def test_what_is_acknowledged_out_of_order_is_freed_in_order(path: Path) -> None:
    fill(path, *range(6))
    released = threading.Event()

    def held(connection: socket.socket, _ended: threading.Event) -> None:
        released.wait(5)
        connection.sendall(b"HTTP/1.1 204 X\r\n\r\n")

    with log_server(held, status(204)) as server:
        one = flusher(path, server.url, batch=2, most=3, timeout=5)

        async def go() -> None:
            one.flusher._most = 1
            one.flusher.start(0.0, final=True)
            while not server.requests:  # so that it is the first batch that is held
                await asyncio.sleep(0.01)
            one.flusher._most = 3
            one.flusher.start(0.0, final=True)
            while len(one.flusher._posts) > 1:
                await one.flusher._wait()
            assert (Ring(path).pending(), one.sent) == (6, 0)  # the first one's answer is still to come
            released.set()
            while one.flusher._posts:
                await one.flusher._wait()

        one.run(go())
        assert (Ring(path).pending(), one.sent) == (0, 6)


def test_rings_have_their_turns_and_share_no_batch(tmp_path: Path) -> None:
    paths = [tmp_path / "events.ring", tmp_path / "flows.ring"]
    for number, one in enumerate(paths):
        ring.create(one, 64)
        fill(one, *range(10 * number, 10 * number + 4))
    with log_server(status(204)) as server:
        both = flusher(paths, server.url, batch=2)
        for _ in range(4):
            both.step(0.0, final=True)
        epochs = [headers["tidegate-epoch"] for _, headers, _ in server.requests]
        first, second = (Ring(one).epoch for one in paths)
        assert epochs == [first, second, first, second]
        assert [line["source.bytes"] for line in server.lines()] == [0, 1, 10, 11, 2, 3, 12, 13]
        assert {(line["tidegate.epoch"], line["source.bytes"] // 10) for line in server.lines()} == {
            (first, 0), (second, 1)
        }  # fmt: skip


def test_a_batch_holds_so_many_bytes_and_at_least_one_event(path: Path) -> None:
    fill(path, *range(10))
    with log_server(status(204)) as server:
        one = flusher(path, server.url)
        one.step(0.0, final=True)
        (whole,) = server.bodies()
        size = len(whole) // 10
    fill(path, *range(10))
    with log_server(status(204)) as server:
        one = flusher(path, server.url, octets=3 * (size + 1) + 2)
        for _ in range(4):
            one.step(0.0, final=True)
        assert [body.count(b"\n") for body in server.bodies()] == [3, 3, 3, 1]
        assert [headers["tidegate-sequence"] for _, headers, _ in server.requests][:2] == ["10-12", "13-15"]
    fill(path, 1, 2)
    with log_server(status(204)) as server:
        one = flusher(path, server.url, octets=1)
        one.step(0.0, final=True)
        assert [body.count(b"\n") for body in server.bodies()] == [1]


def test_at_the_edge_of_the_limit_in_bytes(path: Path) -> None:
    fill(path, 1, 2)
    with log_server(status(204)) as server:
        one = flusher(path, server.url)
        one.step(0.0, final=True)
        (body,) = server.bodies()
        shortest = len(body) - body.count(b" ")  # one by one, lines need no blanks
        for octets, first in ((len(body), 2), (shortest, 2), (shortest - 1, 1)):
            fill(path, 1, 2)
            one = flusher(path, server.url, octets=octets)
            one.step(0.0, final=True)
            assert server.bodies()[-1].count(b"\n") == first
            one.drain()


@pytest.mark.parametrize("pack", [gzip, joined])
def test_a_body_is_made_of_parts_that_use_the_same_memory(
    path: Path, monkeypatch: pytest.MonkeyPatch, pack: Any
) -> None:
    monkeypatch.setattr(batches, "_AT_ONCE", 3)
    fill(path, *range(10))
    codec = Ndjson("fra1", "0123456789abcdef", PolicyNames(-1))
    with contextlib.closing(Ring(path)) as consumer:
        batch = Outbox(consumer, Conditions(0.5, 1.0), Limits(100, 1 << 20), codec, pack).take()
    body = zlib.decompress(batch.body, wbits=31) if pack is gzip else batch.body
    assert [json.loads(line)["source.bytes"] for line in body.splitlines()] == [*range(10)]


@given(st.lists(st.sampled_from(["short", "long", None]), min_size=1, max_size=40), st.integers(1, 2000))
def test_any_records_leave_in_batches_that_keep_the_limit_in_bytes(
    kinds: list[str | None], most: int
) -> None:
    """None stands for a record that cannot be read."""
    size = event.RECORD_BYTES
    made = [event.Event(n, *fields(10**15 if kind == "long" else 7)) for n, kind in enumerate(kinds)]
    records = b"".join(
        event.LAYOUT.pack(*(one if kind else one._replace(version=77)))
        for one, kind in zip(made, kinds, strict=True)
    )
    found: list[int] = []
    while len(found) < len(kinds):
        left = records[len(found) * size :]
        queue = Waiting(left)
        codec = Ndjson("fra1", "0123456789abcdef", PolicyNames(-1))
        batch = Outbox(queue, Conditions(0.5, 1.0), Limits(100, most), codec, joined).take()  # type: ignore[arg-type]
        assert batch.records >= 1
        assert len(batch.body) <= most or batch.body.count(b"\n") == 1
        told = [json.loads(line)["event.sequence"] for line in batch.body.splitlines()]
        here = range(len(found), len(found) + batch.records)
        assert told == [n for n in here if kinds[n]]
        found += here


def test_what_cannot_be_read_leaves_even_where_no_body_has_room() -> None:
    one = event.LAYOUT.pack(*event.Event(0, *fields(7))._replace(version=77))
    codec = Otlp("fra1", "0123456789abcdef", PolicyNames(-1))
    box = Outbox(Waiting(one * 5), Conditions(0.5, 1.0), Limits(100, 1), codec, joined)  # type: ignore[arg-type]
    assert box.take().lost == {"unreadable-record": 5}


class Waiting:
    """The records of a ring."""

    record_bytes, capacity = event.RECORD_BYTES, 64

    def __init__(self, records: bytes) -> None:
        self._records = records

    def peek(self, limit: int, skip: int) -> bytes:
        return self._records


def test_what_is_lost_is_counted_before_it_is_freed(path: Path) -> None:
    fill(path, 1, 2, 3)
    with log_server(status(500), status(204)) as server:
        one = flusher(path, server.url, batch=2)
        one.step(0.0, final=True)
        (saved,) = one.saved
        assert (saved["pending"], saved["dropped_by_reason"]) == (3, {"http-500": 2})
        assert saved["rings"][0]["settled"] == 1
        assert Ring(path).pending() == 1


def test_what_is_lost_stays_while_that_cannot_be_saved(path: Path) -> None:
    fill(path, *range(6))
    with log_server(status(204), status(500), status(204)) as server:
        one = flusher(path, server.url, batch=2)
        one.can_save = False
        one.flusher.save()
        one.step(0.0, final=True)
        assert Ring(path).pending() == 4  # nothing was lost, so nothing needs to be saved
        one.drain()
        one.drain()
        assert (one.sent, one.failed, Ring(path).pending()) == (4, {"http-500": 2}, 4)
        assert len(server.requests) == 3  # what comes later is sent nevertheless, once
        one.can_save = True
        one.flusher.save()
        (saved,) = one.saved
        assert (saved["dropped_by_reason"], saved["rings"][0]["settled"]) == ({"http-500": 2}, 5)
        assert Ring(path).pending() == 0
        fill(path, 6)
        one.drain()
        assert (one.sent, Ring(path).pending()) == (5, 0)


def test_at_its_end_it_posts_all_that_waits_but_leaves_it_after_a_failure(path: Path) -> None:
    fill(path, *range(10))
    with log_server(status(204), status(204), status(500), status(204)) as server:
        one = flusher(path, server.url, batch=2)
        one.drain()
        assert (one.sent, one.failed, Ring(path).pending()) == (4, {"http-500": 2}, 4)
        one.drain()
        assert (one.sent, Ring(path).pending()) == (8, 0)


# The process --------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[LogServer]:
    with log_server(status(204)) as made:
        yield made


def test_the_process_sends_in_time_and_the_rest_at_its_end(path: Path, server: LogServer) -> None:
    with start([path, path.with_name("none.ring")], server.url) as process:
        fill(path, 1, 2)
        until("both have come", lambda: len(server.lines()) == 2)
        fill(path, 3)
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
    assert [line["source.bytes"] for line in server.lines()] == [1, 2, 3]
    shown = json.loads((home(path) / "status.json").read_bytes())
    assert (shown["sent"], shown["pending"]) == (3, 0)


def test_a_killed_process_s_successor_sends_again_under_the_same_identity(path: Path) -> None:
    fill(path, 1, 2)
    with log_server(silence, status(204)) as server:
        with start(path, server.url, post_timeout=60) as process:
            until("it is sending", lambda: server.requests)
            process.kill()
        assert Ring(path).pending() == 2
        with start(path, server.url) as successor:
            until("it is sent again", lambda: Ring(path).pending() == 0)
            successor.terminate()
            assert successor.wait(10) == 0
        (first, again) = (request[2] for request in server.requests)
        assert first == again


def test_a_successor_goes_on_counting_and_skips_what_was_counted_and_not_freed(
    path: Path, server: LogServer
) -> None:
    fill(path, 1, 2, 3)
    before = {"sent": 5, "dropped_by_reason": {"http-500": 2}, "last_ack": 1.5}
    rings = [{"epoch": Ring(path).epoch, "settled": 1}, {"epoch": "0" * 16, "settled": 99}]
    (home(path) / "status.json").write_text(json.dumps(before | {"rings": rings}))
    with start(path, server.url) as process:
        until("it is empty", lambda: Ring(path).pending() == 0)
        process.terminate()
    assert [line["source.bytes"] for line in server.lines()] == [3]
    shown = json.loads((home(path) / "status.json").read_bytes())
    assert (shown["sent"], shown["dropped_by_reason"]) == (6, {"http-500": 2})


@pytest.mark.parametrize(
    "before",
    ["", "[]", "{", '{"sent": -1}', '{"sent":1,"dropped_by_reason":{"a":true},"rings":[],"last_ack":null}',
     '{"sent":1,"dropped_by_reason":{},"rings":[7],"last_ack":null}',
     '{"sent":1,"dropped_by_reason":{},"rings":[],"last_ack":"x"}',
     '{"sent":1e400,"dropped_by_reason":{},"rings":[],"last_ack":null}'],
)  # fmt: skip
def test_a_status_that_is_none_is_not_gone_on_from(path: Path, server: LogServer, before: str) -> None:
    fill(path, 1)
    (home(path) / "status.json").write_text(before)
    with start(path, server.url) as process:
        until("it has come", lambda: server.lines())
        process.terminate()
        assert process.wait(10) == 0
    assert json.loads((home(path) / "status.json").read_bytes())["sent"] == 1


def test_of_a_long_ring_no_more_is_skipped_than_was_counted(tmp_path: Path, server: LogServer) -> None:
    path = tmp_path / "events.ring"
    ring.create(path, 8192)
    for first in range(0, 8192, 1024):
        fill(path, *range(first, first + 1024))
    before = {"sent": 0, "dropped_by_reason": {}, "last_ack": None}
    rings = [{"epoch": Ring(path).epoch, "settled": 8189}]
    (home(path) / "status.json").write_text(json.dumps(before | {"rings": rings}))
    with start(path, server.url) as process:
        until("it is empty", lambda: Ring(path).pending() == 0)
        process.terminate()
    assert [line["event.sequence"] for line in server.lines()] == [8190, 8191]


def test_a_ring_that_is_none_keeps_no_other_waiting(path: Path, server: LogServer) -> None:
    other = path.with_name("flows.ring")
    other.write_bytes(b"no ring" * 100)
    fill(path, 1)
    with start([other, path], server.url) as process:
        until("it has come", lambda: server.lines())
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read().startswith(f"flusher: {other}: not an event ring".encode())


def test_a_receiver_cannot_make_a_successor_forget(path: Path, server: LogServer) -> None:
    """Of all the reasons that it may give, each is counted by itself."""
    reasons = {f"http-{code}": 1 for code in range(300, 600)} | {"connect": 1, "timeout": 1}
    before = {"sent": 5, "dropped_by_reason": reasons, "last_ack": 1.5, "rings": []}
    (home(path) / "status.json").write_text(json.dumps(before))
    with start(path, server.url) as process:
        fill(path, 1)
        until("it has come", lambda: server.lines())
        process.terminate()
        assert process.wait(10) == 0
    shown = json.loads((home(path) / "status.json").read_bytes())
    assert (shown["sent"], shown["dropped_by_reason"]) == (6, reasons)


def test_a_process_started_by_nobody_ends_at_once(path: Path) -> None:
    with start(path, "http://127.0.0.1:1/", parent=1) as process:
        assert process.wait(10) != 0


def test_nothing_is_read_for_the_first_time_after_it_gave_up_its_user(path: Path, server: LogServer) -> None:
    """Else it would work only where that user may read Python's own files."""
    code = (
        "import os, sys; from tidegate_agents.events import flusher;"
        "seen = lambda name, what: name == 'open' and os.geteuid() == 61002"
        " and str(what[0]).endswith(('.py', '.pyc', '.so')) and os.write(2, f'{what[0]}\\n'.encode());"
        "sys.addaudithook(seen); sys.exit(flusher.main(sys.argv[1:]))"
    )
    if os.geteuid() != 0 or not is_mapped(USER):
        pytest.skip("needs root, who may become another user")
    fill(path, 1)
    url = server.url.replace("127.0.0.1", "localhost")
    with start(path, url, program=["-c", code]) as process:
        until("it has come", lambda: server.lines())
        process.terminate()
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_where_nobody_listens_it_tries_ever_more_rarely(path: Path) -> None:
    fill(path, *range(10))
    one = flusher(path, "http://127.0.0.1:9/", batch=1)
    rests = []
    for _ in range(6):
        assert one.step(math.inf, final=True)
        rests.append(one.flusher._rest)
    assert rests == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    assert not one.step(time.monotonic(), final=True)
    assert one.failed == {"connect": 6}
