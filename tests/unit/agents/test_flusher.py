"""The flusher against real endpoints on loopback, kind and hostile: it posts, counts, and is never held up."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_agents.events import ring
from tidegate_agents.events.flusher import Conditions, Flusher, PolicyNames, Sender, encode, readable
from tidegate_agents.events.ring import HEADER_BYTES, Ring
from tidegate_schema import event, jsonfile, validation
from unit.agents.kit import Batch, LogServer, drip, fields, log_server, raw_bytes, silence, status, until

TIMEOUT = 0.4


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ring.create(tmp_path / "events.ring", 64)
    return tmp_path / "events.ring"


def fill(path: Path, *numbers: int) -> None:
    producer = Ring(path)
    batch = Batch(producer)
    for number in numbers:
        batch.put(*fields(number))
    batch.publish()
    producer.close()


SENDERS: list[Sender] = []


@pytest.fixture(autouse=True)
def _close_senders() -> Iterator[None]:
    yield
    while SENDERS:
        SENDERS.pop().close()


def flusher(path: Path, url: str, batch: int = 100, timeout: float = TIMEOUT) -> Flusher:
    sender = Sender(url, timeout)
    SENDERS.append(sender)
    return Flusher(Ring(path), sender, Conditions(0.5, 1.0), batch, "fra1", PolicyNames(path.parent))


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


# Answers ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [200, 201, 202, 204, 299])
def test_any_2xx_is_an_ack_and_frees(path: Path, code: int) -> None:
    fill(path, 1, 2, 3)
    with log_server(status(code)) as server:
        one = flusher(path, server.url)
        assert one.step(0.0, final=True)
        assert (one.sent, dict(one.failed)) == (3, {})
        assert Ring(path).pending() == 0
        assert [line["length"] for line in server.lines()] == [1, 2, 3]
        assert one.last_ack is not None


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
        one = flusher(path, server.url, batch=2)
        began = time.monotonic()
        assert one.step(0.0, final=True)
        assert time.monotonic() - began < TIMEOUT + 1
        assert (one.sent, dict(one.failed), one.last_ack) == (0, {reason: 2}, None)
        assert one.step(0.0, final=True)
        assert (one.sent, dict(one.failed)) == (1, {reason: 2})
        assert Ring(path).pending() == 0
        assert [line["length"] for line in server.lines()][-1] == 3


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
        one = flusher(path, server.url)
        for number in range(3):
            fill(path, number)
            assert one.step(0.0, final=True)
        assert len(server.requests) == 3
        assert [line["length"] for line in server.lines()] == [0, 1, 2]
        assert all("cookie" not in headers for _, headers, _ in server.requests)
        assert len({line for line, _, _ in server.requests}) == 1


def test_one_connection_serves_many_batches(path: Path) -> None:
    with log_server(status(200, body=b"thank you")) as server:
        one = flusher(path, server.url)
        for number in range(5):
            fill(path, number)
            one.step(0.0, final=True)
        assert one.sent == 5


# What is sent -------------------------------------------------------------------------------------------------


def test_headers_say_what_the_batch_is(path: Path) -> None:
    fill(path, *range(70))  # 64 fit
    with log_server(status(204)) as server:
        one = flusher(path, server.url, batch=40)
        one.step(0.0)
        one.step(0.0, final=True)
        (line, headers, body), (_, second, _) = server.requests
        assert line == "POST /events HTTP/1.1"
        epoch = Ring(path).epoch
        assert headers["content-type"] == "application/x-ndjson"
        assert headers["user-agent"] == "tidegate"
        assert (headers["tidegate-gateway"], headers["tidegate-epoch"]) == ("fra1", epoch)
        assert (headers["tidegate-sequence"], second["tidegate-sequence"]) == ("0-39", "40-63")
        assert headers["tidegate-dropped"] == "6"
        assert body.endswith(b"\n")
        assert body.count(b"\n") == 40


def test_every_line_is_a_valid_event_with_its_policy_s_name(path: Path) -> None:
    rules = [{"policy": "eng-reads-prod-db"}]
    (path.parent / "3.json").write_bytes(jsonfile.canonical({"policy": {"rules": rules}}))
    fill(path, *range(10))
    with log_server(status(204)) as server:
        flusher(path, server.url).step(0.0, final=True)
        lines = server.lines()
    assert [validation.errors("event", line) for line in lines] == [[]] * 10
    assert {(line["gateway"], line["epoch"], line["policy"]) for line in lines} == {
        ("fra1", Ring(path).epoch, "eng-reads-prod-db")
    }


@pytest.mark.parametrize(
    "content", [None, b"", b"\xff", b"[]", b"{}", b'{"policy":null}', b'{"policy":{"rules":[{}]}}']
)
def test_without_a_generation_s_file_a_policy_stays_unnamed(path: Path, content: bytes | None) -> None:
    if content is not None:
        (path.parent / "3.json").write_bytes(content)
    fill(path, 1)
    (one,) = readable(Ring(path).peek(1))
    line = json.loads(encode([one], "g", "0" * 16, PolicyNames(path.parent)))
    assert "policy" not in line
    assert validation.errors("event", line) == []


def test_the_names_that_are_kept_are_bounded(tmp_path: Path) -> None:
    names = PolicyNames(tmp_path)
    for generation in range(500):
        names.of(generation)
    assert len(names._known) <= 64


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
        assert [line["length"] for line in server.lines()] == [0, 1, 3, 4]
        assert server.requests[0][1]["tidegate-sequence"] == "0-4"


def test_a_batch_of_nothing_readable_is_not_posted(path: Path) -> None:
    fill(path, 1, 2)
    for number in range(2):
        corrupt(path, number, 91, 77)
    with log_server(status(204)) as server:
        one = flusher(path, server.url)
        assert one.step(0.0, final=True)
        assert (dict(one.failed), server.requests, Ring(path).pending()) == ({"unreadable-record": 2}, [], 0)


@given(st.lists(st.binary(min_size=128, max_size=128), max_size=5))
def test_no_record_stops_the_flusher(records: list[bytes]) -> None:
    names = PolicyNames(Path("/nonexistent"))
    for line in encode(readable(records), "g", "0" * 16, names).splitlines():
        assert validation.errors("event", json.loads(line)) == []


def test_its_status_is_plain(path: Path) -> None:
    fill(path, 1)
    with log_server(status(500)) as server:
        one = flusher(path, server.url)
        one.step(0.0, final=True)
        shown = json.loads(json.dumps(one.status()))
    assert shown["dropped_by_reason"] == {"http-500": 1}
    assert (shown["pending"], shown["capacity"], shown["sent"], shown["pid"]) == (0, 64, 0, os.getpid())


# The process --------------------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[LogServer]:
    with log_server(status(204)) as made:
        yield made


def start(
    path: Path, url: str, post_timeout: float = 1.0, parent: int | None = None
) -> subprocess.Popen[bytes]:
    settings = {"log_endpoint": url, "flush_usage": 0.5, "flush_interval": 0.1, "batch_records": 100}
    file = path.parent / "settings.json"
    file.write_text(json.dumps(settings | {"post_timeout": post_timeout}))
    command = [
        sys.executable,
        "-m",
        "tidegate_agents.events.flusher",
        "--ring",
        str(path),
        "--gateway",
        "fra1",
    ]
    command += ["--generations", str(path.parent), "--status", str(path.parent / "flusher.json")]
    command += ["--parent", str(parent or os.getpid()), "--settings", str(file)]
    return subprocess.Popen(command)


def test_the_process_sends_in_time_and_the_rest_at_its_end(path: Path, server: LogServer) -> None:
    process = start(path, server.url)
    fill(path, 1, 2)
    until("both have come", lambda: len(server.lines()) == 2)
    fill(path, 3)
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert [line["length"] for line in server.lines()] == [1, 2, 3]
    shown = json.loads((path.parent / "flusher.json").read_bytes())
    assert (shown["sent"], shown["pending"]) == (3, 0)


def test_a_killed_process_s_successor_sends_again_under_the_same_identity(path: Path) -> None:
    fill(path, 1, 2)
    with log_server(silence, status(204)) as server:
        process = start(path, server.url, 60)
        until("it is sending", lambda: server.requests)
        process.kill()
        process.wait()
        assert Ring(path).pending() == 2
        successor = start(path, server.url)
        until("it is sent again", lambda: Ring(path).pending() == 0)
        successor.terminate()
        assert successor.wait(10) == 0
        (first, again) = (request[2] for request in server.requests)
        assert first == again


def test_a_process_started_by_nobody_ends_at_once(path: Path) -> None:
    assert start(path, "http://127.0.0.1:1/", parent=1).wait(10) != 0
