"""What a gateway should be, computed from its settings and its bundle. Pure."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tidegate_agents.bundles import Accepted
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.wireguard import PeerConfig
from tidegate_schema import jsonfile, validation
from tidegate_schema.keys import client_id, parse_public_key
from tidegate_schema.overlap import both, kept_within
from tidegate_schema.policy import PolicyTable
from tidegate_schema.release import ReleaseError

FIXED = (
    *(
        "interface",
        "listen_port",
        "mtu",
        "tun",
        "denied_tun",
        "tun_address",
        "mark",
        "table",
        "rule_priority",
    ),
    *("ring_records", "offloads", "forwarder_uid", "flusher_uid"),
)
"""Settings that take effect at the next start of the agent."""


_EMBEDDING = bytes(
    8
)  # of these IPv6 addresses some are written in two ways: with an IPv4 address in them, or not


@dataclass(frozen=True)
class GatewayBundle:
    """A gateway's bundle, checked: its peers, which client has which source address, and its policy."""

    peers: Mapping[str, PeerConfig] = field(default_factory=dict)
    clients: Mapping[bytes, str] = field(default_factory=dict)
    policy: PolicyTable = field(default_factory=lambda: PolicyTable(None))

    @functools.cached_property
    def routes(self) -> frozenset[str]:
        """The prefixes that lead to WireGuard: the peers' addresses, merged where they are neighbours."""
        return frozenset(
            str(network)
            for size, kind in ((4, ipaddress.IPv4Address), (16, ipaddress.IPv6Address))
            for first, last in _runs(int.from_bytes(one) for one in self.clients if len(one) == size)
            for network in ipaddress.summarize_address_range(kind(first), kind(last))
        )

    def tables(self, generation: int, enforce: bool, not_earlier_than: float) -> Tables:
        """Return what a forwarder of this bundle knows."""
        return Tables(generation, enforce, self.clients, self.policy, not_earlier_than)

    def allows(self, source: bytes, destination: bytes, protocol: int, port: int, now: float) -> bool:
        """Tell whether a connection with this first packet may exist at Unix time `now` in enforce."""
        client = self.clients.get(source)
        return client is not None and self.policy.decide(client, destination, protocol, port, now).allow


NOTHING = GatewayBundle()
"""No peer, and no right: what a gateway is before its first release."""


def without_rights(bundle: GatewayBundle) -> GatewayBundle:
    """Return a bundle of the same peers, which in enforce may reach nothing."""
    return replace(bundle, policy=NOTHING.policy)


@dataclass(frozen=True)
class Desired:
    """What the gateway should be now."""

    settings: Mapping[str, Any]
    bundle: GatewayBundle
    release: Mapping[str, Any] | None
    """What `status` says of the release the bundle came from."""

    @property
    def enforce(self) -> bool:
        """Whether policy decides."""
        return bool(self.settings["authz_mode"] == "enforce")

    def judgement(self) -> tuple[object, ...]:
        """Return everything a forwarder depends on: when it differs, a new generation is due."""
        chosen = ("authz_mode", "logging_enabled", "log_granularity", "flow_cache", "flow_timeout")
        return (*(self.settings[name] for name in chosen), self.bundle.clients, self.bundle.policy.document)

    def rules(self) -> tuple[object, ...]:
        """Return what else the ruleset depends on."""
        chosen = ("masquerade", "client_upcalls", "client_flows", "client_connections")
        return tuple(self.settings[name] for name in chosen)


def common(old: GatewayBundle, new: GatewayBundle) -> GatewayBundle:
    """Return what a rolled-back gateway may do: the peers, addresses and rights that both bundles have."""
    clients = {
        address: client for address, client in old.clients.items() if new.clients.get(address) == client
    }
    peers = {}
    for key, peer in old.peers.items():
        shared = peer.allowed_ips & new.peers[key].allowed_ips if key in new.peers else frozenset()
        if shared:
            peers[key] = PeerConfig(shared)
    document = both(old.policy.document, new.policy.document)
    return GatewayBundle(peers, clients, PolicyTable(document))


def read_bundle(accepted: Accepted) -> GatewayBundle:
    """Read the files of an accepted release; ReleaseError "invalid-bundle" when they contradict their formats.

    A rule that would open anything after the release's own end does not.
    """
    try:
        peers = _document("peers", accepted.files["peers.json"])["peers"]
        policy = (
            _document("policy", accepted.files["policy.json"]) if "policy.json" in accepted.files else None
        )
        bundle = GatewayBundle(
            {peer["public_key"]: PeerConfig(frozenset(peer["allowed_ips"])) for peer in peers},
            {_address(text): peer["client_id"] for peer in peers for text in peer["allowed_ips"]},
            PolicyTable(kept_within(policy, accepted.release.not_after)),
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
    fractions: list[str] = []
    try:
        document = jsonfile.parse(data, fractions)
    except jsonfile.JsonError as error:
        raise ValueError(f"{kind}.json: {error}") from None
    for problem in validation.problems(kind, document, fractions):
        raise ValueError(f"{kind}.json: {'.'.join(map(str, problem.path))}: {problem.message[:200]}")
    return document


def _address(text: str) -> bytes:
    family, length = (socket.AF_INET6, "/128") if ":" in text else (socket.AF_INET, "/32")
    with contextlib.suppress(OSError):
        packed = socket.inet_pton(family, text.removesuffix(length))
        if socket.inet_ntop(family, packed) + length == text and not packed.startswith(_EMBEDDING):
            return packed
    return _address_by_the_book(text)


def _address_by_the_book(text: str) -> bytes:
    network = ipaddress.ip_network(text)
    if network.prefixlen != network.max_prefixlen or str(network) != text:
        raise ValueError(f"peers.json: {text} is not one address in canonical form")
    return network.network_address.packed


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yield the first and last of each run of neighbours."""
    first = last = -2
    for number in sorted(numbers):
        if number != last + 1:
            if last >= 0:
                yield first, last
            first = number
        last = number
    if last >= 0:
        yield first, last
