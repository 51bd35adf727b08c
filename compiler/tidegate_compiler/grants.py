"""What each policy says, references resolved: clients with their windows, times destinations with their ports.

A grant is a product: every client of it, within its windows, to every destination of it, on the ports of that
destination. `check` compares grants with each other; `resolve` cuts them into rules, one gateway at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from tidegate_compiler.model import ALL_CLIENTS, At, From, GroupRow, Inventory, Network, Policy
from tidegate_compiler.networks import contains, sort_key
from tidegate_compiler.times import Window, intersect_all, union
from tidegate_schema.ports import ANY_PROTOCOL, PortRange, parse_ports

Ports = tuple[PortRange, ...]
_NOBODY: GroupRow = ((), {}, {})


class Selected:
    """The clients that a policy's `from` selects, with their windows; found out when somebody asks."""

    def __init__(self, sources: Iterable[From], window: Window, inventory: Inventory) -> None:
        """Select within `window`; unknown references are passed over."""
        self._sources = frozenset(sources)
        self._window = window
        self._known = inventory.client_rows
        self._groups = inventory.group_rows

    @cached_property
    def clients(self) -> Mapping[str, tuple[Window, ...]]:
        """Return each client's disjoint windows, none of them empty."""
        if self._window.is_empty:
            return {}
        resolved = dict.fromkeys(self._always(), (self._window,))
        at_times: dict[str, list[Window]] = {}
        for members, not_before, expires in self._groups_with_times():
            for member in (not_before.keys() | expires.keys()).intersection(members):
                if member not in resolved and member in self._known:
                    time = Window(not_before.get(member), expires.get(member))
                    at_times.setdefault(member, []).append(time)
        limited = {client: union(intersect_all(times, self._window)) for client, times in at_times.items()}
        return {**resolved, **{client: windows for client, windows in limited.items() if windows}}

    def names(self) -> Iterator[str]:
        """Yield the clients, and the first ones without finding out all."""
        if self._window.is_empty:
            return
        yield from self._always()
        if any(True for _ in self._groups_with_times()):
            yield from self.clients

    def says_the_same(self, other: Selected) -> bool:
        """Tell whether this selects what `other` does in its inventory, as far as both know the clients."""
        return (self._sources, self._window) == (other._sources, other._window) and all(
            self._groups.get(source.name) == other._groups.get(source.name)
            for source in self._sources
            if source.kind == "group"
        )

    def has(self, name: str) -> bool:
        """Tell whether a client is selected, be it for a time or outside the window, without finding out all."""
        return any(
            source.kind == ALL_CLIENTS
            or (source.kind == "group" and name in self._groups.get(source.name, _NOBODY)[0])
            or source.name == name
            for source in self._sources
        )

    def _always(self) -> Iterator[str]:
        """Yield those that are selected without any limit but the policy's own window; some maybe twice."""
        every: list[Iterable[str]] = []
        for source in self._sources:
            match source.kind:
                case kind if kind == ALL_CLIENTS:
                    every.append(self._known)
                case "group":
                    members, not_before, expires = self._groups.get(source.name, _NOBODY)
                    timed = not_before.keys() | expires.keys()
                    every.append([one for one in members if one not in timed] if timed else members)
                case _:
                    every.append((source.name,))
        return filter(self._known.__contains__, chain.from_iterable(every))

    def _groups_with_times(self) -> Iterator[GroupRow]:
        for source in self._sources:
            row = self._groups.get(source.name, _NOBODY) if source.kind == "group" else _NOBODY
            if row[1] or row[2]:
                yield row


@dataclass(frozen=True)
class Grant:
    """One policy, resolved. `destinations` maps a prefix to its ports; policies that select alike share `selected`."""

    policy: str
    action: str
    selected: Selected
    destinations: Mapping[Network, Ports]

    @property
    def clients(self) -> Mapping[str, tuple[Window, ...]]:
        """Return its clients, each with disjoint windows."""
        return self.selected.clients

    def covers(self, other: Grant) -> bool:
        """Tell whether every packet that `other` matches is matched by this too.

        Judged prefix by prefix and window by window, so a union of several may go unseen: that loses a warning.
        """
        first = next(other.selected.names(), None)
        if first is not None and not self.selected.has(first):
            return False  # as good as always, and found out at once
        return all(
            any(
                contains(wider, prefix) and ports_cover(mine, ports)
                for wider, mine in self.destinations.items()
            )
            for prefix, ports in other.destinations.items()
        ) and (self.selected is other.selected or clients_cover(self.clients, other.clients))


def grants(
    inventory: Inventory, like: Inventory | None = None, of_like: Iterable[Grant] = ()
) -> tuple[Grant, ...]:
    """Return every policy's grant, in order of policy names; unknown references are passed over.

    Destinations that follow from the very same objects in `like`, whose grants are `of_like`, are the same value.
    """
    known: dict[tuple[frozenset[From], Window], Selected] = {}
    others = {grant.policy: grant.destinations for grant in of_like}
    found = []
    for policy in inventory.policies.values():
        asked = (frozenset(source.value for source in policy.sources), policy.window)
        if asked not in known:
            known[asked] = Selected(*asked, inventory)
        shared = others.get(policy.name) if like and _is_same(policy, inventory, like) else None
        destinations = _destinations(policy, inventory) if shared is None else shared
        found.append(Grant(policy.name, policy.action, known[asked], destinations))
    return tuple(found)


def _is_same(policy: Policy, inventory: Inventory, like: Inventory) -> bool:
    """Tell whether a policy and its resources are the very same objects in both inventories."""
    return like.policies.get(policy.name) is policy and all(
        inventory.resources.get(to.value.resource) is like.resources.get(to.value.resource)
        for to in policy.destinations
    )


def _destinations(policy: Policy, inventory: Inventory) -> dict[Network, Ports]:
    gathered: dict[Network, list[PortRange]] = {}
    for to in policy.destinations:
        if to.value.prefix is not None:
            prefixes: Iterable[Network] = (to.value.prefix,)
            served = None
        else:
            resource = inventory.resources.get(to.value.resource)
            prefixes = [address.value for address in resource.addresses] if resource else ()
            served = _texts(resource.ports) if resource and resource.ports is not None else None
        for prefix in prefixes:
            gathered.setdefault(prefix, []).extend(both_ports(_texts(policy.ports), served, prefix.version))
    resolved = {prefix: merge(gathered[prefix]) for prefix in sorted(gathered, key=sort_key)}
    return {prefix: ports for prefix, ports in resolved.items() if ports}


def _texts(ports: Iterable[At[str]] | None) -> list[str] | None:
    return None if ports is None else [port.value for port in ports]


def both_ports(
    of_policy: Iterable[str] | None, of_resource: Iterable[str] | None, family: int
) -> list[PortRange]:
    """Return the ports for a family: what the policy and the resource both admit, or what the one of them says."""
    ranges = [
        [parse_ports(text, family) for text in texts]
        for texts in (of_policy, of_resource)
        if texts is not None
    ]
    if not ranges:
        return []  # said on neither side: an error elsewhere, and here nothing rather than everything
    found = ranges[0]
    for more in ranges[1:]:
        found = [both for one in found for other in more if (both := one.intersect(other)) is not None]
    return found


def merge(ranges: Iterable[PortRange]) -> Ports:
    """Return the fewest ranges that admit the same, in order."""
    merged: list[PortRange] = []
    for found in sorted(ranges):
        if found.protocol == ANY_PROTOCOL:
            return (found,)
        last = merged[-1] if merged else None
        if last is not None and last.protocol == found.protocol and found.first <= last.last + 1:
            merged[-1] = PortRange(last.protocol, last.first, max(last.last, found.last))
        else:
            merged.append(found)
    return tuple(merged)


def ports_cover(wider: Ports, ports: Ports) -> bool:
    """Tell whether merged ranges admit all of other merged ranges."""
    return all(any(mine.intersect(port) == port for mine in wider) for port in ports)


def clients_cover(wider: Mapping[str, tuple[Window, ...]], clients: Mapping[str, tuple[Window, ...]]) -> bool:
    """Tell whether each of some clients is among others, for all of its windows."""
    return all(
        client in wider and (wider[client] is windows or windows_cover(wider[client], windows))
        for client, windows in clients.items()
    )


def windows_cover(wider: tuple[Window, ...], windows: tuple[Window, ...]) -> bool:
    """Tell whether disjoint windows hold all of other windows."""
    return all(any(mine.covers(window) for mine in wider) for window in windows)
