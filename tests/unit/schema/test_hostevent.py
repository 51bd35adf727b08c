"""The record of what happens to a gateway: its bytes, what may be in it, and the JSON a log endpoint gets."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_schema import hostevent, jsonfile, validation
from tidegate_schema.hostevent import FIELDS, Entry, HostEvent

u64 = st.integers(0, 2**64 - 1)
WALL_NS = 1_800_000_000_123_456_789
DIGEST = "ab" * 32


def entry(number: int = 7, **told: Any) -> Entry:
    return Entry(number, WALL_NS, {"event": "release-refused", **told})


def shown(made: Entry, seq: int = 5) -> dict[str, Any]:
    """Return the JSON of an entry, once it went through a record."""
    record = hostevent.unpack(hostevent.pack(seq, 6, made))
    found = hostevent.to_json(record, "fra1", "0123456789abcdef")
    assert validation.errors("event", found) == []
    return found


def with_text(text: bytes, *, version: int = hostevent.VERSION, number: int = 1) -> bytes:
    head = hostevent._HEAD.pack(0, 0, 0, number, version, len(text))
    return (head + text).ljust(hostevent.RECORD_BYTES, b"\0")


def test_the_drawing_has_no_gap_and_no_overlap_and_is_the_layout() -> None:
    rows = re.findall(r"^ +(\d+) +(\d+)  ", hostevent.__doc__ or "", re.MULTILINE)
    at = 0
    for offset, size in rows:
        assert int(offset) == at
        at += int(size)
    assert at == hostevent.RECORD_BYTES
    assert int(rows[-1][0]) == hostevent._HEAD.size
    assert int(rows[-1][1]) == hostevent.TEXT_MAX_BYTES


def test_the_json_of_a_refusal() -> None:
    assert shown(entry(name="replayed", reason="serial 4 is older than 5")) == {
        "@timestamp": "2027-01-15T08:00:00.123456789Z", "observer.name": "fra1",
        "tidegate.epoch": "0123456789abcdef", "event.sequence": 5, "tidegate.monotonic_ns": 6,
        "event.action": "host", "tidegate.host.number": 7, "tidegate.host.event": "release-refused",
        "tidegate.host.name": "replayed", "message": "serial 4 is older than 5",
    }  # fmt: skip


@pytest.mark.parametrize("what", list(HostEvent), ids=str)
def test_every_event_is_in_the_schema_and_no_other(what: HostEvent) -> None:
    assert shown(Entry(1, 0, {"event": what.value}))["tidegate.host.event"] == what
    named = validation.schema("event")["properties"]["tidegate.host.event"]["enum"]
    assert named == [one.value for one in HostEvent]


def test_every_field_arrives_as_it_was_told() -> None:
    told = {
        "name": "routes", "reason": "why", "serial": 3, "digest": DIGEST, "failed": 4,
        "not_after": 1_800_000_000, "version": 2, "threshold": 1, "keys": 2,
    }  # fmt: skip
    found = shown(entry(**told))
    expected = {FIELDS["message" if key == "reason" else key][0]: value for key, value in told.items()}
    assert expected.items() <= found.items()
    assert set(expected) | {"tidegate.host.event"} == {name for name, _ in FIELDS.values()}


@pytest.mark.parametrize(
    "told",
    [
        *({"secret": "x"}, {"name": "a b"}, {"name": "x\n"}, {"name": "x" * 64}, {"name": 7}, {"serial": -1}),
        *(
            {"serial": True},
            {"serial": 1 << 63},
            {"serial": "3"},
            {"digest": "ab"},
            {"digest": DIGEST + "\n"},
        ),
        *({"reason": "a\x1b[2J"}, {"reason": "x" * 502}, {"reason": ["x"]}, {"what": "a\nb"}),
    ],
    ids=range(15),
)
def test_what_is_in_no_list_stays_on_the_host(told: dict[str, Any]) -> None:
    """Deny by default: the journal has it, a record never does."""
    assert shown(entry(**told)) == shown(entry())


@given(st.text(max_size=hostevent.MESSAGE_MOST))
def test_of_a_message_as_much_arrives_as_fits(text: str) -> None:
    text = "".join(one for one in text if one.isprintable())
    found = shown(entry(name="x" * 63, reason=text, digest=DIGEST, serial=(1 << 63) - 1))["message"]
    assert found == text or (found.endswith("…") and text.startswith(found.rstrip("…")))
    if text.isascii() and not set(text) & {'"', "\\"}:
        assert found == text


def test_letters_beyond_ascii_are_cut_and_stay_readable() -> None:
    found = shown(entry(reason="\U0001f525" * 500))["message"]
    assert 40 < len(found) < 100
    assert set(found) == {"\U0001f525", "…"}


@settings(deadline=None, max_examples=300)
@given(
    st.binary(max_size=hostevent.RECORD_BYTES).map(lambda data: with_text(data[:988]))
    | st.binary(min_size=hostevent.RECORD_BYTES, max_size=hostevent.RECORD_BYTES)
    | st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*FIELDS, "other"]) | st.text(), inner, max_size=4)
        ),
        max_leaves=8,
    ).map(lambda value: with_text(jsonfile.canonical(value)[:988]))
    | st.builds(
        lambda event, more: with_text(jsonfile.canonical({"event": event, **more})[:988]),
        st.sampled_from([one.value for one in HostEvent]),
        st.dictionaries(
            st.sampled_from(list(FIELDS)),
            st.integers() | st.sampled_from([DIGEST, "replayed", "what happened"]),
            max_size=5,
        ),
    )
)
def test_any_bytes_are_refused_or_become_valid_json(record: bytes) -> None:
    try:
        found = hostevent.unpack(record)
    except ValueError:
        return
    assert validation.errors("event", hostevent.to_json(found, "g", "0" * 16)) == []


@settings(deadline=None)
@given(u64, u64, st.integers(0, 2**63 - 1), st.integers(1, 2**63 - 1), st.sampled_from(list(HostEvent)))
def test_a_record_is_read_as_it_was_made(
    seq: int, booted: int, wall: int, number: int, what: HostEvent
) -> None:
    found = hostevent.unpack(hostevent.pack(seq, booted, Entry(number, wall, {"event": what.value})))
    assert found == (seq, booted, wall, number, {"event": what.value})


GOOD = jsonfile.canonical({"event": "rolled-back"})
BAD: dict[str, bytes] = {
    "short": with_text(GOOD)[:-1],
    "long": with_text(GOOD) + b"\0",
    "version": with_text(GOOD, version=2),
    "number": with_text(GOOD, number=1 << 63),
    "length": hostevent._HEAD.pack(0, 0, 0, 1, 1, 989) + bytes(988),
    "nothing": with_text(b""),
    "no-object": with_text(b"7"),
    "no-event": with_text(b'{"serial":1}'),
    "event": with_text(b'{"event":"made-up"}'),
    "field": with_text(b'{"event":"rolled-back","secret":"x"}'),
    "twice": with_text(b'{"event":"rolled-back","event":"failover"}'),
    "control": with_text(b'{"event":"rolled-back","message":"a\\u001b[2J"}'),
    "surrogate": with_text(b'{"event":"rolled-back","message":"\\ud800"}'),
    "fraction": with_text(b'{"event":"rolled-back","serial":1.0}'),
}


@pytest.mark.parametrize("name", BAD)
def test_a_record_that_cannot_be_is_refused(name: str) -> None:
    assert hostevent.unpack(with_text(GOOD)).told == {"event": "rolled-back"}
    with pytest.raises(ValueError, match=r"\S"):
        hostevent.unpack(BAD[name])


LINE = {"number": 3, "time": "2027-01-15T08:00:00.123456789Z", "event": "rolled-back", "serial": 2}


def test_a_line_of_a_journal_is_an_entry() -> None:
    assert hostevent.entry(LINE) == Entry(3, WALL_NS, {"event": "rolled-back", "serial": 2})


@pytest.mark.parametrize(
    "changes",
    [
        *({"number": None}, {"number": 0}, {"number": "3"}, {"number": True}, {"number": 1 << 63}),
        *({"time": "2027-13-15T08:00:00.123456789Z"}, {"time": "now"}, {"time": 7}, {"event": "made-up"}),
        *(
            {"time": "9999-12-31T23:59:59.999999999Z"},
            {"time": "0001-01-01T00:00:00.000000000Z"},
            {"event": 1},
        ),
    ],
    ids=range(12),
)
def test_a_line_that_says_nothing_known_is_none(changes: dict[str, Any]) -> None:
    assert hostevent.entry(LINE | changes) is None
