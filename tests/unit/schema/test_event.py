"""The event record: its bytes, and the JSON a log endpoint gets."""

from __future__ import annotations

import re
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_schema import event, validation
from tidegate_schema.policy import Reason

FIELD_OF_LINE = {
    "sequence number": "seq", "monotonic time, ns": "monotonic_ns", "wall time, ns": "wall_ns",
    "client ID": "client_id", "source address": "source", "destination address": "destination",
    "source port": "source_port", "destination port": "destination_port", "IP protocol": "protocol",
    "TCP flags": "tcp_flags", "what is known": "known", "bytes": "length",
    "reply packets": "reply_packets", "reply bytes": "reply_length", "start, ns": "start_ns",
}  # fmt: skip
u8, u16, u32, u64 = (st.integers(0, 2**bits - 1) for bits in (8, 16, 32, 64))
address = st.binary(min_size=16, max_size=16) | st.binary(min_size=4, max_size=4).map(event.mapped)


def documented() -> list[tuple[int, int, str]]:
    """Return (offset, size, field) of every line of the docstring's drawing."""
    assert event.__doc__ is not None
    rows = re.findall(r"^ +(\d+) +(\d+)  (\S[^\n]*?)(?:  .*)?$", event.__doc__, re.MULTILINE)
    return [(int(offset), int(size), FIELD_OF_LINE.get(name, name)) for offset, size, name in rows]


def test_a_record_is_144_bytes() -> None:
    assert event.LAYOUT.size == event.RECORD_BYTES == 144


def test_the_drawing_has_no_gap_and_no_overlap() -> None:
    at = 0
    for offset, size, _ in documented():
        assert offset == at
        at += size
    assert at == event.RECORD_BYTES


@pytest.mark.parametrize("number", range(len(event.Event._fields)), ids=event.Event._fields)
def test_a_field_stands_where_the_drawing_says(number: int) -> None:
    name = event.Event._fields[number]
    ((offset, size),) = [(offset, size) for offset, size, field in documented() if field == name]
    values = [
        bytes(16) if field in ("client_id", "source", "destination") else 0 for field in event.Event._fields
    ]
    shown = bytes(range(1, size + 1))
    values[number] = shown if size == 16 else int.from_bytes(shown, "little")
    record = event.LAYOUT.pack(*values)
    assert record[offset : offset + size] == shown
    assert record.replace(shown, bytes(size)) == bytes(144)


def test_the_struct_has_no_padding_of_the_machine_s() -> None:
    assert event.LAYOUT.format.startswith("<")


events = st.builds(
    event.Event,
    seq=u64, monotonic_ns=u64, wall_ns=u64, generation=u32, rule=u32 | st.integers(0, 3),
    client_id=st.binary(min_size=16, max_size=16) | st.just(bytes(16)), source=address, destination=address,
    source_port=u16, destination_port=u16, kind=u8 | st.integers(1, 6), mode=u8 | st.integers(0, 1),
    verdict=u8 | st.integers(0, 1), reason=u8 | st.integers(0, 8), protocol=u8 | st.just(6), tcp_flags=u8,
    known=u8, version=u8 | st.just(2), end=u8 | st.integers(0, 2), packets=u64, length=u64,
    reply_packets=u64, reply_length=u64, start_ns=u64 | st.just(0),
)  # fmt: skip
good_events = st.builds(
    lambda one, kind, end, mode, verdict, reason: one._replace(
        kind=kind, version=2, end=end, mode=mode, verdict=verdict, reason=reason
    ),
    events,
    st.sampled_from(list(event.Kind)),
    st.sampled_from(list(event.End)),
    st.integers(0, 1),
    st.integers(0, 1),
    st.sampled_from(list(Reason)),
)


@settings(deadline=None, max_examples=300)
@given(events | good_events)
def test_any_record_is_refused_or_becomes_valid_json(one: event.Event) -> None:
    try:
        found = event.unpack(event.LAYOUT.pack(*one))
    except ValueError:
        known = one.version == 2 and 1 <= one.kind <= 6 and one.mode <= 1 and one.verdict <= 1
        assert not (known and one.reason <= 8 and one.end <= 2)
        return
    assert found == one
    shown = event.to_json(found, "fra1", "0123456789abcdef", ["eng-reads-prod-db", "p"])
    assert validation.errors("event", shown) == []


@settings(deadline=None, max_examples=300)
@given(st.binary(min_size=144, max_size=144), st.booleans())
def test_any_bytes_are_refused_or_become_valid_json(record: bytes, plausible: bool) -> None:
    if plausible:
        told = bytes([record[84] % 6 + 1, record[85] & 1, record[86] & 1, record[87] % 9])
        record = record[:84] + told + record[88:91] + bytes([2, record[92] % 3]) + record[93:]
    try:
        found = event.unpack(record)
    except ValueError:
        assert not plausible
        return
    assert validation.errors("event", event.to_json(found, "g", "0" * 16, [])) == []


@pytest.mark.parametrize("length", [0, 128, 143, 145])
def test_a_record_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(struct.error):
        event.unpack(bytes(length))


def sample(**changes: object) -> event.Event:
    one = event.Event(
        *(5, 6, 1_800_000_000_123_456_789, 3, 1, b"\xab" * 16, event.mapped(bytes([10, 64, 0, 11]))),
        *(event.mapped(bytes([10, 20, 0, 80])), 40000, 443, 1, 1, 1, 1, 6, 2, 3, 2, 0, 1, 60, 0, 0, 0),
    )
    return one._replace(**changes)  # type: ignore[arg-type]


def test_the_json_of_an_event() -> None:
    assert event.to_json(sample(), "fra1", "00" * 8, ["a", "b"]) == {
        "@timestamp": "2027-01-15T08:00:00.123456789Z", "observer.name": "fra1", "tidegate.epoch": "00" * 8,
        "event.sequence": 5, "tidegate.monotonic_ns": 6, "event.action": "packet", "tidegate.mode": "enforce",
        "tidegate.verdict": "allow", "event.reason": "allowed", "tidegate.generation": 3, "source.packets": 1,
        "source.bytes": 60, "tidegate.client.id": "ab" * 16, "source.address": "10.64.0.11", "source.port": 40000,
        "destination.address": "10.20.0.80", "destination.port": 443, "network.iana_number": 6,
        "network.transport": "tcp", "tidegate.tcp.flags": 2, "rule.name": "b",
    }  # fmt: skip


def test_the_json_of_a_flow_s_end() -> None:
    told = sample(
        kind=event.Kind.FLOW_CLOSE, end=event.End.REVOKED, reply_packets=7, reply_length=700, start_ns=10**9
    )
    shown = event.to_json(told, "fra1", "00" * 8, ["a", "b"])
    opened = event.to_json(sample(), "fra1", "00" * 8, ["a", "b"])
    opened.pop("tidegate.tcp.flags")
    assert shown == opened | {
        "event.action": "flow-close", "destination.packets": 7, "destination.bytes": 700,
        "event.start": "1970-01-01T00:00:01.000000000Z", "event.end": "2027-01-15T08:00:00.123456789Z",
        "tidegate.end": "revoked",
    }  # fmt: skip


def test_the_json_of_a_gap_names_no_flow() -> None:
    shown = event.to_json(sample(kind=event.Kind.GAP, start_ns=10**9), "fra1", "00" * 8, ["a", "b"])
    assert shown == {
        "@timestamp": "2027-01-15T08:00:00.123456789Z", "observer.name": "fra1", "tidegate.epoch": "00" * 8,
        "event.sequence": 5, "tidegate.monotonic_ns": 6, "event.action": "gap",
        "event.start": "1970-01-01T00:00:01.000000000Z",
    }  # fmt: skip


def test_what_is_not_known_is_left_out() -> None:
    shown = event.to_json(
        sample(client_id=event.NO_CLIENT, known=0, rule=event.NO_RULE), "g", "0" * 16, ["a"]
    )
    assert shown.keys().isdisjoint(
        {
            *(
                "tidegate.client.id",
                "source.address",
                "source.port",
                "destination.address",
                "destination.port",
            ),
            *("network.iana_number", "network.transport", "tidegate.tcp.flags", "rule.name"),
        }
    )
    no_ports = event.to_json(sample(known=event.KNOWN_ADDRESSES), "g", "0" * 16, [])
    assert "source.address" in no_ports
    assert no_ports.keys().isdisjoint({"source.port", "destination.port", "tidegate.tcp.flags"})
    assert "tidegate.tcp.flags" not in event.to_json(sample(protocol=17), "g", "0" * 16, [])


def test_ipv6_is_shown_in_canonical_form() -> None:
    assert event.to_json(sample(source=bytes(15) + b"\x01"), "g", "0" * 16, [])["source.address"] == "::1"


def test_every_reason_has_a_name_in_the_schema() -> None:
    names = [event.to_json(sample(reason=reason), "g", "0" * 16, [])["event.reason"] for reason in Reason]
    assert names == validation.schema("event")["properties"]["event.reason"]["enum"]
    assert len(set(names)) == len(Reason)


@pytest.mark.parametrize(
    "changes",
    [
        *({"version": 1}, {"version": 3}, {"kind": 0}, {"kind": 7}, {"end": 3}, {"mode": 2}, {"verdict": 2}),
        *({"reason": 9}, {"reason": 255}),
    ],
)
def test_a_record_that_says_nothing_known_is_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="event record"):
        event.unpack(event.LAYOUT.pack(*sample(**changes)))
