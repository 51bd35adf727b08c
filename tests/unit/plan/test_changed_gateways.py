"""Which gateways of two compile outputs are compared: those that differ, and all others of their clients."""

from __future__ import annotations

from typing import Any

from compilerkit import client, compiled, gateway, inventory, policy
from tidegate_compiler.plan import source
from tidegate_compiler.plan.hosts import changed_gateways
from tidegate_compiler.plan.plan import plan


def side(title: str, **kinds: Any) -> source.Side:
    files = compiled(inventory(**kinds)).files
    hosts: dict[tuple[str, str], dict[str, bytes]] = {}
    for path, data in files.items():
        if "/" in path:
            kind, host, name = path.split("/")
            hosts.setdefault((kind, host), {})[name] = data
    return source.of_hosts(title, hosts)


def test_with_a_gateway_go_all_others_of_its_clients() -> None:
    """a and b serve the same network; c is somebody else's. Only a's part of the policy goes."""
    gateways = gateway("a") | gateway("b") | gateway("c", "10.30.0.0/16")
    clients = client("one", 1, "a", "b") | client("two", 2, "c")
    kinds = {"gateways": gateways, "clients": clients}
    rules = policy("all-clients", ["10.20.0.0/16", "10.30.0.0/16"])
    old = side("old", policies={"p": rules}, **kinds)
    new = side("new", policies={"p": rules}, **kinds | {"gateways": gateways | gateway("a", "10.20.0.0/17")})
    assert changed_gateways(old.hosts, old.hosts) == set()
    assert changed_gateways(old.hosts, new.hosts) == {"a", "b"}


def test_a_plan_of_outputs_is_the_one_of_every_gateway(monkeypatch: Any) -> None:
    gateways = gateway("a") | gateway("b") | gateway("c", "10.30.0.0/16")
    clients = client("one", 1, "a", "b") | client("two", 2, "c") | client("three", 3, "a", "b")
    kinds = {"gateways": gateways, "clients": clients}
    old = side(
        "old", policies={"p": policy("client:one"), "q": policy("client:two", "10.30.0.0/16")}, **kinds
    )
    new = side(
        "new", policies={"p": policy("client:three"), "q": policy("client:two", "10.30.0.0/16")}, **kinds
    )
    quick = plan(old, new)
    assert (len(quick.gained), len(quick.lost)) == (1, 1)
    for module in ("plan", "limits"):
        monkeypatch.setattr(f"tidegate_compiler.plan.{module}.changed_gateways", lambda *_: None)
    assert plan(old, new) == quick
