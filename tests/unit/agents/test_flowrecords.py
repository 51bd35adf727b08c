"""Records of flows: what is read of the kernel's messages, what is left to tell of a flow, and whose it is."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tidegate_agents.events.ring import Ring, create
from tidegate_agents.gateway import connections, flowsession
from tidegate_agents.gateway.connections import Connection, Flow, Malformed
from tidegate_agents.gateway.flownews import Overrun
from tidegate_agents.gateway.flowsession import ClockSetError, Counts, Session, Shared
from tidegate_agents.gateway.judgements import Judgement, attribute, moved_since
from tidegate_agents.gateway.ledger import Amount, Ledger
from tidegate_agents.gateway.ruleset import APPROVED
from tidegate_schema import event
from tidegate_schema.event import End, Kind
from tidegate_schema.policy import PolicyTable, Reason
from unit.agents.kit import ICMP, NOW, TCP, UDP, id_of, policy, raw, unpacked

BEGAN = 1000
ALICE4, WEB = raw("10.64.0.11"), raw("10.20.0.80")

# The kernel's messages: a builder of its own, which shares nothing with the reader ------------------------------------


def part(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def nest(kind: int, *parts: bytes) -> bytes:
    return part(kind | 0x8000, b"".join(parts))


def tuple_of(source: bytes, destination: bytes, protocol: int, *ports: int) -> bytes:
    first = 1 if len(source) == 4 else 3
    numbers = [part(kind, struct.pack(">H", port)) for kind, port in zip((2, 3), ports, strict=False)]
    icmp = [] if ports else [part(4, b"\0\1"), part(5, b"\x08"), part(6, b"\0")]
    addresses = nest(1, part(first, source), part(first + 1, destination))
    return addresses + nest(2, part(1, bytes([protocol])), *numbers, *icmp)


def counters(kind: int, packets: int, length: int) -> bytes:
    return nest(kind, part(1, struct.pack(">Q", packets)), part(2, struct.pack(">Q", length)))


def message(
    original: bytes = b"",
    sent: tuple[int, int] = (3, 300),
    answered: tuple[int, int] = (2, 200),
    *,
    times: tuple[int, ...] = (2000, 3000),
    mark: int = 7,
    identity: bytes = b"abcd",
) -> bytes:
    original = original or tuple_of(ALICE4, WEB, TCP, 40000, 443)
    stamps = [part(kind, struct.pack(">Q", value)) for kind, value in zip((1, 2), times, strict=False)]
    return (
        struct.pack("=BBH", 2, 0, 0)
        + (nest(1, original) + nest(2, original) + part(12, identity) + part(3, b"\0\0\2\x08"))
        + (
            counters(9, *sent)
            + counters(10, *answered)
            + nest(20, *stamps)
            + part(8, struct.pack(">I", mark))
        )
    )


# Reading ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "destination", "protocol", "ports"),
    [
        (ALICE4, WEB, TCP, (40000, 443)),
        (raw("fd64::11"), raw("fd20::80"), UDP, (1, 65535)),
        (ALICE4, WEB, ICMP, ()),
        (ALICE4, WEB, 50, ()),
    ],
)
def test_a_message_says_who_spoke_to_whom_how_much_and_when(
    source: bytes, destination: bytes, protocol: int, ports: tuple[int, ...]
) -> None:
    read = connections.read(message(tuple_of(source, destination, protocol, *ports)))
    assert connections.flow(read.original) == Flow(source, destination, protocol, *(ports or (0, 0)))
    assert connections.counted(read.sent) == (3, 300)
    assert connections.counted(read.answered) == (2, 200)
    assert (read.mark, read.start_ns, read.stop_ns) == (7, 2000, 3000)


def test_the_same_read_attribute_by_attribute_is_the_same() -> None:
    """An attribute more than the kernel usually writes takes the long way."""
    more = part(77, b"something")
    usual = tuple_of(ALICE4, WEB, TCP, 40000, 443)
    assert connections.flow(usual + more) == connections.flow(usual)
    pair = counters(9, 5, 600)[4:]
    assert connections.counted(pair + more) == connections.counted(pair) == (5, 600)


def test_a_connection_that_began_with_nothing_switched_on_has_no_counts_and_no_begin() -> None:
    body = message(times=())
    body = body.replace(counters(9, 3, 300), b"").replace(counters(10, 2, 200), b"")
    read = connections.read(body)
    assert (connections.counted(read.sent), read.start_ns, read.stop_ns) == ((0, 0), 0, 0)


def test_a_connection_s_key_is_its_own_also_when_all_but_one_thing_is_another_s() -> None:
    other = tuple_of(ALICE4, WEB, TCP, 40001, 443)
    bodies = [message(), message(identity=b"abce"), message(times=(2001,)), message(other)]
    assert len({connections.read(body).key for body in bodies}) == 4
    assert connections.read(message(sent=(9, 9), times=(2000,))).key == connections.read(message()).key


def test_whatever_the_bytes_are_it_is_a_connection_or_malformed() -> None:
    source = random.Random(5)
    whole = message()
    outcomes = set()
    for _ in range(20000):
        body = bytearray(whole[: source.randrange(len(whole) + 1)])
        for _ in range(source.randrange(4)):
            if body:
                body[source.randrange(len(body))] = source.randrange(256)
        try:
            read = connections.read(bytes(body))
            flow = connections.flow(read.original)
            amounts = connections.counted(read.sent) + connections.counted(read.answered)
        except Malformed:
            outcomes.add("malformed")
            continue
        outcomes.add("read")
        assert len(flow.source) == len(flow.destination) in (4, 16)
        # Whatever is read fits into a record.
        assert max(*amounts, read.start_ns, read.stop_ns) < 1 << 64
        assert max(flow.source_port, flow.port) < 1 << 16
    assert outcomes == {"malformed", "read"}


# What is left to tell ---------------------------------------------------------------------------------------------


def seen(packets: int, *, start: int = 2000, name: bytes = b"a") -> Connection:
    """Return a connection that has sent so many packets of 100 bytes and was answered by half as many."""
    sent, answered = (counters(9, n, 100 * n)[4:] for n in (packets, packets // 2))
    return Connection(name + str(start).encode(), b"", 7, sent, answered, start, 0)


def amount(packets: int, answers: int) -> Amount:
    return Amount(packets, 100 * packets, answers, 100 * answers)


def look(ledger: Ledger, *live: Connection, tell: bool = True) -> list[Amount | None]:
    ledger.look()
    found = [ledger.see(one, tell=tell) for one in live]
    ledger.found_all()
    return found


def test_the_parts_of_a_flow_add_up_to_what_the_kernel_counted() -> None:
    ledger = Ledger(BEGAN)
    assert look(ledger, seen(4)) == [amount(4, 2)]
    assert look(ledger, seen(4)) == [None]
    assert look(ledger, seen(10)) == [amount(6, 3)]
    assert ledger.close(seen(11)) == amount(1, 0)
    assert len(ledger) == 0
    assert ledger.close(seen(3)) == amount(3, 1)  # another one, of which nothing has been told


def test_what_was_before_it_began_is_not_told() -> None:
    ledger = Ledger(BEGAN)
    ledger.look()
    # Ended before it was come across: nobody knows how much of it was before.
    assert ledger.close(seen(3, start=1000)) is None
    assert ledger.close(seen(3, start=0)) is None
    assert look(ledger, seen(4, start=900), seen(2, start=1100), tell=False) == [None, None]
    assert len(ledger) == 1  # the younger one is told whole
    assert ledger.close(seen(10, start=900)) == amount(6, 3)
    assert ledger.close(seen(3, start=1100)) == amount(3, 1)


def test_after_a_whole_look_what_it_has_not_found_is_younger_whatever_its_begin_says() -> None:
    """The clock may have been set back by an hour, or the kernel may note no begin."""
    ledger = Ledger(BEGAN)
    look(ledger, seen(4, start=900), seen(5, start=0), tell=False)
    assert ledger.knows_older
    assert look(ledger, seen(7, start=10), seen(6, start=900), seen(8, start=0)) == [
        amount(7, 3),
        amount(2, 1),
        amount(3, 2),
    ]
    assert ledger.close(seen(3, start=11)) == amount(3, 1)
    assert ledger.close(seen(3, start=0, name=b"b")) == amount(3, 1)


def test_while_an_older_one_has_found_no_room_and_after_half_a_look_the_begin_tells() -> None:
    ledger = Ledger(BEGAN, most=1)
    look(ledger, *(seen(4, start=900, name=name) for name in (b"a", b"b")))
    assert not ledger.knows_older
    assert ledger.close(seen(5, start=900, name=b"b")) is None
    look(ledger, seen(4, start=900))
    assert ledger.knows_older
    other = Ledger(BEGAN)
    other.look()
    other.gave_up()
    assert not other.knows_older
    assert other.close(seen(3, start=1000)) is None


def test_one_that_ended_while_looking_is_not_told_again_when_a_later_piece_has_it() -> None:
    ledger = Ledger(BEGAN)
    ledger.look()
    assert ledger.close(seen(6)) == amount(6, 3)
    assert ledger.see(seen(5), tell=True) is None
    ledger.found_all()
    assert len(ledger) == 0


def test_what_a_whole_look_has_not_found_is_forgotten_and_of_half_a_look_nothing() -> None:
    ledger = Ledger(BEGAN)
    look(ledger, seen(4, name=b"a"), seen(4, name=b"b"))
    ledger.look()
    ledger.see(seen(4, name=b"a"), tell=True)
    ledger.gave_up()
    assert len(ledger) == 2
    assert ledger.close(seen(6, name=b"b")) == amount(2, 1)
    look(ledger, seen(4, name=b"c"))
    assert len(ledger) == 1
    ledger.look()
    ledger.look()  # one after the other without an end
    assert ledger.close(seen(5, name=b"c")) == amount(1, 0)


def test_memory_is_bounded_and_what_finds_no_room_is_told_whole_at_its_close() -> None:
    ledger = Ledger(BEGAN, most=2)
    assert look(ledger, *(seen(4, name=name) for name in (b"a", b"b", b"c"))) == [
        amount(4, 2),
        amount(4, 2),
        None,
    ]
    assert len(ledger) == 2
    assert ledger.close(seen(6, name=b"c")) == amount(6, 3)
    assert look(ledger, seen(5, name=b"a")) == [amount(1, 0)]
    ledger.look()
    assert not ledger.is_strained
    for name in (b"x", b"y"):
        ledger.close(seen(1, name=name))
    assert ledger.is_strained


def test_counters_that_somebody_set_to_zero_are_told_from_there() -> None:
    ledger = Ledger(BEGAN)
    look(ledger, seen(10))
    assert look(ledger, seen(3)) == [amount(3, 1)]
    assert ledger.close(seen(4)) == amount(1, 1)


def test_of_a_malformed_one_nothing_is_changed() -> None:
    ledger = Ledger(BEGAN)
    look(ledger, seen(4))
    bad = seen(5)._replace(sent=part(1, bytes(9)))
    with pytest.raises(Malformed):
        ledger.close(bad)
    ledger.look()
    with pytest.raises(Malformed):
        ledger.see(bad, tell=True)
    assert ledger.see(seen(6), tell=True) == amount(2, 1)


# Whose ------------------------------------------------------------------------------------------------------------

HTTPS = {"to": ["10.20.0.80/32"], "ports": ["tcp/443"]}
RULES = PolicyTable(policy(alice=[HTTPS], bob=[HTTPS]))
FLOW = Flow(ALICE4, WEB, TCP, 40000, 443)
S = 10**9


def judgement(generation: int, owner: str | None, since: int, **more: Any) -> Judgement:
    clients = {ALICE4: id_of(owner)} if owner else {}
    fields: dict[str, Any] = {"enforce": True, "policy": RULES, "at": float(NOW), "clock_ns": 0}
    return Judgement(generation, clients=clients, since_ns=since, **fields | more)


def named(judgements: list[Judgement], at: int, *, start: int = 0, clock: int = 0, flow: Flow = FLOW) -> Any:
    found = attribute(judgements, flow, start, at, clock)
    owner = {bytes.fromhex(id_of(name)): name for name in ("alice", "bob")}.get(found.client_id)
    return owner, found.generation, found.rule


def test_of_an_address_that_moves_what_ended_before_is_the_old_owner_s_and_what_came_after_the_new_one_s() -> (
    None
):
    both = [judgement(7, "alice", 10 * S), judgement(8, "bob", 20 * S)]
    assert named(both, 20 * S - 1, start=11 * S) == ("alice", 7, 0)
    assert named(both, 20 * S, start=20 * S) == ("bob", 8, 1)
    assert named(both, 5 * S) == ("alice", 7, 0)  # before all that is known: the oldest


def test_where_the_clock_was_set_between_two_owners_none_is_named() -> None:
    both = [judgement(7, "alice", 10 * S), judgement(8, "bob", 20 * S)]
    for at in (15 * S, 25 * S):
        assert named(both, at, clock=S)[0] is None
    assert named(both[1:], 15 * S, clock=S)[0] == "bob"
    same = [both[0], judgement(8, "alice", 20 * S)]
    assert named(same, 15 * S, clock=S)[0] == "alice"
    # Set back while connections were cut, so that the last judgement has the clock of now: alice's ended at 5000.
    cut = [
        judgement(7, "alice", 4000 * S, clock_ns=3000 * S),
        judgement(8, "bob", 1401 * S, clock_ns=-600 * S),
    ]
    assert named(cut, 5000 * S, start=4500 * S, clock=-600 * S)[0] is None


def test_a_flow_has_the_rule_by_which_it_was_last_judged_also_when_that_has_expired_meanwhile() -> None:
    first, second = HTTPS | {"expires": NOW + 10}, HTTPS | {"expires": NOW + 20}
    rules = PolicyTable(policy(alice=[first, second]))
    before = judgement(7, "alice", NOW * S, policy=rules)
    later = judgement(7, "alice", (NOW + 10) * S, policy=rules, at=NOW + 10.0)
    last = judgement(7, "alice", (NOW + 20) * S, policy=rules, at=NOW + 20.0)
    assert named([before], (NOW + 9) * S, start=(NOW + 1) * S) == ("alice", 7, 0)
    assert named([before, later], (NOW + 15) * S, start=(NOW + 1) * S) == ("alice", 7, 1)
    assert named([before, later, last], (NOW + 20) * S - 1, start=(NOW + 1) * S) == ("alice", 7, 1)


def test_where_no_rule_is_found_that_allows_it_none_is_named_and_the_owner_is() -> None:
    other = FLOW._replace(port=22)
    assert named([judgement(7, "alice", 0)], 1, flow=other) == ("alice", 7, event.NO_RULE)
    assert named([judgement(7, None, 0)], 1) == (None, 7, event.NO_RULE)


def test_in_observe_a_flow_from_before_an_address_moved_is_nobody_s() -> None:
    observed = {"enforce": False, "policy": PolicyTable(None)}
    first = judgement(7, "alice", 10 * S, **observed)
    moved = moved_since(first, {ALICE4: id_of("bob")}, {ALICE4}, 20 * S)
    second = judgement(8, "bob", 20 * S, moved=moved, **observed)
    assert named([first, second], 25 * S, start=15 * S) == (None, 8, event.NO_RULE)
    assert named([second], 25 * S, start=0)[0] is None
    assert named([second], 25 * S, start=20 * S)[0] is None
    assert named([second], 25 * S, start=20 * S + 1)[0] == "bob"
    assert attribute([second], FLOW, 21 * S, 25 * S, 0).reason == Reason.OBSERVED
    # Begun by a clock that was set back: a begin that is still to come says nothing.
    assert named([second], 25 * S, start=26 * S)[0] is None
    # It stays so at a change that moves nothing, and begins anew at the next move.
    assert moved_since(second, {ALICE4: id_of("bob")}, {ALICE4}, 30 * S) == {ALICE4: 20 * S}
    assert moved_since(second, {ALICE4: id_of("alice")}, {ALICE4}, 30 * S) == {ALICE4: 30 * S}
    assert moved_since(None, {ALICE4: id_of("alice")}, {ALICE4}, 30 * S) == {ALICE4: 30 * S}
    assert moved_since(second, {ALICE4: id_of("bob")}, set(), 30 * S) == {}


def test_a_begin_by_a_clock_that_was_set_back_decides_about_no_rule() -> None:
    rules = PolicyTable(policy(alice=[HTTPS | {"expires": NOW + 10}]))
    one = judgement(7, "alice", NOW * S, policy=rules)
    assert named([one], (NOW + 5) * S, start=(NOW + 3600) * S) == ("alice", 7, 0)


# A session --------------------------------------------------------------------------------------------------------

DELETED, PORT = 0x102, 4711


class FakeNews:
    """The kernel's side: what waits, message by message; None stands for news that was lost."""

    def __init__(self) -> None:
        self.waiting: list[bytes | None] = []

    def read(self, most: int) -> Iterator[bytes]:
        for _ in range(min(most, len(self.waiting))):
            one = self.waiting.pop(0)
            if one is None:
                raise Overrun
            yield one


class FakeLook:
    """A table with the connections that it is told of."""

    live: ClassVar[list[bytes]] = []
    is_last = True
    age = 0.0
    begun = ended = 0

    def __init__(self) -> None:
        type(self).begun += 1

    def piece(self) -> tuple[list[bytes], int, bool]:
        return self.live, time.time_ns(), self.is_last

    def lasts(self) -> float:
        return self.age

    def close(self) -> None:
        type(self).ended += 1


class FakeTime:
    """The clocks as a session sees them; CLOCK_REALTIME can be set."""

    monotonic, monotonic_ns = staticmethod(time.monotonic), staticmethod(time.monotonic_ns)

    def __init__(self) -> None:
        self.set_by = 0

    def time_ns(self) -> int:
        return time.time_ns() + self.set_by


class Recorded:
    """A session on a ring, fed by hand."""

    def __init__(self, path: Path, records: int = 64, shared: Shared | None = None) -> None:
        create(path / "flows.ring", records)
        self.ring, self.news, self.counts, self.shared = (
            Ring(path / "flows.ring"),
            FakeNews(),
            Counts(),
            shared or Shared(),
        )
        self.shared.judgements = (judgement(7, "alice", 0),)
        self.shared.add_port(PORT)
        self.session = Session(self.shared, self.counts, self.ring, self.news)  # type: ignore[arg-type]
        self.later = time.time_ns() + S

    def step(self, *messages: bytes | None) -> list[event.Event]:
        """Let these arrive, do a step, and return what it has recorded."""
        self.news.waiting += messages
        before = self.ring.pending()
        self.session.step()
        return unpacked(self.ring.peek(1 << 20, before))

    def end_of(
        self, start: int = 0, *, kind: int = DELETED, port: int = 0, mark: int = APPROVED, cut: int = 0
    ) -> bytes:
        body = message(times=(start or self.later, self.later + 5), mark=mark)
        whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 0, port) + body
        return whole[: len(whole) - cut]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> type[FakeLook]:
    class Table(FakeLook):
        live: ClassVar[list[bytes]] = []

    monkeypatch.setattr(flowsession, "Look", Table)
    return Table


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    made = FakeTime()
    monkeypatch.setattr(flowsession, "time", made)
    return made


@pytest.fixture
def recorded(tmp_path: Path, table: type[FakeLook]) -> Recorded:
    return Recorded(tmp_path)


def test_an_end_is_told_with_its_reason_and_what_is_not_ours_or_no_end_is_not(recorded: Recorded) -> None:
    told = recorded.step(recorded.end_of(), recorded.end_of(port=PORT), recorded.end_of(port=PORT + 1))
    assert [one.end for one in told] == [End.ENDED, End.REVOKED, End.ENDED]
    assert {(one.kind, one.packets, one.reply_length, one.generation) for one in told} == {
        (Kind.FLOW_CLOSE, 3, 200, 7)
    }
    assert recorded.step(recorded.end_of(mark=APPROVED + 1), recorded.end_of(kind=0x100)) == []
    assert recorded.counts == Counts(told=3)


def test_messages_that_cannot_be_read_are_counted_and_the_next_one_is_told(recorded: Recorded) -> None:
    noise = random.Random(3)
    for _ in range(3000):
        bad = bytearray(recorded.end_of())
        for _ in range(noise.randrange(1, 5)):
            bad[noise.randrange(len(bad))] = noise.randrange(256)
        recorded.step(bytes(bad)[: noise.randrange(len(bad) + 1)])
        recorded.ring.free(recorded.ring.pending())
    unreadable = recorded.counts.unreadable
    assert unreadable > 100
    recorded.step(recorded.end_of(cut=180))
    assert recorded.counts.unreadable == unreadable + 1
    assert len(recorded.step(recorded.end_of())) == 1


def test_lost_news_is_one_gap_from_the_last_good_moment_until_all_that_waited_is_read(
    recorded: Recorded,
) -> None:
    good = time.time_ns()
    recorded.step()
    told = recorded.step(recorded.end_of(), None, recorded.end_of(), None)
    assert [one.kind for one in told] == [Kind.FLOW_CLOSE]
    assert [one.kind for one in recorded.step()] == [Kind.FLOW_CLOSE]  # it may go on being lost
    (gap,) = recorded.step()
    assert gap.kind == Kind.GAP
    assert good <= gap.start_ns <= told[0].wall_ns <= gap.wall_ns
    assert recorded.step() == []
    assert recorded.counts.gaps == 1


def test_of_a_flow_that_is_older_and_was_never_come_across_the_end_is_told_and_a_gap(
    recorded: Recorded,
) -> None:
    told = recorded.step(recorded.end_of(start=1))
    assert [(one.kind, one.packets) for one in told] == [(Kind.FLOW_CLOSE, 0), (Kind.GAP, 0)]


def test_a_full_ring_drops_and_counts(recorded: Recorded) -> None:
    recorded.step(*[recorded.end_of()] * 70)
    assert (recorded.ring.pending(), recorded.ring.dropped()) == (64, 6)
    assert (recorded.counts.told, recorded.counts.dropped) == (70, 6)
    recorded.ring.free(64)
    assert recorded.step(recorded.end_of())[0].seq == 70


def live(start: int, packets: int = 3) -> bytes:
    return message(sent=(packets, 100 * packets), answered=(0, 0), times=(start,), mark=APPROVED)


def test_a_gap_is_there_at_once_and_never_begins_after_its_own_time(recorded: Recorded) -> None:
    before = time.time_ns()
    recorded.session.gap(before - 600 * S)
    recorded.session.gap(before + 600 * S)  # noted by a clock that was set back since
    first, second = unpacked(recorded.ring.peek(1 << 20))
    assert first.start_ns == before - 600 * S
    assert before <= second.start_ns == second.wall_ns


def test_of_what_was_there_at_the_first_look_only_what_is_younger_is_told_whole(
    recorded: Recorded, table: type[FakeLook]
) -> None:
    recorded.shared.interval = 0.0
    table.live = [live(1, 5), live(time.time_ns(), 7)]
    recorded.step()
    assert [one.packets for one in recorded.step()] == [7]
    table.live = [live(1, 9)]
    recorded.step()
    assert [one.packets for one in recorded.step()] == [4]


def test_a_clock_that_is_set_back_costs_nothing_of_later_flows_once_the_older_ones_are_known(
    recorded: Recorded, table: type[FakeLook], clock: FakeTime
) -> None:
    recorded.step()
    recorded.step()
    assert recorded.session.has_looked
    clock.set_by = -3600 * S
    started = time.time_ns() - 3600 * S
    (told,) = recorded.step(recorded.end_of(start=started))
    assert (told.kind, told.packets, told.start_ns) == (Kind.FLOW_CLOSE, 3, started)
    before = time.time_ns() - 3600 * S  # and a gap is one by the new clock
    assert recorded.step(None) == []
    (gap,) = recorded.step()
    assert started <= gap.start_ns <= before <= gap.wall_ns


@pytest.mark.parametrize("seconds", [-3600, 1])
def test_a_clock_that_is_set_before_ends_the_session(
    recorded: Recorded, clock: FakeTime, seconds: int
) -> None:
    recorded.step()
    clock.set_by = seconds * S
    with pytest.raises(ClockSetError, match="the clock was set"):
        recorded.step()


def test_in_a_session_after_the_clock_was_set_back_every_begin_so_far_is_older_and_a_gap_says_so(
    tmp_path: Path, table: type[FakeLook], clock: FakeTime
) -> None:
    old = Recorded(tmp_path)
    old.ring.close()
    (tmp_path / "flows.ring").unlink()
    table.live = [live(time.time_ns(), 5)]  # by the new clock, that will be in an hour
    clock.set_by = -3600 * S
    new = Recorded(tmp_path, shared=old.shared)
    new.shared.interval = 0.0
    new.step()
    assert new.step() == []
    table.live = [live(time.time_ns() - 3600 * S, 7)]
    told = new.step()
    assert [one.kind for one in told] == [Kind.GAP]
    assert [one.packets for one in new.step()] == [7]


def test_a_look_that_takes_too_long_or_meets_too_many_ends_is_given_up_and_begun_again(
    recorded: Recorded, table: type[FakeLook], monkeypatch: pytest.MonkeyPatch
) -> None:
    table.is_last = False
    recorded.step()
    recorded.step()
    assert (table.begun, table.ended) == (1, 0)
    table.age = 61.0
    recorded.step()
    assert (table.begun, table.ended) == (1, 1)
    assert 5 < recorded.session._next_look() - time.monotonic() <= 10
    assert not recorded.session.has_looked
    recorded.session._look_due, table.age = 0.0, 0.0
    recorded.step()
    recorded.session._ledger._most = 1
    recorded.step(recorded.end_of())
    assert (table.begun, table.ended) == (2, 2)


def test_an_end_in_the_midst_of_news_tells_a_gap_since_the_last_good_moment(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded.step()
    before = time.time_ns()
    recorded.news.waiting = [None] * 200
    recorded.session.finish()
    (gap,) = unpacked(recorded.ring.peek(1 << 20))
    assert gap.kind == Kind.GAP
    assert gap.start_ns <= before
    recorded.ring.free(1)
    monkeypatch.setattr(flowsession, "_AT_ONCE", 1)
    recorded.news.waiting = [recorded.end_of()] * 200
    recorded.session.finish()
    assert recorded.counts.gaps == 2
    recorded.news.waiting = [recorded.end_of()]
    recorded.session.finish()
    assert recorded.counts.gaps == 2
