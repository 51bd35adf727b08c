"""Prefix arithmetic that ipaddress leaves to its callers, with the address families always apart."""

from __future__ import annotations

import ipaddress
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
    if isinstance(outer, ipaddress.IPv4Network):
        return isinstance(inner, ipaddress.IPv4Network) and inner.subnet_of(outer)
    return isinstance(inner, ipaddress.IPv6Network) and inner.subnet_of(outer)


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
        self._lengths: dict[int, list[int]] = {4: [], 6: []}
        self._known: set[Network] = set(networks)
        for network in self._known:
            lengths = self._lengths[network.version]
            if network.prefixlen not in lengths:
                lengths.append(network.prefixlen)

    def of(self, network: Network) -> Iterator[Network]:
        """Yield every prefix of the index that contains `network`, or is it."""
        for length in self._lengths[network.version]:
            if length <= network.prefixlen:
                candidate: Network = (
                    network if length == network.prefixlen else network.supernet(new_prefix=length)
                )
                if candidate in self._known:
                    yield candidate


def overlapping_pairs(networks: Sequence[Network]) -> Iterator[tuple[int, int]]:
    """Yield (earlier index, later index) of every two entries of a short list that overlap."""
    for later, network in enumerate(networks):
        for earlier in range(later):
            if intersect(networks[earlier], network) is not None:
                yield earlier, later
