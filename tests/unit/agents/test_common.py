"""What is left after a rollback: of a gateway's bundle and of a client's, nothing that only one side has."""

from __future__ import annotations

import ipaddress
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_agents.client.common import common as of_clients
from tidegate_agents.gateway.desired import GatewayBundle
from tidegate_agents.gateway.desired import common as of_gateways
from tidegate_agents.wireguard import PeerConfig
from tidegate_schema.policy import PolicyTable
from tidegate_schema.wgquick import ClientConfig, Peer, parse
from unit.agents.kit import id_of, key, policy, raw

NETWORKS = ["10.0.0.0/8", "10.20.0.0/16", "10.20.1.0/24", "10.30.0.0/16", "fd20::/48", "fd20::/64"]
PROBES = [
    ipaddress.ip_address(text)
    for text in ("10.20.1.5", "10.20.2.5", "10.30.0.1", "10.9.0.1", "fd20::1", "fd20:0:0:1::1")
]
GATEWAYS = ["fra1", "fra2", "fra3"]


@st.composite
def configs(draw: st.DrawFn) -> ClientConfig:
    names = draw(st.permutations(GATEWAYS))[: draw(st.integers(1, 3))]
    free = list(NETWORKS)
    peers: list[Peer] = []
    for name in names:
        fewest = 0 if peers or not free else 1
        some = draw(st.lists(st.sampled_from(free or NETWORKS), min_size=fewest, max_size=3, unique=True))
        some = [one for one in some if one in free]
        free = [one for one in free if one not in some]
        endpoint = draw(st.sampled_from(["203.0.113.1:1", "203.0.113.2:2"]))
        peers.append(Peer(key(name), endpoint, tuple(some)))
    addresses = draw(st.lists(st.sampled_from(["10.64.0.1/32", "fd64::1/128"]), min_size=1, unique=True))
    return ClientConfig(tuple(addresses), tuple(peers))


def serves(config: ClientConfig | None) -> dict[str, set[str]]:
    """Return which of PROBES each gateway may be sent, standbys too; written anew."""
    found: dict[str, set[str]] = {}
    networks: tuple[str, ...] = ()
    for peer in config.peers if config else ():
        networks = peer.allowed_ips or networks
        found[peer.public_key] = {
            str(probe) for probe in PROBES if any(probe in ipaddress.ip_network(one) for one in networks)
        }
    return found


def text(config: ClientConfig) -> bytes:
    lines = ["[Interface]", f"Address = {', '.join(config.addresses)}"]
    for peer in config.peers:
        lines += ["[Peer]", f"PublicKey = {peer.public_key}", f"Endpoint = {peer.endpoint}"]
        lines += [f"AllowedIPs = {', '.join(peer.allowed_ips)}"] if peer.allowed_ips else []
    return ("\n".join(lines) + "\n").encode()


@settings(deadline=None, max_examples=300)
@given(configs(), configs())
def test_a_client_goes_only_where_both_lead(old: ClientConfig, new: ClientConfig) -> None:
    made = of_clients(old, new)
    before, after, left = serves(old), serves(new), serves(made)
    for gateway, probes in left.items():
        assert probes <= before[gateway] & after.get(gateway, set())
    if made is not None:
        assert set(made.addresses) <= set(old.addresses) & set(new.addresses)
        assert parse(text(made)) == made  # it is a bundle that could have been sent
        endpoints = {peer.public_key: peer.endpoint for peer in old.peers}
        assert all(peer.endpoint == endpoints[peer.public_key] for peer in made.peers)


@settings(deadline=None, max_examples=100)
@given(configs())
def test_of_the_same_twice_a_client_loses_nothing(config: ClientConfig) -> None:
    made = of_clients(config, config)
    assert made is not None
    assert [(p.public_key, p.endpoint, set(p.allowed_ips)) for p in made.peers] == [
        (p.public_key, p.endpoint, set(p.allowed_ips)) for p in config.peers
    ]


def test_without_a_gateway_that_both_know_nothing_is_left() -> None:
    old, new = (
        ClientConfig(("10.64.0.1/32",), (Peer(key(name), "203.0.113.1:1", ("10.0.0.0/8",)),))
        for name in ("fra1", "fra2")
    )
    assert of_clients(old, new) is None


def bundle(addresses: dict[str, list[str]], document: Any) -> GatewayBundle:
    return GatewayBundle(
        {key(name): PeerConfig(frozenset(some)) for name, some in addresses.items()},
        {raw(one.split("/")[0]): id_of(name) for name, some in addresses.items() for one in some},
        PolicyTable(document),
    )


def test_a_gateway_keeps_the_peers_addresses_and_rights_that_both_have() -> None:
    web, all_of_it = ({"to": [to], "ports": ["any"]} for to in ("10.20.0.80/32", "10.20.0.0/16"))
    old = bundle(
        {"alice": ["10.64.0.1/32", "fd64::1/128"], "bob": ["10.64.0.2/32"], "carol": ["10.64.0.3/32"]},
        policy(alice=[all_of_it], bob=[all_of_it], carol=[all_of_it]),
    )
    new = bundle(
        {"alice": ["10.64.0.1/32"], "carol": ["10.64.0.2/32"], "dave": ["10.64.0.4/32"]},
        policy(alice=[web], carol=[all_of_it], dave=[all_of_it]),
    )
    made = of_gateways(old, new)
    assert made.peers == {key("alice"): PeerConfig(frozenset({"10.64.0.1/32"}))}
    assert made.clients == {raw("10.64.0.1"): id_of("alice")}
    assert made.allows(raw("10.64.0.1"), raw("10.20.0.80"), 6, 443, 0)
    assert not made.allows(raw("10.64.0.1"), raw("10.20.0.81"), 6, 443, 0)
    # An address that has another owner now is neither's.
    assert not made.allows(raw("10.64.0.2"), raw("10.20.0.80"), 6, 443, 0)
