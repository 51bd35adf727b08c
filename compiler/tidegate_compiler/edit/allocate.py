"""The next free address of an overlay prefix: the lowest, so that the same inventory always gives the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tidegate_compiler.edit.change import EditError
from tidegate_compiler.model import Network
from tidegate_compiler.networks import collapse, sort_key


def allocate(overlay: Sequence[Network], taken: Iterable[Network]) -> list[Network]:
    """Return one free host address per family of the overlay, IPv4 first. EditError when a family is full.

    Prefixes of one family are filled in their order. Never given: the network address and the first one after
    it, which by custom is the router's (of IPv6 the first is the subnet-router anycast address, RFC 4291 §2.6.1),
    and IPv4's broadcast address. A /31, /32, /127 or /128 has none of these (RFC 3021, RFC 6164).
    """
    used: dict[int, set[int]] = {4: set(), 6: set()}
    blocks: list[Network] = []
    for network in taken:
        if network.prefixlen == network.max_prefixlen:
            used[network.version].add(int(network.network_address))
        else:
            blocks.append(network)
    found: list[Network] = []
    for family in sorted({prefix.version for prefix in overlay}):
        prefixes = [prefix for prefix in overlay if prefix.version == family]
        free = next(
            (a for prefix in prefixes if (a := _lowest(prefix, used[family], blocks)) is not None), None
        )
        if free is None:
            names = ", ".join(map(str, prefixes))
            raise EditError(
                f"the overlay is full: no free IPv{family} address in {names}; "
                "add a prefix to overlay.yaml, or name the addresses with --address"
            )
        found.append(free)
    return found


def _lowest(prefix: Network, used: set[int], blocks: Sequence[Network]) -> Network | None:
    begin = int(prefix.network_address)
    end = begin + prefix.num_addresses
    if prefix.max_prefixlen - prefix.prefixlen >= 2:
        begin += 2
        end -= 1 if prefix.version == 4 else 0
    skips = sorted(
        (int(n.network_address), int(n.network_address) + n.num_addresses)
        for n in blocks
        if n.version == prefix.version
    )
    candidate = begin
    while candidate < end:
        over = next((stop for start, stop in skips if start <= candidate < stop), None)
        if over is not None:
            candidate = over
        elif candidate in used:
            candidate += 1
        else:
            return type(prefix)((candidate, prefix.max_prefixlen))
    return None


def cover(networks: Sequence[Network]) -> tuple[Network, ...]:
    """Return networks without those inside others, in order, IPv4 first."""
    return tuple(sorted((*collapse(networks, 4), *collapse(networks, 6)), key=sort_key))
