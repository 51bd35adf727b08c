"""A client on its own: failover between gateways, drift, a new key, a network that changes under it."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import time
from typing import Any

import pytest

from netns import test_flowlog as flowlog
from netns.lab import DEVICE, PLACES, TIDEGATE, WEB_RULES, Agent, Lab, Pings, ping, until
from tidegate_schema.event import Kind

pytestmark = pytest.mark.netns

ADDRESSES = "10.64.0.11/32, fd64::11/128"
FAILOVER_SECONDS = 15.0  # the bound


def settings(lab: Lab, *lines: str) -> None:
    """Write alice's settings, in one step."""
    text = "\n".join(lines) or "{}"
    script = f"printf '%s\\n' '{text}' > /run/etc/new && mv /run/etc/new /run/etc/client.yaml"
    lab.alice.host.sh("sh", "-c", script)


def two_gateways(lab: Lab, *lines: str) -> Agent:
    """Give alice two gateways for one network, start everything, and return the second."""
    second = lab.second_gateway()
    lab.publish()
    policy = lab.policy_file(alice=WEB_RULES, bob=[])
    files = {"peers.json": lab.everyone(), "policy.json": policy}
    lab.signer.publish(lab.bundles, "gateway", "fra2", files, 1)
    standby = f"\n[Peer]\nPublicKey = {second.public_key}\nEndpoint = 203.0.113.20:51820\n"
    file = lab.client_file(ADDRESSES) + standby.encode()
    lab.signer.publish(lab.bundles, "client", lab.alice.name, {"wg0.conf": file}, 1)
    settings(lab, *lines)
    second.start()
    lab.start()
    return second


def active(lab: Lab) -> str:
    status = lab.alice.status()
    return status["groups"][0]["active"] if status else ""


def carried_by(lab: Lab) -> str:
    """Return the key of the gateway that has the network, as WireGuard itself says."""
    lines = lab.alice.host.sh("wg", "show", DEVICE, "allowed-ips").splitlines()
    (key,) = [line.split("\t")[0] for line in lines if "10.20.0.0/16" in line]
    return key


def wireguard_go(agent: Agent) -> int:
    """Return the process of an agent's device."""
    return int(
        agent.host.sh("pgrep", "--ns", str(agent.host.holder.pid), "--nslist", "net", "-x", "wireguard-go")
    )


@pytest.mark.parametrize("way", ["hangs", pytest.param("link-down", marks=pytest.mark.whole)])
def test_a_silent_gateway_is_left_within_15_s_and_returned_to_when_it_is_back(lab: Lab, way: str) -> None:
    second = two_gateways(lab, "failback_after: 5")
    first = lab.gateway
    pings = Pings(lab.alice.host, interval=0.2)
    until("pings are answered", pings.answered)
    assert active(lab) == first.public_key
    device = wireguard_go(first)
    routes = lab.alice.host.sh("ip", "route", "show", "dev", DEVICE)
    if way == "hangs":
        os.kill(device, signal.SIGSTOP)
    else:
        first.host.sh("ip", "link", "set", "eth0", "down")
    began = time.monotonic()
    answered = len(pings.answered())
    # A ping may have been under way.
    until("pings go through the second", lambda: len(pings.answered()) > answered + 3, FAILOVER_SECONDS, 0.1)
    print(f"{way}: pings again after {time.monotonic() - began:.1f} s")
    assert carried_by(lab) == second.public_key
    assert active(lab) == second.public_key
    assert lab.alice.host.sh("ip", "route", "show", "dev", DEVICE) == routes
    time.sleep(5.5)  # longer than it would have to be back for
    assert active(lab) == second.public_key
    if way == "hangs":
        os.kill(device, signal.SIGCONT)
    else:
        first.host.sh("ip", "link", "set", "eth0", "up")
    until("the first is in use again", lambda: active(lab) == first.public_key, 40)
    assert carried_by(lab) == first.public_key
    answered = len(pings.answered())
    time.sleep(3)
    assert active(lab) == first.public_key
    assert len(pings.answered()) > answered + 10
    log = lab.alice.host.log.read_text()
    assert len(re.findall("failover before=", log)) == 2


ROTATION_SECONDS = 5.0  # the bound, beyond the time that applying takes


def key_in_use(agent: Agent) -> str:
    return agent.host.sh("wg", "show", DEVICE, "public-key").strip()


def key_files(agent: Agent) -> set[str]:
    return set(agent.host.sh("sh", "-c", "cd /run/etc && ls | grep key").split())


def change_over(lab: Lab, pings: Pings, serial: int, key: str) -> float:
    """Have the gateway know this key of alice's and no other, and return the seconds without an answer."""
    lab.alice.public_key = key
    before = max(pings.answered())
    began = time.monotonic()
    lab.republish(serial)
    took = time.monotonic() - began
    until(f"{key} is in use", lambda: key_in_use(lab.alice) == key, 30)
    until("pings are answered again", lambda: max(pings.answered()) > before + 60)
    answered = sorted(one for one in pings.answered() if one >= before)
    gap = max(b - a for a, b in itertools.pairwise(answered)) * 0.05
    print(f"to {key}: {gap:.2f} s without an answer, of which applying took at most {took:.2f} s")
    assert gap <= took + ROTATION_SECONDS
    return gap


def test_a_new_key_is_taken_up_when_the_gateway_knows_it_and_given_up_when_it_does_not(lab: Lab) -> None:
    lab.publish()
    lab.start("logging_enabled=on")
    old, old_id = lab.alice.public_key, lab.alice.client_id
    new = json.loads(lab.alice.tidegate("rotate", "--json", *PLACES))["public_key"]
    assert new != old
    assert json.loads(lab.alice.tidegate("rotate", "--json", *PLACES))["public_key"] == new
    pings = Pings(lab.alice.host, interval=0.05)
    until("the next key is tried", lambda: lab.alice.host.ok("ip", "link", "show", "tidegate-next"))
    until("the status says so", lambda: ((lab.alice.status() or {})["rotation"] or {}).get("next") == new)
    # What runs is not disturbed by it.
    device, shaken = lab.alice.host.sh("wg", "show", DEVICE, "dump"), pings.answered()
    until("two tries", lambda: len(pings.answered()) > len(shaken) + 40)
    assert lab.alice.host.sh("wg", "show", DEVICE, "dump").splitlines()[0] == device.splitlines()[0]
    assert pings.answered() == set(range(1, max(pings.answered()) + 1))

    change_over(lab, pings, 2, new)
    assert key_files(lab.alice) == {"client.key", "client.previous.key"}
    until(
        "the flow under the old ID is closed",
        lambda: [
            one
            for one in flowlog.flows(lab, Kind.FLOW_CLOSE)
            if (one["tidegate.client.id"], one["tidegate.end"]) == (old_id, "revoked")
        ],
    )
    opened = flowlog.records(lab, "events.ring")
    assert any(one.kind == Kind.FLOW_OPEN and one.client_id.hex() == lab.alice.client_id for one in opened)
    # The gateway goes back to the old key, as when the change is reverted: the client follows, and again forward.
    change_over(lab, pings, 3, old)
    assert key_files(lab.alice) == {"client.key", "client.next.key"}
    change_over(lab, pings, 4, new)
    assert key_files(lab.alice) == {"client.key", "client.previous.key"}
    keys = json.loads(lab.alice.tidegate("rotate", "--status", "--json", *PLACES))
    assert (keys["current"]["public_key"], keys["previous"]["public_key"]) == (new, old)
    assert not lab.alice.host.ok(*TIDEGATE, "client", "rotate", *PLACES)  # not before the change is confirmed
    # An agent that is killed comes back with the key that works.
    lab.alice.stop(signal.SIGKILL)
    lab.alice.start()
    until("pings are answered", lambda: ping(lab.alice.host))
    assert key_in_use(lab.alice) == new
    until("the previous one may be tried", lambda: lab.alice.host.ok("ip", "link", "show", "tidegate-next"))
    assert lab.alice.stop() == 0
    for name in ("tidegate-next", DEVICE):
        assert not lab.alice.host.ok("ip", "link", "show", name)


# Drift ---------------------------------------------------------------------------------------------------------------


def interface(lab: Lab) -> tuple[str, ...]:
    """Return all that an agent is to keep as it is, as wg(8) and ip(8) print it."""
    host = lab.alice.host
    peers = host.sh("wg", "show", DEVICE, "allowed-ips", check=False)
    routes = sorted(
        line.strip()
        for family in ("-4", "-6")
        for line in host.sh(
            "ip", family, "route", "show", "dev", DEVICE, "proto", "boot", check=False
        ).splitlines()
    )
    link = json.loads(host.sh("ip", "-json", "address", "show", "dev", DEVICE, check=False) or "[{}]")[0]
    addresses = sorted(one["local"] for one in link.get("addr_info", ()) if one["scope"] == "global")
    return (peers, *routes, *addresses, str(link.get("mtu")), str("UP" in link.get("flags", ())))


def drift(lab: Lab) -> dict[str, Any]:
    return (lab.alice.status() or {}).get("drift") or {"count": 0, "actions": [], "repaired": True}


STRANGER = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


@pytest.mark.whole
def test_what_somebody_else_changes_is_noticed_told_and_repaired(lab: Lab) -> None:
    lab.publish()
    lab.start()
    host, wanted = lab.alice.host, interface(lab)
    device = host.sh("wg", "show", DEVICE, "dump").splitlines()[0]
    peer = ("wg", "set", DEVICE, "peer", lab.gateway.public_key)
    changes: list[tuple[tuple[str, ...], str]] = [
        ((*peer, "remove"), "add peer"),
        ((*peer, "allowed-ips", "10.20.0.0/16"), "give it fd20::/48"),
        ((*peer, "allowed-ips", "10.20.0.0/16,fd20::/48,10.99.0.0/16"), "take 10.99.0.0/16"),
        ((*peer, "persistent-keepalive", "7"), "keepalive 0 s"),
        (("wg", "set", DEVICE, "peer", STRANGER, "allowed-ips", "10.98.0.0/16"), "remove peer"),
        (("ip", "address", "del", "10.64.0.11/32", "dev", DEVICE), "add address"),
        (("ip", "address", "add", "10.64.0.99/32", "dev", DEVICE), "remove address"),
        (("ip", "route", "del", "10.20.0.0/16", "dev", DEVICE), "add route"),
        (("ip", "-6", "route", "del", "fd20::/48", "dev", DEVICE), "add route fd20::/48"),
        (("ip", "route", "add", "10.97.0.0/16", "dev", DEVICE), "remove route"),
        (("ip", "link", "set", DEVICE, "mtu", "1300"), "set MTU 1420"),
        (("ip", "link", "set", DEVICE, "down"), "set the link up"),
        (("ip", "link", "del", DEVICE), "bring the interface up"),
    ]
    for command, mended in changes:
        before = drift(lab)["count"]
        host.sh(*command)
        until(f"{command} is told", lambda before=before: drift(lab)["count"] > before)
        until(f"{command} is undone", lambda: interface(lab) == wanted and drift(lab)["repaired"])
        assert mended in "; ".join(drift(lab)["actions"]), command
        assert ping(host, seconds=2) or ping(host, seconds=2)
        assert "drift-found" in host.log.read_text()
    assert host.sh("wg", "show", DEVICE, "dump").splitlines()[0].split("\t")[:2] == device.split("\t")[:2]
    # Without anybody changing anything there is none.
    before = drift(lab)["count"]
    time.sleep(2.5)
    assert drift(lab)["count"] == before


def test_with_repair_report_it_is_told_and_left(lab: Lab) -> None:
    lab.publish()
    lab.start()
    wanted = interface(lab)
    settings(lab, "repair: report")
    time.sleep(2.5)
    lab.alice.host.sh("ip", "route", "del", "10.20.0.0/16", "dev", DEVICE)
    until("it is told", lambda: drift(lab)["actions"] == ["add route 10.20.0.0/16"])
    shown = lab.alice.tidegate("run", "--dry-run", "--bundles", str(lab.bundles), *PLACES)
    assert shown == "add route 10.20.0.0/16\n"
    time.sleep(2.5)
    assert not drift(lab)["repaired"]
    assert interface(lab) != wanted
    assert drift(lab)["count"] == 1
    assert "add route 10.20.0.0/16" in lab.alice.tidegate("status", *PLACES)
    settings(lab, "repair: on")
    until("it is repaired", lambda: interface(lab) == wanted and drift(lab)["repaired"])


def test_a_dry_run_prints_the_actions_and_changes_nothing(lab: Lab) -> None:
    lab.publish()
    arguments = ("--dry-run", "--json", "--bundles", str(lab.bundles), *PLACES)

    def actions() -> list[str]:
        return [one["verb"] for one in json.loads(lab.alice.tidegate("run", *arguments))["actions"]]

    assert actions() == ["create-interface"]
    assert not lab.alice.host.ok("ip", "link", "show", DEVICE)
    assert not lab.alice.host.ok("test", "-e", "/run/state/client.json")
    lab.start()
    assert actions() == []
    lab.alice.stop(signal.SIGKILL)  # leaves the interface
    file = lab.client_file("10.64.0.12/32").replace(b"fd20::/48", b"10.21.0.0/16")
    lab.signer.publish(lab.bundles, "client", lab.alice.name, {"wg0.conf": file}, 2)
    before = interface(lab)
    assert actions() == [
        *(
            "remove-route",
            "narrow-peer",
            "set-peer",
            "add-address",
            "remove-address",
            "remove-address",
            "add-route",
        ),
    ]
    assert interface(lab) == before
    lab.signer.publish(lab.bundles, "client", lab.alice.name, {"wg0.conf": file}, 3, host="bob-laptop")
    found = json.loads(lab.alice.tidegate("run", *arguments))
    # What is refused is named, and what ran before goes on, from the host's own copy.
    assert [problem.startswith("release refused: other-host") for problem in found["problems"]] == [True]
    assert found["actions"] == []


# Networks that change, and hosts that sleep --------------------------------------------------------------------------


HIDE = """
table ip nat {
  chain out {
    type nat hook postrouting priority srcnat
    oifname eth0 masquerade
  }
}
"""


def second_network(lab: Lab) -> None:
    """Give alice a second link, to a router that hides her behind its own address."""
    router = lab.host("router")
    lab.uplink(router, "203.0.113.99")
    lab.join(router, lab.alice.host, "inside", "eth1")
    lab.address(router, "inside", "198.51.100.1/24")
    router.sysctl("ipv4/ip_forward", "1")
    router.sh("nft", "-f", "-", text=HIDE)


def resumes(what: str, pings: Pings, seconds: float) -> None:
    """Wait until later pings are answered, and print how long that took."""
    began, before = time.monotonic(), len(pings.answered())
    until(f"pings are answered: {what}", lambda: len(pings.answered()) > before + 3, seconds)
    print(f"{what}: {time.monotonic() - began:.1f} s")


@pytest.mark.whole
def test_pings_go_on_when_the_network_under_the_client_changes_and_after_sleep(lab: Lab) -> None:
    lab.publish()
    second_network(lab)
    lab.start()
    host = lab.alice.host
    process = lab.alice.process
    assert process is not None
    pings = Pings(host, interval=0.1)
    until("pings are answered", pings.answered)
    host.sh("ip", "address", "del", "203.0.113.101/24", "dev", "eth0")
    host.sh("ip", "address", "add", "203.0.113.150/24", "dev", "eth0")
    resumes("another address on the same link", pings, 12)  # by itself, WireGuard takes 15 s
    host.sh("ip", "link", "set", "eth0", "down")
    lab.address(host, "eth1", "198.51.100.2/24")
    host.sh("ip", "route", "add", "default", "via", "198.51.100.1")
    resumes("another link and default route, behind NAT", pings, 20)
    host.sh("ip", "link", "set", "eth1", "down")
    time.sleep(3)
    host.sh("ip", "link", "set", "eth1", "up")
    host.sh("ip", "route", "add", "default", "via", "198.51.100.1")
    resumes("the link was down for 3 s", pings, 20)
    sleeping = [process.pid, wireguard_go(lab.alice)]
    for pid in sleeping:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(20)
    for pid in reversed(sleeping):
        os.kill(pid, signal.SIGCONT)
    resumes("asleep for 20 s", pings, 20)
    assert process.poll() is None
    until("the status is written again", lambda: (lab.alice.status() or {}).get("trouble", "?") is None)
    assert drift(lab)["count"] == 0
