"""The flusher's process against real receivers: ClickHouse, OTLP, and TLS with certificates both ways."""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docskit import fences, read
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_agents.settings import load
from tidegate_schema import event, validation
from tidegate_schema.event import End, Kind
from unit.agents.flusherkit import Driven, fill, home, start
from unit.agents.kit import fields, jsonfile, until
from unit.agents.receivers import Authority, ClickHouse, clickhouse, otlp_receiver

PAGE = "docs/events.md"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    ring.create(tmp_path / "events.ring", 64)
    return tmp_path / "events.ring"


def put(path: Path, *records: event.Event) -> None:
    """Publish whole records, of any kind."""
    producer = Ring(path)
    memory, first, room, mask, number = producer.claim()
    assert len(records) <= room
    for n, record in enumerate(records):
        at = ring.HEADER_BYTES + (first + n & mask) * event.RECORD_BYTES
        event.LAYOUT.pack_into(memory, at, *record._replace(seq=number + n))
    producer.publish(len(records))
    producer.close()


def one_of_each() -> list[event.Event]:
    wall = 1_795_770_843_118_203_114
    return [
        event.Event(0, *fields(100 + kind, kind=kind, wall_ns=wall, start_ns=wall - 10**9, end=End.ENDED))
        for kind in Kind
    ]


def told(path: Path) -> dict[str, Any]:
    shown: dict[str, Any] = jsonfile.parse((home(path) / "status.json").read_bytes())
    return shown


def sent(path: Path, url: str, **settings: Any) -> dict[str, Any]:
    """Run the process until the ring is empty, and return its last status."""
    with start(path, url, **settings) as process:
        until("the ring is empty", lambda: Ring(path).pending() == 0)
        process.terminate()
        assert process.wait(10) == 0
    return told(path)


def test_the_settings_of_the_page_are_taken(tmp_path: Path) -> None:
    given = [fence.text for fence in fences(PAGE) if fence.language == "yaml"]
    assert len(given) == 4
    for text in given:
        (tmp_path / "gateway.yaml").write_text(text)
        assert load("gateway", tmp_path / "gateway.yaml")["log_endpoint"]


# ClickHouse ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    program = clickhouse()
    if program is None:
        pytest.skip("clickhouse-server is not installed")
    with contextlib.closing(ClickHouse(tmp_path_factory.mktemp("clickhouse"), program)) as made:
        made.do(statements()[0])
        yield made


def statements() -> list[str]:
    """Return the SQL of the page: the table, then the queries."""
    return [fence.text for fence in fences(PAGE) if fence.language == "sql"]


def insert_url() -> str:
    """Return the endpoint that the page gives for ClickHouse."""
    return next(word for word in read(PAGE).split('"') if word.startswith("https://clickhouse"))


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_clickhouse_takes_every_kind_of_event_field_by_field(
    path: Path, database: ClickHouse, compression: str
) -> None:
    database.do("TRUNCATE TABLE tidegate_events")
    records = one_of_each()
    put(path, *records)
    url = database.at(insert_url())
    shown = sent(path, url, authorization=database.basic, log_compression=compression)
    assert (shown["sent"], shown["dropped_by_reason"]) == (len(Kind), {})
    rows = database.ask("SELECT *, time FROM tidegate_events ORDER BY `event.sequence`")
    for number, (row, record) in enumerate(zip(rows, records, strict=True)):
        expected = event.to_json(record._replace(seq=number), "fra1", Ring(path).epoch, [])
        assert row.pop("time") == expected["@timestamp"][:19].replace("T", " ")
        found = {name: int(v) if isinstance(expected.get(name), int) else v for name, v in row.items()}
        assert {name: value for name, value in found.items() if name in expected} == expected
        assert all(not value or value == "0" for name, value in row.items() if name not in expected)


def test_clickhouse_s_table_has_a_column_for_each_field(database: ClickHouse) -> None:
    columns = {row["name"] for row in database.ask("DESCRIBE TABLE tidegate_events")}
    assert columns == set(validation.schema("event")["properties"]) | {"time"}


def test_clickhouse_drops_duplicates_and_shows_what_is_missing(path: Path, database: ClickHouse) -> None:
    database.do("TRUNCATE TABLE tidegate_events")
    fill(path, *range(70))  # 64 fit
    records = Ring(path).peek(64)
    url = database.at(insert_url())
    for _ in range(2):
        sent(path, url, authorization=database.basic)
        put(path, *(event.unpack(records[n * 144 : n * 144 + 144]) for n in range(64)))
    assert database.ask("SELECT count() AS n FROM tidegate_events") == [{"n": "128"}]
    fill(path, 1)
    sent(path, url, authorization=database.basic)
    (row,) = database.ask(statements()[1].replace(";", ""))
    assert (row["observer.name"], row["tidegate.epoch"]) == ("fra1", Ring(path).epoch)
    assert {name: int(row[name]) for name in ("received", "missing")}["missing"] == 6


def test_clickhouse_refuses_a_wrong_password_and_that_is_counted(path: Path, database: ClickHouse) -> None:
    fill(path, 1, 2)
    shown = sent(path, database.at(insert_url()), authorization="Basic d3Jvbmc6d3Jvbmc=")
    ((reason, count),) = shown["dropped_by_reason"].items()
    assert reason.startswith("http-")
    assert count == 2


# OTLP ---------------------------------------------------------------------------------------------------------


def test_an_otlp_receiver_takes_every_kind_of_event(path: Path) -> None:
    records = one_of_each()
    put(path, *records)
    with otlp_receiver() as receiver:
        shown = sent(path, receiver.url, log_format="otlp", authorization="Bearer abc")
        (request,) = receiver.requests
        (headers,) = receiver.headers
    assert (shown["sent"], shown["dropped_by_reason"]) == (len(Kind), {})
    assert headers["authorization"] == "Bearer abc"
    assert headers["tidegate-sequence"] == f"0-{len(Kind) - 1}"
    assert (headers["tidegate-gateway"], headers["tidegate-dropped"]) == ("fra1", "0")
    (resource,) = request.resource_logs
    (scope,) = resource.scope_logs
    for number, (log, record) in enumerate(zip(scope.log_records, records, strict=True)):
        expected = event.to_json(record._replace(seq=number), "fra1", Ring(path).epoch, [])
        assert event.timestamp(log.time_unix_nano) == expected.pop("@timestamp")
        found = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in log.attributes}
        assert found == expected


def test_a_partial_success_is_an_ack_whose_rejected_records_are_counted(path: Path) -> None:
    fill(path, *range(5))
    with otlp_receiver(rejects=2) as receiver:
        shown = sent(path, receiver.url, log_format="otlp")
    assert (shown["sent"], shown["dropped_by_reason"]) == (3, {"rejected": 2})
    assert shown["last_ack"] is not None


def test_more_than_was_sent_cannot_be_rejected(path: Path) -> None:
    fill(path, *range(5))
    with otlp_receiver(rejects=1 << 40) as receiver:
        shown = sent(path, receiver.url, log_format="otlp")
    assert (shown["sent"], shown["dropped_by_reason"]) == (0, {"rejected": 5})


def test_a_batch_of_otlp_holds_so_many_bytes(path: Path) -> None:
    fill(path, *range(10))
    with otlp_receiver() as receiver:
        one = Driven(path, receiver.url, is_otlp=True, octets=2000)
        while one.step(0.0, final=True):
            pass
        one.close()
        sizes = [request.ByteSize() for request in receiver.requests]
    assert one.sent == 10
    assert max(sizes) <= 2000
    assert len(sizes) > 2


# TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "authority")


def server_context(authority: Authority, *, asks: bool = True) -> ssl.SSLContext:
    papers = authority.certify("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(papers.certificate, papers.key)
    if asks:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(authority.certificate)
    return context


def test_both_sides_know_each_other_by_certificates(path: Path, authority: Authority) -> None:
    fill(path, 1, 2)
    papers = authority.certify("gateway-fra1")
    with otlp_receiver(tls=server_context(authority)) as receiver:
        shown = sent(
            path,
            receiver.url,
            log_format="otlp",
            log_ca_file=str(authority.certificate),
            log_cert_file=str(papers.certificate),
            log_key_file=str(papers.key),
        )
        (peer,) = receiver.peers
    assert (shown["sent"], shown["dropped_by_reason"]) == (2, {})
    assert peer["subject"] == ((("commonName", "gateway-fra1"),),)


def test_a_server_that_nobody_certified_gets_nothing(path: Path, authority: Authority) -> None:
    fill(path, 1, 2)
    with otlp_receiver(tls=server_context(authority, asks=False)) as receiver:
        shown = sent(path, receiver.url, log_format="otlp")
        assert receiver.requests == []
    assert shown["dropped_by_reason"] == {"tls": 2}


def test_a_server_of_another_name_gets_nothing(path: Path, authority: Authority) -> None:
    fill(path, 1)
    with otlp_receiver(tls=server_context(authority, asks=False)) as receiver:
        url = receiver.url.replace("127.0.0.1", "localhost")
        shown = sent(path, url, log_format="otlp", log_ca_file=str(authority.certificate))
        assert receiver.requests == []
    assert shown["dropped_by_reason"] == {"tls": 1}


def test_without_its_certificate_the_gateway_is_turned_away(path: Path, authority: Authority) -> None:
    fill(path, 1)
    with otlp_receiver(tls=server_context(authority)) as receiver:
        shown = sent(path, receiver.url, log_format="otlp", log_ca_file=str(authority.certificate))
        assert receiver.requests == []
    # In TLS 1.3 the server's alert comes behind the handshake, and a reset may overtake it.
    assert shown["dropped_by_reason"] in ({"tls": 1}, {"protocol": 1})


def test_plain_http_where_tls_is_expected_is_counted_so(path: Path) -> None:
    fill(path, 1)
    with otlp_receiver() as receiver:
        shown = sent(path, receiver.url.replace("http:", "https:"), log_format="otlp")
    assert shown["dropped_by_reason"] == {"tls": 1}
