"""What happens to one packet of a client: its route, then the verdict of the gateway it is routed to.

The verdict itself is `tidegate_schema.policy`'s, read from the very document that is rendered; nothing here
decides anything. The route is the client's longest matching prefix, as WireGuard and the kernel choose it.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass

from tidegate_compiler.model import Address, Network
from tidegate_compiler.networks import inside
from tidegate_compiler.resolve import ClientHost, Fleet
from tidegate_schema.policy import PolicyTable, Reason, Verdict
from tidegate_schema.ports import PortRange, parse_ports

NO_ROUTE = "NO_ROUTE"


@dataclass(frozen=True)
class Packet:
    """What is asked: a client's packet to an address, with a protocol and a port (0 without), at a Unix second."""

    client: str
    address: Address
    protocol: int
    port: int
    at: float


@dataclass(frozen=True)
class Route:
    """The gateway a packet goes to, and the prefix that sends it there."""

    gateway: str
    network: Network
    endpoint: str
    standbys: tuple[str, ...]


@dataclass(frozen=True)
class Judgement:
    """The outcome: no route at all, or a gateway's verdict. `policy` is the one that decided, if one did."""

    allow: bool
    reason: str
    route: Route | None = None
    policy: str | None = None


@dataclass(frozen=True)
class Court:
    """A fleet made ready to judge packets."""

    clients: Mapping[str, ClientHost]
    tables: Mapping[str, PolicyTable]


def court(fleet: Fleet) -> Court:
    """Index a fleet's clients and policies."""
    return Court(
        fleet.clients,
        {name: PolicyTable(gateway.policy) for name, gateway in fleet.gateways.items()},
    )


def packet(client: str, address: Address, port: str, at: float) -> Packet:
    """Return the packet a written port such as "tcp/443" or "icmp" stands for in the address's family."""
    asked: PortRange = parse_ports(port, address.version)
    ported = asked.first == asked.last
    return Packet(client, address, asked.protocol, asked.first if ported else 0, at)


def judge(over: Court, asked: Packet) -> Judgement:
    """Return what happens to a packet of a client that exists."""
    client = over.clients[asked.client]
    way = route(client, asked.address)
    if way is None:
        return Judgement(False, NO_ROUTE)
    table = over.tables[way.gateway]
    verdict: Verdict = table.decide(
        client.client_id, asked.address.packed, asked.protocol, asked.port, asked.at
    )
    policy = None
    if verdict.rule is not None and table.document is not None:
        policy = str(table.document["rules"][verdict.rule]["policy"])
    return Judgement(verdict.allow, verdict.reason.name, way, policy)


def route(client: ClientHost, address: Address) -> Route | None:
    """Return where a client sends packets for an address, or None: then they never enter the tunnel."""
    best: Route | None = None
    for position, (gateway, peer) in enumerate(client.peers):
        for text in peer.allowed_ips:
            network = _network(text)
            if not inside(address, network):
                continue
            if best is None or network.prefixlen > best.network.prefixlen:
                best = Route(gateway, network, peer.endpoint, _standbys(client, position))
    return best


@functools.lru_cache(maxsize=65536)
def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


def _standbys(client: ClientHost, position: int) -> tuple[str, ...]:
    names = []
    for gateway, peer in client.peers[position + 1 :]:
        if peer.allowed_ips:
            break
        names.append(gateway)
    return tuple(names)


def why(judgement: Judgement, client: ClientHost, address: Address) -> str:
    """Return the reason in words, one line."""
    if judgement.reason == NO_ROUTE:
        if address.version not in client.families:
            return f"the client has no IPv{address.version} address, so nothing routes there"
        return "no gateway of the client has a network that contains the destination"
    return {
        Reason.ALLOWED.name: "the policy allows it, and none denies it",
        Reason.DENIED.name: "the policy denies it; any matching deny wins",
        Reason.NO_RULE.name: "no policy matches; the default is deny",
        Reason.OUT_OF_TIME.name: "the policy would allow it, but not at this time",
        Reason.NO_POLICY.name: "the inventory has no policy; enforce denies everything",
    }[judgement.reason]
