"""The policy documents of gateways: what each of their clients may reach, clipped to the gateway's networks.

grant (clients x destinations) --clip--> rules, one per (policy, family, ports, window)
client -> its rules -> a set; clients with equal rights share one
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, TypeAlias

from tidegate_compiler.grants import Grant, Ports
from tidegate_compiler.model import VERSIONS, ClientRow, Gateway, Network
from tidegate_compiler.networks import Covering, Points, collapse, intersect, sort_key
from tidegate_compiler.times import Window

FAMILIES = (4, 6)


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


class Policies:
    """Makes each gateway's policy document; what depends on its networks alone is made once for all that share them."""

    def __init__(self, every_grant: tuple[Grant, ...], like: Policies | None = None) -> None:
        """Hold an inventory's grants; `like` are the policies of another one, to compare with."""
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
                and (grant.destinations is other.destinations or grant.destinations == other.destinations)
            )
        return self._alike[policy]

    def of(
        self,
        gateway: Gateway,
        members: Iterable[str],
        rows: Mapping[str, ClientRow],
        ids: Mapping[str, str],
    ) -> Mapping[str, Any]:
        """Return the document about a gateway's clients, which are given by name, as are their rows and IDs."""
        own = dict.fromkeys(members)
        rules: list[_Rule] = []
        rights: dict[str, set[int]] = {}
        for grant, clipped in self._of(gateway.network_set):
            made: dict[tuple[tuple[int, ...], tuple[Window, ...]], list[int]] = {}  # by whom they are for
            known: dict[tuple[int, Ports, Window], int] = {}  # hashing a rule's prefixes would cost
            for name in grant.clients.keys() & own.keys():
                alike = (tuple(map(len, rows[name][1])), grant.clients[name])
                if alike not in made:
                    made[alike] = []
                    for family in {VERSIONS[length] for length in alike[0]}:
                        for ports, prefixes in clipped[family].items():
                            for window in alike[1]:
                                number = known.setdefault((family, ports, window), len(rules))
                                if number == len(rules):
                                    rules.append(_Rule(grant.policy, grant.action, prefixes, ports, window))
                                made[alike].append(number)
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
    return {
        ports: tuple(found) if len(found) == 1 else collapse(found, family)  # which takes its time for one
        for ports, found in gathered.items()
        if found
    }
