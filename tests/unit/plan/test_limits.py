"""Limits: each is silent at its threshold, named past it, and movable by whoever acts on the plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compilerkit import client, gateway, inventory, key, policy
from plankit import planned, side, told
from tidegate_compiler.plan import limits
from tidegate_compiler.plan.limits import Limits
from tidegate_compiler.plan.plan import plan
from tidegate_schema.cli import EXIT_USAGE, run


def fleet(count: int, changed: int = 0, **kinds: Any) -> dict[str, bytes]:
    clients: dict[str, Any] = {}
    for number in range(1, count + 1):
        clients |= client(f"c{number}", number)
        if number <= changed:
            clients[f"c{number}"]["public_key"] = key(f"another {number}")
    return inventory(**{"clients": clients, **kinds})


def names(old: dict[str, bytes], new: dict[str, bytes], over: Limits = limits.DEFAULT) -> list[str]:
    return [one.name for one in plan(side(old), side(new), over).exceeded]


def test_clients_removed() -> None:
    assert names(fleet(20), fleet(16)) == []  # four are too few for a share
    assert names(fleet(25), fleet(20)) == []  # a fifth is let pass
    assert names(fleet(25), fleet(19)) == ["clients-removed-share"]
    assert names(fleet(25), fleet(19), Limits(clients_removed=5)) == [
        "clients-removed",
        "clients-removed-share",
    ]
    assert names(fleet(25), fleet(19), Limits(clients_removed=6, clients_removed_share=0.24)) == []


def test_a_renamed_client_is_not_removed_and_no_key_has_changed() -> None:
    clients = {f"n{number}": client(f"c{number}", number)[f"c{number}"] for number in range(1, 30)}
    assert names(fleet(29), inventory(clients=clients)) == []


def test_keys_changed() -> None:
    assert names(fleet(30), fleet(30, changed=20)) == []
    (found,) = planned(fleet(30), fleet(30, changed=21)).exceeded
    assert (found.name, found.value, found.limit) == ("keys-changed", 21, 20)
    assert found.message == "21 clients with another key; the limit is 20"


def test_access_widened() -> None:
    some = [f"client:c{number}" for number in range(1, 6)]
    more = [*some, "client:c6"]
    assert names(fleet(10), fleet(10, policies={"p": policy(some)})) == []
    new = fleet(10, policies={"p": policy(more)})
    assert names(fleet(10), new) == ["access-widened-share"]
    assert names(fleet(10), new, Limits(access_widened=5)) == ["access-widened", "access-widened-share"]
    assert names(new, fleet(10)) == []
    # New clients have to be given something: they widen nothing.
    assert names(fleet(1), fleet(20, policies={"p": policy([f"client:c{n}" for n in range(2, 21)])})) == []


def test_a_gateway_emptied() -> None:
    gateways = gateway("gw") | gateway("gx", "10.30.0.0/16", endpoint="203.0.113.200:1")
    old = inventory(clients=client("alice", 11), gateways=gateways, policies={"p": policy()})
    assert (
        names(old, inventory(clients=client("alice", 12), gateways=gateways, policies={"p": policy()})) == []
    )
    moved = inventory(clients=client("alice", 11, "gx"), gateways=gateways, policies={"p": policy()})
    gone = inventory(clients=client("alice", 11, "gx"), gateways=gateway("gx"), policies={"p": policy()})
    without_rights = inventory(clients=client("alice", 11), gateways=gateways, policies={})
    for new in (moved, gone, without_rights):
        assert names(old, new) == ["gateway-emptied"]
    assert names(old, moved, Limits(gateways_emptied=1)) == []
    (found,) = planned(old, moved).exceeded
    assert found.message == "no client is left on gw"


def test_every_limit_has_a_name_of_the_schema() -> None:
    found = told(fleet(25), fleet(19))["limits"]
    assert [one["name"] for one in found] == ["clients-removed-share"]
    assert found[0]["value"] == 0.24


def test_gateways_with_another_key_count_too() -> None:
    new = gateway("gw")
    new["gw"]["public_key"] = key("another")
    assert names(fleet(30), fleet(30, gateways=new)) == []
    assert names(fleet(30), fleet(30, changed=19, gateways=new)) == []
    (found,) = planned(fleet(30), fleet(30, changed=20, gateways=new)).exceeded
    assert (found.name, found.value) == ("keys-changed", 21)
    assert found.message == "21 hosts with another key, 1 of them gateways; the limit is 20"


def test_other_limits_can_be_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sides = []
    for name, files in (("old", fleet(25)), ("new", fleet(19))):
        for path, data in files.items():
            (tmp_path / name / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name / path).write_bytes(data)
        sides.append(str(tmp_path / name))
    assert run(["plan", *sides]) == 2
    line = "limit clients-removed-share exceeded: 6 clients removed, of 25; the limit is 20%"
    assert f"{line}; publish needs --allow clients-removed-share" in capsys.readouterr().out.splitlines()
    assert run(["plan", *sides, "--limit", "clients-removed-share=24%", "--limit", "clients-removed=5"]) == 2
    out = capsys.readouterr().out
    assert "clients-removed-share" not in out
    assert "limit clients-removed exceeded" in out
    assert run(["plan", *sides, "--limit", "client-removed=5"]) == EXIT_USAGE
    assert "there are clients-removed," in capsys.readouterr().err
