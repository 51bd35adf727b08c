"""What two bundles of a client both lead to: where a rolled-back client may go. Pure."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from tidegate_schema.wgquick import ClientConfig, Peer


def common(old: ClientConfig, new: ClientConfig) -> ClientConfig | None:
    """Return `old` with nothing in it that `new` has not: gateways by their keys, networks, own addresses.

    Endpoints, keepalives and MTU are those of `old`. None when no gateway, or no address, is left. A network that would
    then lead to two gateways leads to neither.
    """
    addresses = tuple(one for one in old.addresses if one in new.addresses)
    served = _served(new)
    peers: list[Peer] = []
    for group in _groups(old):
        networks: tuple[str, ...] = ()
        for peer in group:
            if peer.public_key not in served:
                continue
            if not networks:
                networks = _narrower(group[0].allowed_ips, served[peer.public_key])
                if networks:
                    peers.append(replace(peer, allowed_ips=networks))
            elif set(_narrower(networks, served[peer.public_key])) == set(networks):
                peers.append(replace(peer, allowed_ips=()))
    claims = Counter(network for peer in peers for network in peer.allowed_ips)
    peers = _without(peers, {network for network, count in claims.items() if count > 1})
    return ClientConfig(addresses, tuple(peers), old.mtu) if addresses and peers else None


def without_gateways(config: ClientConfig) -> ClientConfig:
    """Return a bundle that leads nowhere: what is left of one past its end, where the settings say so."""
    return replace(config, peers=())


def _groups(config: ClientConfig) -> list[list[Peer]]:
    """Return each gateway that serves networks, with its standbys behind it."""
    groups: list[list[Peer]] = []
    for peer in config.peers:
        if peer.allowed_ips:
            groups.append([peer])
        else:
            groups[-1].append(peer)
    return groups


def _served(config: ClientConfig) -> Mapping[str, tuple[str, ...]]:
    """Return the networks that each gateway serves, or stands by for."""
    return {peer.public_key: group[0].allowed_ips for group in _groups(config) for peer in group}


def _narrower(ones: tuple[str, ...], others: tuple[str, ...]) -> tuple[str, ...]:
    """Return the prefixes that are in both, the narrower of each two that nest."""
    found: dict[str, None] = {}
    for one in map(ipaddress.ip_network, ones):
        for other in map(ipaddress.ip_network, others):
            if one.version == other.version and one.overlaps(other):
                found[str(max(one, other, key=lambda network: network.prefixlen))] = None
    return tuple(found)


def _without(peers: list[Peer], claimed: set[str]) -> list[Peer]:
    """Return the gateways without the networks in `claimed`; one left without any goes, and its standbys with it."""
    left: list[Peer] = []
    is_served = True
    for peer in peers:
        if peer.allowed_ips:
            networks = tuple(network for network in peer.allowed_ips if network not in claimed)
            is_served = bool(networks)
            if is_served:
                left.append(replace(peer, allowed_ips=networks))
        elif is_served:
            left.append(peer)
    return left
