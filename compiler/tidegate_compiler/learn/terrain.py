"""What a policy can be about: resources, prefixes of policies that are there, and else single addresses. Pure.

A target is cut into elements: the entries of a resource's own ports, or where it has none, or very wide ones, the ports
that were seen. Many ports of one protocol above 1023 are seen as one range: that is what a protocol with ports of its
own choice looks like.

    service (10.20.5.3, tcp, 5432) ──► its homes: (resource:prod-db, tcp/5432), (10.20.0.0/16, tcp/5432)
"""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_compiler.learn.demand import Service
from tidegate_compiler.model import Inventory, Network
from tidegate_compiler.networks import Covering
from tidegate_schema.ports import ANY_PROTOCOL, ICMP, PORTED_NUMBERS, PortRange, parse_ports

WIDE = 1024
"""An entry of more ports than this is no answer to what is needed; nor is `any`."""
RANGE_FROM = 12
"""So many different ports above 1023 are one range."""
_EPHEMERAL = 1024


class Home(NamedTuple):
    """A target, by its number, and the element of it that a service is."""

    target: int
    element: str


@dataclass(frozen=True)
class Target:
    """A resource (`name` as in a policy's `to`) or a prefix; `own` are its own ports that stand as they are."""

    name: str
    networks: tuple[Network, ...]
    ports: tuple[str, ...] | None = None
    own: tuple[str, ...] = ()

    def element(self, service: Service, family: int) -> str | None:
        """Return the element that a service of this target is; None where its ports do not admit it."""
        for text in self.own:
            if _admits(text, service, family):
                return text
        if self.ports is not None and not any(_admits(text, service, family) for text in self.ports):
            return None
        return exact(service, family)


def exact(service: Service, family: int) -> str:
    """Return the written form of one protocol and port."""
    if service.protocol == ICMP[family]:
        return "icmp"
    if service.protocol in PORTED_NUMBERS:
        return str(PortRange(service.protocol, service.port, service.port))
    return f"proto/{service.protocol}"


def _admits(text: str, service: Service, family: int) -> bool:
    one = parse_ports(text, family)
    if one.protocol == ANY_PROTOCOL:
        return True
    return one.protocol == service.protocol and one.first <= service.port <= one.last


def stands(text: str) -> bool:
    """Tell whether an entry of ports is narrow enough to answer what is needed."""
    one = parse_ports(text, 4)
    if one.protocol == ANY_PROTOCOL:
        return False
    return one.protocol not in PORTED_NUMBERS or one.last - one.first < WIDE


@dataclass
class Terrain:
    """Every target that some service has its home in, and the homes of each service, the narrowest target first."""

    targets: list[Target] = field(default_factory=list)
    homes: dict[Service, tuple[Home, ...]] = field(default_factory=dict)

    def breadth(self) -> dict[int, float]:
        """Return of each target that is somebody's home, by how many bits it is wider than what was seen of it."""
        seen: dict[int, set[str]] = {}
        for service, homes in self.homes.items():
            for home in homes:
                seen.setdefault(home.target, set()).add(service.destination)
        return {
            number: math.log2(sum(one.num_addresses for one in self.targets[number].networks) / len(found))
            for number, found in seen.items()
        }


def terrain(inventory: Inventory, services: Iterable[Service]) -> Terrain:
    """Find the homes of services."""
    found = Terrain(_targets(inventory))
    of: dict[Network, list[int]] = {}
    for number, target in enumerate(found.targets):
        for network in target.networks:
            of.setdefault(network, []).append(number)
    covering = Covering(of)
    for service in sorted(services):
        address = ipaddress.ip_network(service.destination)
        homes: dict[Home, None] = {}
        for network in reversed(list(covering.of(address))):
            for number in of[network]:
                element = found.targets[number].element(service, address.version)
                if element is not None:
                    homes[Home(number, element)] = None
        if not homes:
            number = len(found.targets)
            found.targets.append(Target(str(address), (address,)))
            of.setdefault(address, []).append(number)
            covering.add(address)
            homes[Home(number, exact(service, address.version))] = None
        found.homes[service] = tuple(homes)
    return _with_ranges(found)


def _targets(inventory: Inventory) -> list[Target]:
    """Return the resources, then the prefixes that policies name; resources come first where both are as narrow."""
    targets = []
    for name, resource in inventory.resources.items():
        ports = None if resource.ports is None else tuple(port.value for port in resource.ports)
        own = tuple(text for text in ports or () if stands(text))
        networks = tuple(address.value for address in resource.addresses)
        targets.append(Target(f"resource:{name}", networks, ports, own))
    prefixes = {
        to.value.prefix
        for policy in inventory.policies.values()
        for to in policy.destinations
        if policy.action == "allow" and to.value.prefix is not None
    }
    return targets + [Target(str(prefix), (prefix,)) for prefix in sorted(prefixes, key=str)]


def _with_ranges(found: Terrain) -> Terrain:
    """Take many single ports of one protocol at one target together."""
    seen: dict[tuple[int, str], set[int]] = {}
    for homes in found.homes.values():
        for target, element in homes:
            name, _, port = element.partition("/")
            if element in found.targets[target].own or not port.isdigit() or name == "proto":
                continue
            if int(port) >= _EPHEMERAL:
                seen.setdefault((target, name), set()).add(int(port))
    ranges: dict[tuple[int, str], str] = {}
    for (target, name), ports in seen.items():
        if len(ports) >= RANGE_FROM:
            whole = f"{name}/{min(ports)}-{max(ports)}"  # once: somebody who scans has tens of thousands
            ranges.update(((target, f"{name}/{port}"), whole) for port in ports)
    if ranges:
        for service, homes in found.homes.items():
            found.homes[service] = tuple(
                dict.fromkeys(Home(one.target, ranges.get(one, one.element)) for one in homes)
            )
    return found
