"""Access gained and lost as people meet it: renames, keys, denies, time, groups, and who is named for it."""

from __future__ import annotations

from typing import Any

import pytest

from compilerkit import client, gateway, inventory, key, policy
from plankit import planned, told

GROUPS = {"eng": {"members": ["alice", "bob"]}}
WEB = {"web": {"addresses": ["10.20.0.80/32", "fd20::80/128"], "ports": ["tcp/443", "icmp"]}}


def base(**kinds: Any) -> dict[str, bytes]:
    kinds.setdefault("groups", GROUPS)
    kinds.setdefault("resources", WEB)
    kinds.setdefault("policies", {"p": policy("group:eng", ["resource:web"], ports=["any"])})
    return inventory(**kinds)


def access(old: dict[str, bytes], new: dict[str, bytes]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    found = told(old, new)["access"]
    return found["gained"], found["lost"]


RENAMES: dict[str, dict[str, Any]] = {
    "policy": {"policies": {"renamed": policy("group:eng", ["resource:web"], ports=["any"])}},
    "group": {
        "groups": {"people": {"members": ["bob", "alice"]}},
        "policies": {"p": policy("group:people", ["resource:web"], ports=["any"])},
    },
    "resource": {
        "resources": {"site": {"addresses": ["fd20::80/128", "10.20.0.80/32"], "ports": ["icmp", "tcp/443"]}},
        "policies": {"p": policy("group:eng", ["resource:site"], ports=["any"])},
    },
    "client": {
        "clients": {"alicia": client("alice", 11)["alice"]} | client("bob", 12),
        "groups": {"eng": {"members": ["alicia", "bob"]}},
    },
    "gateway": {
        "gateways": {"other": gateway("gw")["gw"]},
        "clients": client("alice", 11, "other") | client("bob", 12, "other"),
    },
    "split policy": {
        "policies": {
            "p": policy("client:alice", ["resource:web"], ports=["any"]),
            "q": policy("client:bob", ["10.20.0.80/32", "fd20::80/128"], ports=["icmp", "tcp/443"]),
        }
    },
    "moved address": {"clients": client("alice", 99) | client("bob", 12)},
}


@pytest.mark.parametrize("what", RENAMES)
def test_what_is_only_named_or_cut_otherwise_changes_no_access(what: str) -> None:
    found = planned(base(), base(**RENAMES[what]))
    assert (found.gained, found.lost) == ((), ())
    assert not found.is_empty


def test_order_is_no_change_at_all() -> None:
    reordered = base(
        groups={"eng": {"members": ["bob", "alice"]}},
        clients=client("bob", 12) | client("alice", 11),
        policies={"p": policy("group:eng", ["resource:web"], ports=["any"])},
    )
    assert planned(base(), reordered).is_empty
    assert planned(base(), base()).is_empty


def test_a_member_that_leaves_loses_and_the_granting_policy_is_named() -> None:
    gained, (lost,) = access(base(), base(groups={"eng": {"members": ["bob"]}}))
    assert gained == []
    assert [one["name"] for one in lost["clients"]] == ["alice"]
    assert (lost["group"], lost["to"]) == (None, ["10.20.0.80/32", "fd20::80/128"])
    assert sorted(lost["ports"]) == ["icmp", "tcp/443"]
    assert lost["policy"] == {"name": "p", "file": "inv/policies/all.yaml", "line": 1}
    assert (lost["denied_by"], lost["not_before"], lost["expires"]) == (None, None, None)


def test_a_new_deny_is_a_loss_by_its_name_and_its_removal_a_gain() -> None:
    deny = policy("all-clients", "10.20.0.0/24", action="deny", ports=["tcp/1-1000"])
    denied = base(policies={"p": policy("group:eng", ["resource:web"], ports=["any"]), "no": deny})
    gained, (lost,) = access(base(), denied)
    assert gained == []
    assert (lost["to"], lost["ports"], lost["group"]) == (["10.20.0.80/32"], ["tcp/443"], "all-clients")
    assert (lost["policy"]["name"], lost["denied_by"]["name"]) == ("p", "no")
    (gain,), lost_again = access(denied, base())
    assert lost_again == []
    assert (gain["to"], gain["policy"]["name"], gain["denied_by"]["name"]) == (["10.20.0.80/32"], "p", "no")


def test_a_deny_that_is_given_an_end_is_a_gain_from_then_on() -> None:
    deny = policy("all-clients", "10.20.0.0/24", action="deny")
    allow = policy("group:eng", ["resource:web"], ports=["any"])
    old = base(policies={"p": allow, "no": deny})
    new = base(policies={"p": allow, "no": deny | {"expires": "2027-01-01"}})
    (gain,), lost = access(old, new)
    assert (lost, gain["not_before"], gain["expires"]) == ([], "2027-01-01T00:00:00Z", None)
    assert gain["witnesses"][0]["at"] == "2027-01-01T00:00:00Z"


def test_access_that_ends_earlier_is_a_loss_of_that_window_alone() -> None:
    old, new = (
        base(policies={"p": policy("group:eng", ["resource:web"], ports=["any"], expires=end)})
        for end in ("2027-06-30", "2027-03-01")
    )
    gained, (lost,) = access(old, new)
    assert gained == []
    assert (lost["not_before"], lost["expires"]) == ("2027-03-01T00:00:00Z", "2027-06-30T00:00:00Z")
    (gain,), _ = access(new, old)
    assert (gain["not_before"], gain["expires"]) == ("2027-03-01T00:00:00Z", "2027-06-30T00:00:00Z")


def test_a_new_key_loses_with_the_old_and_gains_with_the_new() -> None:
    changed = client("alice", 11)
    changed["alice"]["public_key"] = key("another")
    (gain,), (lost,) = access(base(), base(clients=changed | client("bob", 12)))
    assert [one["new_key"] for one in gain["clients"] + lost["clients"]] == [True, True]
    assert gain["clients"][0]["client_id"] != lost["clients"][0]["client_id"]


def test_families_never_meet_and_widening_is_only_the_rest() -> None:
    v4 = {"web": {"addresses": ["10.20.0.80/32"], "ports": ["tcp/443", "icmp"]}}
    (gain,), lost = access(base(resources=v4), base())
    assert (gain["to"], lost) == (["fd20::80/128"], [])
    old, new = (
        base(policies={"p": policy("client:alice", "10.20.0.0/24", ports=[ports])})
        for ports in ("tcp/80-90", "tcp/70-100")
    )
    (gain,), lost = access(old, new)
    assert (gain["ports"], lost) == (["tcp/70-79", "tcp/91-100"], [])
    (gain,), _ = access(old, base(policies={"p": policy("client:alice", "10.20.0.0/24")}))
    assert gain["ports"] == ["proto/0-5", "tcp/0-79", "tcp/91-65535", "proto/7-255"]


def test_clients_with_equal_differences_are_told_together() -> None:
    people = {name: client(name, number)[name] for number, name in enumerate(["a", "b", "c", "d"], 1)}
    groups = {"team": {"members": ["a", "b", "c"]}, "rest": {"members": ["d"]}}
    plain = policy("group:rest", "10.20.1.0/24")
    old = inventory(clients=people, groups=groups, policies={"x": plain})
    new = inventory(
        clients=people,
        groups=groups,
        policies={"x": plain, "y": policy("group:team", ["10.20.2.0/24", "fd20::/64"])},
    )
    (gain,), lost = access(old, new)
    assert (lost, gain["group"], len(gain["clients"])) == ([], "group:team", 3)
    assert (gain["policy"]["name"], gain["ports"]) == ("y", ["any"])


def test_the_first_policy_of_all_is_a_gain() -> None:
    (gain,), lost = access(inventory(), inventory(policies={"p": policy()}))
    assert (gain["to"], lost) == (["10.20.0.0/16"], [])
