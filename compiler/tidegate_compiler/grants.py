"""What each policy says, references resolved: clients with their windows, times destinations with their ports.

A grant is a product: every client of it, within its windows, to every destination of it, on the ports of that
destination. `check` compares grants with each other; `resolve` cuts them into rules, one gateway at a time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tidegate_compiler.model import ALL_CLIENTS, At, From, Inventory, Network, Policy
from tidegate_compiler.networks import contains, sort_key
from tidegate_compiler.times import Window, intersect_all, union
from tidegate_schema.ports import ANY_PROTOCOL, PortRange, parse_ports

Ports = tuple[PortRange, ...]


@dataclass(frozen=True)
class Grant:
    """One policy, resolved. `clients` maps a name to disjoint windows; `destinations` a prefix to its ports."""

    policy: str
    action: str
    clients: Mapping[str, tuple[Window, ...]]
    destinations: Mapping[Network, Ports]

    def covers(self, other: Grant) -> bool:
        """Tell whether every packet that `other` matches is matched by this too.

        Judged prefix by prefix and window by window, so a union of several may go unseen: that loses a warning.
        """
        return all(
            any(
                contains(wider, prefix) and ports_cover(mine, ports)
                for wider, mine in self.destinations.items()
            )
            for prefix, ports in other.destinations.items()
        ) and clients_cover(self.clients, other.clients)


def grants(inventory: Inventory) -> tuple[Grant, ...]:
    """Return every policy's grant, in order of policy names; unknown references are passed over."""
    clients = _Clients(inventory)
    return tuple(
        Grant(policy.name, policy.action, clients.of(policy), _destinations(policy, inventory))
        for policy in inventory.policies.values()
    )


class _Clients:
    """Selectors to clients with their windows. Policies that select alike share one mapping."""

    def __init__(self, inventory: Inventory) -> None:
        self._known = inventory.client_rows
        self._groups = inventory.group_rows
        self._resolved: dict[tuple[frozenset[From], Window], Mapping[str, tuple[Window, ...]]] = {}

    def of(self, policy: Policy) -> Mapping[str, tuple[Window, ...]]:
        """Return a policy's clients in order of name, each with disjoint windows."""
        asked = (frozenset(source.value for source in policy.sources), policy.window)
        if asked not in self._resolved:
            self._resolved[asked] = self._resolve(*asked)
        return self._resolved[asked]

    def _resolve(self, sources: Iterable[From], window: Window) -> Mapping[str, tuple[Window, ...]]:
        if window.is_empty:
            return {}
        always: set[str] = set()
        at_times: dict[str, list[Window]] = {}
        for source in sources:
            match source.kind:
                case kind if kind == ALL_CLIENTS:
                    always.update(self._known)
                case "group":
                    members, not_before, expires = self._groups.get(source.name, ((), {}, {}))
                    timed = not_before.keys() | expires.keys()
                    always.update(members if not timed else set(members) - timed)
                    for member in timed.intersection(members):
                        time = Window(not_before.get(member), expires.get(member))
                        at_times.setdefault(member, []).append(time)
                case _:
                    always.add(source.name)
        windows: dict[str, tuple[Window, ...]] = {
            client: union(intersect_all(times, window)) for client, times in at_times.items()
        }
        limited = {client for client, left in windows.items() if left and client not in always}
        resolved: dict[str, tuple[Window, ...]] = dict.fromkeys(
            sorted(self._known.keys() & (always | limited)), (window,)
        )
        resolved.update((client, windows[client]) for client in limited if client in resolved)
        return resolved


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
    if wider is clients:
        return True
    return len(wider) >= len(clients) and all(
        client in wider and (wider[client] is windows or windows_cover(wider[client], windows))
        for client, windows in clients.items()
    )


def windows_cover(wider: tuple[Window, ...], windows: tuple[Window, ...]) -> bool:
    """Tell whether disjoint windows hold all of other windows."""
    return all(any(mine.covers(window) for mine in wider) for window in windows)
