"""The inventory cut into hosts: what each client and each gateway is sent, still as values.

A client gets one peer per gateway of its list. Gateways with equal networks are failover alternatives: the
first gets the AllowedIPs, the others follow it as standbys without any. A gateway gets the clients that list it
and the policy about them (`policydocs`), clipped to its own networks.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address
from operator import attrgetter
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, NamedTuple, TypeAlias

from tidegate_compiler.grants import Grant, grants
from tidegate_compiler.model import VERSIONS, ClientRow, Gateway, Inventory, Lazily, Network
from tidegate_compiler.networks import sort_key
from tidegate_compiler.policydocs import Policies
from tidegate_schema.keys import client_id
from tidegate_schema.wgquick import Peer

_EMBEDS_IPV4 = bytes(8)
_IN_ORDER = {(4,), (16,), (4, 16)}
"""The families of addresses that need no sorting, told by length."""


class ClientHost(NamedTuple):
    """A client as values: its own bundle, and what its gateways are told of it.

    `peers` pairs each peer with the gateway it is, in order; clients alike share it. Addresses are prefixes.
    """

    name: str
    client_id: str
    public_key: str
    addresses: tuple[str, ...]
    peers: tuple[tuple[str, Peer], ...]

    @property
    def families(self) -> frozenset[int]:
        """Return the IP versions it has an address of."""
        return frozenset([6 if ":" in address else 4 for address in self.addresses])


_Class: TypeAlias = tuple[tuple[str, ...], tuple[int, ...]]
"""What decides a client's peers: its gateways, and the lengths of its addresses."""


@dataclass(frozen=True)
class GatewayHost:
    """A gateway's bundle as values, made when somebody asks for them; `members` are the names of its clients."""

    name: str
    members: tuple[str, ...]
    _fleet: Fleet

    @property
    def peers(self) -> tuple[ClientHost, ...]:
        """Return its clients, in order of their IDs."""
        return self._fleet.peers(self.name)

    @property
    def policy(self) -> Mapping[str, Any] | None:
        """Return the document of policy.json, or None where the inventory has no policies at all."""
        return self._fleet.policy(self.name)


class Fleet:
    """Every host of an inventory in which `check` found no error, in order of name, made when somebody asks for it.

    Whatever is the same in `like`, another fleet, is the same value here, at less cost.
    """

    def __init__(
        self, inventory: Inventory, every_grant: tuple[Grant, ...] | None = None, like: Fleet | None = None
    ) -> None:
        """Hold an inventory; `every_grant`, if known, is `grants` of it."""
        self.inventory = inventory
        self.like = like
        self.clients: Mapping[str, ClientHost] = Lazily(inventory.client_rows, self._client, {})
        self.gateways: Mapping[str, GatewayHost] = Lazily(inventory.gateways, self._gateway, {})
        self._policies: Policies = Policies(
            grants(inventory) if every_grant is None else every_grant, like._policies if like else None
        )
        self._peers_of_class: dict[_Class, tuple[tuple[str, Peer], ...]] = {}
        self._peers: dict[str, tuple[ClientHost, ...]] = {}
        self._documents: dict[str, Mapping[str, Any] | None] = {}

    @property
    def name(self) -> str:
        """Return the fleet's name."""
        return self.inventory.overlay.fleet

    @cached_property
    def changed_clients(self) -> Set[str]:
        """Return the clients that are not beyond doubt the same in `like`, whichever of both has them."""
        if self.like is None:
            return self.inventory.client_rows.keys()
        old, new = self.like.inventory, self.inventory
        moved = {name for name, row in new.client_rows.items() if old.client_rows.get(name) != row}
        moved |= old.client_rows.keys() - new.client_rows.keys()
        if self._other_peers:
            rows = new.client_rows.items()
            moved |= {name for name, (_, _, gateways) in rows if not self._other_peers.isdisjoint(gateways)}
        return moved

    @cached_property
    def changed_gateways(self) -> Set[str]:
        """Return the gateways that are not beyond doubt the same in `like`, whichever of both has them."""
        if self.like is None or self.like.inventory.has_policy != self.inventory.has_policy:
            return self.gateways.keys() | (self.like.gateways.keys() if self.like else set())
        old, new = self.like.inventory, self.inventory
        moved = {
            gateway
            for client in self.changed_clients
            for inventory in (old, new)
            for gateway in inventory.client_rows.get(client, _NO_CLIENT)[2]
        }
        moved |= self._other_peers
        if new.has_policy and not self._are_rules_shared:
            moved |= {
                one.name
                for one in new.gateways.values()
                if one.name not in moved and not self._policies.are_alike(one)
            }
        return moved

    @property
    def _are_rules_shared(self) -> bool:
        """Tell whether all that policies say, but for the clients themselves, is the very same value in `like`."""
        old, new = self.like.inventory if self.like else None, self.inventory
        return (
            old is not None
            and old.policies is new.policies
            and old.resources is new.resources
            and old.groups is new.groups
        )

    @cached_property
    def _other_peers(self) -> Set[str]:
        """Return the gateways that are another peer to their clients than in `like`, or have other networks."""
        old, new = self.like.inventory.gateways if self.like else {}, self.inventory.gateways
        return {name for name in old.keys() | new.keys() if not _is_same_peer(old.get(name), new.get(name))}

    def reaching(self, gateway: str) -> list[str]:
        """Return the names of the policies that have a destination in a gateway's networks."""
        return self._policies.reaching(self.inventory.gateways[gateway].network_set)

    def policy(self, gateway: str) -> Mapping[str, Any] | None:
        """Return a gateway's policy document, the same at every call; None where there are no policies at all."""
        if not self.inventory.has_policy:
            return None
        twin = self.twins[gateway]
        if twin not in self._documents:
            if self.like is not None and twin not in self.changed_gateways:
                self._documents[twin] = self.like.policy(twin)
            else:
                self._documents[twin] = self._policies.of(
                    self.inventory.gateways[twin], self._members[twin], self.inventory.client_rows, self.ids
                )
        return self._documents[twin]

    def policies(self, gateways: Iterable[str]) -> dict[str, Mapping[str, Any] | None]:
        """Return the policy documents of those gateways that there are, plain values through and through."""
        return {name: self.policy(name) for name in gateways if name in self.gateways}

    def remember(self, policies: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Take in what `policies` of this fleet returned to another process."""
        self._documents.update((self.twins[gateway], found) for gateway, found in policies.items())

    def peers(self, gateway: str) -> tuple[ClientHost, ...]:
        """Return a gateway's clients, in order of their IDs, the same value at every call."""
        twin = self.twins[gateway]
        if twin not in self._peers:
            hosts = map(self.clients.__getitem__, self._members[twin])
            self._peers[twin] = tuple(sorted(hosts, key=attrgetter("client_id")))
        return self._peers[twin]

    @cached_property
    def twins(self) -> Mapping[str, str]:
        """Return for each gateway the first one that has the same networks and clients, and so the same bundle.

        Standbys are for the most part such twins: what takes long is then made half as often.
        """
        first: dict[tuple[frozenset[Network], tuple[str, ...]], str] = {}
        return {
            name: first.setdefault((gateway.network_set, self._members[name]), name)
            for name, gateway in self.inventory.gateways.items()
        }

    @cached_property
    def ids(self) -> Mapping[str, str]:
        """Return every client's ID by its name."""
        rows = self.inventory.client_rows
        if self.like is None:
            return {name: client_id(key) for name, (key, _, _) in rows.items()}
        found = dict(self.like.ids)
        for name in self.changed_clients:
            if name in rows:
                found[name] = client_id(rows[name][0])
            else:
                del found[name]
        return found

    @cached_property
    def _members(self) -> Mapping[str, tuple[str, ...]]:
        """Return each gateway's clients, in order of name."""
        rows = self.inventory.client_rows
        if self.like is None:
            members = _by_gateway(rows)
            return {gateway: tuple(members.get(gateway, ())) for gateway in self.inventory.gateways}
        changed = self.changed_clients
        before, after = (
            _by_gateway({name: of[name] for name in changed if name in of})
            for of in (self.like.inventory.client_rows, rows)
        )
        found = {gateway: self.like._members.get(gateway, ()) for gateway in self.inventory.gateways}
        for gateway in found.keys() & (before.keys() | after.keys()):
            left = [name for name in found[gateway] if name not in changed]
            found[gateway] = tuple(sorted(left + after.get(gateway, [])))
        return found

    def _gateway(self, name: str) -> GatewayHost:
        return GatewayHost(name, self._members[name], self)

    def _client(self, name: str) -> ClientHost:
        if self.like is not None and name not in self.changed_clients:
            return self.like.clients[name]
        key, addresses, gateways = self.inventory.client_rows[name]
        families = tuple(map(len, addresses))
        peers = self._peers_of_class.get((gateways, families))
        if peers is None:
            peers = _peers(gateways, {VERSIONS[length] for length in families}, self.inventory)
            self._peers_of_class[gateways, families] = peers
        in_order = addresses if families in _IN_ORDER else sorted(addresses, key=_by_family)
        return ClientHost(name, self.ids[name], _text(key), tuple(map(_prefix, in_order)), peers)


_NO_CLIENT: ClientRow = (b"", (), ())


def _by_gateway(rows: Mapping[str, ClientRow]) -> dict[str, list[str]]:
    """Return the names of the clients that list each gateway, in their order."""
    found: dict[str, list[str]] = defaultdict(list)
    for name, (_, _, gateways) in rows.items():
        for gateway in gateways:
            found[gateway].append(name)
    return found


def _is_same_peer(one: Gateway | None, other: Gateway | None) -> bool:
    """Tell whether a gateway is the same to its clients, and has the same networks."""
    if one is None or other is None:
        return False
    return (
        one.public_key.value == other.public_key.value
        and one.endpoint is not None
        and other.endpoint is not None
        and one.endpoint.value == other.endpoint.value
        and one.network_set == other.network_set
    )


def _by_family(address: bytes) -> tuple[int, bytes]:
    return len(address), address


def _prefix(address: bytes) -> str:
    """Return the canonical prefix of a single address."""
    if len(address) == 4:
        return inet_ntop(AF_INET, address) + "/32"
    if address.startswith(
        _EMBEDS_IPV4
    ):  # which C libraries like to write in dotted form, and ipaddress does not
        return f"{IPv6Address(address)}/128"
    return inet_ntop(AF_INET6, address) + "/128"


def _peers(names: Iterable[str], families: Set[int], inventory: Inventory) -> tuple[tuple[str, Peer], ...]:
    """Return the peers of a client with these gateways and IP versions."""
    alternatives: dict[frozenset[Network], list[Gateway]] = {}
    for name in names:
        gateway = inventory.gateways[name]
        alternatives.setdefault(gateway.network_set, []).append(gateway)
    peers = []
    for networks, gateways in alternatives.items():
        # No route of a family the client has no address in: wg-quick would fail on a host without that family.
        routed = sorted((n for n in networks if n.version in families), key=sort_key)
        for position, gateway in enumerate(gateways):
            assert gateway.endpoint is not None
            allowed = tuple(map(str, routed)) if position == 0 else ()
            peers.append(
                (gateway.name, Peer(_text(gateway.public_key.value), gateway.endpoint.value.text, allowed))
            )
    return tuple(peers)


def _text(key: bytes) -> str:
    return b2a_base64(key, newline=False).decode("ascii")
