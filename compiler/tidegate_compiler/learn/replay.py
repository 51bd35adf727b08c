"""Recorded flows judged by a candidate: what would break, and what that was refused would pass. Pure.

    FlowGroup ──► whose is it in the candidate? ──► which gateway's table? ──► decide ──► differs from what was? Change

The verdict is the gateway's own: the document that its bundle would carry, made a table by the class that the
forwarder makes it of, and asked by the same method. Nothing here decides anything. A packet is judged by the gateway
that recorded it while the candidate still sends it there, and else by the one to which the client's route leads.

What an event does not tell, no replay can judge: a later fragment goes the way of its first one, which is `unjudged`;
an ICMP error is judged as ICMP, where the gateway looks at the packet that the error quotes.
"""

from __future__ import annotations

import functools
import ipaddress
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_compiler.judge import NO_ROUTE, court, route
from tidegate_compiler.learn.flows import DAY, NO_PORT, UNKNOWN, FlowGroup, TooManyFlowsError
from tidegate_compiler.learn.names import Names
from tidegate_compiler.model import Address
from tidegate_compiler.networks import inside
from tidegate_compiler.resolve import Fleet
from tidegate_schema.policy import Reason
from tidegate_schema.ports import PORTED_NUMBERS

NO_CLIENT = "NO_CLIENT"
"""The candidate has no client of that ID, nor one whose key followed it."""


_ASKS = 5
"""The first fields of a FlowGroup: all that a verdict depends on."""
_JUDGED_MOST = 1 << 19


CHANGES_MOST = 1_000_000
"""More changes than this are refused: some 1 GB. Somebody who scans every port makes one for each."""


class Judged(NamedTuple):
    """A verdict of the candidate: `reason` a Reason's name, NO_ROUTE or NO_CLIENT; `policy` the one that decided."""

    allow: bool
    reason: str
    gateway: str | None = None
    policy: str | None = None


_NO_CLIENT = Judged(False, NO_CLIENT)
_UNKNOWN_SOURCE = Judged(False, Reason.UNKNOWN_SOURCE.name)
_UNPARSEABLE = Judged(False, Reason.UNPARSEABLE.name)
assert FlowGroup._fields[:_ASKS] == ("gateway", "client_id", "destination", "protocol", "port")


class Candidate:
    """A fleet made ready to judge recorded flows."""

    def __init__(self, fleet: Fleet, names: Names) -> None:
        self.names = names
        self._fleet = fleet
        self._court = court(fleet)
        self._name_of = {one: name for name, one in fleet.ids.items()}
        self._ways: dict[tuple[int, str], tuple[str, ...]] = {}
        self._alike: dict[object, int] = {}
        self._class: dict[str, int] = {}
        self._judged: dict[tuple[tuple[object, ...], float], Judged | None] = {}

    @property
    def instants(self) -> frozenset[float]:
        """Return every moment at which some verdict of it may change, Unix seconds."""
        tables = self._court.tables.values()
        documents = (table.document for table in tables if table.document is not None)
        times = ("not_before", "expires")
        return frozenset(float(r[t]) for d in documents for r in d["rules"] for t in times if t in r)

    def judge(self, group: FlowGroup, at: float) -> Judged | None:
        """Return the verdict at a Unix second; None when the event does not tell enough for one."""
        # The same is asked on every day again, of everybody who did the same yesterday.
        key = (group[:_ASKS], at)
        try:
            return self._judged[key]
        except KeyError:
            if len(self._judged) >= _JUDGED_MOST:
                self._judged.clear()
            judged = self._judged[key] = self._judge(group, at)
            return judged

    def _judge(self, group: FlowGroup, at: float) -> Judged | None:
        if group.protocol == UNKNOWN:
            return _UNPARSEABLE
        if not group.client_id:
            return _UNKNOWN_SOURCE
        if group.port == NO_PORT and group.protocol in PORTED_NUMBERS:
            return None
        client = self.names.current(group.client_id)
        if client is None:
            return _NO_CLIENT
        address = _address(group.destination)
        gateway = self._gateway(self._name_of[client], address, group)
        if gateway is None:
            return Judged(False, NO_ROUTE)
        table = self._court.tables[gateway]
        verdict = table.decide(client, address.packed, group.protocol, max(group.port, 0), at)
        policy = None
        if verdict.rule is not None and table.document is not None:
            policy = str(table.document["rules"][verdict.rule]["policy"])
        return Judged(verdict.allow, verdict.reason.name, gateway, policy)

    def _gateway(self, name: str, address: Address, group: FlowGroup) -> str | None:
        """Return the gateway that a packet is judged by: the one that recorded it if it still can come there."""
        if name not in self._class:
            peers = self._court.clients[name].peers
            self._class[name] = self._alike.setdefault(peers, len(self._alike))
        key = (self._class[name], group.destination)
        if key not in self._ways:
            host = self._court.clients[name]
            way = route(host, address)
            others = (one for one, _ in host.peers if self._serves(one, address))
            self._ways[key] = () if way is None else tuple(dict.fromkeys((way.gateway, *others)))
        ways = self._ways[key]
        return group.gateway if group.gateway in ways else next(iter(ways), None)

    def _serves(self, gateway: str, address: Address) -> bool:
        return any(inside(address, one.value) for one in self._fleet.inventory.gateways[gateway].networks)


@functools.lru_cache(1 << 16)
def _address(text: str) -> Address:
    return ipaddress.ip_address(text)


class Key(NamedTuple):
    """What a change is about; `client` is an ID of the candidate, or the recorded one, "" for an unknown source."""

    passes: bool
    client: str
    destination: str
    protocol: int
    port: int
    reason: str
    policy: str | None


@dataclass
class Evidence:
    """What was recorded of it: flows, bytes both ways, Unix seconds of the first and last, days, gateways, old IDs."""

    flows: int = 0
    octets: int = 0
    first: float = float("inf")
    last: float = 0.0
    days: set[int] = field(default_factory=set)
    gateways: set[str] = field(default_factory=set)
    was: set[str] = field(default_factory=set)
    """Names and IDs that the client had when it was recorded, where they are others."""

    def add(self, slot: int, group: FlowGroup) -> None:
        """Count a group in."""
        self.flows += group.flows
        self.octets += group.octets
        self.first, self.last = min(self.first, group.first), max(self.last, group.last)
        self.days.add(slot // DAY)
        self.gateways.add(group.gateway)


@dataclass
class Replayed:
    """The outcome; `unjudged` counts flows that no verdict can be given, `same` those that fare as before."""

    changes: dict[Key, Evidence] = field(default_factory=dict)
    flows: int = 0
    same: int = 0
    unjudged: int = 0
    clients: set[str] = field(default_factory=set)
    gateways: Counter[str] = field(default_factory=Counter)
    first: float = float("inf")
    last: float = 0.0


def replay(
    groups: Iterable[tuple[int, FlowGroup]],
    candidate: Candidate,
    at: float | None,
    against: Candidate | None = None,
    most: int | None = None,
) -> Replayed:
    """Judge every group at Unix second `at`, or for None at the time when it was recorded.

    What was is the recorded verdict, or with `against` the verdict of another inventory on the same flow. Memory grows
    with what changes; TooManyFlowsError past `most` changes, CHANGES_MOST without a word.
    """
    done, most = Replayed(), CHANGES_MOST if most is None else most
    for slot, group in groups:
        _count(done, group)
        moment = slot if at is None else at
        now = candidate.judge(group, moment)
        if now is None:
            done.unjudged += group.flows
            continue
        before = group.verdict == "allow"
        if against is not None:
            judged = against.judge(group, moment)
            before = judged is not None and judged.allow
        if now.allow == before:
            done.same += group.flows
            continue
        current = candidate.names.current(group.client_id) or group.client_id
        key = Key(now.allow, current, group.destination, group.protocol, group.port, now.reason, now.policy)
        evidence = done.changes.get(key)
        if evidence is None:
            if len(done.changes) >= most:
                raise TooManyFlowsError(most)
            evidence = done.changes[key] = Evidence()
        evidence.add(slot, group)
        then = candidate.names.at(group.client_id, group.last) or group.client_id
        if group.client_id != current:
            evidence.was.add(f"{then} ({group.client_id})")
        elif then != candidate.names.called(current):
            evidence.was.add(then)
    return done


def _count(done: Replayed, group: FlowGroup) -> None:
    done.flows += group.flows
    done.clients.add(group.client_id)
    done.gateways[group.gateway] += group.flows
    done.first, done.last = min(done.first, group.first), max(done.last, group.last)


def select(
    groups: Iterable[tuple[int, FlowGroup]], names: Names, gateway: str | None, client: str | None
) -> Iterator[tuple[int, FlowGroup]]:
    """Yield the groups of one gateway and one client (a name of now or then, or an ID); None is any."""
    for slot, group in groups:
        if gateway is not None and group.gateway != gateway:
            continue
        if client is None or client in _called(names, group):
            yield slot, group


def _called(names: Names, group: FlowGroup) -> tuple[str | None, ...]:
    current = names.current(group.client_id)
    now = None if current is None else names.called(current)
    return group.client_id, names.at(group.client_id, group.last), current, now
