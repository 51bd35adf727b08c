"""Failover in simulated time: gateways die and come back, and the client sees what WireGuard's counters would show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_agents.client import failover
from tidegate_agents.client.failover import Failover, Traffic, groups, split
from tidegate_schema.wgquick import ClientConfig, Peer

A, B, C = "A", "B", "C"
STEP = 0.25
SHAKEN = 1_800_000_000
FAILBACK = 60.0
BOUND = 15.0  # the issue's

Alive = Callable[[str, float], bool]


def config(*names: str) -> ClientConfig:
    """Return a bundle whose first gateway has a network, and the others stand by."""
    first, *others = names
    peers = [Peer(first, "192.0.2.1:1", ("10.20.0.0/16",)), *(Peer(name, "192.0.2.2:1") for name in others)]
    return ClientConfig(("10.64.0.11/32",), tuple(peers))


@dataclass
class Tunnel:
    """One peer of the client's device, after section 6 of WireGuard's paper."""

    handshake: float | None = None
    sent: int = 0
    received: int = 0
    asked: float = -100.0
    wants: float | None = None
    answer_due: float | None = None
    heard: float = -100.0
    data: float | None = None
    kept: float = 0.0

    def step(self, now: float, alive: bool, talks: bool, replies: bool, keepalive: int) -> None:
        if keepalive and now - self.kept >= keepalive:
            self.kept = now
            self._send(now, 32)
        if talks:
            self._send(now, 96)
            if self._session(now):
                self.data = now if self.data is None else self.data
                if alive and replies:
                    self._hear(now, 96)
                elif alive and self.answer_due is None:
                    self.answer_due = now + 10
        if self.answer_due is not None and now >= self.answer_due:
            self.answer_due = None
            if alive:
                self._hear(now, 32)
        if self.data is not None and now - self.data > 15:
            self.wants = now if self.wants is None else self.wants
        if self.wants is not None and now - self.asked >= 5:
            self.asked = now
            self.sent += 148
            if alive:
                self.handshake, self.wants = now, None
                self._hear(now, 92)
                self.sent += 32
            elif now - self.wants > 90:
                self.wants = None

    def _session(self, now: float) -> bool:
        return self.handshake is not None and now - self.handshake < 180

    def _send(self, now: float, size: int) -> None:
        if self._session(now):
            self.sent += size
        if self.handshake is None or now - self.handshake > 120:
            self.wants = now if self.wants is None else self.wants

    def _hear(self, now: float, size: int) -> None:
        self.received += size
        self.heard, self.data = now, None


class Deaf(Tunnel):
    """A peer that answers handshakes and nothing else."""

    def _hear(self, now: float, size: int) -> None:
        if size == 92:
            super()._hear(now, size)


@dataclass
class World:
    """A client with a device, and gateways that are alive or not."""

    names: Sequence[str]
    alive: Alive
    talks: Callable[[float], bool] = lambda now: True
    replies: bool = True
    keepalive: int = 0
    failback: float = FAILBACK
    look_every: float = 1.0
    tunnel: type[Tunnel] = Tunnel
    clock: Callable[[float], float] = lambda now: SHAKEN + now
    """What the clock of the host says, by which a device tells of handshakes: Unix seconds."""
    moves: list[tuple[float, str, str]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.tunnels = {name: self.tunnel() for name in self.names}
        self.failover = Failover()
        self.failover.follow(config(*self.names))
        self._next = 0.0

    @property
    def carrier(self) -> str:
        return self.failover.groups[0].carrier

    def run(self, until: float) -> None:
        while self.now < until:
            self.now += STEP
            for name, tunnel in self.tunnels.items():
                mine = name == self.carrier
                tunnel.step(
                    self.now,
                    self.alive(name, self.now),
                    mine and self.talks(self.now),
                    self.replies,
                    self.keepalive,
                )
            if self.now >= self._next:
                self._look()

    def _look(self) -> None:
        seen = {
            name: Traffic(
                0 if one.handshake is None else int(self.clock(one.handshake)), one.received, one.sent
            )
            for name, one in self.tunnels.items()
        }
        every = dict.fromkeys(self.names, self.keepalive)
        orders = self.failover.look(self.now, seen, every, self.failback)
        for name in orders.probe:
            self.tunnels[name] = self.tunnel(wants=self.now, kept=self.now)
        self.moves += [(self.now, move.source, move.target) for move in orders.moves]
        self._next = self.now + (0.5 if orders.soon else self.look_every)


def always(_name: str, _now: float) -> bool:
    return True


def dead_between(name: str, start: float, end: float) -> Alive:
    return lambda which, now: which != name or not start <= now < end


@pytest.mark.parametrize("replies", [True, False])
@pytest.mark.parametrize("keepalive", [0, 1, 25])
@pytest.mark.parametrize("pause", [0.25, 1.0, 7.0, 40.0, 1e9])
def test_without_an_outage_nothing_moves(replies: bool, keepalive: int, pause: float) -> None:
    world = World([A, B], always, lambda now: now % pause < STEP, replies, keepalive)
    world.run(1500)
    assert world.moves == []


@settings(deadline=None, max_examples=20)
@given(
    st.floats(20, 400),
    st.sampled_from([0.25, 0.5, 1.0]),
    st.booleans(),
    st.sampled_from([0, 1, 25]),
    st.floats(0.25, 1.0),
)
def test_a_silent_gateway_is_left_within_the_bound_while_there_is_traffic(
    dies: float, pause: float, replies: bool, keepalive: int, look_every: float
) -> None:
    world = World(
        [A, B],
        dead_between(A, dies, 1e9),
        lambda now: now % pause < STEP,
        replies,
        keepalive,
        look_every=look_every,
    )
    world.run(dies)
    assert world.moves == []
    world.run(dies + BOUND)
    assert world.carrier == B
    world.run(dies + 1000)
    assert len(world.moves) == 1


@settings(deadline=None, max_examples=20)
@given(st.floats(60, 300), st.floats(20, 400), st.sampled_from([10.0, 60.0, 300.0]))
def test_it_goes_back_when_the_first_has_answered_for_long_enough_and_not_before(
    dies: float, outage: float, failback: float
) -> None:
    back = dies + outage
    world = World([A, B], dead_between(A, dies, back), failback=failback)
    world.run(back + failback - 1)
    assert world.carrier == B
    world.run(back + failback + 25)
    assert world.carrier == A
    world.run(back + failback + 1000)
    assert len(world.moves) == 2


@pytest.mark.parametrize("ahead", [5, -5, 86400, -86400])
def test_a_clock_that_jumps_and_jumps_back_moves_nothing_and_delays_nothing(ahead: int) -> None:
    """It is set while all is well, while the first is silent, and while it is back: the counters are what tells."""

    def clock(now: float) -> float:
        return SHAKEN + now + (ahead if 100 <= now < 400 or 604 <= now < 607 or 1030 <= now < 1040 else 0)

    world = World([A, B], dead_between(A, 600, 1000), clock=clock)
    world.run(600)
    assert world.moves == []
    world.run(600 + BOUND)
    assert world.carrier == B
    world.run(1000 + FAILBACK - 1)
    assert world.carrier == B
    world.run(1000 + FAILBACK + 25)
    assert world.carrier == A
    assert len(world.moves) == 2


def test_zero_means_never_back() -> None:
    world = World([A, B], dead_between(A, 50, 100), failback=0)
    world.run(2000)
    assert [move[2] for move in world.moves] == [B]


def test_one_miss_begins_the_wait_anew() -> None:
    def alive(name: str, now: float) -> bool:
        return name != A or not (50 <= now < 100 or 130 <= now < 145)

    world = World([A, B], alive)
    world.run(145 + FAILBACK - 1)
    assert world.carrier == B
    world.run(145 + FAILBACK + 25)
    assert world.carrier == A


@settings(deadline=None, max_examples=10)
@given(
    st.lists(st.tuples(st.sampled_from([A, B, C]), st.floats(10, 900), st.floats(1, 200)), max_size=8),
    st.booleans(),
)
def test_it_moves_to_no_gateway_that_is_dead_and_does_not_flap(
    outages: list[tuple[str, float, float]], replies: bool
) -> None:
    def alive(name: str, now: float) -> bool:
        return not any(name == who and start <= now < start + length for who, start, length in outages)

    world = World([A, B, C], alive, replies=replies)
    world.run(1200)
    for when, _, target in world.moves:
        # It has answered a moment ago: a look and a handshake's worth of time.
        assert any(alive(target, when - ago / 4) for ago in range(60)), (when, target)
    # An outage makes at most one move away and one back.
    assert len(world.moves) <= 2 * len(outages)
    if world.moves and not any(alive(name, 1200) for name in (A, B, C)):
        return
    world.run(world.now + 3000)
    assert world.carrier == A  # all is well again


def test_with_all_dead_it_stays_and_takes_the_first_that_answers() -> None:
    world = World([A, B, C], lambda name, now: now < 100 or (name == C and now > 300))
    world.run(299)
    assert world.moves == []
    world.run(300 + failover.PATIENT_SECONDS + 6)
    assert world.carrier == C


def test_a_gateway_that_shakes_hands_and_carries_nothing_is_not_swapped_all_the_time() -> None:
    """Both answer handshakes and no data, as behind a network that drops large packets."""

    world = World([A, B], always, tunnel=Deaf)
    world.run(3600)
    first_hour = len(world.moves)
    assert first_hour < 40
    world.run(7200)
    assert len(world.moves) - first_hour <= 26  # a move each rest of five minutes, and the ways back


def test_nothing_is_concluded_over_a_time_without_a_look() -> None:
    """The host slept, and its network comes back a little later: that says nothing of the gateway."""
    world = World([A, B], dead_between(A, 98, 133))
    world.run(100)
    assert world.failover.health[A].data_since is not None
    world._next = 130  # no look while it sleeps
    world.run(200)
    assert world.moves == []


def test_counters_that_begin_anew_are_no_sign_of_silence() -> None:
    """Somebody took the peer off and put it back, and its handshake was answered since."""
    state = Failover()
    state.follow(config(A, B))
    for now, traffic in ((1.0, Traffic(SHAKEN, 1000, 992)), (2.0, Traffic(SHAKEN, 92, 180))):
        state.look(now, {A: traffic}, {}, FAILBACK)
    assert state.health[A].unanswered() is None


def test_an_idle_client_notices_nothing_until_it_sends() -> None:
    world = World([A, B], dead_between(A, 50, 1e9), lambda now: now < 40 or now > 500)
    world.run(500)
    assert world.moves == []
    world.run(500 + BOUND)
    assert world.carrier == B


def test_keepalives_make_an_idle_client_notice_at_its_next_handshake() -> None:
    world = World([A, B], dead_between(A, 50, 1e9), lambda now: now < 40, keepalive=25)
    world.run(50 + 120 + 25 + BOUND)
    assert world.carrier == B


@pytest.mark.parametrize(
    ("sent", "keepalives", "found"),
    [
        (0, 1, (False, False)),
        (32, 1, (False, False)),
        (64, 1, (False, True)),
        (64, 2, (False, False)),
        (148, 1, (True, False)),
        (148 + 32, 1, (True, False)),
        (148 + 96, 1, (True, True)),
        (296, 1, (True, False)),
        (92 + 32, 1, (False, False)),
        (96 * 1000, 1, (False, True)),
    ],
)
def test_what_was_sent_is_told_apart_by_its_size(
    sent: int, keepalives: int, found: tuple[bool, bool]
) -> None:
    assert split(sent, keepalives) == found


def test_groups_are_a_peer_with_networks_and_those_behind_it() -> None:
    one, other = config(A, B), config(C)
    both = ClientConfig(one.addresses, one.peers + other.peers)
    assert [[peer.public_key for peer in group] for group in groups(both)] == [[A, B], [C]]


def moved() -> Failover:
    world = World([A, B], dead_between(A, 50, 1e9))
    world.run(100)
    assert world.carrier == B
    return world.failover


def networks(assigned: ClientConfig) -> dict[str, tuple[str, ...]]:
    return {peer.public_key: peer.allowed_ips for peer in assigned.peers}


def test_the_networks_are_given_to_the_one_that_carries_and_to_no_other() -> None:
    state = moved()
    assert networks(state.assigned(config(A, B))) == {A: (), B: ("10.20.0.0/16",)}


@pytest.mark.parametrize(
    ("names", "carrier"), [((A, B), B), ((A, B, C), B), ((B, A), B), ((A, C), A), ((C,), C)]
)
def test_a_release_keeps_the_carrier_as_long_as_the_group_has_it(names: Iterable[str], carrier: str) -> None:
    state = moved()
    state.follow(config(*names))
    assert state.groups[0].carrier == carrier
    assert networks(state.assigned(config(*names)))[carrier] == ("10.20.0.0/16",)


@pytest.mark.parametrize(
    ("held", "carrier"),
    [({B: frozenset({"10.20.0.0/16"})}, B), ({B: frozenset({"10.99.0.0/16"})}, A), ({}, A)],
)
def test_an_agent_that_starts_goes_on_with_whom_the_interface_uses(
    held: dict[str, frozenset[str]], carrier: str
) -> None:
    state = Failover()
    state.follow(config(A, B), held)
    assert state.groups[0].carrier == carrier
