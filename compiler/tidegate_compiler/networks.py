"""Prefix arithmetic that ipaddress leaves to its callers, with the address families always apart."""

from __future__ import annotations

import ipaddress
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tidegate_compiler.model import Address, Network

# No router forwards a packet to or from these: RFC 6890 (special purposes), RFC 5771 and RFC 4291 (multicast).
SPECIAL: Mapping[Network, str] = {
    ipaddress.ip_network(prefix): name
    for prefix, name in (
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("224.0.0.0/4", "multicast"),
        ("255.255.255.255/32", "broadcast"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("::ffff:0:0/96", "IPv4-mapped"),
        ("fe80::/10", "link-local"),
        ("ff00::/8", "multicast"),
    )
}


def contains(outer: Network, inner: Network) -> bool:
    """Tell whether every address of `inner` is in `outer`; never across families."""
    # The same as subnet_of, in a fifth of its time: no other function is called as often.
    if outer.version != inner.version or outer.prefixlen > inner.prefixlen:
        return False
    differing = int(outer.network_address) ^ int(inner.network_address)
    return differing >> (outer.max_prefixlen - outer.prefixlen) == 0


def intersect(one: Network, other: Network) -> Network | None:
    """Return the addresses both have: the longer prefix of the two, or None."""
    if contains(one, other):
        return other
    return one if contains(other, one) else None


def inside(address: Address, network: Network) -> bool:
    """Tell whether an address is in a network; never across families."""
    return address.version == network.version and address in network


def sort_key(network: Network) -> tuple[int, int, int]:
    """Order IPv4 before IPv6, then by address, shorter prefixes first."""
    return network.version, int(network.network_address), network.prefixlen


def collapse(networks: Iterable[Network], family: int) -> tuple[Network, ...]:
    """Return the fewest prefixes of one family that hold the same addresses, in order."""
    if family == 4:
        return tuple(
            ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network))
        )
    return tuple(ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network)))


class Covering:
    """An index of prefixes that answers which of them contain a given prefix, in time independent of their number."""

    def __init__(self, networks: Iterable[Network]) -> None:
        self._known: dict[tuple[int, int, int], Network] = {}
        self._lengths: dict[int, list[int]] = {4: [], 6: []}
        for network in networks:
            self.add(network)

    def add(self, network: Network) -> None:
        """Take a prefix in."""
        shift = network.max_prefixlen - network.prefixlen
        self._known[network.version, network.prefixlen, int(network.network_address) >> shift] = network
        lengths = self._lengths[network.version]
        if network.prefixlen not in lengths:
            insort(lengths, network.prefixlen)

    def of(self, network: Network) -> Iterator[Network]:
        """Yield every prefix of the index that contains `network`, or is it, the widest first."""
        bits = int(network.network_address)
        for length in self._lengths[network.version]:
            if length > network.prefixlen:
                return
            found = self._known.get((network.version, length, bits >> (network.max_prefixlen - length)))
            if found is not None:
                yield found


class Points:
    """An index of addresses that answers which of them lie in a given prefix, in time independent of the others."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._sorted: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for position, address in enumerate(addresses):
            self._sorted[address.version].append((int(address), position))
        for points in self._sorted.values():
            points.sort()

    def inside(self, network: Network) -> Iterator[int]:
        """Yield the positions of the addresses in `network`, in order of address."""
        points = self._sorted[network.version]
        first, last = int(network.network_address), int(network.broadcast_address)
        for index in range(bisect_left(points, (first, 0)), len(points)):
            if points[index][0] > last:
                return
            yield points[index][1]


def overlapping_pairs(networks: Sequence[Network]) -> Iterator[tuple[int, int]]:
    """Yield (earlier index, later index) of every two entries that overlap, the earlier later one first.

    In order of address an entry overlaps those around it that are open still, and no others.
    """
    found: list[tuple[int, int]] = []
    around: list[int] = []
    for index in sorted(range(len(networks)), key=lambda index: sort_key(networks[index])):
        while around and not contains(networks[around[-1]], networks[index]):
            around.pop()
        found += [(max(index, other), min(index, other)) for other in around]
        around.append(index)
    yield from ((earlier, later) for later, earlier in sorted(found))
