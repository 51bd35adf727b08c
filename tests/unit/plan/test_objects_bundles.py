"""Objects and bundles: every kind of change, named by field and by part, and the place where it stands."""

from __future__ import annotations

from typing import Any

import pytest

from compilerkit import OVERLAY, client, gateway, inventory, key, policy
from plankit import planned, told

BASE: dict[str, Any] = {
    "groups": {"eng": {"members": ["alice", "bob"], "expires": {"bob": "2027-01-31"}}},
    "resources": {"web": {"addresses": ["10.20.0.80/32"], "ports": ["tcp/443"]}},
    "policies": {"p": policy("group:eng", ["resource:web"])},
    "tests": [{"from": "client:alice", "to": "10.20.0.80", "port": "tcp/443", "expect": "allow"}],
}
TWO = gateway("gw") | gateway("gx", "10.30.0.0/16", endpoint="203.0.113.200:51820")


def objects(**kinds: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = told(inventory(**BASE), inventory(**{**BASE, **kinds}))["objects"]
    return found


@pytest.mark.parametrize(
    ("kinds", "object_", "fields"),
    [
        (
            {"overlay": {"overlay": OVERLAY["overlay"] | {"fleet": "f"}}},
            "overlay overlay changed",
            {"fleet": (["default"], ["f"])},
        ),
        (
            {"gateways": gateway("gw", "10.20.0.0/16", "fd20::/48", "10.21.0.0/16")},
            "gateway gw changed",
            {"networks": ([], ["10.21.0.0/16"])},
        ),
        (
            {"groups": {"eng": {"members": ["alice", "bob"], "expires": {"bob": "2027-02-28"}}}},
            "group eng changed",
            {"expires of bob": (["2027-01-31T00:00:00Z"], ["2027-02-28T00:00:00Z"])},
        ),
        (
            {"resources": {"web": {"addresses": ["10.20.0.81/32"], "ports": ["tcp/443"]}}},
            "resource web changed",
            {"addresses": (["10.20.0.80/32"], ["10.20.0.81/32"])},
        ),
        (
            {"policies": {"p": policy("group:eng", ["resource:web"], action="deny", not_before="2027-01-01")}},
            "policy p changed",
            {"action": (["allow"], ["deny"]), "not_before": ([], ["2027-01-01T00:00:00Z"])},
        ),
        ({"policies": BASE["policies"] | {"q": policy()}}, "policy q added", {}),
        ({"policies": {}}, "policy p removed", {}),
        ({"tests": []}, "test client:alice to 10.20.0.80 tcp/443: allow removed", {}),
    ],
)  # fmt: skip
def test_one_object_changed(kinds: dict[str, Any], object_: str, fields: dict[str, Any]) -> None:
    (found,) = objects(**kinds)
    assert f"{found['kind']} {found['name']} {found['change']}" == object_
    assert {one["field"]: (one["removed"], one["added"]) for one in found["fields"]} == fields
    assert (found["file"].startswith("inv/"), found["line"]) == (True, 1)


def test_the_same_key_under_another_name_is_a_renamed_client() -> None:
    renamed = {"alicia": client("alice", 11)["alice"]} | client("bob", 12)
    group, found = sorted(objects(clients=renamed, groups={"eng": {"members": ["alicia", "bob"]}, }, tests=[],
        ), key=lambda one: str(one["kind"]))[1::-1]  # fmt: skip
    assert (found["change"], found["name"], found["was"], found["fields"]) == (
        "renamed",
        "alicia",
        "alice",
        [],
    )
    assert group["kind"] == "group"


def test_only_the_order_of_gateways_counts() -> None:
    old = inventory(gateways=TWO, clients=client("alice", 1, "gw", "gx"))
    new = inventory(gateways=TWO, clients=client("alice", 1, "gx", "gw"))
    (found,) = told(old, new)["objects"]
    assert found["fields"] == [{"field": "gateways", "removed": [], "added": []}]


def bundles(
    old: dict[str, bytes], new: dict[str, bytes]
) -> dict[str, dict[str, tuple[str, tuple[str, ...]]]]:
    return {
        f"{one.kind} {one.host} {one.change}": {file.file: (file.change, file.parts) for file in one.files}
        for one in planned(old, new).bundles
    }


def test_hosts_come_and_go() -> None:
    one = inventory(clients=client("alice", 11))
    two = inventory(policies={"p": policy()})
    assert bundles(one, two) == {
        "client bob added": {"wg0.conf": ("added", ())},
        "gateway gw changed": {"peers.json": ("changed", ("peer bob added",)), "policy.json": ("added", ())},
    }
    assert bundles(two, one)["gateway gw changed"]["policy.json"] == ("removed", ())


def test_a_client_reloads_for_its_address_and_its_peers() -> None:
    one = inventory(gateways=TWO, clients=client("alice", 11))
    two = inventory(
        gateways=gateway("gw", "10.20.0.0/16", endpoint="203.0.113.99:51820") | gateway("gx", "10.30.0.0/16"),
        clients=client("alice", 12, "gw", "gx"),
    )
    _, parts = bundles(one, two)["client alice changed"]["wg0.conf"]
    assert parts[0] == "Address 10.64.0.11/32, fd64::11/128 becomes 10.64.0.12/32, fd64::12/128"
    assert {part.partition(": ")[2] for part in parts[1:]} == {
        "",
        "Endpoint becomes 203.0.113.99:51820",
        "AllowedIPs without fd20::/48",
    }
    assert any(part.endswith(" added") for part in parts)
    swapped = [
        inventory(gateways=TWO, clients=client("alice", 1, *order)) for order in (["gw", "gx"], ["gx", "gw"])
    ]
    assert bundles(*swapped) == {"client alice changed": {"wg0.conf": ("changed", ("order of peers",))}}


def test_a_gateway_reloads_for_peers_rules_and_rights() -> None:
    old = inventory(policies={"p": policy(), "q": policy("client:bob", "10.20.1.0/24")})
    new = inventory(
        clients=client("alice", 99) | client("bob", 12),
        policies={"p": policy(ports=["tcp/1"]), "r": policy("client:bob", "10.20.2.0/24")},
    )
    assert bundles(old, new)["gateway gw changed"] == {
        "peers.json": ("changed", ("peer alice changed",)),
        "policy.json": (
            "changed",
            (
                "rules of p changed",
                "rules of q removed",
                "rules of r added",
                "rights of alice",
                "rights of bob",
            ),
        ),
    }


def test_a_new_key_reloads_the_gateway_and_not_the_client() -> None:
    changed = client("alice", 11)
    changed["alice"]["public_key"] = key("another")
    found = bundles(inventory(), inventory(clients=changed | client("bob", 12)))
    assert list(found) == ["gateway gw changed"]
    assert sorted(found["gateway gw changed"]["peers.json"][1]) == ["peer alice added", "peer alice removed"]
