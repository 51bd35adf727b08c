"""What is posted of a gateway's host events says what `hostevent.to_json` says of them; no record stops a codec."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from tidegate_agents.events import ring
from tidegate_agents.events.batches import Codec
from tidegate_agents.events.names import PolicyNames
from tidegate_agents.events.ndjson import HostNdjson
from tidegate_agents.events.otlp import HostOtlp
from tidegate_agents.events.ring import HEADER_BYTES, Ring
from tidegate_agents.events.tail import Tail, Wanted, line
from tidegate_schema import event, hostevent, jsonfile, validation
from tidegate_schema.hostevent import Entry, HostEvent
from unit.agents.flusherkit import Driven, fill, start
from unit.agents.kit import log_server, status, until
from unit.agents.receivers import otlp_receiver

EPOCH = "0123456789abcdef"
SIZE = hostevent.RECORD_BYTES
WALL_NS = 1_800_000_000_123_456_789
ANY = (hostevent.RECORD_BYTES,)

entries = st.builds(
    Entry,
    number=st.integers(1, 2**63 - 1),
    wall_ns=st.integers(0, 2**63 - 1),
    told=st.fixed_dictionaries(
        {"event": st.sampled_from([one.value for one in HostEvent])},
        optional={
            "name": st.sampled_from(["replayed", "routes", "not a name"]),
            "reason": st.text(max_size=600),
            "serial": st.integers(-1, 2**64),
            "digest": st.just("ab" * 32),
            "other": st.text(max_size=5),
        },
    ),
)
made = st.builds(hostevent.pack, st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), entries)
some_records = st.lists(made | st.binary(min_size=SIZE, max_size=SIZE), max_size=6)


def expected(data: Sequence[bytes]) -> list[dict[str, Any]]:
    found = []
    for record in data:
        with contextlib.suppress(ValueError):
            found.append(hostevent.to_json(hostevent.unpack(record), "fra1", EPOCH))
    return found


def encoded(codec: Codec, data: Sequence[bytes]) -> bytes:
    """Return the body of the records; those that cannot be read are counted, and nothing else."""
    part, unreadable = codec.encode(memoryview(b"".join(data)))
    assert unreadable == len(data) - len(expected(data))
    body = b"".join(codec.wrap([part]))
    assert len(body) <= len(part) + codec.overhead
    return body


@settings(max_examples=100, deadline=None)
@given(some_records)
def test_a_line_means_what_to_json_says_of_any_record(data: list[bytes]) -> None:
    body = encoded(HostNdjson("fra1", EPOCH, PolicyNames(-1)), data)
    found = [jsonfile.parse(one) for one in body.splitlines()]
    assert found == expected(data)
    assert [validation.errors("event", one) for one in found] == [[]] * len(found)


@settings(max_examples=100, deadline=None)
@given(some_records)
def test_a_log_record_says_what_to_json_says_of_any_record(data: list[bytes]) -> None:
    body = encoded(HostOtlp("fra1", EPOCH, PolicyNames(-1)), data)
    (resource,) = ExportLogsServiceRequest.FromString(body).resource_logs
    (scope,) = resource.scope_logs
    told = expected(data)
    assert len(scope.log_records) == len(told)
    for log, one in zip(scope.log_records, told, strict=True):
        is_grave = one["tidegate.host.event"] in hostevent.GRAVE
        assert (log.event_name, log.severity_text) == ("tidegate.host", "WARN" if is_grave else "INFO")
        assert event.timestamp(log.time_unix_nano) == one.pop("@timestamp")
        found = {at.key: getattr(at.value, at.value.WhichOneof("value")) for at in log.attributes}
        assert found == {k: v if isinstance(v, str) or v < 1 << 63 else str(v) for k, v in one.items()}


def put(path: Path, *told: dict[str, Any]) -> None:
    """Publish host events, as their producer does, into a ring that is made where there is none."""
    ring.open_or_replace(path, 8, SIZE)
    with contextlib.closing(Ring(path, ANY)) as producer:
        for one in told:
            octets, first, room, mask, seq = producer.claim()
            if room:
                at = HEADER_BYTES + (first & mask) * SIZE
                octets[at : at + SIZE] = hostevent.pack(seq, 6, Entry(seq + 1, WALL_NS + seq, one))
            producer.publish(1)


REFUSED = {"event": "release-refused", "name": "replayed", "reason": "serial 4 is older than 5"}
APPLIED = {"event": "release-applied", "serial": 6, "digest": "ab" * 32}


def test_the_flusher_posts_them_beside_packets_each_ring_under_its_own_identity(tmp_path: Path) -> None:
    packets, hosts = tmp_path / "events.ring", tmp_path / "host.ring"
    ring.create(packets, 64)
    fill(packets, 1, 2)
    put(hosts, REFUSED, APPLIED)
    with log_server(status(204)) as server, start([packets, hosts], server.url) as process:
        until("all have come", lambda: len(server.lines()) == 4)
        until("they are freed", lambda: Ring(hosts, ANY).pending() == 0)
        process.terminate()
        assert process.wait(10) == 0
        mine = [one for one in server.lines() if one["event.action"] == "host"]
        epochs = {
            headers["tidegate-epoch"]: headers["tidegate-sequence"] for _, headers, _ in server.requests
        }
    assert [one["tidegate.host.event"] for one in mine] == ["release-refused", "release-applied"]
    assert [(one["event.sequence"], one["tidegate.host.number"]) for one in mine] == [(0, 1), (1, 2)]
    assert epochs == {Ring(packets).epoch: "0-1", Ring(hosts, ANY).epoch: "0-1"}


def test_an_otlp_receiver_takes_them(tmp_path: Path) -> None:
    hosts = tmp_path / "host.ring"
    put(hosts, REFUSED)
    with otlp_receiver() as receiver, start(hosts, receiver.url, log_format="otlp") as process:
        until("they are freed", lambda: Ring(hosts, ANY).pending() == 0)
        process.terminate()
        assert process.wait(10) == 0
        (request,) = receiver.requests
    (log,) = request.resource_logs[0].scope_logs[0].log_records
    found = {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in log.attributes}
    assert (log.event_name, log.severity_text) == ("tidegate.host", "WARN")
    assert (found["tidegate.host.name"], found["message"]) == ("replayed", "serial 4 is older than 5")


def test_of_a_full_ring_the_head_of_a_batch_says_what_is_missing(tmp_path: Path) -> None:
    hosts = tmp_path / "host.ring"
    put(hosts, *[APPLIED] * 11)
    with log_server(status(204)) as server:
        one = Driven(hosts, server.url)
        try:
            assert one.step(0.0, final=True)
        finally:
            one.close()
        ((_, headers, _),) = server.requests
    assert (headers["tidegate-sequence"], headers["tidegate-dropped"]) == ("0-7", "3")


def tail(*paths: Path) -> Tail:
    return Tail(paths, "fra1", lambda generation: [])


def test_they_are_shown_as_they_come_with_those_of_packets(tmp_path: Path) -> None:
    packets, hosts = tmp_path / "events.ring", tmp_path / "host.ring"
    ring.create(packets, 64)
    fill(packets, 1, wall_ns=WALL_NS + 10)
    put(hosts, REFUSED, APPLIED)
    with contextlib.closing(Ring(hosts, ANY)) as consumer:
        consumer.free(1)  # what is sent is still shown
    shown = tail(packets, hosts).read()
    assert [one["event.action"] for one in shown][-1] == "packet"
    assert line(shown[-2]).split()[:3] == ["08:00:00.123456", "host", "release-applied"]
    assert "serial=6" in line(shown[-2])


def test_a_host_event_s_line_says_all_of_it_and_a_question_about_packets_is_not_its() -> None:
    told = hostevent.to_json(
        hostevent.unpack(hostevent.pack(0, 6, Entry(1, WALL_NS, REFUSED))), "fra1", EPOCH
    )
    expected_line = (
        "08:00:00.123456 host        release-refused name=replayed message=serial 4 is older than 5"
    )
    assert line(told) == expected_line
    assert Wanted()(told)
    assert not Wanted(verdict="deny")(told)
    assert not Wanted(client="ab")(told)


@given(made)
def test_any_host_event_is_one_line_of_plain_letters(record: bytes) -> None:
    assert line(hostevent.to_json(hostevent.unpack(record), "fra1", EPOCH)).isprintable()


def test_a_record_that_cannot_be_read_is_counted(tmp_path: Path) -> None:
    hosts = tmp_path / "host.ring"
    put(hosts, REFUSED, APPLIED)
    with hosts.open("r+b") as file:
        file.seek(HEADER_BYTES + 32)
        file.write(b"\xff")
    reading = tail(hosts)
    assert [one["tidegate.host.event"] for one in reading.read()] == ["release-applied"]
    assert reading.unreadable == 1
