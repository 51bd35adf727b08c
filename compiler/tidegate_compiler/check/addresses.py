"""Addresses, keys and routes: who owns what, and whether every packet has one way."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Set
from ipaddress import ip_network
from itertools import chain

from tidegate_compiler.diagnostics import Diagnostic, show
from tidegate_compiler.model import At, Client, Gateway, Inventory, Lazily, Network
from tidegate_compiler.networks import (
    SPECIAL,
    Covering,
    Points,
    collapse,
    contains,
    inside,
    intersect,
    overlapping_pairs,
)

_PREFIXES_SHOWN = 8


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
    yield from _every_route(inventory)
    yield from _resources(inventory, incomplete)


def _keys(inventory: Inventory) -> Iterator[Diagnostic]:
    first: dict[bytes, tuple[str, str]] = {}
    every = [*(gateway.public_key.value for gateway in inventory.gateways.values())]
    every += [key for key, _, _ in inventory.client_rows.values()]
    if len({point(key) for key in every if key}) == len(every):
        return  # the good case of a hundred thousand
    owners = chain(
        (("gateway", gateway.name, gateway.public_key.value) for gateway in inventory.gateways.values()),
        (("client", name, key) for name, (key, _, _) in inventory.client_rows.items()),
    )
    for kind, name, key in owners:
        if not key:
            continue  # could not be read
        other = first.setdefault(point(key), (kind, name))
        if other != (kind, name):
            where, at = (_owner(inventory, *one).public_key.where for one in ((kind, name), other))
            told = f"{other[0]} {show(other[1])}"
            message = f"{kind} {show(name)} has the key of {told} ({at}); every host makes its own"
            yield Diagnostic(where, "TG021", message)


def point(key: bytes) -> bytes:
    """Return a key without its top bit: X25519 ignores it (RFC 7748, section 5), so both spellings are one identity."""
    return key if key[-1] < 0x80 else key[:-1] + bytes([key[-1] & 0x7F])


def _owner(inventory: Inventory, kind: str, name: str) -> Client | Gateway:
    return inventory.gateways[name] if kind == "gateway" else inventory.clients[name]


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
    prefixes = [prefix.value for prefix in inventory.overlay.prefixes]
    if _are_well(inventory, [*collapse(prefixes, 4), *collapse(prefixes, 6)]):
        return
    overlay = {
        (len(prefix.network_address.packed), shift, int(prefix.network_address) >> shift)
        for prefix in prefixes
        for shift in [prefix.max_prefixlen - prefix.prefixlen]
    }
    lengths = {(family, shift) for family, shift, _ in overlay}
    more = f" and {len(prefixes) - _PREFIXES_SHOWN} more" if len(prefixes) > _PREFIXES_SHOWN else ""
    shown = ", ".join(map(str, prefixes[:_PREFIXES_SHOWN])) + more
    first: dict[bytes, str] = {}
    for name, (_, addresses, _) in inventory.client_rows.items():
        for position, address in enumerate(addresses):
            number, length = int.from_bytes(address), len(address)
            is_inside = any(
                length == family and (family, shift, number >> shift) in overlay for family, shift in lengths
            )
            if prefixes and not is_inside:
                message = f"{ip_network(address)} of {show(name)} is outside the overlay ({shown})"
                yield Diagnostic(inventory.clients[name].addresses[position].where, "TG040", message)
            if address in first:
                other = inventory.clients[first[address]]
                message = f"{ip_network(address)} of {show(name)} is also that of {show(other.name)} ({other.where})"
                yield Diagnostic(inventory.clients[name].addresses[position].where, "TG041", message)
            else:
                first[address] = name


def _are_well(inventory: Inventory, overlay: list[Network]) -> bool:
    """Tell whether all clients' addresses are different and inside the overlay, whose prefixes are disjoint.

    The good case, at once.
    """
    every = [address for _, addresses, _ in inventory.client_rows.values() for address in addresses]
    inside_overlay = 0
    for prefix in overlay:
        first, last = prefix.network_address.packed, prefix.broadcast_address.packed
        inside_overlay += sum([first <= address <= last for address in every if len(address) == len(first)])
    return len(set(every)) == len(every) == inside_overlay


def _gateway_networks(inventory: Inventory) -> Iterator[Diagnostic]:
    covering = Covering(prefix.value for prefix in inventory.overlay.prefixes)
    beginnings = Points(prefix.value.network_address for prefix in inventory.overlay.prefixes)
    for gateway in inventory.gateways.values():
        for network in gateway.networks:
            if not (any(covering.of(network.value)) or any(True for _ in beginnings.inside(network.value))):
                continue
            for prefix in inventory.overlay.prefixes:
                if intersect(network.value, prefix.value) is not None:
                    message = (
                        f"{network.value} of {show(gateway.name)} overlaps the overlay {prefix.value}; "
                        "the overlay is the clients' alone"
                    )
                    yield Diagnostic(network.where, "TG042", message)


def _every_route(inventory: Inventory) -> Iterator[Diagnostic]:
    """Yield the problems of all clients' routes: those of clients alike, which are many, are looked for once."""
    clean: dict[tuple[tuple[str, ...], tuple[int, ...]], bool] = {}
    alone = inventory.clients.made if isinstance(inventory.clients, Lazily) else inventory.clients
    enclosed = _enclosed(inventory)
    for name, (_, addresses, gateways) in inventory.client_rows.items():
        if name in alone:  # read carefully: it may be broken, which no row tells
            yield from _routes(inventory.clients[name], inventory, enclosed)
            continue
        alike = (gateways, tuple(map(len, addresses)))
        if alike not in clean:
            clean[alike] = not any(True for _ in _routes(inventory.clients[name], inventory, enclosed))
        if not clean[alike]:
            yield from _routes(inventory.clients[name], inventory, enclosed)


def _enclosed(inventory: Inventory) -> frozenset[str]:
    """Return the gateways, few if any, whose endpoint lies in some gateway's network."""
    covering = Covering(
        network.value for gateway in inventory.gateways.values() for network in gateway.networks
    )
    return frozenset(
        gateway.name
        for gateway in inventory.gateways.values()
        if gateway.endpoint is not None and any(covering.of(ip_network(gateway.endpoint.value.address)))
    )


def _routes(client: Client, inventory: Inventory, enclosed: Set[str]) -> Iterator[Diagnostic]:
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
        if gateway.name in enclosed:
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
