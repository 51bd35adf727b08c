"""How near a policy is to matching one packet: which of its conditions the packet misses, and where they stand.

This is about words in the YAML, for people; the verdict itself is never taken from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from tidegate_compiler.diagnostics import Where
from tidegate_compiler.grants import Ports, both_ports, merge
from tidegate_compiler.judge import Packet
from tidegate_compiler.model import ALL_CLIENTS, At, Inventory, Network, Policy, To
from tidegate_compiler.networks import inside
from tidegate_compiler.times import Window, format_instant
from tidegate_schema.ports import ANY_PROTOCOL, ICMP, PortRange

TIME, PORT, CLIENT, FAMILY, DESTINATION = "time", "port", "client", "family", "destination"
MISSING = (TIME, PORT, CLIENT, FAMILY, DESTINATION)
"""What a packet can miss, in the order in which a policy that lacks only this is worth reading."""


Place = Callable[[Where], str]
"""Says a place as people find it: file and line, printable."""


@dataclass(frozen=True)
class Target:
    """One entry of a policy's `to`, as it is for the packet's family: its prefixes and the ports both sides admit.

    `prefixes` are of any family. `resource` is its name, or None for a prefix.
    """

    resource: str | None
    prefixes: tuple[Network, ...]
    ports: Ports

    def holds(self, asked: Packet) -> bool:
        """Tell whether the packet's address is in it."""
        return any(inside(asked.address, prefix) for prefix in self.prefixes)

    def admits(self, asked: Packet) -> bool:
        """Tell whether the packet's protocol and port are admitted."""
        return any(
            one.protocol == ANY_PROTOCOL
            or (one.protocol == asked.protocol and one.first <= asked.port <= one.last)
            for one in self.ports
        )


@dataclass(frozen=True)
class Fit:
    """A policy against a packet: what it misses, in the order of MISSING; nothing when it matches."""

    policy: Policy
    targets: tuple[Target, ...]
    missing: tuple[str, ...]


def fit(inventory: Inventory, policy: Policy, asked: Packet) -> Fit:
    """Compare a policy's conditions with a packet, one by one."""
    missing = []
    ways = list(windows(inventory, policy, asked.client))
    if not ways:
        missing.append(CLIENT)
    elif not any(_holds(window, asked.at) for window, _ in ways):
        missing.append(TIME)
    targets = tuple(_target(inventory, policy, to, asked.address.version) for to in policy.destinations)
    here = [target for target in targets if target.holds(asked)]
    if not here:
        family = any(one.version == asked.address.version for target in targets for one in target.prefixes)
        missing.append(DESTINATION if family else FAMILY)
    if not any(target.admits(asked) for target in here or targets):
        missing.append(PORT)
    return Fit(policy, targets, tuple(one for one in MISSING if one in missing))


def windows(inventory: Inventory, policy: Policy, client: str) -> Iterator[tuple[Window, At[int] | None]]:
    """Yield every window in which the policy is about the client, with the membership's end or begin that limits it."""
    for source in policy.sources:
        if source.value.kind == ALL_CLIENTS or (source.value.kind, source.value.name) == ("client", client):
            yield policy.window, None
        elif source.value.kind == "group":
            group = inventory.groups[source.value.name]
            if any(member.value == client for member in group.members):
                both = policy.window.intersect(group.window(client))
                if both is not None:
                    yield both, group.expires.get(client) or group.not_before.get(client)


def _holds(window: Window, at: float) -> bool:
    return (window.not_before is None or window.not_before <= at) and (
        window.expires is None or at < window.expires
    )


def _target(inventory: Inventory, policy: Policy, to: At[To], family: int) -> Target:
    own = [at.value for at in policy.ports] if policy.ports is not None else None
    if to.value.prefix is not None:
        return Target(None, (to.value.prefix,), merge(both_ports(own, None, family)))
    resource = inventory.resources[to.value.resource]
    served = [at.value for at in resource.ports] if resource.ports is not None else None
    prefixes = tuple(at.value for at in resource.addresses)
    return Target(resource.name, prefixes, merge(both_ports(own, served, family)))


def told(inventory: Inventory, found: Fit, asked: Packet, place: Place) -> str:
    """Return what the one missing thing is, in words."""
    policy = found.policy
    match found.missing[0]:
        case "time":
            return _time(inventory, policy, asked, place)
        case "port":
            here = [target for target in found.targets if target.holds(asked)]
            ports = dict.fromkeys(_written(one, asked) for target in here for one in target.ports)
            return f"it allows {_some(ports) or 'no port'} there"
        case "client":
            return f"the client is not in its 'from': {_some(_sources(inventory, policy, place))}"
        case "family":
            other = 4 if asked.address.version == 6 else 6
            return f"it names only IPv{other} destinations"
        case _:
            prefixes = _nearest(found, asked)
            return f"the destination is not in its 'to': {_some(map(str, prefixes))}"


def _time(inventory: Inventory, policy: Policy, asked: Packet, place: Place) -> str:
    ways = list(windows(inventory, policy, asked.client))
    over = [(w.expires, at) for w, at in ways if w.expires is not None and w.expires <= asked.at]
    to_come = [(w.not_before, at) for w, at in ways if w.not_before is not None and w.not_before > asked.at]
    # Of several ways in, the one that ended last or begins first is the nearest.
    second, limit = max(over, key=lambda one: one[0]) if over else min(to_come, key=lambda one: one[0])
    verb = "ended" if over else "begins"
    own = policy.expires if over else policy.not_before
    if own is not None and own.value == second:
        return f"it {verb} at {format_instant(second)}"
    where = limit.where if limit is not None else policy.where
    return f"the client's membership ({place(where)}) {verb} at {format_instant(second)}"


def _sources(inventory: Inventory, policy: Policy, place: Place) -> Iterator[str]:
    for source in policy.sources:
        kind, name = source.value.kind, source.value.name
        if kind == "group":
            yield f"group:{name} ({place(inventory.groups[name].where)})"
        else:
            yield f"{kind}:{name}"


def _written(ports: PortRange, asked: Packet) -> str:
    return "icmp" if ports.protocol == ICMP[asked.address.version] else str(ports)


def _nearest(found: Fit, asked: Packet) -> list[Network]:
    """Return the policy's prefixes of the packet's family, those that share more leading bits with it first."""
    own = {p for target in found.targets for p in target.prefixes if p.version == asked.address.version}
    return sorted(own, key=lambda prefix: (-shared_bits(prefix, asked), str(prefix)))


def shared_bits(prefix: Network, asked: Packet) -> int:
    """Return how many leading bits an address and a prefix of its family share."""
    differing = int(prefix.network_address) ^ int(asked.address)
    return prefix.max_prefixlen - differing.bit_length()


def closeness(found: Fit, asked: Packet) -> int:
    """Return the most leading bits that a prefix of the policy shares with the packet's address."""
    return max((shared_bits(prefix, asked) for prefix in _nearest(found, asked)), default=0)


def _some(values: Iterable[str], most: int = 4) -> str:
    every = list(values)
    shown = ", ".join(every[:most])
    return shown if len(every) <= most else f"{shown} and {len(every) - most} more"
