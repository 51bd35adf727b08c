"""Damage done to the rest of an output: clients' files, peers, hosts, manifest."""

from __future__ import annotations

import pytest

from compilerkit import inventory, key
from verifykit import PEERS, POLICY, Files, Json, Mutant, Mutants, compiled, differences

CONF = "client/grace/wg0.conf"
SETTINGS = "gateway/fra1/settings.json"
NYC_PEERS = "gateway/nyc1/peers.json"
MUTANTS = Mutants()


@MUTANTS.kind(PEERS, "client_id")
def a_client_id_is_wrong(files: Files) -> None:
    with Json(files, PEERS) as document:
        document["peers"][0]["client_id"] = "0" * 32


@MUTANTS.kind(PEERS, "allowed_ips")
def two_peers_have_each_others_addresses(files: Files) -> None:
    with Json(files, PEERS) as document:
        one, other = document["peers"][:2]
        one["allowed_ips"], other["allowed_ips"] = other["allowed_ips"], one["allowed_ips"]


@MUTANTS.kind(PEERS, "allowed_ips")
def a_peer_has_an_address_more(files: Files) -> None:
    with Json(files, PEERS) as document:
        document["peers"][0]["allowed_ips"].append("10.64.0.99/32")


@MUTANTS.kind(PEERS, "allowed_ips")
def a_peer_has_a_wider_address(files: Files) -> None:
    with Json(files, PEERS) as document:
        document["peers"][0]["allowed_ips"] = ["10.64.0.0/16"]


@MUTANTS.kind(PEERS, "missing-peer")
def a_peer_is_removed(files: Files) -> None:
    with Json(files, PEERS) as document:
        del document["peers"][0]


@MUTANTS.kind(PEERS, "extra-peer")
def a_peer_is_there_twice(files: Files) -> None:
    with Json(files, PEERS) as document:
        document["peers"].append(document["peers"][0])


@MUTANTS.kind(PEERS, "extra-peer", "missing-peer")
def a_peers_key_is_another(files: Files) -> None:
    with Json(files, PEERS) as document:
        document["peers"][0]["public_key"] = key("mallory")


@MUTANTS.kind(PEERS, "client_id", "allowed_ips")
def two_peers_have_each_others_keys(files: Files) -> None:
    with Json(files, PEERS) as document:
        one, other = document["peers"][:2]
        one["public_key"], other["public_key"] = other["public_key"], one["public_key"]


@MUTANTS.kind(NYC_PEERS, "extra-peer")
def a_client_of_another_gateway_is_a_peer(files: Files) -> None:
    with Json(files, PEERS) as document:
        alice = next(p for p in document["peers"] if "10.64.0.11/32" in p["allowed_ips"])
    with Json(files, NYC_PEERS) as document:
        document["peers"].append(alice)


@MUTANTS.kind("client/nobody/wg0.conf", "extra")
def a_host_that_is_in_no_inventory(files: Files) -> None:
    files["client/nobody/wg0.conf"] = files[CONF]


@MUTANTS.kind(SETTINGS, "extra")
def a_file_too_many(files: Files) -> None:
    files[SETTINGS] = b"{}"


@MUTANTS.kind(".incomplete", "extra")
def an_interrupted_compile(files: Files) -> None:
    files[".incomplete"] = b""


@MUTANTS.kind(CONF, "missing")
def a_client_is_missing(files: Files) -> None:
    del files[CONF]


@MUTANTS.kind(POLICY, "missing")
def a_policy_is_missing(files: Files) -> None:
    del files[POLICY]


@MUTANTS.kind(CONF, "PublicKey")
def two_gateways_have_each_others_keys(files: Files) -> None:
    text = files[CONF].decode()
    one, other = key("nyc2"), "5c/If9tIZlxYlBzn4IVPcyoONiYngU3E5SK14DO1qkM="
    files[CONF] = text.replace(one, "?").replace(other, one).replace("?", other).encode()


@MUTANTS.kind(CONF, "PublicKey", "Endpoint")
def a_standby_is_promoted(files: Files) -> None:
    head, fra, nyc, standby = files[CONF].decode().split("\n\n")
    routes = nyc.splitlines()[-1]
    assert routes.startswith("AllowedIPs")
    files[CONF] = "\n\n".join(
        [head, fra, f"{standby.rstrip()}\n{routes}", nyc.replace(f"\n{routes}", "")]
    ).encode()


@MUTANTS.kind("manifest.json", "inventory")
def the_manifest_is_of_another_inventory(files: Files) -> None:
    with Json(files, "manifest.json") as document:
        document["inventory"] = "sha256:" + "0" * 64


@MUTANTS.kind("manifest.json", "hosts")
def the_manifest_has_a_host_less(files: Files) -> None:
    with Json(files, "manifest.json") as document:
        document["hosts"]["client"].remove("grace")


@MUTANTS.kind("manifest.json", "fleet")
def the_manifest_is_of_another_fleet(files: Files) -> None:
    with Json(files, "manifest.json") as document:
        document["fleet"] = "other"


@MUTANTS.kind("manifest.json", "authz_mode")
def the_manifest_says_more(files: Files) -> None:
    with Json(files, "manifest.json") as document:
        document["authz_mode"] = "observe"


def change(old: str, new: str) -> Mutant:
    def mutate(files: Files) -> None:
        assert old in files[CONF].decode()
        files[CONF] = files[CONF].decode().replace(old, new, 1).encode()

    return mutate


def drop_postup(files: Files) -> None:
    files[CONF] = b"".join(line for line in files[CONF].splitlines(True) if not line.startswith(b"PostUp"))


def drop_last_peer(files: Files) -> None:
    files[CONF] = files[CONF].rpartition(b"\n[Peer]")[0]


MUTANTS |= {
    "an_endpoint_is_changed": (change("203.0.113.10:51820", "203.0.113.10:51821"), CONF, {"Endpoint"}),
    "an_endpoint_is_another_host": (change("203.0.113.10", "203.0.113.66"), CONF, {"Endpoint"}),
    "a_route_is_widened": (change("10.20.0.0/16", "10.0.0.0/8"), CONF, {"AllowedIPs"}),
    "a_route_is_dropped": (change(", fd20::/48", ""), CONF, {"AllowedIPs"}),
    "every_v6_route_is_added": (change("fd20::/48", "fd20::/48, ::/0"), CONF, {"AllowedIPs"}),
    "an_address_is_changed": (change("10.64.0.31/32", "10.64.0.11/32"), CONF, {"Address"}),
    "an_address_is_dropped": (change(", fd64::31/128", ""), CONF, {"Address"}),
    "a_command_is_added": (change("client.key", "client.key; id"), CONF, {"PostUp"}),
    "the_postup_is_dropped": (drop_postup, CONF, {"PostUp"}),
    "a_peer_section_is_dropped": (drop_last_peer, CONF, {"Peer"}),
    "another_command_follows": (change("PostUp", "PostDown = id\nPostUp"), CONF, {"unreadable"}),
    "a_line_stands_twice": (change("PostUp", "Address = 10.64.0.31/32\nPostUp"), CONF, {"unreadable"}),
    "a_prefix_stands_twice": (change(", fd20::/48", ", fd20::/48, fd20::/48"), CONF, {"unreadable"}),
    "a_second_interface_follows": (
        change("\n[Peer]", "\n[Interface]\nAddress = 10.64.0.31/32\n\n[Peer]"),
        CONF,
        {"unreadable"},
    ),
    "a_resolver_is_set": (change("PostUp", "DNS = 192.0.2.1\nPostUp"), CONF, {"unreadable"}),
    "a_line_is_a_comment": (change("PostUp", "# PostUp"), CONF, {"unreadable"}),
    "a_byte_is_not_printable": (change("10.20.0.0/16", "10.20.0.0/16\r"), CONF, {"unreadable"}),
}


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_damage_is_found_and_named(name: str) -> None:
    MUTANTS.judge(name)


def test_there_are_enough_kinds_of_damage() -> None:
    assert len(MUTANTS) >= 25


def test_a_policy_is_too_many_where_the_inventory_has_none() -> None:
    """No policy and an empty one differ: a gateway that was sent none denies for that reason."""
    without, empty = inventory(), inventory(policies={})
    assert differences(without, compiled(without)) == []
    assert differences(empty, compiled(empty)) == []
    policy = {"gateway/gw/policy.json": compiled(empty)["gateway/gw/policy.json"]}
    assert [(d.file, d.what) for d in differences(without, compiled(without) | policy)] == [
        ("gateway/gw/policy.json", "extra")
    ]
