"""The policy's meaning, sentence by sentence (docs/inventory.md, "What a policy means" and what follows it)."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest

from compilerkit import client, codes, compiled, gateway, inventory, key, policy
from tidegate_compiler.judge import court, judge, packet, route
from tidegate_compiler.times import parse_instant
from tidegate_schema import wgquick


def allows(files: dict[str, bytes], name: str, to: str, port: str = "tcp/80", at: str = "2027-01-01") -> bool:
    over = court(compiled(files).fleet)
    return judge(over, packet(name, ipaddress.ip_address(to), port, parse_instant(at))).allow


def test_default_deny() -> None:
    assert not allows(inventory(), "alice", "10.20.0.1")
    other = inventory(policies={"p": policy("client:bob")})
    assert not allows(other, "alice", "10.20.0.1")


def test_allow_rules_add_up_and_covering_prefixes_all_count() -> None:
    files = inventory(
        policies={
            "wide": policy(to="10.20.0.0/16", ports=["tcp/22"]),
            "narrow": policy(to="10.20.5.0/28", ports=["tcp/5432"]),
        }
    )
    assert allows(files, "alice", "10.20.5.3", "tcp/22")
    assert allows(files, "alice", "10.20.5.3", "tcp/5432")
    assert not allows(files, "alice", "10.20.6.3", "tcp/5432")


def test_any_matching_deny_wins_whatever_the_prefix_lengths() -> None:
    files = inventory(
        policies={
            "allow": policy(to="10.20.5.0/28", ports=["tcp/5432"]),
            "deny": policy("all-clients", "10.20.0.0/16", action="deny", ports=["tcp/5000-6000"]),
            "other": policy("client:bob", "10.20.5.0/28", ports=["tcp/80"]),
        }
    )
    assert not allows(files, "alice", "10.20.5.3", "tcp/5432")
    assert allows(files, "bob", "10.20.5.3", "tcp/80")


def test_order_never_matters() -> None:
    rules = {
        "a": policy(to="10.20.0.0/24"),
        "b": policy(to="10.20.0.0/28", action="deny", ports=["tcp/80"]),
        "c": policy(to="10.20.0.0/16", ports=["tcp/443"]),
    }
    one = compiled(inventory(policies=rules)).files["gateway/gw/policy.json"]
    assert compiled(inventory(policies=dict(reversed(rules.items())))).files["gateway/gw/policy.json"] == one


@pytest.mark.parametrize("field", ["from", "to", "ports"])
def test_an_empty_selector_is_an_error(field: str) -> None:
    assert "TG015" in codes(inventory(policies={"p": policy() | {field: []}}))


def test_families_are_judged_separately() -> None:
    files = inventory(policies={"p": policy(to="10.20.0.0/16")})
    assert allows(files, "alice", "10.20.0.1")
    assert not allows(files, "alice", "fd20::1")


def test_icmp_is_the_familys_own() -> None:
    files = inventory(policies={"p": policy(to=["10.20.0.0/16", "fd20::/48"], ports=["icmp"])})
    assert allows(files, "alice", "10.20.0.1", "proto/1")
    assert not allows(files, "alice", "10.20.0.1", "proto/58")
    assert allows(files, "alice", "fd20::1", "proto/58")
    assert not allows(files, "alice", "fd20::1", "proto/1")


def test_ports_of_resource_and_policy_intersect() -> None:
    files = inventory(
        resources={"web": {"addresses": ["10.20.0.80/32"], "ports": ["tcp/80-90", "icmp"]}},
        policies={"p": policy(to="resource:web", ports=["tcp/85-443", "proto/1"])},
    )
    answers = {
        port: allows(files, "alice", "10.20.0.80", port) for port in ("tcp/84", "tcp/85", "tcp/90", "tcp/91")
    }
    assert answers == {"tcp/84": False, "tcp/85": True, "tcp/90": True, "tcp/91": False}
    assert allows(files, "alice", "10.20.0.80", "icmp")


def test_ports_on_either_side_suffice_and_on_neither_are_an_error() -> None:
    web = {"web": {"addresses": ["10.20.0.80/32"]}}
    bare = {key: value for key, value in policy(to="resource:web").items() if key != "ports"}
    assert codes(inventory(resources=web, policies={"p": bare})) == ["TG050"]
    assert codes(inventory(resources=web, policies={"p": bare | {"ports": ["tcp/80"]}})) == []
    ported = {"web": web["web"] | {"ports": ["tcp/80"]}}
    assert codes(inventory(resources=ported, policies={"p": bare})) == []


def test_a_group_grants_its_members_only() -> None:
    files = inventory(groups={"g": {"members": ["alice"]}}, policies={"p": policy("group:g")})
    assert allows(files, "alice", "10.20.0.1")
    assert not allows(files, "bob", "10.20.0.1")


def test_windows_of_membership_and_policy_intersect_and_the_end_is_exclusive() -> None:
    files = inventory(
        groups={
            "g": {
                "members": ["alice"],
                "not_before": {"alice": "2027-02-01"},
                "expires": {"alice": "2027-04-01"},
            }
        },
        policies={"p": policy("group:g", not_before="2027-01-01", expires="2027-03-01")},
    )
    answers = [
        allows(files, "alice", "10.20.0.1", at=at)
        for at in (
            "2027-01-15",
            "2027-01-31T23:59:59Z",
            "2027-02-01",
            "2027-02-28T23:59:59Z",
            "2027-03-01",
            "2027-03-15",
        )
    ]
    assert answers == [False, False, True, True, False, False]


def test_windows_of_several_ways_in_add_up() -> None:
    files = inventory(
        groups={
            "one": {"members": ["alice"], "expires": {"alice": "2027-02-01"}},
            "two": {
                "members": ["alice"],
                "not_before": {"alice": "2027-02-01"},
                "expires": {"alice": "2027-03-01"},
            },
        },
        policies={"p": policy(["group:one", "group:two"])},
    )
    rules = json.loads(compiled(files).files["gateway/gw/policy.json"])["rules"]
    assert [rule.get("expires") for rule in rules] == [parse_instant("2027-03-01")]
    assert allows(files, "alice", "10.20.0.1", at="2027-02-01")


def test_a_deny_in_its_window_wins_and_outside_it_does_not() -> None:
    files = inventory(
        policies={
            "allow": policy(ports=["tcp/1-100"]),
            "deny": policy(action="deny", ports=["tcp/50-150"], expires="2027-02-01"),
        }
    )
    assert not allows(files, "alice", "10.20.0.1", at="2027-01-31")
    assert allows(files, "alice", "10.20.0.1", at="2027-02-01")
    assert codes(files) == ["TG053"]


@pytest.mark.parametrize("to", ["client:bob", "group:g", "all-clients"])
def test_client_to_client_is_an_error_that_says_so(to: str) -> None:
    assert "TG032" in codes(inventory(groups={"g": {"members": ["bob"]}}, policies={"p": policy(to=to)}))


def test_a_policy_is_clipped_to_the_gateways_networks() -> None:
    files = inventory(
        gateways=gateway("gw", "10.20.0.0/16") | gateway("far", "10.30.0.0/16", "fd30::/48"),
        clients=client("alice", 11, "gw", "far"),
        policies={"p": policy(to=["10.0.0.0/8", "fd00::/8"], ports=["tcp/80"])},
    )
    bundles = compiled(files).files
    assert _destinations(bundles["gateway/gw/policy.json"]) == ["10.20.0.0/16"]
    assert _destinations(bundles["gateway/far/policy.json"]) == ["10.30.0.0/16", "fd30::/48"]


def _destinations(data: bytes) -> list[str]:
    return [prefix for rule in json.loads(data)["rules"] for prefix in rule["to"]]


def test_a_gateway_is_sent_only_its_own_clients() -> None:
    files = inventory(
        gateways=gateway("gw") | gateway("far", "10.30.0.0/16"),
        clients=client("alice", 11, "gw") | client("bob", 12, "gw", "far"),
        policies={"p": policy("all-clients", ["10.20.0.0/16", "10.30.0.0/16"])},
    )
    bundles = compiled(files).files
    peers = [peer["public_key"] for peer in json.loads(bundles["gateway/far/peers.json"])["peers"]]
    assert peers == [key("bob")]
    assert len(json.loads(bundles["gateway/far/policy.json"])["clients"]) == 1


def test_clients_of_equal_rights_share_a_set_and_those_without_any_are_left_out() -> None:
    files = inventory(
        clients=client("alice", 11) | client("bob", 12) | client("carol", 13) | client("dave", 14),
        groups={"g": {"members": ["alice", "bob"]}},
        policies={"p": policy("group:g"), "q": policy("client:carol")},
    )
    document = json.loads(compiled(files).files["gateway/gw/policy.json"])
    assert len(document["sets"]) == 2
    assert sorted(document["clients"].values()) in ([0, 0, 1], [0, 1, 1])


def test_gateways_with_equal_networks_are_failover_alternatives() -> None:
    files = inventory(
        gateways=gateway("one") | gateway("two") | gateway("far", "10.30.0.0/16"),
        clients=client("alice", 11, "two", "far", "one"),
    )
    config = wgquick.parse(compiled(files).files["client/alice/wg0.conf"])
    assert [(peer.public_key, peer.allowed_ips) for peer in config.peers] == [
        (key("two"), ("10.20.0.0/16", "fd20::/48")),
        (key("one"), ()),
        (key("far"), ("10.30.0.0/16",)),
    ]
    way = route(court(compiled(files).fleet).clients["alice"], ipaddress.ip_address("10.20.0.1"))
    assert way is not None
    assert (way.gateway, way.standbys) == ("two", ("one",))


def test_a_standby_has_the_same_policy_and_peers() -> None:
    files = inventory(
        gateways=gateway("one") | gateway("two"),
        clients=client("alice", 11, "one", "two"),
        policies={"p": policy()},
    )
    bundles = compiled(files).files
    for name in ("peers.json", "policy.json"):
        assert bundles[f"gateway/one/{name}"] == bundles[f"gateway/two/{name}"]


def test_the_longest_prefix_wins() -> None:
    files = inventory(
        gateways=gateway("wide", "10.0.0.0/10") | gateway("narrow", "10.20.0.0/16"),
        clients=client("alice", 11, "wide", "narrow", families=(4,)),
        policies={"p": policy(to="10.0.0.0/10")},
    )
    alice = court(compiled(files).fleet).clients["alice"]
    ways = [route(alice, ipaddress.ip_address(to)) for to in ("10.20.0.1", "10.21.0.1", "192.0.2.1")]
    assert [way.gateway if way else None for way in ways] == ["narrow", "wide", None]


def test_no_route_and_no_rule_for_a_family_the_client_does_not_have() -> None:
    files = inventory(
        clients=client("alice", 11, families=(4,)), policies={"p": policy(to=["10.20.0.0/16", "fd20::/48"])}
    )
    assert wgquick.parse(compiled(files).files["client/alice/wg0.conf"]).peers[0].allowed_ips == (
        "10.20.0.0/16",
    )
    assert _destinations(compiled(files).files["gateway/gw/policy.json"]) == ["10.20.0.0/16"]
    assert not allows(files, "alice", "fd20::1")


def test_without_policies_no_policy_is_sent_and_an_empty_one_is_another_thing() -> None:
    assert "gateway/gw/policy.json" not in compiled(inventory()).files
    document = json.loads(compiled(inventory(policies={})).files["gateway/gw/policy.json"])
    assert document == {"format": 1, "rules": [], "sets": [], "clients": {}}


def test_every_rule_keeps_its_policys_name() -> None:
    files = inventory(policies={"one": policy(), "two": policy("client:bob", action="deny", ports=["tcp/1"])})
    rules = json.loads(compiled(files).files["gateway/gw/policy.json"])["rules"]
    assert {(rule["policy"], rule["action"]) for rule in rules} == {("one", "allow"), ("two", "deny")}


def test_a_new_key_is_a_new_client_id() -> None:
    def identifier(**change: Any) -> str:
        files = inventory(clients={"alice": client("alice", 11)["alice"] | change})
        peers = json.loads(compiled(files).files["gateway/gw/peers.json"])["peers"]
        return str(peers[0]["client_id"])

    assert identifier() == identifier()
    assert identifier() != identifier(public_key=key("another"))
    assert identifier() == identifier(addresses=["10.64.0.99/32"])


def test_addresses_endpoints_and_keys_come_out_in_canonical_form() -> None:
    files = inventory(
        gateways=gateway("gw", "FD20:0::/48", endpoint="[2001:DB8:0::0010]:00443"),
        clients={"alice": client("alice", 11)["alice"] | {"addresses": ["FD64:0::000B/128"]}},
    )
    config = compiled(files).files["client/alice/wg0.conf"].decode()
    assert "Endpoint = [2001:db8::10]:443\nAllowedIPs = fd20::/48\n" in config
    assert "Address = fd64::b/128\n" in config
