"""The inventory cut into hosts: what each client and each gateway is sent, still as values.

A client gets one peer per gateway of its list. Gateways with equal networks are failover alternatives: the
first gets the AllowedIPs, the others follow it as standbys without any. A gateway gets the clients that list it
and the policy about them, clipped to its own networks.

    grant (clients x destinations) --clip--> rules, one per (policy, family, ports, window)
    client -> its rules -> a set; clients with equal rights share one
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv6Address
from operator import attrgetter
from socket import AF_INET, AF_INET6, inet_ntop
from typing import Any, NamedTuple, TypeAlias

from tidegate_compiler.grants import Grant, Ports, grants
from tidegate_compiler.model import VERSIONS, ClientRow, Gateway, Inventory, Lazily, Network
from tidegate_compiler.networks import Covering, Points, collapse, intersect, sort_key
from tidegate_compiler.times import Window
from tidegate_schema.keys import client_id
from tidegate_schema.wgquick import Peer

FAMILIES = (4, 6)
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

    @cached_property
    def peers(self) -> tuple[ClientHost, ...]:
        """Return its clients, in order of their IDs."""
        return tuple(sorted(map(self._fleet.clients.__getitem__, self.members), key=attrgetter("client_id")))

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
        self._policies: _Policies = _Policies(
            grants(inventory) if every_grant is None else every_grant, like._policies if like else None
        )
        self._peers: dict[_Class, tuple[tuple[str, Peer], ...]] = {}
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
        if gateway not in self._documents:
            if self.like is not None and gateway not in self.changed_gateways:
                self._documents[gateway] = self.like.policy(gateway)
            else:
                self._documents[gateway] = self._policies.of(
                    self.inventory.gateways[gateway], self._members[gateway], self.ids
                )
        return self._documents[gateway]

    def policies(self, gateways: Iterable[str]) -> dict[str, Mapping[str, Any] | None]:
        """Return the policy documents of those gateways that there are, plain values through and through."""
        return {name: self.policy(name) for name in gateways if name in self.gateways}

    def remember(self, policies: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Take in what `policies` of this fleet returned to another process."""
        self._documents.update(policies)

    @cached_property
    def ids(self) -> Mapping[str, str]:
        """Return every client's ID by its name."""
        rows = self.inventory.client_rows
        if self.like is None:
            return {name: client_id(key) for name, (key, _, _) in rows.items()}
        known, changed = self.like.ids, self.changed_clients
        return {name: client_id(row[0]) if name in changed else known[name] for name, row in rows.items()}

    @cached_property
    def _members(self) -> Mapping[str, Mapping[str, tuple[int, ...]]]:
        """Return each gateway's clients, with the lengths of their addresses."""
        members: dict[str, dict[str, tuple[int, ...]]] = {name: {} for name in self.inventory.gateways}
        for name, (_, addresses, gateways) in self.inventory.client_rows.items():
            lengths = tuple(map(len, addresses))
            for gateway in gateways:
                members[gateway][name] = lengths
        return members

    def _gateway(self, name: str) -> GatewayHost:
        return GatewayHost(name, tuple(self._members[name]), self)

    def _client(self, name: str) -> ClientHost:
        if self.like is not None and name not in self.changed_clients:
            return self.like.clients[name]
        key, addresses, gateways = self.inventory.client_rows[name]
        families = tuple(map(len, addresses))
        peers = self._peers.get((gateways, families))
        if peers is None:
            peers = _peers(gateways, {VERSIONS[length] for length in families}, self.inventory)
            self._peers[gateways, families] = peers
        in_order = addresses if families in _IN_ORDER else sorted(addresses, key=_by_family)
        return ClientHost(name, self.ids[name], _text(key), tuple(map(_prefix, in_order)), peers)


_NO_CLIENT: ClientRow = (b"", (), ())


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

    def of(self, networks: Iterable[Network]) -> list[Grant]:
        """Return the grants that overlap some of these networks, in order of policy names."""
        met: set[int] = set()
        for network in networks:
            # Of two prefixes that overlap, the longer one begins inside the wider.
            for prefix in self._covering.of(network):
                met.update(self._of_prefix[prefix])
            for position in self._beginnings.inside(network):
                met.update(self._of_prefix[self._prefixes[position]])
        return [self._grants[number] for number in sorted(met)]


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


_Clipped: TypeAlias = list[tuple[Grant, Mapping[int, Mapping[Ports, tuple[Network, ...]]]]]


class _Policies:
    """Makes each gateway's policy document; what depends on its networks alone is made once for all that share them."""

    def __init__(self, every_grant: tuple[Grant, ...], like: _Policies | None = None) -> None:
        self._reaching = _Reaching(every_grant)
        self._clipped: dict[frozenset[Network], _Clipped] = {}
        self._like = like
        self._named = {grant.policy: grant for grant in every_grant}
        self._alike: dict[str, bool] = {}

    def reaching(self, networks: Iterable[Network]) -> list[str]:
        """Return the names of the policies that have a destination in these networks, in order."""
        return [grant.policy for grant in self._reaching.of(networks)]

    def are_alike(self, gateway: Gateway) -> bool:
        """Tell whether the same grants, saying the same, reach a gateway's networks here and in the other ones.

        The other ones' gateway of that name must have the same networks.
        """
        if self._like is None:
            return False
        mine = [grant.policy for grant, _ in self._of(gateway.network_set)]
        theirs = [grant.policy for grant, _ in self._like._of(gateway.network_set)]
        return mine == theirs and all(map(self._is_alike, mine))

    def _is_alike(self, policy: str) -> bool:
        assert self._like is not None
        if policy not in self._alike:
            grant, other = self._named[policy], self._like._named[policy]
            self._alike[policy] = (
                grant.action == other.action
                and grant.selected.says_the_same(other.selected)
                and grant.destinations == other.destinations
            )
        return self._alike[policy]

    def of(
        self, gateway: Gateway, members: Mapping[str, tuple[int, ...]], ids: Mapping[str, str]
    ) -> Mapping[str, Any]:
        """Return the document about a gateway's clients, which are given by name, with their addresses' lengths."""
        rules: dict[_Rule, int] = {}
        rights: dict[str, set[int]] = {}
        for grant, clipped in self._of(gateway.network_set):
            made: dict[tuple[tuple[int, ...], tuple[Window, ...]], list[int]] = {}  # by whom they are for
            for name in grant.clients.keys() & members.keys():
                alike = (members[name], grant.clients[name])
                if alike not in made:
                    made[alike] = [
                        rules.setdefault(
                            _Rule(grant.policy, grant.action, prefixes, ports, window), len(rules)
                        )
                        for family in {VERSIONS[length] for length in alike[0]}
                        for ports, prefixes in clipped[family].items()
                        for window in alike[1]
                    ]
                rights.setdefault(name, set()).update(made[alike])
        return _document(rules, {ids[name]: found for name, found in rights.items() if found})

    def _of(self, networks: frozenset[Network]) -> _Clipped:
        if networks not in self._clipped:
            every = (
                (grant, {family: clip(grant.destinations, networks, family) for family in FAMILIES})
                for grant in self._reaching.of(networks)
            )
            self._clipped[networks] = [(grant, clipped) for grant, clipped in every if any(clipped.values())]
        return self._clipped[networks]


def _document(rules: Iterable[_Rule], rights: Mapping[str, Set[int]]) -> dict[str, Any]:
    """Return the policy document that says which client, by ID, has which of the rules, by position."""
    in_order = sorted(enumerate(rules), key=lambda numbered: numbered[1].sort_key())
    place = {position: index for index, (position, _) in enumerate(in_order)}
    of_client = {client: tuple(sorted(place[one] for one in found)) for client, found in rights.items()}
    sets = sorted(set(of_client.values()))
    set_number = {indexes: index for index, indexes in enumerate(sets)}
    return {
        "format": 1,
        "rules": [rule.document() for _, rule in in_order],
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
