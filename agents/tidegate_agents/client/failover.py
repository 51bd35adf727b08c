"""Which gateway of each group carries its networks, decided on the client alone. Pure: time and counters come in.

A group is a peer with AllowedIPs and the standbys that follow it in the bundle. What a client can know of a gateway, by
WireGuard's own rules (section 6 of https://www.wireguard.com/papers/wireguard.pdf, where the constants are named):

* whoever got data and has none to send answers with an empty packet within KEEPALIVE_TIMEOUT, 10 s. So a gateway that
  was sent data and from which nothing came for longer than that is silent, whatever the traffic is;
* a handshake is answered at once, and tried again after REKEY_TIMEOUT, 5 s: so who was asked twice in vain is silent;
* a client that sends nothing asks nothing: it notices when it sends, or by its keepalives every 120 s.

From the first doubt on, the others of the group are made to shake hands, which disturbs nothing, since they carry
nothing. The group moves to one that has answered since, and to none that has not. It goes back to an earlier one of its
order when that has answered for a while without a miss. A gateway that goes silent again and again rests in between, so
that two half-dead gateways are not swapped all the time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tidegate_schema.wgquick import ClientConfig, Peer

DATA_SECONDS = 11.0
"""So long after data a live gateway has answered: 10 s by the protocol, and a second for the way and the look."""
HANDSHAKE_SECONDS = 7.0
"""So long after a first initiation a live gateway has answered one of two."""
DOUBT_DATA_SECONDS, DOUBT_HANDSHAKE_SECONDS = 4.0, 2.0
PROBE_SECONDS = 3.0
"""Between two handshakes that a gateway without traffic is made to do, while the one in use is in doubt."""
PATIENT_SECONDS = 15.0
"""The same, when all of a group have been silent for longer than a minute."""
_STALE_SECONDS = 5.0
"""Nothing is concluded over a longer time without a look: the host slept, or was too busy to see an answer."""
_PROMPT_SECONDS = 4.0
"""Who answers later has answered WireGuard's own second try only."""
_REST_SECONDS, _REST_MAX_SECONDS = 30.0, 300.0
_STEADY_SECONDS = 600.0
"""Who carried for so long without going silent starts with a clean slate."""
_MAX_STRIKES = 5

_KEEPALIVE_BYTES, _INITIATION_BYTES, _RESPONSE_BYTES = 32, 148, 92


@dataclass(frozen=True)
class Traffic:
    """What a device says of a peer: time of the last handshake (0 for none) and bytes since it was added."""

    handshake: int
    received: int
    sent: int


@dataclass
class Health:
    """What is known of one gateway; times are the caller's monotonic seconds, None for never or not so."""

    traffic: Traffic | None = None
    data_since: float | None = None
    """Data sent since then is unanswered."""
    shaking_since: float | None = None
    """Handshakes begun since then are unanswered."""
    probed: float | None = None
    """When it was last made to shake hands, and whether that is answered:"""
    answered: bool = False
    alive_since: float | None = None
    """It has answered every probe since then."""
    carries_since: float | None = None
    strikes: int = 0
    rests_until: float = float("-inf")

    def silent(self, now: float) -> bool:
        """Tell whether it would have answered by now if it were alive."""
        return _past(self.data_since, DATA_SECONDS, now) or _past(self.shaking_since, HANDSHAKE_SECONDS, now)

    def doubtful(self, now: float) -> bool:
        """Tell whether it may be about to be found silent."""
        return _past(self.data_since, DOUBT_DATA_SECONDS, now) or _past(
            self.shaking_since, DOUBT_HANDSHAKE_SECONDS, now
        )

    def unanswered(self) -> float | None:
        """Return since when it has not answered what it was sent."""
        return min((one for one in (self.data_since, self.shaking_since) if one is not None), default=None)


def _past(since: float | None, seconds: float, now: float) -> bool:
    return since is not None and now - since > seconds


@dataclass
class Group:
    """Gateways for the same networks in the bundle's order, and which of them carries; `changed` is None at first."""

    gateways: tuple[str, ...]
    carrier: str
    changed: float | None = None
    why: str = "first in the bundle"
    doubts_since: float | None = None


@dataclass(frozen=True)
class Orders:
    """What to do after a look: make these shake hands; `moves` are lines for the log; look again soon."""

    probe: tuple[str, ...] = ()
    moves: tuple[Move, ...] = ()
    soon: bool = False


@dataclass(frozen=True)
class Move:
    """A group has moved from one gateway to another; `why` is a part of a sentence."""

    source: str
    target: str
    why: str


def groups(config: ClientConfig) -> tuple[tuple[Peer, ...], ...]:
    """Return the groups of a bundle, each with its first gateway in front."""
    found: list[list[Peer]] = []
    for peer in config.peers:
        if peer.allowed_ips:
            found.append([peer])
        else:
            found[-1].append(peer)  # the first peer has AllowedIPs: wgquick.parse sees to it
    return tuple(map(tuple, found))


def split(sent: int, keepalives: int) -> tuple[bool, bool]:
    """Tell of what was sent between two looks whether handshakes and whether data were in it.

    Data packets and keepalives are multiples of 16 bytes long, initiations 148 and responses 92 (section 5.4 of the
    paper), so the remainder tells how many handshake packets there were, as long as there are few. What so many
    keepalives would explain is no data: nobody answers a keepalive.
    """
    initiations = {4: 1, 8: 2}.get(sent % 16, 0)
    shaken = initiations * _INITIATION_BYTES or (_RESPONSE_BYTES if sent % 16 == 12 else 0)
    return initiations > 0, sent - shaken > keepalives * _KEEPALIVE_BYTES


@dataclass
class Failover:
    """The state of every group of one client. `follow` a bundle, then `look` again and again."""

    groups: list[Group] = field(default_factory=list)
    health: dict[str, Health] = field(default_factory=dict)
    _looked: float | None = None

    def follow(self, config: ClientConfig, holding: Mapping[str, frozenset[str]] | None = None) -> None:
        """Take up a bundle's groups; who carries goes on, as long as the group still has it.

        `holding` are the AllowedIPs of an interface that was there before: whom an earlier agent had moved to.
        """
        carriers = {group.carrier: group for group in self.groups}
        made = []
        for peers in groups(config):
            keys = tuple(peer.public_key for peer in peers)
            old = next((carriers[key] for key in keys if key in carriers), None)
            networks = frozenset(peers[0].allowed_ips)
            held = next((key for key in keys if holding and holding.get(key) == networks), keys[0])
            if old is not None:
                made.append(replace(old, gateways=keys))
            elif held != keys[0]:
                made.append(Group(keys, held, why="in use before the agent started"))
            else:
                made.append(Group(keys, keys[0]))
        self.groups = made
        known = {key for group in made for key in group.gateways}
        self.health = {key: self.health.get(key, Health()) for key in known}

    def assigned(self, config: ClientConfig) -> ClientConfig:
        """Return the bundle with each group's networks at the gateway that carries them."""
        carriers = {group.gateways[0]: group.carrier for group in self.groups}
        networks: dict[str, tuple[str, ...]] = {}
        for peers in groups(config):
            first = peers[0].public_key
            networks[carriers.get(first, first)] = peers[0].allowed_ips
        peers = tuple(replace(peer, allowed_ips=networks.get(peer.public_key, ())) for peer in config.peers)
        return replace(config, peers=peers)

    def forget(self) -> None:
        """Drop what was sent without an answer: the reason for that is gone."""
        for health in self.health.values():
            health.traffic = health.data_since = health.shaking_since = None

    def look(
        self, now: float, seen: Mapping[str, Traffic], keepalives: Mapping[str, int], failback_after: float
    ) -> Orders:
        """Take in the counters of every peer, and say what to do. `keepalives`: seconds between two, 0 for none."""
        elapsed = 0.0 if self._looked is None else now - self._looked
        self._looked = now
        for key, health in self.health.items():
            traffic = seen.get(key)
            if elapsed > _STALE_SECONDS:
                health.data_since = health.shaking_since = health.probed = None
            if traffic is not None:
                every = keepalives.get(key, 0)
                _take_in(health, traffic, now, 1 + (1 + int(elapsed / every) if every else 0))
        orders = [self._group(group, now, failback_after) for group in self.groups if len(group.gateways) > 1]
        return Orders(
            tuple(key for one in orders for key in one.probe),
            tuple(move for one in orders for move in one.moves),
            any(one.soon for one in orders),
        )

    def _group(self, group: Group, now: float, failback_after: float) -> Orders:
        carrier = self.health[group.carrier]
        if carrier.carries_since is None:
            carrier.carries_since = now
        elif now - carrier.carries_since > _STEADY_SECONDS and not carrier.doubtful(now):
            carrier.strikes = 0
        others = [key for key in group.gateways if key != group.carrier]
        if carrier.doubtful(now):
            if group.doubts_since is None:
                group.doubts_since = now
            if carrier.silent(now) and (target := self._fit(others, now)) is not None:
                silence = now - (carrier.unanswered() or now)
                return self._move(
                    group, target, now, f"the gateway before was silent for {silence:.0f} s", left=True
                )
            patient = now - group.doubts_since > 60.0
            return self._probe(others, now, PATIENT_SECONDS if patient else PROBE_SECONDS, soon=True)
        group.doubts_since = None
        earlier = group.gateways[: group.gateways.index(group.carrier)]
        if not failback_after:
            return Orders(soon=carrier.unanswered() is not None)
        for key in earlier:
            health = self.health[key]
            hold = failback_after * 2 ** max(0, health.strikes - 1)
            if health.answered and health.alive_since is not None and now - health.alive_since >= hold:
                why = f"it has answered for {now - health.alive_since:.0f} s"
                return self._move(group, key, now, why, left=False)
        every = max(2.0, min(10.0, failback_after / 6))
        return self._probe(earlier, now, every, soon=carrier.unanswered() is not None)

    def _fit(self, others: Sequence[str], now: float) -> str | None:
        """Return the first in order that has answered its last probe, which was made in doubt, and does not rest."""
        for key in others:
            if self.health[key].answered and now >= self.health[key].rests_until:
                return key
        return None

    def _move(self, group: Group, target: str, now: float, why: str, *, left: bool) -> Orders:
        old = self.health[group.carrier]
        if left:
            old.strikes = min(old.strikes + 1, _MAX_STRIKES)
            old.rests_until = now + min(_REST_SECONDS * (2 ** (old.strikes - 1) - 1), _REST_MAX_SECONDS)
        old.data_since = old.shaking_since = old.carries_since = None
        old.probed, old.answered, old.alive_since = None, False, None
        new = self.health[target]
        new.data_since = new.shaking_since = new.probed = None
        new.carries_since = now
        move = Move(group.carrier, target, why)
        group.carrier, group.changed, group.why, group.doubts_since = target, now, why, None
        return Orders(moves=(move,), soon=True)

    def _probe(self, keys: Sequence[str], now: float, every: float, *, soon: bool) -> Orders:
        due = []
        for key in keys:
            health = self.health[key]
            if health.probed is not None and now - health.probed < every:
                continue
            if not health.answered:  # the last probe was in vain, or there was none
                health.alive_since = None
            health.probed, health.answered, health.traffic = now, False, Traffic(0, 0, 0)
            due.append(key)
        return Orders(probe=tuple(due), soon=soon or bool(due))


def _take_in(health: Health, traffic: Traffic, now: float, keepalives: int) -> None:
    before, health.traffic = health.traffic, traffic
    if health.probed is not None and not health.answered and traffic.handshake:
        health.answered = True
        if health.alive_since is None or now - health.probed > _PROMPT_SECONDS:
            health.alive_since = now
    if before is None:
        return
    if traffic.sent < before.sent or traffic.received < before.received:  # somebody has added the peer anew
        before = Traffic(0, 0, 0)
    if traffic.received > before.received:
        # Of what was sent in the same interval nobody knows whether it came before: the next look tells.
        health.data_since = health.shaking_since = None
        return
    shakes, data = split(traffic.sent - before.sent, keepalives)
    if shakes and health.shaking_since is None:
        health.shaking_since = now
    if data and health.data_since is None:
        health.data_since = now
