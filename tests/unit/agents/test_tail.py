"""`tidegate gateway events`: what is asked for is shown, what came too fast is counted, and no ring is touched."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_agents.events import ring, spsc
from tidegate_agents.events.ring import Ring
from tidegate_agents.events.tail import HEADING, Tail, Wanted, follow, line
from tidegate_schema import event
from tidegate_schema.event import Kind
from unit.agents.kit import Batch, fields, raw, unpacked


def made(path: Path, *numbers: int, records: int = 64, **changes: Any) -> None:
    """Put events into a ring; their number is in their length."""
    if not path.exists():
        ring.create(path, records)
    batch = Batch(Ring(path))
    for number in numbers:
        batch.put(*fields(number, **changes))
    batch.publish()


def tail(*paths: Path) -> Tail:
    return Tail(paths, "fra1", lambda generation: ["a-policy"])


def lengths(shown: list[dict[str, Any]]) -> list[int]:
    return [one["source.bytes"] for one in shown]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.ring"


def test_it_begins_with_what_is_there_and_goes_on(path: Path) -> None:
    made(path, *range(20))
    reading = tail(path)
    assert lengths(reading.read()) == list(range(20))
    assert reading.read() == []
    made(path, 20, 21)
    assert lengths(reading.read()) == [20, 21]
    assert reading.missed == 0


def test_what_the_flusher_has_freed_is_still_shown_and_nothing_is_changed(path: Path) -> None:
    made(path, *range(20), records=4096)
    Ring(path).free(15)
    before = path.read_bytes()
    assert lengths(tail(path).read()) == list(range(20))
    assert path.read_bytes() == before


def test_what_was_overwritten_is_counted(path: Path) -> None:
    made(path, 0, records=8)
    reading = tail(path)
    assert lengths(reading.read()) == [0]
    for number in range(1, 21):
        made(path, number)
        Ring(path).free(1)
    # But for the last one they are freed, so that any of them may have been overwritten meanwhile.
    assert lengths(reading.read()) == [20]
    assert reading.missed == 19
    made(path, 21, 22)
    assert lengths(reading.read()) == [21, 22]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.integers(0, 700), st.integers(0, 700), st.booleans()), max_size=15))
def test_each_record_is_shown_once_or_counted(path: Path, steps: list[tuple[int, int, bool]]) -> None:
    ring.create(path, 2048)
    producer, consumer, reading = Ring(path), Ring(path), tail(path)
    reading.read()
    shown: list[int] = []
    total = 0
    for put, freed, look in steps:
        batch = Batch(producer)
        for number in range(total, total + put):
            batch.put(*fields(number))
        batch.publish()
        total = producer._head
        consumer.free(min(freed, consumer.pending()))
        if look:
            shown += [one["event.sequence"] for one in reading.read()]
    shown += [one["event.sequence"] for one in reading.read()]
    assert shown == sorted(set(shown))
    assert len(shown) + reading.missed == total


def test_a_ring_that_is_not_there_yet_or_made_anew_is_followed(path: Path, tmp_path: Path) -> None:
    reading = tail(tmp_path / "flows.ring", path)
    assert reading.read() == []
    made(path, 1)
    assert lengths(reading.read()) == [1]
    made(path, 2, 3)
    path.unlink()
    made(path, 4)
    assert lengths(reading.read()) == [4]
    assert reading.missed == 2  # what had come into the old one last
    path.write_bytes(b"no ring")
    assert reading.read() == []


def test_rings_are_shown_together_by_time(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "flows.ring"
    for number in range(6):
        made((path, other)[number % 2], number, wall_ns=10**18 + number)
    assert lengths(tail(path, other).read()) == list(range(6))


def test_a_record_that_cannot_be_read_is_counted(path: Path) -> None:
    made(path, 1, 2)
    with path.open("r+b") as file:
        file.seek(spsc.HEADER_BYTES + 84)
        file.write(b"\xff")
    reading = tail(path)
    assert lengths(reading.read()) == [2]
    assert reading.unreadable == 1


def told(**changes: Any) -> dict[str, Any]:
    one = event.Event(0, *fields(60))._replace(**changes)
    return event.to_json(one, "fra1", "0" * 16, ["a-policy"])


ASKED: list[tuple[dict[str, Any], bool]] = [
    ({}, True),
    ({"client": "abab"}, True),
    ({"client": "ab" * 16}, True),
    ({"client": "cd"}, False),
    ({"verdict": "allow"}, True),
    ({"verdict": "deny"}, False),
    ({"port": 443}, True),
    ({"port": 22}, False),
    ({"destination": ipaddress.ip_network("10.20.0.0/16")}, True),
    ({"destination": ipaddress.ip_network("10.20.0.81/32")}, False),
    ({"destination": ipaddress.ip_network("fd20::/64")}, False),
]


@pytest.mark.parametrize(("asked", "is_shown"), ASKED)
def test_what_is_asked_for_is_shown(asked: dict[str, Any], is_shown: bool) -> None:
    assert Wanted(**asked)(told()) is is_shown
    assert Wanted(**asked)(told(kind=Kind.GAP, start_ns=1))  # what may be missing belongs to every question
    if asked.keys() - {"verdict"}:
        assert not Wanted(**asked)(told(known=0, client_id=event.NO_CLIENT))


def test_an_event_is_a_line(path: Path) -> None:
    shown = line(told(wall_ns=1_800_000_000_123_456_789))
    assert shown.split() == [
        *("08:00:00.123456", "packet", "allow", "abababab", "tcp", "10.64.0.11:40000", "10.20.0.80:443"),
        *("1", "60", "a-policy"),
    ]
    mapped = event.mapped(raw("fd20::80"))
    shown = line(told(kind=Kind.FLOW_CLOSE, destination=mapped, reply_packets=7, reply_length=700))
    assert shown.split()[1:] == [
        *("flow-close", "allow", "abababab", "tcp", "10.64.0.11:40000", "[fd20::80]:443", "1/7", "60/700"),
        "a-policy",
    ]
    assert line(told(known=0, client_id=event.NO_CLIENT, rule=event.NO_RULE)).split()[3:] == [
        *("unknown", "?", "?", "1", "60", "allowed")
    ]
    assert "missing since 00:00:01.000000" in line(told(kind=Kind.GAP, start_ns=10**9))
    assert len(HEADING.split()) > 9


@given(st.binary(min_size=event.RECORD_BYTES, max_size=event.RECORD_BYTES))
def test_any_event_is_one_line_of_plain_letters(record: bytes) -> None:
    record = (
        record[:84]
        + bytes([record[84] % 6 + 1, record[85] & 1, record[86] & 1, record[87] % 9])
        + record[88:]
    )
    (one,) = unpacked(record[:91] + bytes([2, record[92] % 3]) + record[93:])
    assert line(event.to_json(one, "fra1", "0" * 16, [])).isprintable()


def test_as_json_it_is_what_a_log_endpoint_gets(path: Path) -> None:
    made(path, 1, 2, 3)
    said: list[str] = []
    follow(tail(path), Wanted(), said.append, last=10, as_json=True, once=True)
    assert [json.loads(text)["source.bytes"] for text in said] == [1, 2, 3]
    said.clear()
    follow(tail(path), Wanted(verdict="deny"), said.append, last=10, as_json=False, once=True)
    assert said == [HEADING]


@pytest.mark.parametrize(("last", "expected"), [(0, []), (2, [1, 2]), (10, [0, 1, 2])])
def test_the_last_ones_are_those_that_are_asked_for(path: Path, last: int, expected: list[int]) -> None:
    made(path, *range(3), verdict=0)
    made(path, *range(10, 40))
    said: list[str] = []
    follow(tail(path), Wanted(verdict="deny"), said.append, last=last, as_json=True, once=True)
    assert [json.loads(text)["source.bytes"] for text in said] == expected
