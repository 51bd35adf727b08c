"""What a gateway's POST is answered, and what is stored then."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import zstandard
from google.protobuf import json_format
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

from tidegate_agents.events import otlp as agents_otlp
from tidegate_control.intake import desk
from tidegate_control.intake import otlp as intake_otlp
from tidegate_control.intake.lines import LINES_MOST
from tidegate_control.intake.store import Added, Batch, EventStore, Unavailable, open_store
from tidegate_schema.event import Kind
from unit.control.intake.appkit import Client, application
from unit.control.intake.kit import EPOCH, EVER, flow, ndjson, numbers, otlp, record

EVENTS = [record(n) for n in range(5)]
NDJSON, PROTOBUF, JSON = "application/x-ndjson", "application/x-protobuf", "application/json"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    (tmp_path / "state").mkdir(mode=0o700)
    made = open_store(f"duckdb://{tmp_path / 'state' / 'events.duckdb'}")
    yield made
    made.close()


@pytest.fixture
def client(store: EventStore) -> Iterator[Client]:
    with Client(application(store, intake_body_limit=1 << 16)) as made:
        yield made


def post(client: Client, body: bytes, path: str = "/v1/events", **headers: str) -> httpx.Response:
    kind = NDJSON if path == "/v1/events" else PROTOBUF
    sent = {"content-type": kind, "authorization": "Bearer tgc_fra1"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return client.ask("POST", path, content=body, headers=sent)


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
    told: dict[str, Any] = answer.json()
    assert told["status"] == status
    return told


PACK: dict[str, Callable[[bytes], bytes]] = {
    "identity": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.compress,
}


@pytest.mark.parametrize("encoding", PACK)
def test_events_are_stored_once_and_acknowledged(client: Client, store: EventStore, encoding: str) -> None:
    body = PACK[encoding](ndjson(EVENTS))
    for expected in ({"stored": 5, "duplicates": 0}, {"stored": 0, "duplicates": 5}):
        answer = post(client, body, content_encoding=encoding)
        assert (answer.status_code, answer.json()) == (200, {**expected, "refused": 0})
        assert numbers(store) == 5


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
def test_otlp_is_stored_as_the_same_events(client: Client, store: EventStore, kind: str) -> None:
    mixed = [*EVENTS, flow(5, Kind.FLOW_CLOSE, end=1), flow(6, Kind.GAP)]
    body = otlp(mixed)
    if kind == JSON:
        body = json_format.MessageToJson(ExportLogsServiceRequest.FromString(body)).encode()
    answer = post(client, body, "/v1/logs", content_type=kind)
    assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
    assert answer.content == (b"" if kind == PROTOBUF else b"{}")
    # By lines they are duplicates, to the last one.
    assert post(client, ndjson(mixed)).json() == {"stored": 0, "duplicates": 7, "refused": 0}
    by_otlp = sorted(store.aggregated(EVER))
    again = post(client, ndjson(mixed, epoch="f" * 16))
    assert again.json()["stored"] == 7
    assert sorted(g._replace(count=g.count // 2, packets=g.packets // 2, bytes=g.bytes // 2) for g in
                  store.aggregated(EVER)) == by_otlp  # fmt: skip


def test_otlp_says_what_it_rejects_so_that_the_gateway_counts_it(client: Client, store: EventStore) -> None:
    request = ExportLogsServiceRequest.FromString(otlp(EVENTS))
    logs = request.resource_logs[0].scope_logs[0].log_records
    logs[1].attributes.add(key="payload").value.string_value = "x"
    logs[2].attributes.add(key="event.sequence").value.int_value = 9
    logs[3].time_unix_nano = (1 << 64) - 1
    answer = post(client, request.SerializeToString(), "/v1/logs")
    assert (answer.status_code, agents_otlp.rejected(answer.content)) == (200, 3)
    said = ExportLogsServiceResponse.FromString(answer.content).partial_success.error_message
    assert said.startswith("2: ")
    assert numbers(store) == 2
    (account,) = store.accounts()
    assert (account.refused, account.missing) == (3, 3)


def test_a_bad_line_is_named_and_the_good_ones_are_stored(client: Client, store: EventStore) -> None:
    body = ndjson(EVENTS[:2]) + b'{"event.sequence":1}\n' + ndjson(EVENTS[3:])
    told = problem(post(client, body), 400)
    assert (told["stored"], told["refused"], told["lines"][0]["line"]) == (4, 1, 3)
    assert told["detail"].startswith("line 3: ")
    assert numbers(store) == 4
    (account,) = store.accounts()
    assert account.refused == 1


def test_a_body_of_nothing_is_no_mistake(client: Client, store: EventStore) -> None:
    assert post(client, b"").json() == {"stored": 0, "duplicates": 0, "refused": 0}
    assert post(client, b"", "/v1/logs").status_code == 200


@pytest.mark.parametrize("path", ["/v1/events", "/v1/logs"])
@pytest.mark.parametrize(
    ("token", "status", "named"),
    [
        ("", 401, "send a token"),
        ("Bearer tgc_unknown", 401, "send a token"),
        ("Bearer tgc_reader", 403, "gateway-intake"),
        ("Bearer tgc_loose", 403, "no gateway's"),
        ("Bearer tgc_ams1", 403, "observer.name is fra1, the token is ams1's"),
    ],
    ids=["none", "unknown", "reader", "of-no-gateway", "of-another-gateway"],
)
def test_who_may_not(
    client: Client, store: EventStore, path: str, token: str, status: int, named: str
) -> None:
    body = ndjson(EVENTS) if path == "/v1/events" else otlp(EVENTS)
    answer = post(client, body, path, authorization=token)
    assert named in problem(answer, status)["detail"]
    assert (status != 401) or "WWW-Authenticate" in answer.headers
    assert (numbers(store), store.accounts()) == (0, [])


def test_nobody_s_body_is_read_before_it_is_known_who_sends_it(client: Client) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("it is read")
        yield b""

    sent = {"content-type": NDJSON}
    assert client.ask("POST", "/v1/events", content=never(), headers=sent).status_code == 401


REFUSED: list[tuple[str, dict[str, str], bytes, int, str]] = [
    ("type", {"content_type": "application/json"}, ndjson(EVENTS), 415, "send Content-Type: application/x-ndjson"),
    ("encoding", {"content_encoding": "br"}, ndjson(EVENTS), 415, "Content-Encoding: one of identity, gzip, zstd"),
    ("chain", {"content_encoding": "gzip, gzip"}, b"", 415, "Content-Encoding"),
    ("not-gzip", {"content_encoding": "gzip"}, ndjson(EVENTS), 400, "not gzip"),
    ("long", {}, b"x" * (1 << 17), 413, "more than 65536 bytes"),
    ("bomb", {"content_encoding": "gzip"}, gzip.compress(bytes(1 << 24)), 413, "set batch_bytes"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("headers", "body", "status", "named"), [x[1:] for x in REFUSED], ids=[x[0] for x in REFUSED]
)
def test_what_is_not_read(
    client: Client, store: EventStore, headers: dict[str, str], body: bytes, status: int, named: str
) -> None:
    assert named in problem(post(client, body, **headers), status)["detail"]
    assert numbers(store) == 0


def test_more_events_than_a_gateway_sends_at_once_are_refused(store: EventStore) -> None:
    with Client(application(store)) as client:
        assert "set batch_records" in problem(post(client, b"\n" * (LINES_MOST + 1)), 413)["detail"]
        many = ExportLogsServiceRequest()
        logs = many.resource_logs.add().scope_logs.add().log_records
        for _ in range(LINES_MOST + 1):
            logs.add()
        assert problem(post(client, many.SerializeToString(), "/v1/logs"), 413)


def message(tag: int, inner: bytes) -> bytes:
    """Return a field of protobuf that is a message."""
    size, told = len(inner), b""
    while size > 127:
        size, told = size >> 7, told + bytes([size & 127 | 128])
    return bytes([tag]) + told + bytes([size]) + inner


_MANY = LINES_MOST + 1
BOMBS = {
    "records": message(0x0A, message(0x12, b"\x12\x00" * _MANY)),
    "scopes": message(0x0A, b"\x12\x00" * _MANY),
    "resources": b"\x0a\x00" * _MANY,
    "numbers": b"\x38\x00" * 2 * _MANY,
}


@pytest.mark.parametrize("name", list(BOMBS))
def test_what_is_large_only_when_it_is_read_is_refused_unread(
    store: EventStore, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake_otlp, "ExportLogsServiceRequest", None)
    with Client(application(store)) as client:
        assert "set batch_records" in problem(post(client, BOMBS[name], "/v1/logs"), 413)["detail"]


@pytest.mark.parametrize("one", ["{}", "[]"])
def test_json_that_is_large_only_when_it_is_read_is_refused_unread(
    client: Client, one: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(count: int) -> bytes:
        records = ",".join([one] * count)
        return f'{{"resourceLogs": [{{"scopeLogs": [{{"logRecords": [{records}]}}]}}]}}'.encode()

    assert post(client, body(900), "/v1/logs", content_type=JSON).status_code == 200
    monkeypatch.setattr(intake_otlp, "ExportLogsServiceRequest", None)
    told = problem(post(client, body(20_000), "/v1/logs", content_type=JSON), 400)
    assert told["detail"] == "more objects than log records of events have"


@pytest.mark.parametrize("kind", [PROTOBUF, JSON])
@pytest.mark.parametrize(
    "body",
    [b"\xff\xff\xff", b"[" * 5000, b'{"resourceLogs": 1}', b"\x0a\x05\x12"],
    ids=["bytes", "deep", "other", "short"],
)
def test_what_is_no_otlp_is_refused(client: Client, kind: str, body: bytes) -> None:
    told = problem(post(client, body, "/v1/logs", content_type=kind), 400)
    assert told["detail"] == "not an ExportLogsServiceRequest"


def test_what_the_ring_dropped_is_kept_and_nonsense_is_not(client: Client, store: EventStore) -> None:
    for dropped in ("7", "-1", "1e3", "9" * 30, "", "5"):
        post(client, ndjson(EVENTS), tidegate_dropped=dropped)
    (account,) = store.accounts()
    assert account.dropped == 7
    assert account.rings[0].epoch == EPOCH


class Refusing:
    """A store that answers as it is told."""

    def __init__(self, answer: Exception | list[Added]) -> None:
        self._answer = answer

    def add(self, _batches: Sequence[Batch]) -> list[Added]:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def answered(answer: Exception | list[Added]) -> httpx.Response:
    store: Any = Refusing(answer)
    with Client(application(store)) as client:
        return post(client, ndjson(EVENTS))


def test_a_store_that_does_not_answer_is_a_pause_of_some_seconds_and_tells_nothing_of_itself() -> None:
    answer = answered(Unavailable("events: DuckDB: /var/lib: disk full"))
    assert "DuckDB" not in problem(answer, 503)["detail"]
    assert answer.headers["retry-after"] == str(desk.LONG_PAUSE_S)


def test_a_mistake_of_the_store_is_no_answer_of_500() -> None:
    assert (
        problem(answered(RuntimeError("oops")), 503)["detail"] == "the events cannot be stored at the moment"
    )


def test_what_is_too_old_to_tell_is_not_acknowledged() -> None:
    told = problem(answered([Added(3, 1, 1)]), 409)
    assert told["detail"] == "1 events are too old to tell them from duplicates"
    assert (told["stored"], told["duplicates"]) == (3, 1)


def test_where_there_is_no_room_a_gateway_is_asked_to_wait(
    store: EventStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(desk, "Room", lambda: desk.bodies.Room(100))
    with Client(application(store)) as client:
        answer = post(client, ndjson(EVENTS))
        assert (problem(answer, 503)["title"], answer.headers["retry-after"]) == (
            "Not now",
            str(desk.PAUSE_S),
        )


def test_a_sender_that_drips_is_cut_off(store: EventStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk, "READ_S", 0.0)
    with Client(application(store)) as client:
        assert problem(post(client, ndjson(EVENTS)), 408)


def test_no_answer_says_more_than_a_status_a_pause_and_counts(client: Client) -> None:
    """Design, section 1: nothing that a log receiver answers may steer a gateway beyond a pause."""
    answer = post(client, ndjson(EVENTS))
    assert set(answer.headers) <= {"content-type", "content-length"}
    assert set(json.loads(answer.content)) == {"stored", "duplicates", "refused"}


def test_other_methods_are_not_there(client: Client) -> None:
    assert client.ask("GET", "/v1/events").status_code == 405
    assert client.ask("DELETE", "/v1/logs").status_code == 405
