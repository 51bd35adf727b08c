"""Addresses, keys and routes: who owns what, and whether every packet has one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set

from tidegate_compiler.diagnostics import Diagnostic, Where, show
from tidegate_compiler.model import At, Client, Gateway, Inventory, Network
from tidegate_compiler.networks import (
    SPECIAL,
    Covering,
    Points,
    contains,
    inside,
    intersect,
    overlapping_pairs,
)


def addresses(inventory: Inventory, incomplete: Set[str]) -> Iterator[Diagnostic]:
    """Yield every clash of keys, endpoints, addresses, networks and routes.

    `incomplete` names the kinds of which a file could not be read.
    """
    yield from _keys(inventory)
    yield from _endpoints(inventory)
    yield from _overlapping_lists(inventory)
    yield from _special(inventory)
    yield from _client_addresses(inventory)
    yield from _gateway_networks(inventory)
    for client in inventory.clients.values():
        yield from _routes(client, inventory)
    yield from _resources(inventory, incomplete)


def _keys(inventory: Inventory) -> Iterator[Diagnostic]:
    first: dict[bytes, tuple[str, Where]] = {}
    owners: list[tuple[str, Client | Gateway]] = [
        *(("gateway", gateway) for gateway in inventory.gateways.values()),
        *(("client", client) for client in inventory.clients.values()),
    ]
    for kind, owner in owners:
        if "public_key" in owner.broken:
            continue
        key = owner.public_key
        # X25519 ignores the top bit (RFC 7748, section 5): two spellings of one key are one identity.
        point = key.value[:-1] + bytes([key.value[-1] & 0x7F])
        if point in first:
            other, where = first[point]
            message = f"{kind} {show(owner.name)} has the key of {other} ({where}); every host makes its own"
            yield Diagnostic(key.where, "TG021", message)
        else:
            first[point] = (f"{kind} {show(owner.name)}", key.where)


def _endpoints(inventory: Inventory) -> Iterator[Diagnostic]:
    first: dict[str, Gateway] = {}
    for gateway in inventory.gateways.values():
        if gateway.endpoint is None:
            continue
        other = first.setdefault(gateway.endpoint.value.text, gateway)
        if other is not gateway:
            message = f"endpoint {gateway.endpoint.value.text} is that of gateway {show(other.name)} ({other.where})"
            yield Diagnostic(gateway.endpoint.where, "TG028", message)


def _overlapping_lists(inventory: Inventory) -> Iterator[Diagnostic]:
    lists = [inventory.overlay.prefixes, *(gateway.networks for gateway in inventory.gateways.values())]
    for prefixes in lists:
        for earlier, later in overlapping_pairs([prefix.value for prefix in prefixes]):
            message = (
                f"{prefixes[later].value} and {prefixes[earlier].value} of the same list overlap; "
                "keep the wider one"
            )
            yield Diagnostic(prefixes[later].where, "TG049", message)


def _special(inventory: Inventory) -> Iterator[Diagnostic]:
    """Yield address space that no router forwards. Clients have theirs from the overlay, so that one is enough.

    A gateway's network may contain such a range, as 0.0.0.0/0 does, and not be one; the overlay may not touch any.
    Resources and policies may name them: a deny of 169.254.169.254/32 behind 0.0.0.0/0 is good sense.
    """
    for prefix in inventory.overlay.prefixes:
        for special, name in SPECIAL.items():
            if intersect(prefix.value, special) is not None:
                message = (
                    f"{prefix.value} and the {name} range {special} overlap, and no client can have such an "
                    "address; take a private range such as 10.64.0.0/16 or fd64::/48"
                )
                yield Diagnostic(prefix.where, "TG029", message)
                break
    for gateway in inventory.gateways.values():
        for network in gateway.networks:
            for special, name in SPECIAL.items():
                if contains(special, network.value):
                    message = (
                        f"{network.value} of {show(gateway.name)} is {name} ({special}), and nothing is routed "
                        "there; write the networks behind the gateway"
                    )
                    yield Diagnostic(network.where, "TG029", message)
                    break


def _client_addresses(inventory: Inventory) -> Iterator[Diagnostic]:
    prefixes = inventory.overlay.prefixes
    overlay = Covering(prefix.value for prefix in prefixes)
    first: dict[Network, Client] = {}
    for client in inventory.clients.values():
        for address in client.addresses:
            if prefixes and next(overlay.of(address.value), None) is None:
                message = (
                    f"{address.value} of {show(client.name)} is outside the overlay "
                    f"({', '.join(str(prefix.value) for prefix in prefixes)})"
                )
                yield Diagnostic(address.where, "TG040", message)
            other = first.get(address.value)
            if other is not None:
                message = f"{address.value} of {show(client.name)} is also that of {show(other.name)} ({other.where})"
                yield Diagnostic(address.where, "TG041", message)
            else:
                first[address.value] = client


def _gateway_networks(inventory: Inventory) -> Iterator[Diagnostic]:
    for gateway in inventory.gateways.values():
        for network in gateway.networks:
            for prefix in inventory.overlay.prefixes:
                if intersect(network.value, prefix.value) is not None:
                    message = (
                        f"{network.value} of {show(gateway.name)} overlaps the overlay {prefix.value}; "
                        "the overlay is the clients' alone"
                    )
                    yield Diagnostic(network.where, "TG042", message)


def _routes(client: Client, inventory: Inventory) -> Iterator[Diagnostic]:
    known = [(at, inventory.gateways[at.value]) for at in client.gateways if at.value in inventory.gateways]
    for position, (at, gateway) in enumerate(known):
        for _, earlier in known[:position]:
            shared = gateway.network_set & earlier.network_set
            if shared and gateway.network_set != earlier.network_set:
                message = (
                    f"{show(gateway.name)} and {show(earlier.name)} both have {min(shared, key=str)}, and other "
                    "networks differ; WireGuard gives a prefix to one peer: make the lists equal or disjoint"
                )
                yield Diagnostic(at.where, "TG045", message)
        if gateway.networks and not client.broken and not gateway.broken:
            families = {network.value.version for network in gateway.networks}
            if not families & client.families:
                message = (
                    f"{show(client.name)} has {_versions(client.families)} addresses only, and the networks of "
                    f"{show(gateway.name)} are {_versions(families)} only"
                )
                yield Diagnostic(at.where, "TG046", message)
        yield from _endpoint_in_tunnel(client, at, gateway, [other for _, other in known])


def _endpoint_in_tunnel(
    client: Client, at: At[str], gateway: Gateway, others: list[Gateway]
) -> Iterator[Diagnostic]:
    if gateway.endpoint is None or gateway.endpoint.value.address.version not in client.families:
        return
    endpoint = gateway.endpoint.value.address
    for other in others:
        for network in other.networks:
            if inside(endpoint, network.value):
                message = (
                    f"the endpoint {endpoint} of {show(gateway.name)} is inside {network.value}, which "
                    f"{show(client.name)} routes into the tunnel of {show(other.name)}: it would never be reached"
                )
                yield Diagnostic(at.where, "TG043", message)
                return


def _versions(families: Iterable[int]) -> str:
    return " and ".join(f"IPv{family}" for family in sorted(families)) or "no"


def _resources(inventory: Inventory, incomplete: Set[str]) -> Iterator[Diagnostic]:
    networks = [network.value for gateway in inventory.gateways.values() for network in gateway.networks]
    covering, beginnings = Covering(networks), Points(network.network_address for network in networks)
    endpoints = Endpoints(inventory)
    broken = any("networks" in gateway.broken for gateway in inventory.gateways.values())
    complete = not broken and "gateways" not in incomplete
    for resource in inventory.resources.values():
        for address in resource.addresses:
            # Two prefixes overlap when one contains the other: the longer one then begins inside the wider.
            meets = any(covering.of(address.value)) or any(True for _ in beginnings.inside(address.value))
            if complete and not meets:
                message = (
                    f"{address.value} of {show(resource.name)} is behind no gateway; "
                    "correct it, or add it to one's networks"
                )
                yield Diagnostic(address.where, "TG047", message)
            yield from endpoints.contained(address, f"resource {show(resource.name)}")


class Endpoints:
    """The gateways' own addresses, which no policy can judge, so that no destination may hold one."""

    def __init__(self, inventory: Inventory) -> None:
        self._known = [
            (gateway.endpoint.value.address, gateway.name)
            for gateway in inventory.gateways.values()
            if gateway.endpoint is not None
        ]
        self._points = Points(address for address, _ in self._known)

    def contained(self, destination: At[Network], owner: str) -> Iterator[Diagnostic]:
        """Yield a problem when a destination holds a gateway's own address."""
        position = min(self._points.inside(destination.value), default=None)
        if position is None:
            return
        address, gateway = self._known[position]
        message = (
            f"{destination.value} of {owner} contains {address}, the own address of gateway "
            f"{show(gateway)}; access to a gateway itself is no matter of policy: leave it out"
        )
        yield Diagnostic(destination.where, "TG048", message)
