"""The forwarder's events by flow: each flow told of once, each denied packet counted once, and all of it bounded."""

from __future__ import annotations

import collections
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tidegate_agents.datapath import flowlog
from tidegate_agents.datapath.flowlog import FOLD_SECONDS, FlowLog
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_schema import event
from tidegate_schema.event import Kind, Template
from unit.agents.kit import unpacked

SILENCE = 120.0
SYN, ACK = 0x02, 0x10


def flow(number: int, *, allow: bool = True, generation: int = 1) -> Template:
    return event.template(
        generation=generation, rule=0, client_id=b"\xab" * 16, source=bytes(16), destination=bytes(16),
        source_port=number, destination_port=443, kind=Kind.FLOW_OPEN if allow else Kind.DENY, mode=1,
        verdict=int(allow), reason=int(allow), protocol=6, known=3,
    )  # fmt: skip


class Made:
    """A flow log and its ring."""

    def __init__(self, path: Path, records: int = 256) -> None:
        ring.create(path, records)
        self.path = path
        self.log = FlowLog(Ring(path), SILENCE)

    def saw(
        self, number: int, now: float, *, allow: bool = True, count: int = 1, generation: int = 1
    ) -> None:
        self.log.saw(flow(number, allow=allow, generation=generation), allow, SYN, count, count * 60, now)

    def told(self, now: float, *, final: bool = False) -> list[tuple[int, Kind, int, int]]:
        """Publish and return port, kind, packets and bytes of each new record."""
        self.log.publish(int(now * 1e9), 5, final=final)
        reader = Ring(self.path)
        events = unpacked(reader.peek(10**6))
        reader.free(len(events))
        return [(one.source_port, Kind(one.kind), one.packets, one.length) for one in events]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "events.ring")


def test_an_allowed_flow_is_told_once_and_leaves_its_packets_to_the_connection_table(made: Made) -> None:
    for now in range(100):
        made.saw(7, float(now))
    assert made.told(100.0) == [(7, Kind.FLOW_OPEN, 0, 0)]
    assert made.told(1000.0, final=True) == []


@pytest.mark.parametrize(("silent", "again"), [(SILENCE - 0.001, 0), (SILENCE, 1)])
def test_a_flow_is_told_again_after_silence(made: Made, silent: float, again: int) -> None:
    made.saw(7, 10.0)
    made.told(10.0)
    made.saw(7, 10.0 + silent)
    assert made.told(10.0 + silent) == [(7, Kind.FLOW_OPEN, 0, 0)] * again


def test_silence_counts_from_the_last_packet(made: Made) -> None:
    for now in (0.0, SILENCE * 0.9, SILENCE * 1.8, SILENCE * 2.7):
        made.saw(7, now)
    assert len(made.told(400.0)) == 1


def test_under_another_generation_it_is_another_flow(made: Made) -> None:
    made.saw(7, 0.0)
    made.saw(7, 1.0, generation=2)
    assert len(made.told(1.0)) == 2


def test_the_first_denial_is_told_at_once_and_the_others_in_one_record(made: Made) -> None:
    made.saw(7, 0.0, allow=False)
    assert made.told(0.0) == [(7, Kind.DENY, 1, 60)]
    assert made.log.due == math.inf
    for now in (1.0, 2.0, 3.0):
        made.saw(7, now, allow=False, count=2)
    assert made.log.due == 1.0 + FOLD_SECONDS
    assert made.told(0.999 + FOLD_SECONDS) == []
    assert made.told(1.0 + FOLD_SECONDS) == [(7, Kind.DENY, 6, 360)]
    assert made.told(100.0) == []
    assert made.log.due == math.inf


def test_much_that_was_counted_is_told_in_pieces_so_that_no_packet_waits_long(tmp_path: Path) -> None:
    made = Made(tmp_path / "ring", records=8192)
    for now in (0.0, 1.0):
        for number in range(3000):
            made.saw(number, now, allow=False)
        made.told(now)
    sizes = []
    while made.log.due != math.inf:
        assert made.log.due <= 1.0 + FOLD_SECONDS
        sizes.append(len(made.told(1.0 + FOLD_SECONDS)))
    assert sizes == [1024, 1024, 952]


def test_what_is_still_being_counted_is_told_at_the_end(made: Made) -> None:
    made.saw(7, 0.0, allow=False)
    made.saw(7, 1.0, allow=False)
    assert made.told(1.0, final=True) == [(7, Kind.DENY, 1, 60), (7, Kind.DENY, 1, 60)]
    assert made.told(2.0, final=True) == []


def test_a_record_says_when_it_was_told_and_of_which_flags(made: Made) -> None:
    made.saw(7, 0.0)
    made.log.publish(77, 88)
    (one,) = unpacked(Ring(made.path).peek(9))
    assert (one.monotonic_ns, one.wall_ns, one.tcp_flags, one.known) == (77, 88, SYN, 3)
    assert (one.client_id, one.generation, one.destination_port) == (b"\xab" * 16, 1, 443)


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 3), st.floats(0, 2)), max_size=40),
    st.integers(1, 6),
)
@example([(number, False, 1, 0.0) for number in (0, 0, 1, 0, 0)], 1)
def test_each_denied_packet_is_counted_once_however_many_flows_there_are(
    made: Made, seen: list[tuple[int, bool, int, float]], most: int
) -> None:
    told: collections.Counter[int] = collections.Counter()
    opened: set[int] = set()
    expected: collections.Counter[int] = collections.Counter()
    now = 0.0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flowlog, "MOST", most)
        made = Made(made.path)
        for number, allow, count, passed in seen:
            now += passed
            made.saw(number, now, allow=allow, count=count)
            if not allow:
                expected[number] += count
            for port, kind, packets, octets in made.told(now):
                assert octets == packets * 60
                opened |= {port} if kind == Kind.FLOW_OPEN else set()
                told[port] += packets
            assert len(made.log._seen) <= most
    for port, _, packets, _ in made.told(now, final=True):
        told[port] += packets
    assert told == expected or +told == +expected
    assert opened == {number for number, allow, *_ in seen if allow}


def test_a_full_ring_drops_and_counts(tmp_path: Path) -> None:
    made = Made(tmp_path / "ring", records=8)
    for number in range(20):
        made.saw(number, 0.0)
    assert [port for port, *_ in made.told(0.0)] == list(range(8))
    assert Ring(made.path).dropped() == 12
    made.saw(50, 1.0)
    made.log.publish(1, 1)
    (one,) = unpacked(Ring(made.path).peek(9))
    assert (one.source_port, one.seq) == (50, 20)
