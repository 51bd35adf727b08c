"""The doctor on real hosts: in order it finds nothing, and what is broken it names, and leaves as it is."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from netns.lab import PLACES, TIDEGATE, Agent, Lab, until

pytestmark = pytest.mark.netns


def examined(lab: Lab, agent: Agent, *prefix: str) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Return the doctor's exit status, and what is not in order, by check.

    Of this machine is whether its clock is synchronised, and the lab's releases are good for a day.
    """
    words = (*TIDEGATE, "doctor", "--json", "--bundles", str(lab.bundles), *PLACES)
    said, _, status = agent.host.sh("sh", "-c", '"$@"; echo "#$?"', "sh", *prefix, *words).rpartition("#")
    document = json.loads(said)
    assert document["kind"] == agent.kind
    wrong: dict[str, list[dict[str, Any]]] = {}
    for one in document["checks"]:
        if one["level"] != "ok" and one["check"] not in ("synchronisation", "release"):
            wrong.setdefault(one["check"], []).append(one)
    return int(status), wrong


def test_hosts_in_order_have_no_problem_before_and_while_their_agents_run(lab: Lab) -> None:
    lab.publish()
    for agent in lab.agents:
        status, wrong = examined(lab, agent)
        assert (status, wrong) == (0, {}), agent.name
    lab.start("masquerade=[inside]")
    for agent in lab.agents:
        status, wrong = examined(lab, agent)
        assert (status, wrong) == (0, {}), agent.name


def test_what_is_broken_on_a_gateway_is_named_and_left_as_it_is(lab: Lab) -> None:
    lab.publish()
    lab.start("authz_mode=enforce", "repair=report")  # or the agent mends some of it before it is seen
    host = lab.gateway.host
    before = host.sh("ip", "-o", "link")
    host.sysctl("ipv4/ip_forward", "0")
    host.sysctl("ipv4/conf/tidegate-tun/rp_filter", "1")
    host.sh("chmod", "640", "/run/etc/gateway.key")
    host.sh("chmod", "777", str(lab.bundles))
    host.sh("ip", "link", "set", "eth0", "mtu", "1400")
    host.sh("ip", "route", "add", "default", "via", "203.0.113.1")
    host.sh(
        "nft",
        "-f",
        "-",
        text="table ip other { chain f { type filter hook forward priority 0; policy drop; }; }",
    )
    status, wrong = examined(lab, lab.gateway)
    assert status == 1
    assert {name: found[0]["level"] for name, found in wrong.items()} == {
        **dict.fromkeys(("ip_forward", "rp_filter", "permissions", "key"), "fail"),
        **dict.fromkeys(("mtu", "firewall"), "warn"),
    }
    assert wrong["ip_forward"][0]["mend"].startswith("sysctl -w net.ipv4.ip_forward=1")
    assert "table ip other, chain f" in wrong["firewall"][0]["what"]
    assert {one["mend"] for one in wrong["permissions"]} >= {f"chmod go-w {lab.bundles}"}
    for file, value in (("ip_forward", "0"), ("conf/tidegate-tun/rp_filter", "1")):
        assert host.sh("cat", f"/proc/sys/net/ipv4/{file}").strip() == value
    assert host.sh("stat", "-c", "%a", "/run/etc/gateway.key") == "640\n"
    assert [line.split(":")[1] for line in host.sh("ip", "-o", "link").splitlines()] == [
        line.split(":")[1] for line in before.splitlines()
    ]
    # The mend that it gives mends.
    host.sh("sh", "-c", wrong["ip_forward"][0]["mend"].partition(";")[0])
    host.sh("sh", "-c", wrong["rp_filter"][0]["mend"])
    host.sh("chmod", "600", "/run/etc/gateway.key")
    host.sh("sh", "-c", next(one["mend"] for one in wrong["permissions"] if "go-w" in one["mend"]))
    status, wrong = examined(lab, lab.gateway)
    assert (status, set(wrong)) == (0, {"mtu", "firewall"})


def test_a_missing_tool_a_foreign_interface_and_a_taken_port_are_named(lab: Lab) -> None:
    lab.publish()
    programs = lab.directory / "few"
    programs.mkdir()
    for name in ("wg", "ip", "wireguard-go", "unshare"):
        programs.joinpath(name).symlink_to(lab.gateway.host.sh("sh", "-c", f"command -v {name}").strip())
    host = lab.gateway.host
    host.sh("ip", "link", "add", "tidegate0", "type", "bridge")
    host.start(
        sys.executable,
        "-c",
        "import socket, time; s = socket.socket(2, 2); s.bind(('', 51820)); time.sleep(99)",
    )
    until("the port is taken", lambda: ":51820" in host.sh("ss", "-lun"))
    status, wrong = examined(lab, lab.gateway, "env", f"PATH={programs}")
    assert status == 1
    assert "nft is not on PATH" in wrong["tool"][0]["what"]
    assert wrong["tool"][0]["mend"] == "apt install nftables"
    assert "another tool's" in wrong["interface"][0]["what"]
    assert "51820 is in use" in wrong["port"][0]["what"]
    assert set(wrong) == {"tool", "interface", "port", "nftables"}
