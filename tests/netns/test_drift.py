"""What others change of a gateway's is named, told, and repaired or only reported; and what a start would do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netns.lab import DEVICE, PLACES, TIDEGATE, WEB_RULES, Lab, ping, until
from netns.test_trial import happened
from unit.agents.kit import key

pytestmark = pytest.mark.netns

DRIFTS: dict[str, tuple[str, ...]] = {
    "rules": ("nft", "flush", "chain", "inet", "tidegate", "forward"),
    "tun": ("ip", "link", "del", "tidegate-denied"),
    "way": ("ip", "address", "flush", "dev", "tidegate-tun"),
    "device": ("ip", "link", "del", DEVICE),
    "link": ("ip", "link", "set", DEVICE, "down"),
    "peers": ("wg", "set", DEVICE, "peer", key("intruder"), "allowed-ips", "10.64.0.11/32"),
    "routes": ("ip", "route", "del", "10.64.0.11/32", "proto", "116"),
    "forwarding": ("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"),
}


def told(lab: Lab, event: str) -> set[str]:
    return {one["name"] for one in happened(lab.gateway) if one["event"] == event}


def standing(lab: Lab) -> dict[str, str]:
    found: dict[str, str] = (lab.gateway.status() or {}).get("drift", {})
    return found


def test_each_drift_is_named_told_and_repaired(lab: Lab) -> None:
    peers = lab.peers_file((lab.alice, ["10.64.0.11/32"]), (lab.bob, ["10.64.0.14/32"]))
    lab.publish(peers=peers)
    lab.start()
    for name, command in DRIFTS.items():
        if lab.gateway.status()["wireguard_go"] and name == "device":  # type: ignore[index]
            continue  # its process ends with it, which is a restart and no drift
        lab.gateway.host.sh(*command)
        until(f"{name} is repaired", lambda name=name: name in told(lab, "drift-repaired"), seconds=30)
        assert name in told(lab, "drift-found")
    until("nothing is left of it", lambda: not standing(lab))
    lab.forget_session(lab.alice)
    until("alice gets through", lambda: ping(lab.alice.host))
    happened_before = lab.gateway.status()["happened"]  # type: ignore[index]
    assert happened_before["drift-found"].keys() >= told(lab, "drift-found")


def test_drift_that_is_only_reported_stays_closed_in_enforce(lab: Lab) -> None:
    peers = lab.peers_file((lab.alice, ["10.64.0.11/32"]), (lab.bob, ["10.64.0.14/32"]))
    lab.publish(peers=peers)
    lab.start("repair=report")
    for name in ("routes", "forwarding", "way"):
        lab.gateway.host.sh(*DRIFTS[name])
        until(f"{name} is reported", lambda name=name: name in standing(lab), seconds=30)
    assert not ping(lab.alice.host)
    assert not ping(lab.bob.host)
    # What would open something is made good all the same: rules, and whose address is whose.
    # And what no later release could be applied without.
    for name in ("rules", "peers", "tun"):
        lab.gateway.host.sh(*DRIFTS[name])
        until(f"{name} is repaired", lambda name=name: name in told(lab, "drift-repaired"), seconds=30)
    assert key("intruder") not in lab.gateway.host.sh("wg", "show", DEVICE, "peers")
    # The way into a TUN is made with it; with peers the whole release is applied again, and routes are part of it:
    # they stand as they were found last until they are looked at again.
    assert standing(lab).keys() - {"routes"} == {"forwarding"}
    assert told(lab, "drift-repaired") == {"rules", "peers", "tun"}
    lab.gateway.set("repair=on")
    until("all of it is repaired", lambda: not standing(lab), seconds=30)
    until("alice gets through", lambda: ping(lab.alice.host))


def everything(lab: Lab) -> list[str]:
    """Return what a dry run must leave as it is."""
    host = lab.gateway.host
    return [
        host.sh(
            "sh", "-c", "find /run/etc /run/state /run/tidegate -type f 2>/dev/null | sort | xargs md5sum"
        ),
        host.sh("ip", "-o", "link"),
        host.sh("ip", "rule"),
        host.sh("ip", "-4", "route", "show", "table", "all"),
        host.sh("nft", "--stateless", "--terse", "list", "ruleset"),
        *sorted(host.sh("wg", "show", "all", "allowed-ips").splitlines()),
        host.sh("cat", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/netfilter/nf_conntrack_acct"),
    ]


def dry_run(lab: Lab) -> dict[str, Any]:
    before = everything(lab)
    words = ("gateway", "run", "--bundles", str(lab.bundles), *PLACES, "--dry-run", "--json")
    found: dict[str, Any] = json.loads(lab.gateway.host.sh(*TIDEGATE, *words))
    assert everything(lab) == before
    return found


def parts(found: dict[str, Any]) -> set[tuple[str, str]]:
    return {(step["part"], step["verb"]) for step in found["actions"]}


def test_a_dry_run_says_what_a_start_would_do_and_changes_nothing(lab: Lab) -> None:
    lab.publish()
    found = dry_run(lab)
    assert found["release"]["serial"] == 1
    assert parts(found) >= {
        ("sysctl", "switch on"), ("nft", "load"), ("tun", "make"), ("rule", "lead"), ("device", "make"),
        ("device", "bring up"), ("forwarder", "start"), ("peer", "add"), ("route", "add"),
    }  # fmt: skip
    lab.start()
    until("it is confirmed", lambda: (lab.gateway.status() or {"trial": 1})["trial"] is None)
    # The agent is held, so that whatever changes, the dry run has changed.
    pid = str((lab.gateway.status() or {})["pid"])
    lab.gateway.host.sh("kill", "-STOP", pid)
    assert dry_run(lab)["actions"] == []
    # Others change things, and a release comes.
    lab.gateway.host.sh(*DRIFTS["rules"])
    lab.gateway.host.sh(*DRIFTS["link"])
    lab.gateway.host.sh("ip", "rule", "del", "priority", "7400")
    lab.gateway.host.sh(*DRIFTS["peers"])
    peers = lab.peers_file((lab.alice, ["10.64.0.11/32"]))
    policy = lab.policy_file(alice=WEB_RULES)
    lab.signer.publish(lab.bundles, "gateway", "fra1", {"peers.json": peers, "policy.json": policy}, 2)
    found = dry_run(lab)
    assert found["release"]["serial"] == 2
    assert parts(found) >= {
        ("nft", "replace"), ("device", "bring up"), ("rule", "lead"), ("peer", "remove"), ("peer", "change"),
        ("forwarder", "start"),
    }  # fmt: skip
    lab.signer.publish(lab.bundles, "gateway", "fra1", {"peers.json": peers}, 3, host="another")
    found = dry_run(lab)
    assert found["release"]["serial"] == 1
    assert found["problems"] == ["other-host: the release is for another, this is fra1"]
    lab.gateway.host.sh("kill", "-CONT", pid)
    words = ("gateway", "run", "--bundles", str(lab.bundles), *PLACES, "--dry-run")
    assert "problem: other-host" in lab.gateway.host.sh(*TIDEGATE, *words)
