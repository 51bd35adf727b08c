"""Lines to groups: what adds up, what is kept apart, and what hostile lines can do, which is nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import compilerkit
from compilerkit import inventory
from learnkit import NOON, candidate, deny, groups, id_of, record, right
from tidegate_compiler.learn import demand as demands
from tidegate_compiler.learn import readiness, records, replaytext, suggestdoc
from tidegate_compiler.learn import replay as replays
from tidegate_compiler.learn.flows import (
    DAY,
    NO_PORT,
    UNKNOWN,
    FlowGroup,
    Slots,
    TooManyFlowsError,
    Window,
)
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.learn.records import LINE_MAX_BYTES, Records
from tidegate_control.learn import answers
from tidegate_control.learn.sources import Reader


@dataclass
class Given(Reader):
    """Lines in memory."""

    lines: list[bytes] = field(default_factory=list)

    def read(self, slots: Slots) -> Iterator[tuple[int, FlowGroup]]:
        return self.records.groups(self.lines, slots)


DAY_BEGIN = NOON // DAY * DAY


def test_events_of_one_flow_add_up() -> None:
    lines = [
        record(at=NOON, octets=0),
        record(at=NOON + 10, kind="flow-update", octets=500),
        record(at=NOON + 20.5, kind="flow-close", octets=250),
    ]
    ((slot, group),) = groups(lines)
    assert slot == DAY_BEGIN
    assert group == (
        *("gw", id_of("alice"), "10.20.0.80", 6, 443, "allow", "observed"),
        *(NOON, NOON + 20.5, 1, 750),
    )


def test_a_flow_is_counted_by_its_open_or_its_close_whichever_is_more() -> None:
    closes = [record(at=NOON + n, kind="flow-close") for n in range(3)]
    ((_, group),) = groups([record(), *closes])
    assert group.flows == 3
    ((_, group),) = groups([record(kind="flow-update")])
    assert group.flows == 1


def test_what_a_policy_asks_about_keeps_groups_apart() -> None:
    lines = [
        record(),
        record(port=444),
        record(protocol=17),
        record("bob"),
        record(to="fd20::80"),
        record(gateway="gx"),
        deny(),
        record(at=NOON + DAY),
    ]
    assert len(groups(lines)) == 8
    assert len(groups(lines + lines)) == 8


def test_days_and_instants_cut_the_time() -> None:
    slots = Slots(Window(NOON - 10, NOON + DAY), [NOON + 5])
    found = [slots.of(moment) for moment in (NOON - 11, NOON - 10, NOON + 4.9, NOON + 5, NOON + DAY - 1)]
    assert found == [None, NOON - 10, NOON - 10, NOON + 5, DAY_BEGIN + DAY]
    assert slots.of(NOON + DAY) is None
    spans = list(slots.spans())
    assert [slot for slot, _ in spans] == [NOON - 10, NOON + 5, DAY_BEGIN + DAY]
    assert all(slots.of(span.begin) == slot == slots.of(span.end - 1) for slot, span in spans)


@given(
    st.integers(0, 10 * DAY),
    st.integers(1, 5 * DAY),
    st.lists(st.integers(0, 15 * DAY), max_size=4),
    st.floats(0, 1),
)
def test_a_store_is_asked_in_the_slots_that_a_file_is_cut_into(
    begin: int, length: int, instants: list[int], part: float
) -> None:
    slots = Slots(Window(begin, begin + length), instants)
    moment = begin + int(part * (length - 1))
    of_store = [slot for slot, span in slots.spans() if span.begin <= moment < span.end]
    assert of_store == [slots.of(moment)]


def test_what_an_event_does_not_tell_is_told_apart() -> None:
    nothing = json.loads(record(None))
    for name in list(nothing):
        if name.startswith(("destination.", "source.port", "source.address", "network.")):
            del nothing[name]
    found = groups([json.dumps(nothing).encode(), record(port=None), record(protocol=1, port=None)])
    told = [(g.client_id, g.destination, g.protocol, g.port) for _, g in found]
    assert told == [
        ("", "", UNKNOWN, 0),
        (id_of("alice"), "10.20.0.80", 6, NO_PORT),
        (id_of("alice"), "10.20.0.80", 1, 0),
    ]


def changed(**fields: Any) -> bytes:
    return json.dumps(
        json.loads(record()) | {name.replace("_", "."): v for name, v in fields.items()}
    ).encode()


HOSTILE = {
    "no JSON": b"{",
    "a list": b"[1]",
    "deep": b"[" * 60000,
    "not UTF-8": b'{"a": "\xff"}',
    "too long": b'{"a": "' + b"x" * LINE_MAX_BYTES + b'"}',
    "no fields": b"{}",
    "a gateway's name with a newline": changed(observer_name="gw\n"),
    "a client ID that is none": json.dumps(json.loads(record()) | {"tidegate.client.id": "X" * 32}).encode(),
    "a client ID that is a list": json.dumps(json.loads(record()) | {"tidegate.client.id": []}).encode(),
    "a client ID of 32 parts": json.dumps(json.loads(record()) | {"tidegate.client.id": ["a"] * 32}).encode(),
    "a client ID that is null": json.dumps(json.loads(record()) | {"tidegate.client.id": None}).encode(),
    "a client ID that is 0": json.dumps(json.loads(record()) | {"tidegate.client.id": 0}).encode(),
    "a port past the last": changed(destination_port=65536),
    "a port that is true": changed(destination_port=True),
    "a port that is text": changed(destination_port="443"),
    "an address that is none": changed(destination_address="10.20.0.80\n"),
    "an address with a zone": changed(destination_address="fe80::1%<script>"),
    "an address that is a number": changed(destination_address=[1]),
    "negative bytes": changed(source_bytes=-1),
    "a verdict that is none": changed(tidegate_verdict="maybe"),
    "a reason that is none": changed(event_reason="because"),
    "an action that is none": changed(event_action="exec"),
    "a time that is none": json.dumps(json.loads(record()) | {"@timestamp": "yesterday"}).encode(),
    "a time of another zone": json.dumps(
        json.loads(record()) | {"@timestamp": "2026-11-29T12:00:00+01:00"}
    ).encode(),
    "the year 9999": json.dumps(
        json.loads(record()) | {"@timestamp": "9999-12-31T23:59:59.999999999Z"}
    ).encode(),
    "the year 1": json.dumps(json.loads(record()) | {"@timestamp": "0001-01-01T00:00:00Z"}).encode(),
    "a time without end": json.dumps(json.loads(record()) | {"@timestamp": ""}).encode(),
}


@pytest.mark.parametrize("what", list(HOSTILE))
def test_a_line_that_is_no_event_is_counted_and_passed_over(what: str) -> None:
    reader = Records()
    found = list(reader.groups([record(), HOSTILE[what], b"\n", record()], Slots(Window())))
    assert [group.flows for _, group in found] == [2]
    assert (reader.events, reader.unreadable) == (2, 1)


@given(st.binary(max_size=200))
def test_no_bytes_raise(line: bytes) -> None:
    groups([line])


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.just("f" * 32),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(list(json.loads(record()))), ANYTHING, min_size=1, max_size=3))
def test_whatever_a_member_is_every_question_is_answered(changes: dict[str, Any]) -> None:
    """The line is passed over, or what it says is told: by each of the commands, as text and as JSON."""
    lines = [record(), json.dumps(json.loads(record()) | changes).encode(), record("bob")]
    compiled = compilerkit.compiled(inventory())
    subject = answers.Subject("INV", "inventory", compiled, Timeline())
    told, done = answers.replayed(subject, Given("FLOWS", Window(), lines=lines), None, subject)
    right("replay", told)
    assert all(line.isprintable() for line in replaytext.lines(told))
    assert answers.commented(subject, subject, told, done)
    known = answers.readied(subject, Given("FLOWS", Window(), lines=lines), NOON)
    assert list(readiness.cells(right("readiness", known)))
    wanted, _ = answers.suggested(subject, Given("FLOWS", Window(), lines=lines), NOON)
    assert list(suggestdoc.lines(right("suggest", wanted)))


def test_gaps_of_the_window_are_counted() -> None:
    gap = json.dumps(
        {name: value for name, value in json.loads(record()).items() if "client" not in name}
        | {"event.action": "gap"}
    ).encode()
    reader = Records()
    assert not list(reader.groups([gap], Slots(Window(NOON, NOON + 1))))
    assert (reader.gaps, reader.unreadable) == (1, 0)
    list(reader.groups([gap], Slots(Window(NOON + 1))))
    assert reader.gaps == 1


def test_more_groups_than_memory_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [record(port=number) for number in range(1, 4)]
    found, judging = groups(lines), candidate(inventory())
    monkeypatch.setattr(records, "GROUPS_MOST", 2)
    monkeypatch.setattr(replays, "CHANGES_MOST", 2)
    monkeypatch.setattr(demands, "USES_MOST", 2)
    for work in (
        lambda: groups(lines),
        lambda: replays.replay(found, judging, NOON),
        lambda: demands.demand(found, judging, NOON),
    ):
        with pytest.raises(TooManyFlowsError, match="more than 2 different flows; ask about fewer days"):
            work()


def test_what_happened_to_the_gateway_itself_is_an_event_and_no_flow() -> None:
    host = {name: json.loads(record())[name] for name in ("@timestamp", "observer.name", "event.sequence")}
    reader = Records()
    assert not list(reader.groups([json.dumps(host | {"event.action": "host"}).encode()], Slots(Window())))
    assert (reader.events, reader.unreadable, reader.others) == (0, 0, 1)
