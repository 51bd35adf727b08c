"""Lines are read strictly, the quick way as the careful one."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_control.intake import lines
from tidegate_control.intake.lines import COUNT_MOST, TRAFFIC_MOST, Foreign, TooMany, read
from tidegate_schema import event, validation
from tidegate_schema.event import Kind
from unit.agents.test_flusher_codecs import EPOCH as CODEC_EPOCH
from unit.agents.test_flusher_codecs import Named, Ndjson, plausible, records
from unit.control.intake.kit import EPOCH, OTHER_EPOCH, flow, ndjson, record

GOOD = [record(1), record(2, protocol=17), flow(3, Kind.FLOW_CLOSE, end=1), flow(4, Kind.FLOW_OPEN)]


def is_quick(line: bytes) -> bool:
    return lines._of_one_ring(line, 1, "fra1", 0) is not None


def carefully(line: bytes) -> dict[str, Any] | None:
    """Return what a line says, None when the careful way refuses it."""
    try:
        event = lines._parsed(line.removesuffix(b"\n"))
    except ValueError:
        return None
    return event if lines.wrong(event) is None else None


def changed(**members: Any) -> bytes:
    """Return a good line with members changed; None takes one out."""
    event = json.loads(ndjson([flow(3, Kind.FLOW_CLOSE, end=1)]))
    event |= {name.replace("__", "."): value for name, value in members.items()}
    left = {("@timestamp" if k == "timestamp" else k): v for k, v in event.items() if v is not None}
    return json.dumps(left, separators=(",", ":")).encode() + b"\n"


def why(line: bytes) -> str:
    (refusal,) = read(line, "fra1").refused
    assert refusal.line == 1
    return refusal.why


def test_every_kind_of_line_that_gateways_write_is_read_quickly_but_gaps() -> None:
    for kind in Kind:
        line = ndjson([flow(9, kind, end=1 if kind == Kind.FLOW_CLOSE else 0)])
        assert is_quick(line) == (kind is not Kind.GAP)
        (batch,) = read(line, "fra1").batches
        assert (batch.gateway, batch.epoch, batch.numbers, batch.text) == ("fra1", EPOCH, (9,), line)


@pytest.mark.parametrize("kind", [Kind.PACKET, Kind.FLOW_UPDATE, Kind.FLOW_CLOSE])
@pytest.mark.parametrize(
    "one",
    [
        *({"monotonic_ns": 12345}, {"source_port": 12345}, {"destination_port": 12345}, {"length": 12345}),
        *({"packets": 12345}, {"reply_packets": 12345}, {"reply_length": 12345}),
        *({"rule": event.NO_RULE}, {"destination": event.mapped(bytes([127, 255, 255, 255]))}),
    ],
)
def test_blanks_where_gateways_write_them_are_read_quickly(kind: Kind, one: dict[str, Any]) -> None:
    text = ndjson([flow(10_000 + n, kind, **changes) for n, changes in enumerate(({}, one))])
    assert [is_quick(line) for line in text.splitlines(keepends=True)] == [True, True]
    assert b" " in text or kind == Kind.PACKET  # of which replies are not told


@given(st.lists(plausible, min_size=1, max_size=8))
@settings(max_examples=200, deadline=None)
def test_what_a_gateway_writes_of_any_record_is_read_the_same_both_ways(made: list[bytes]) -> None:
    text, _ = Ndjson("fra1", CODEC_EPOCH, Named(["eng-reads-prod-db"])).encode(records(*made))
    for line in bytes(text).splitlines(keepends=True):
        event = carefully(line)
        assert not is_quick(line) or event == json.loads(line)
        traffic = ("source.packets", "source.bytes", "destination.packets", "destination.bytes")
        small = all(json.loads(line).get(name, 0) < 10**15 for name in traffic)
        if event is not None and small and event["event.action"] != "gap":
            assert is_quick(line)


@given(st.sampled_from(GOOD), st.data())
@settings(max_examples=500, deadline=None)
def test_a_line_that_was_tampered_with_is_quickly_read_only_when_the_careful_way_reads_the_same(
    one: Any, data: st.DataObject
) -> None:
    line = bytearray(ndjson([one])[:-1])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(line) - 1))
        taken = data.draw(st.integers(0, 3))
        line[at : at + taken] = data.draw(
            st.sampled_from([b"0", b"9", b'"', b",", b"a", b"}", b" ", b"-", b"\\", b""])
        )
    spoilt = bytes(line) + b"\n"
    try:
        quick = is_quick(spoilt)
    except Foreign:
        return
    if quick:
        event = carefully(spoilt)
        assert event is not None
        assert event == json.loads(spoilt)


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("a member that nobody knows", {"payload": "x"}, "payload"),
    ("no sequence", {"event__sequence": None}, "event.sequence"),
    ("a sequence below zero", {"event__sequence": -1}, "event.sequence"),
    ("a sequence past 63 bits", {"event__sequence": COUNT_MOST + 1}, "event.sequence"),
    ("a sequence with a fraction", {"event__sequence": 1.0}, "event.sequence"),
    ("a sequence that is a truth", {"event__sequence": True}, "event.sequence"),
    ("a number past what sums have room for", {"source__bytes": TRAFFIC_MOST + 1}, "source.bytes"),
    ("a generation past 32 bits", {"tidegate__generation": 1 << 32}, "tidegate.generation"),
    ("a port past 65535", {"destination__port": 65536}, "destination.port"),
    ("a protocol past 255", {"network__iana_number": 256, "network__transport": None}, "network.iana_number"),
    ("another protocol's name", {"network__transport": "udp"}, "network.transport"),
    ("an address that is a name", {"destination__address": "db.example.net"}, "destination.address"),
    ("an address with zeros", {"source__address": "10.064.0.11"}, "source.address"),
    ("an address in long form", {"source__address": "fd64:0:0:0:0:0:0:1"}, "source.address"),
    ("an address with a zone", {"source__address": "fe80::1%eth0"}, "source.address"),
    (
        "a month that is none",
        {"@timestamp": "2026-13-01T00:00:00.000000000Z", "event__end": None},
        "@timestamp",
    ),
    ("a day that is none", {"event__start": "2026-02-30T00:00:00.000000000Z"}, "event.start"),
    ("a time before 1970", {"event__start": "1969-12-31T23:59:59.000000000Z"}, "event.start"),
    (
        "a time that ClickHouse has no room for",
        {"event__start": "2106-12-31T23:59:59.000000000Z"},
        "event.start",
    ),
    ("an end that is not the time", {"event__end": "2026-01-01T00:00:00.000000000Z"}, "event.end"),
    ("an end of what does not end", {"event__action": "flow-update"}, "event.end"),
    ("a name with a newline", {"rule__name": "eng\n"}, "rule.name"),
    ("a formula", {"rule__name": "=1+1"}, "rule.name"),
    ("markup", {"tidegate__client__id": "<b>"}, "tidegate.client.id"),
    ("an epoch that is too short", {"tidegate__epoch": "0123"}, "tidegate.epoch"),
    ("a verdict that nobody gives", {"tidegate__verdict": "maybe"}, "tidegate.verdict"),
]


@pytest.mark.parametrize(("members", "named"), [x[1:] for x in REFUSED], ids=[x[0] for x in REFUSED])
def test_no_event(members: dict[str, Any], named: str) -> None:
    line = changed(**members)
    assert not is_quick(line)
    assert named in why(line)


SPOILT: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("twice", lambda line: line.replace(b'{"', b'{"event.sequence":0,"', 1), "a member stands twice"),
    ("nan", lambda line: line.replace(b'"event.sequence":3', b'"event.sequence":NaN'), "no numbers"),
    ("latin-1", lambda line: line.replace(b"fra1", b"fr\xe41"), "not UTF-8"),
    ("long", lambda line: line.replace(b"}", b" " * lines.LINE_MOST + b"}"), "longer than"),
    ("half", lambda line: line[: len(line) // 2], "not JSON"),
    ("list", lambda line: b"[" + line[:-1] + b"]", "no JSON object"),
    ("two", lambda line: line.rstrip() + line, "a second event in the line, at column "),
    ("junk", lambda line: line.rstrip() + b"x", "not JSON: Extra data"),
    ("deep", lambda line: b"[" * 4000, "not JSON"),
    ("empty", lambda line: b"\n", "not JSON"),
    ("zeros", lambda line: line.replace(b'"event.sequence":3', b'"event.sequence":03'), "not JSON"),
]


@pytest.mark.parametrize(("spoil", "named"), [x[1:] for x in SPOILT], ids=[x[0] for x in SPOILT])
def test_no_line(spoil: Callable[[bytes], bytes], named: str) -> None:
    assert named in why(spoil(changed()))


def test_the_reason_is_printable() -> None:
    assert "\x1b" not in why(changed(rule__name="\x1b[2J"))


def test_a_bad_line_takes_no_other_with_it_and_is_counted() -> None:
    good = ndjson([record(1), record(2)])
    reading = read(good + b"junk\n" + ndjson([record(5)]), "fra1")
    kept, refused = reading.batches
    assert kept.numbers == (1, 2, 5)
    assert [(one.line, one.why.partition(":")[0]) for one in reading.refused] == [(3, "not JSON")]
    assert (refused.epoch, refused.refused, refused.text) == ("", 1, b"")


def test_what_is_written_otherwise_is_written_anew() -> None:
    line = ndjson([record(1)])
    spaced = json.dumps(json.loads(line), indent=None, separators=(", ", ": "), sort_keys=True).encode()
    (batch,) = read(spaced, "fra1").batches
    assert json.loads(batch.text) == json.loads(line)
    assert b" " not in batch.text
    assert batch.text.endswith(b"}\n")


def test_events_of_two_rings_become_two_batches() -> None:
    body = ndjson([record(1)]) + ndjson([record(8)], epoch=OTHER_EPOCH) + ndjson([record(2)])
    found = {batch.epoch: batch.numbers for batch in read(body, "fra1").batches}
    assert found == {EPOCH: (1, 2), OTHER_EPOCH: (8,)}


@pytest.mark.parametrize("careful", [False, True])
def test_another_gateway_s_event_refuses_everything(careful: bool) -> None:
    foreign = ndjson([record(2)], gateway="ams1")
    body = ndjson([record(1)]) + (foreign.replace(b",", b", ") if careful else foreign)
    with pytest.raises(Foreign, match=r"observer\.name is ams1, the token is fra1's"):
        read(body, "fra1")


def test_more_lines_than_a_gateway_sends_are_refused_before_one_is_read() -> None:
    with pytest.raises(TooMany, match="at most 100000"):
        read(b"\n" * (lines.LINES_MOST + 1), "fra1")


def test_reasons_are_looked_for_in_the_first_bad_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    errors = validation.errors
    monkeypatch.setattr(validation, "errors", lambda *given: calls.append(given) or errors(*given))
    assert len(read(changed(payload="x") * 500, "fra1").refused) == 500
    assert len(calls) == lines.TOLD_MOST


def test_the_quick_way_is_linear_in_what_it_is_given() -> None:
    line = ndjson([record(1)])[:-1]
    assert not lines._LINE.findall(line * 20_000 + b"\n")
