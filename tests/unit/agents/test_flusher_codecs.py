"""What is posted says of any record what `event.to_json` says of it; and nothing in one stops a codec."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from tidegate_agents.events import ndjson, otlp
from tidegate_agents.events.names import PolicyNames
from tidegate_agents.events.ndjson import Ndjson
from tidegate_agents.events.otlp import Otlp
from tidegate_schema import __version__, event, jsonfile, validation
from tidegate_schema.event import End, Kind
from tidegate_schema.policy import Reason
from unit.agents.kit import fields

EPOCH = "0123456789abcdef"
NAMES = ["eng-reads-prod-db", '100%"\\\u00e9,"source.packets":']
SIZE = event.RECORD_BYTES
TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[^" ]')
"""A string, or a character of something else that is no blank."""


class Named(PolicyNames):
    """Names without files."""

    def __init__(self, names: Sequence[str] = NAMES) -> None:
        self._all = list(names)

    def of(self, generation: int) -> list[str]:
        return self._all if generation % 2 else []


def record(**changes: Any) -> bytes:
    return event.LAYOUT.pack(*event.Event(0, *fields(7, **changes)))


def records(*made: bytes) -> bytes:
    return b"".join(made)


def expected(data: bytes, names: PolicyNames) -> list[dict[str, Any] | None]:
    found: list[dict[str, Any] | None] = []
    for at in range(0, len(data), SIZE):
        found.append(None)
        with contextlib.suppress(ValueError):
            one = event.unpack(data[at : at + SIZE])
            found[-1] = event.to_json(one, "fra1", EPOCH, names.of(one.generation))
    return found


def lines(codec: Ndjson, data: bytes) -> list[dict[str, Any] | None]:
    """Return what each record becomes, None for one that cannot be read; encoded all at once, and each alone."""
    if not data:
        return []
    part, unreadable = codec.encode(memoryview(data))
    text = bytes(part)
    found: list[dict[str, Any] | None] = []
    for at in range(0, len(data), SIZE):
        line, left_out = codec.encode(data[at : at + SIZE])
        assert bool(line) != bool(left_out)
        found.append(jsonfile.parse(bytes(line)) if line else None)
    assert [jsonfile.parse(line) for line in text.splitlines()] == [line for line in found if line]
    assert unreadable == found.count(None)
    return found


# Few values each, so that records are of flows that were seen, or differ from one in a single field.
u64 = st.sampled_from([0, 1, 7, 10**18, (1 << 64) - 1])
addresses = st.sampled_from(
    [event.mapped(bytes([10, 0, 0, n])) for n in range(3)] + [bytes(16), b"\xfd" * 16]
)
plausible = st.builds(
    event.Event,
    seq=u64,
    monotonic_ns=u64,
    wall_ns=u64,
    generation=st.integers(0, 2),
    rule=st.sampled_from([0, 1, 2, event.NO_RULE]),
    client_id=st.sampled_from([event.NO_CLIENT, b"\xab" * 16]),
    source=addresses,
    destination=addresses,
    source_port=st.integers(0, 2),
    destination_port=st.sampled_from([0, 443, 65535]),
    kind=st.sampled_from([*Kind, 0, 7]),
    mode=st.integers(0, 1),
    verdict=st.integers(0, 1),
    reason=st.sampled_from(list(Reason)),
    protocol=st.sampled_from([0, 1, 6, 17, 58, 132, 255]),
    tcp_flags=st.sampled_from([0, 2, 255]),
    known=st.integers(0, 3),
    version=st.sampled_from([event.VERSION, event.VERSION, event.VERSION, 1]),
    end=st.sampled_from([*End, 9]),
    packets=u64,
    length=u64,
    reply_packets=u64,
    reply_length=u64,
    start_ns=u64,
).map(lambda one: event.LAYOUT.pack(*one))
garbage = st.binary(min_size=SIZE, max_size=SIZE)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.lists(plausible | garbage, max_size=30).map(b"".join), max_size=3))
def test_a_line_means_what_to_json_says_of_any_record(batches: list[bytes]) -> None:
    names = Named()
    codec = Ndjson("fra1", EPOCH, names)
    for data in batches:
        assert lines(codec, data) == expected(data, names)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(plausible, max_size=30).map(b"".join), max_size=3))
def test_what_a_codec_forgets_when_it_is_full_it_makes_again(batches: list[bytes]) -> None:
    names = Named()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ndjson, "_FORMS_MOST", 2)
        patch.setattr(ndjson, "_ADDRESSES_MOST", 2)
        codec = Ndjson("fra1", EPOCH, names)
        for data in batches:
            assert lines(codec, data) == expected(data, names)


@settings(max_examples=100, deadline=None)
@given(st.lists(plausible, min_size=1, max_size=30).map(b"".join))
def test_nothing_but_blanks_between_tokens_tells_a_line_from_the_shortest(data: bytes) -> None:
    text, _ = Ndjson("fra1", EPOCH, Named()).encode(data)
    for line in bytes(text).decode("ascii").splitlines():
        shortest = json.dumps(json.loads(line), separators=(",", ":"))
        assert "".join(TOKEN.findall(line)) == shortest
        assert set(TOKEN.sub("", line)) <= {" "}


def test_lines_are_as_long_as_the_batch_s_longest_values_need() -> None:
    one, other = record(source_port=7, length=9), record(source_port=65535, length=10**12)
    alone, among = (bytes(Ndjson("fra1", EPOCH, Named()).encode(data)[0]) for data in (one, one + other))
    assert b" " not in alone
    first, second = among.splitlines(keepends=True)
    assert len(first) == len(second) > len(alone)


def test_records_of_any_kinds_keep_their_order() -> None:
    kinds = [*Kind, *reversed(Kind), Kind.GAP, Kind.DENY]
    data = records(*(record(kind=kind, length=number) for number, kind in enumerate(kinds)))
    numbered = b"".join(
        number.to_bytes(8, "little") + data[at + 8 : at + SIZE]
        for number, at in enumerate(range(0, len(data), SIZE))
    )
    found = lines(Ndjson("fra1", EPOCH, Named()), numbered)
    assert [line and line["event.sequence"] for line in found] == [*range(len(kinds))]


def test_every_kind_s_line_is_valid() -> None:
    data = records(*(record(kind=kind, end=End.REVOKED, start_ns=10**18) for kind in Kind))
    found = lines(Ndjson("fra1", EPOCH, Named()), data)
    assert [line and line["event.action"] for line in found] == [
        "packet", "flow-open", "flow-update", "flow-close", "deny", "gap"
    ]  # fmt: skip
    assert [validation.errors("event", line) for line in found] == [[]] * len(Kind)


# OTLP ---------------------------------------------------------------------------------------------------------


def attributes(log: Any) -> dict[str, Any]:
    kinds = ("int_value", "string_value")
    found = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in log.attributes}
    assert len(found) == len(log.attributes)
    assert {one.value.WhichOneof("value") for one in log.attributes} <= set(kinds)
    return found


def logs(data: bytes, names: PolicyNames | None = None) -> list[LogRecord]:
    codec = Otlp("fra1", EPOCH, names or Named())
    part, _ = codec.encode(data)
    (body,) = codec.wrap([part])
    (resource,) = ExportLogsServiceRequest.FromString(body).resource_logs
    assert attributes(resource.resource) == {
        "service.name": "tidegate", "service.version": __version__, "service.instance.id": "fra1"
    }  # fmt: skip
    (scope,) = resource.scope_logs
    assert (scope.scope.name, scope.scope.version) == (otlp.SCOPE, __version__)
    assert len(body) <= len(part) + codec.overhead
    return list(scope.log_records)


@settings(max_examples=100, deadline=None)
@given(st.lists(plausible | garbage, max_size=10).map(b"".join))
def test_a_log_record_says_what_to_json_says_of_any_record(data: bytes) -> None:
    names = Named()
    told = [one for one in expected(data, names) if one is not None]
    found = logs(data, names)
    assert len(found) == len(told)
    for log, one in zip(found, told, strict=True):
        assert event.timestamp(log.time_unix_nano) == one.pop("@timestamp")
        small = {k: v if isinstance(v, str) or v < 1 << 63 else str(v) for k, v in one.items()}
        assert attributes(log) == small
        assert log.observed_time_unix_nano == log.time_unix_nano


def test_a_log_record_has_a_name_a_severity_and_its_identity() -> None:
    open_, deny, gap = logs(
        records(record(kind=Kind.FLOW_OPEN), record(kind=Kind.DENY, verdict=0), record(kind=Kind.GAP))
    )
    assert (open_.event_name, open_.severity_text, open_.severity_number) == ("tidegate.flow_open", "INFO", 9)
    assert (deny.event_name, deny.severity_text, deny.severity_number) == ("tidegate.deny", "WARN", 13)
    assert (gap.event_name, gap.severity_number) == ("tidegate.gap", 13)
    for log in (open_, deny, gap):
        found = attributes(log)
        identity = (found["observer.name"], found["tidegate.epoch"], found["event.sequence"])
        assert identity == ("fra1", EPOCH, 0)
        assert not log.HasField("body")


@pytest.mark.parametrize("count", [0, 1, 5000, (1 << 63) - 1])
def test_what_a_receiver_rejects_is_read(count: int) -> None:
    answer = ExportLogsServiceResponse(
        partial_success=ExportLogsPartialSuccess(rejected_log_records=count, error_message="no")
    )
    assert otlp.rejected(answer.SerializeToString()) == count


def test_fewer_than_none_are_not_rejected() -> None:
    part = ExportLogsPartialSuccess(rejected_log_records=-5)
    assert otlp.rejected(ExportLogsServiceResponse(partial_success=part).SerializeToString()) == 0


@given(st.binary(max_size=200))
def test_any_answer_is_an_ack(answer: bytes) -> None:
    assert otlp.rejected(answer) >= 0


# Names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"[]", b"{}", b"null", b"7"])
def test_without_a_generation_s_file_a_policy_stays_unnamed(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "3.json").write_bytes(content)
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        (line,) = lines(Ndjson("fra1", EPOCH, PolicyNames(directory)), record())
        assert line is not None
        assert "rule.name" not in line
    finally:
        os.close(directory)


def test_the_names_that_are_kept_are_bounded() -> None:
    names = PolicyNames(-1)
    for generation in range(500):
        names.of(generation)
    assert len(names._known) <= 64


def test_a_surrogate_in_a_name_stops_neither_codec(tmp_path: Path) -> None:
    (tmp_path / "3.json").write_bytes(b'["\\ud800"]')
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        names = PolicyNames(directory)
        assert names.of(3) == ["?"]
        assert lines(Ndjson("fra1", EPOCH, names), record()) == expected(record(), names)
        assert len(logs(record(), names)) == 1
    finally:
        os.close(directory)
