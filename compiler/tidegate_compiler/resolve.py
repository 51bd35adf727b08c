"""The inventory cut into hosts: what each client and each gateway is sent, still as values.

A client gets one peer per gateway of its list. Gateways with equal networks are failover alternatives: the
first gets the AllowedIPs, the others follow it as standbys without any. A gateway gets the clients that list it
and the policy about them, clipped to its own networks.

    grant (clients x destinations) --clip--> rules, one per (policy, family, ports, window)
    client -> its rules -> a set; clients with equal rights share one
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.grants import Grant, Ports, grants
from tidegate_compiler.model import Client, Gateway, Inventory, Network
from tidegate_compiler.networks import Covering, Points, collapse, intersect, sort_key
from tidegate_compiler.times import Window
from tidegate_schema.keys import client_id
from tidegate_schema.wgquick import Peer

FAMILIES = (4, 6)


@dataclass(frozen=True)
class ClientHost:
    """A client's bundle as values; `peers` pairs each peer with the gateway it is, in order."""

    name: str
    client_id: str
    addresses: tuple[Network, ...]
    peers: tuple[tuple[str, Peer], ...]


@dataclass(frozen=True)
class GatewayPeer:
    """One client as its gateways see it."""

    client_id: str
    public_key: str
    allowed_ips: tuple[str, ...]


@dataclass(frozen=True)
class GatewayHost:
    """A gateway's bundle as values; `policy` is the document of policy.json, or None."""

    name: str
    peers: tuple[GatewayPeer, ...]
    policy: Mapping[str, Any] | None


@dataclass(frozen=True)
class Fleet:
    """Every host of an inventory, in order of name."""

    name: str
    clients: tuple[ClientHost, ...]
    gateways: tuple[GatewayHost, ...]


def resolve(inventory: Inventory) -> Fleet:
    """Return the fleet of an inventory in which `check` found no error."""
    reaching = _Reaching(grants(inventory))
    of_gateway: dict[str, list[Client]] = {name: [] for name in inventory.gateways}
    for client in inventory.clients.values():
        for gateway in client.gateways:
            of_gateway[gateway.value].append(client)
    return Fleet(
        inventory.overlay.fleet,
        tuple(_client_host(client, inventory) for client in inventory.clients.values()),
        tuple(
            GatewayHost(
                gateway.name,
                tuple(sorted(map(_gateway_peer, of_gateway[gateway.name]), key=lambda peer: peer.client_id)),
                _policy(gateway, of_gateway[gateway.name], reaching.of(gateway))
                if inventory.has_policy
                else None,
            )
            for gateway in inventory.gateways.values()
        ),
    )


class _Reaching:
    """An index of grants that answers which of them have a destination in a gateway's networks."""

    def __init__(self, every_grant: tuple[Grant, ...]) -> None:
        self._grants = every_grant
        self._of_prefix: dict[Network, list[int]] = {}
        for number, grant in enumerate(every_grant):
            for prefix in grant.destinations:
                self._of_prefix.setdefault(prefix, []).append(number)
        self._prefixes = list(self._of_prefix)
        self._covering = Covering(self._prefixes)
        self._beginnings = Points(prefix.network_address for prefix in self._prefixes)

    def of(self, gateway: Gateway) -> Iterator[Grant]:
        """Yield the grants that overlap the gateway's networks, in order of policy names."""
        met: set[int] = set()
        for network in gateway.network_set:
            # Of two prefixes that overlap, the longer one begins inside the wider.
            for prefix in self._covering.of(network):
                met.update(self._of_prefix[prefix])
            for position in self._beginnings.inside(network):
                met.update(self._of_prefix[self._prefixes[position]])
        return (self._grants[number] for number in sorted(met))


def _client_host(client: Client, inventory: Inventory) -> ClientHost:
    alternatives: dict[frozenset[Network], list[Gateway]] = {}
    for at in client.gateways:
        gateway = inventory.gateways[at.value]
        alternatives.setdefault(gateway.network_set, []).append(gateway)
    peers = []
    for networks, gateways in alternatives.items():
        # No route of a family the client has no address in: wg-quick would fail on a host without that family.
        routed = sorted((n for n in networks if n.version in client.families), key=sort_key)
        for position, gateway in enumerate(gateways):
            assert gateway.endpoint is not None
            allowed = tuple(map(str, routed)) if position == 0 else ()
            peers.append(
                (gateway.name, Peer(_text(gateway.public_key.value), gateway.endpoint.value.text, allowed))
            )
    return ClientHost(client.name, client_id(client.public_key.value), _addresses(client), tuple(peers))


def _gateway_peer(client: Client) -> GatewayPeer:
    key = client.public_key.value
    return GatewayPeer(client_id(key), _text(key), tuple(map(str, _addresses(client))))


def _addresses(client: Client) -> tuple[Network, ...]:
    return tuple(sorted((address.value for address in client.addresses), key=sort_key))


def _text(key: bytes) -> str:
    return b64encode(key).decode("ascii")


@dataclass(frozen=True)
class _Rule:
    """A rule before it has an index; everything in it is canonical, so equal rules are equal values."""

    policy: str
    action: str
    to: tuple[Network, ...]
    ports: Ports
    window: Window

    def sort_key(self) -> tuple[Any, ...]:
        return (self.policy, [sort_key(prefix) for prefix in self.to], self.ports, self.window.sort_key())

    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = {
            "policy": self.policy,
            "action": self.action,
            "to": [str(prefix) for prefix in self.to],
            "ports": [str(ports) for ports in self.ports],
        }
        if self.window.not_before is not None:
            document["not_before"] = self.window.not_before
        if self.window.expires is not None:
            document["expires"] = self.window.expires
        return document


def _policy(gateway: Gateway, clients: Iterable[Client], every_grant: Iterable[Grant]) -> dict[str, Any]:
    rights: dict[str, set[_Rule]] = {}
    ours = {client.name: client for client in clients}
    for grant in every_grant:
        clipped = {family: clip(grant.destinations, gateway.network_set, family) for family in FAMILIES}
        if not any(clipped.values()):
            continue
        for name, windows in grant.clients.items():
            client = ours.get(name)
            if client is None:
                continue
            rights.setdefault(name, set()).update(
                _Rule(grant.policy, grant.action, prefixes, ports, window)
                for family in client.families
                for ports, prefixes in clipped[family].items()
                for window in windows
            )
    rules = sorted(set().union(*rights.values()), key=_Rule.sort_key)
    number = {rule: index for index, rule in enumerate(rules)}
    of_client = {
        client_id(ours[name].public_key.value): tuple(sorted(number[rule] for rule in found))
        for name, found in rights.items()
        if found
    }
    sets = sorted(set(of_client.values()))
    set_number = {indexes: index for index, indexes in enumerate(sets)}
    return {
        "format": 1,
        "rules": [rule.document() for rule in rules],
        "sets": [list(indexes) for indexes in sets],
        "clients": {identifier: set_number[indexes] for identifier, indexes in sorted(of_client.items())},
    }


def clip(
    destinations: Mapping[Network, Ports], networks: Iterable[Network], family: int
) -> dict[Ports, tuple[Network, ...]]:
    """Return what of a grant's destinations lies in a gateway's networks, one family, prefixes by their ports."""
    gathered: dict[Ports, list[Network]] = {}
    for prefix, ports in destinations.items():
        if prefix.version != family:
            continue
        shared = (both for network in networks if (both := intersect(prefix, network)) is not None)
        gathered.setdefault(ports, []).extend(shared)
    return {ports: collapse(found, family) for ports, found in gathered.items() if found}
