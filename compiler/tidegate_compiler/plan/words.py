"""Differences in the inventory's own words: prefixes, ports, points in time, names and places, and a witness each."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidegate_compiler.model import ALL_CLIENTS, Inventory
from tidegate_compiler.plan.access import Difference
from tidegate_compiler.plan.regions import EVERY_PORT, EVERY_PROTOCOL, FOREVER, Interval
from tidegate_compiler.plan.source import Side
from tidegate_schema.ports import ICMP, PORTED_NUMBERS, PortRange

_TCP = 6


@dataclass(frozen=True)
class Witness:
    """One packet of a difference: allowed on one side, not on the other. `at` None: whenever it is sent."""

    client: str
    client_id: str
    destination: str
    port: str
    at: int | None


@dataclass(frozen=True)
class Told:
    """A policy and its place, `file` from where people stand; None when the side is no inventory."""

    policy: str
    file: str | None
    line: int | None


@dataclass(frozen=True)
class Member:
    """A client: name and ID; `new_key` when the other side knows the name with another key."""

    name: str
    client_id: str
    new_key: bool


@dataclass(frozen=True)
class Access:
    """A difference as people read it. `group` is the one whose members, or all clients, are exactly these."""

    gained: bool
    clients: tuple[Member, ...]
    group: str | None
    to: tuple[str, ...]
    ports: tuple[str, ...]
    not_before: int | None
    expires: int | None
    policy: Told
    denied_by: Told | None
    witnesses: tuple[Witness, ...]


class Words:
    """Says differences between two sides."""

    def __init__(self, old: Side, new: Side) -> None:
        self._sides = (old, new)
        self._known = tuple(set(side.names.values()) for side in self._sides)
        self._groups = (Groups(old.inventory), Groups(new.inventory))

    def say(self, one: Difference) -> Access:
        """Return a difference in words: a gain in those of the new side, a loss in those of the old one."""
        mine = int(one.cause.gained)
        clients = tuple(sorted((self._member(client, mine) for client in one.clients), key=_by_name))
        not_before, expires = one.time
        return Access(
            gained=one.cause.gained,
            clients=clients,
            group=self._groups[mine].name(frozenset(client.name for client in clients)),
            to=tuple(str(prefix) for family, to in one.to for prefix in prefixes(family, to)),
            ports=tuple(dict.fromkeys(port_text(*ports) for ports in one.ports)),
            not_before=not_before or None,
            expires=None if expires >= FOREVER else expires,
            policy=self._told(one.cause.policy, mine),
            denied_by=self._told(one.cause.denied_by, 1 - mine) if one.cause.denied_by else None,
            witnesses=tuple(_witnesses(one, clients[0])),
        )

    def _member(self, client: str, mine: int) -> Member:
        name = self._sides[mine].names.get(client, client)
        return Member(
            name, client, client not in self._sides[1 - mine].names and name in self._known[1 - mine]
        )

    def _told(self, policy: str, mine: int) -> Told:
        side = self._sides[mine]
        found = side.inventory.policies.get(policy) if side.inventory else None
        where = found.where if found else None
        return Told(policy, side.place(where), where.line if where else None)


def _by_name(member: Member) -> tuple[str, str]:
    return member.name, member.client_id


class Groups:
    """Finds the name of a set of clients that has one; of equal groups the first."""

    def __init__(self, inventory: Inventory | None) -> None:
        self._inventory = inventory
        self._of_size: dict[int, list[str]] = {}
        for name, (members, _, _) in inventory.group_rows.items() if inventory else ():
            self._of_size.setdefault(len(members), []).append(name)

    def name(self, clients: frozenset[str]) -> str | None:
        """Return "all-clients", "group:NAME", or None."""
        if self._inventory is None:
            return None
        if 1 < len(clients) == len(self._inventory.clients) and clients == self._inventory.clients.keys():
            return ALL_CLIENTS
        for name in self._of_size.get(len(clients), ()):
            if clients.issuperset(self._inventory.group_rows[name][0]):
                return f"group:{name}"
        return None


def prefixes(family: int, to: Interval) -> Iterable[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    """Return the fewest prefixes that make up an interval of addresses, its end exclusive."""
    first, last = to[0], to[1] - 1
    if family == 4:
        return ipaddress.summarize_address_range(ipaddress.IPv4Address(first), ipaddress.IPv4Address(last))
    return ipaddress.summarize_address_range(ipaddress.IPv6Address(first), ipaddress.IPv6Address(last))


def port_text(family: int, protocols: Interval, ports: Interval) -> str:
    """Return the written form of an inventory, or proto/N-M for several protocols that are not all."""
    if protocols == EVERY_PROTOCOL:
        return "any"
    first, last = protocols[0], protocols[1] - 1
    if first != last:
        return f"proto/{first}-{last}"
    if first == ICMP[family]:
        return "icmp"
    return str(PortRange(first, ports[0], ports[1] - 1))


def _witnesses(one: Difference, client: Member) -> Iterator[Witness]:
    """Yield one packet per address family: never a prefix's own first address where there is another."""
    not_before, expires = one.time
    at = not_before or (None if expires >= FOREVER else expires - 1)
    for family in dict.fromkeys(family for family, _ in one.to):
        low, high = next(to for of, to in one.to if of == family)
        address = low + 1 if high - low > 2 else low
        text = str(ipaddress.IPv4Address(address) if family == 4 else ipaddress.IPv6Address(address))
        port = _packet_text(family, *next(ports for of, *ports in one.ports if of == family))
        yield Witness(client.name, client.client_id, text, port, at)


def _packet_text(family: int, protocols: Interval, ports: Interval) -> str:
    protocol = _TCP if protocols[0] <= _TCP < protocols[1] else protocols[0]
    if protocol not in PORTED_NUMBERS:
        return "icmp" if protocol == ICMP[family] else f"proto/{protocol}"
    port = 443 if ports == EVERY_PORT else ports[0] or min(1, ports[1] - 1)
    return f"{PORTED_NUMBERS[protocol]}/{port}"
