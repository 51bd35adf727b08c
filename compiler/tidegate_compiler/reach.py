"""What clients reach, exactly: the space of packets cut where a route or a rule begins or ends, every piece judged.

    client -> its routes, as intervals of addresses -> the rules of the gateway there, as boxes
           --sweep--> pieces that no rule cuts any further --judge--> Piece

Within a piece the same rules match every packet, so one packet of it, given to `judge`, speaks for the verdict of all
of them. Nothing here decides anything. Clients with equal rights and equal routes are swept once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from tidegate_compiler.judge import Judgement, Packet, court, judge, route
from tidegate_compiler.model import Address, Network
from tidegate_compiler.plan.regions import (
    EVERY_PORT,
    EVERY_PROTOCOL,
    FOREVER,
    Box,
    Interval,
    Sweep,
    ports_box,
)
from tidegate_compiler.plan.rights import FAMILIES, Atom, Gateways, Rights, Sets
from tidegate_compiler.resolve import ClientHost, Fleet
from tidegate_schema.ports import parse_ports

ALWAYS = (0, FOREVER)
_ASKED = -1
_BITS = {4: 32, 6: 128}

Alike = tuple[Any, ...]
"""What clients that fare alike have in common: their peers and families, and their set of rules at every gateway."""


@dataclass(frozen=True)
class Piece:
    """A box of packets of one address family that all get one verdict; the reason is that of the first of them."""

    family: int
    box: Box
    judgement: Judgement


def asked(networks: Iterable[Network], port: str, at: int) -> tuple[tuple[int, Box], ...]:
    """Return the packets to every address of some prefixes, on a written port, at a Unix second: (family, box)."""
    return tuple(
        (network.version, (span(network), *ports_box(parse_ports(port, network.version)), (at, at + 1)))
        for network in networks
    )


def everything(networks: Iterable[Network], time: Interval = ALWAYS) -> tuple[tuple[int, Box], ...]:
    """Return the packets to every address of some prefixes on any protocol and port: (family, box)."""
    return tuple((network.version, (span(network), EVERY_PROTOCOL, EVERY_PORT, time)) for network in networks)


def span(network: Network) -> Interval:
    """Return a prefix as an interval of addresses."""
    first = int(network.network_address)
    return first, first + network.num_addresses


def address(family: int, number: int) -> Address:
    """Return an address from its number."""
    return ipaddress.IPv4Address(number) if family == 4 else ipaddress.IPv6Address(number)


def packet_in(client: str, piece: Piece) -> Packet:
    """Return the first packet of a piece."""
    (to, _), (protocol, _), (port, _), (at, _) = piece.box
    return Packet(client, address(piece.family, to), protocol, port, at)


class Reach:
    """A fleet made ready to tell what its clients reach."""

    def __init__(self, fleet: Fleet) -> None:
        self.court = court(fleet)
        self._gateways = Gateways({name: gateway.policy for name, gateway in fleet.gateways.items()}, Sets())
        self._sets: dict[str, list[tuple[str, int]]] = {}
        for gateway in fleet.gateways.values():
            for client, number in (gateway.policy or {"clients": {}})["clients"].items():
                self._sets.setdefault(client, []).append((gateway.name, number))
        self._routes: dict[Any, tuple[tuple[int, Interval, str | None], ...]] = {}
        self._pieces: dict[Any, tuple[Piece, ...]] = {}

    def alike(self, client: str) -> Alike:
        """Return what stands for a client: equal for two only when every packet fares equally, by the same policy.

        `Rights` would not do: they are equal, too, where different policies say the same.
        """
        host = self.court.clients[client]
        return host.peers, host.families, tuple(self._sets.get(host.client_id, ()))

    def pieces(self, client: str, of: tuple[tuple[int, Box], ...]) -> tuple[Piece, ...]:
        """Return disjoint pieces that together are what is asked about, in order of family and address."""
        key = (self.alike(client), of)
        if key not in self._pieces:
            self._pieces[key] = tuple(self._cut(client, of))
        return self._pieces[key]

    def allowed(self, client: str, time: Interval = ALWAYS) -> tuple[Piece, ...]:
        """Return disjoint pieces that are everything a client is allowed within a span of time."""
        boxes = []
        for family, to, gateway in self._way(client):
            if gateway is not None:
                found = (atom.box for _, atom in self._atoms(client, gateway, family) if not atom.deny)
                boxes += [(family, both) for box in found if (both := _clip(box, to, time)) is not None]
        return tuple(piece for piece in self.pieces(client, tuple(boxes)) if piece.judgement.allow)

    def _cut(self, client: str, of: tuple[tuple[int, Box], ...]) -> Iterator[Piece]:
        for family, to, gateway in self._way(client):
            wanted = [
                both for version, box in of if version == family and (both := _clip(box, to)) is not None
            ]
            if not wanted:
                continue
            atoms = [] if gateway is None else self._atoms(client, gateway, family)
            sweep: Sweep[frozenset[int]] = Sweep(lambda tags: tags if _ASKED in tags else None)
            boxes = [(box, _ASKED, True) for box in wanted] + [
                (atom.box, rule, False) for rule, atom in atoms
            ]
            for box, _ in sweep.over(boxes):
                piece = Piece(family, box, Judgement(False, ""))
                yield Piece(family, box, judge(self.court, packet_in(client, piece)))

    def _atoms(self, client: str, gateway: str, family: int) -> list[tuple[int, Atom]]:
        """Return the boxes of the rules a client has at a gateway, each with its rule's number."""
        rights: Rights = self._gateways.clients.get(self.court.clients[client].client_id, ())
        return [
            (rule.number, atom)
            for name, number in rights
            if name == gateway
            for rule in self._gateways.rules(gateway, number)
            for atom in rule.atoms
            if atom.family == family
        ]

    def _way(self, client: str) -> tuple[tuple[int, Interval, str | None], ...]:
        """Return the whole of both families as intervals, each with the gateway its packets go to."""
        host = self.court.clients[client]
        if host.peers not in self._routes:
            self._routes[host.peers] = tuple(
                (family, to, gateway) for family in FAMILIES for to, gateway in _routes(host, family)
            )
        return self._routes[host.peers]


def _routes(client: ClientHost, family: int) -> list[tuple[Interval, str | None]]:
    """Ask for the route once between every two ends of prefixes; neighbours that go one way are joined."""
    networks = (ipaddress.ip_network(text) for _, peer in client.peers for text in peer.allowed_ips)
    ends = {0, 1 << _BITS[family], *(end for own in networks if own.version == family for end in span(own))}
    found: list[tuple[Interval, str | None]] = []
    for low, high in pairwise(sorted(ends)):
        way = route(client, address(family, low))
        gateway = way.gateway if way else None
        if found and found[-1][1] == gateway:
            found[-1] = ((found[-1][0][0], high), gateway)
        else:
            found.append(((low, high), gateway))
    return found


def overlap(one: Interval, other: Interval) -> Interval | None:
    """Return what two intervals share, or None."""
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (low, high) if low < high else None


def meet(one: Box, other: Box) -> Box | None:
    """Return what two boxes share, or None."""
    shared = [overlap(mine, yours) for mine, yours in zip(one, other, strict=True)]
    if None in shared:
        return None
    to, protocol, port, time = (interval for interval in shared if interval is not None)
    return to, protocol, port, time


def _clip(box: Box, to: Interval, time: Interval = ALWAYS) -> Box | None:
    return meet(box, (to, EVERY_PROTOCOL, EVERY_PORT, time))


def subtract(boxes: Sequence[Box], less: Sequence[Box]) -> list[Box]:
    """Return disjoint boxes that are the packets of `boxes` outside `less`."""
    sweep: Sweep[bool] = Sweep(lambda tags: True if tags == {True} else None)
    return [
        box for box, _ in sweep.over([(b, True, True) for b in boxes] + [(b, False, False) for b in less])
    ]
