"""What a gateway should be, computed from its settings and its bundle. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tidegate_agents.bundles import Accepted
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.wireguard import PeerConfig
from tidegate_schema import jsonfile, validation
from tidegate_schema.keys import client_id, parse_public_key
from tidegate_schema.policy import PolicyTable
from tidegate_schema.release import ReleaseError

FIXED = (
    *("interface", "listen_port", "mtu", "tun", "tun_address", "mark", "table", "rule_priority"),
    *("ring_records", "offloads"),
)
"""Settings that take effect at the next start of the agent."""


@dataclass(frozen=True)
class GatewayBundle:
    """A gateway's bundle, checked: its peers, which client has which source address, and its policy."""

    peers: Mapping[str, PeerConfig] = field(default_factory=dict)
    clients: Mapping[bytes, str] = field(default_factory=dict)
    policy: PolicyTable = field(default_factory=lambda: PolicyTable(None))

    def tables(self, generation: int, enforce: bool, not_earlier_than: float) -> Tables:
        """Return what a forwarder of this bundle knows."""
        return Tables(generation, enforce, self.clients, self.policy, not_earlier_than)

    def allows(self, source: bytes, destination: bytes, protocol: int, port: int, now: float) -> bool:
        """Tell whether a connection with this first packet may exist at Unix time `now` in enforce."""
        client = self.clients.get(source)
        return client is not None and self.policy.decide(client, destination, protocol, port, now).allow


def read_bundle(accepted: Accepted) -> GatewayBundle:
    """Read the files of an accepted release; ReleaseError "invalid-bundle" when they contradict their formats."""
    try:
        peers = _document("peers", accepted.files["peers.json"])["peers"]
        policy = (
            _document("policy", accepted.files["policy.json"]) if "policy.json" in accepted.files else None
        )
        bundle = GatewayBundle(
            {peer["public_key"]: PeerConfig(frozenset(peer["allowed_ips"])) for peer in peers},
            {_address(text): peer["client_id"] for peer in peers for text in peer["allowed_ips"]},
            PolicyTable(policy),
        )
        for peer in peers:
            if client_id(parse_public_key(peer["public_key"])) != peer["client_id"]:
                raise ValueError(f"peers.json: {peer['client_id']} is not the client ID of its public key")
    except ValueError as error:
        raise ReleaseError("invalid-bundle", str(error)) from None
    if len(bundle.peers) != len(peers):
        raise ReleaseError("invalid-bundle", "peers.json: a public key stands twice")
    if len(bundle.clients) != sum(len(peer["allowed_ips"]) for peer in peers):
        raise ReleaseError("invalid-bundle", "peers.json: two peers claim one address")
    return bundle


def _document(kind: str, data: bytes) -> Any:
    try:
        document = jsonfile.parse(data)
    except jsonfile.JsonError as error:
        raise ValueError(f"{kind}.json: {error}") from None
    for problem in validation.errors(kind, document):
        raise ValueError(f"{kind}.json: {'.'.join(map(str, problem.path))}: {problem.message[:200]}")
    return document


def _address(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    if network.prefixlen != network.max_prefixlen or str(network) != text:
        raise ValueError(f"peers.json: {text} is not one address in canonical form")
    return network.network_address.packed


def routes(bundle: GatewayBundle) -> frozenset[str]:
    """Return the prefixes that lead to WireGuard: the peers' addresses, merged where they are neighbours."""
    networks = [ipaddress.ip_network(text) for peer in bundle.peers.values() for text in peer.allowed_ips]
    merged4 = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv4Network))
    merged6 = ipaddress.collapse_addresses(n for n in networks if isinstance(n, ipaddress.IPv6Network))
    return frozenset(map(str, (*merged4, *merged6)))
