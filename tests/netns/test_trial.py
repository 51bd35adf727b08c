"""A release on trial: confirmed when it works here, else taken back, and nothing that it took away comes back."""

from __future__ import annotations

import json
import shutil
import signal
import time
from typing import Any

import pytest

from netns.lab import DEVICE, PLACES, PYTHON, WEB4, WEB6, WEB_RULES, Agent, Lab, ping, until
from tidegate_schema import jsonfile
from unit.agents.kit import id_of, key

pytestmark = pytest.mark.netns

# A wg(8) that takes every peer but one: a release with it cannot be applied, whatever else it says.
PICKY = """#!/bin/sh
if [ "$1" = addconf ]; then
  text=$(cat)
  case "$text" in *KEY*) echo "no such peer here" >&2; exit 1;; esac
  printf '%s\\n' "$text" | exec /run/wg "$@"
fi
exec /run/wg "$@"
"""


def be_picky(lab: Lab, agent: Agent) -> None:
    wg = shutil.which("wg")
    assert wg is not None
    picky = lab.directory / "wg"
    picky.write_text(PICKY.replace("KEY", key("carol")))
    picky.chmod(0o755)
    agent.host.sh("cp", wg, "/run/wg")
    agent.host.sh("mount", "--bind", str(picky), wg)


def with_carol(peers: bytes) -> bytes:
    document = jsonfile.parse(peers)
    carol = {"client_id": id_of("carol"), "public_key": key("carol"), "allowed_ips": ["10.64.0.13/32"]}
    every = sorted([*document["peers"], carol], key=lambda peer: str(peer["client_id"]))
    return jsonfile.canonical({"format": 1, "peers": every})


def happened(agent: Agent) -> list[dict[str, Any]]:
    """Return the host's events as (event, serial or name)."""
    return [json.loads(line) for line in agent.tidegate("history", "--json", *PLACES).splitlines()]


def names(agent: Agent) -> list[str]:
    return [one["event"] for one in happened(agent)]


def memory(agent: Agent) -> int:
    serial: int = json.loads(agent.host.sh("cat", f"/run/state/{agent.kind}.json"))["serial"]
    return serial


def confirmed(agent: Agent, serial: int) -> bool:
    status = agent.status()
    return bool(status and (status["release"] or {}).get("serial") == serial and status["trial"] is None)


def refusal(agent: Agent) -> str | None:
    found = (agent.status() or {}).get("refusal")
    return found["name"] if found else None


def peers_of(agent: Agent) -> set[str]:
    return set(agent.host.sh("wg", "show", DEVICE, "peers").split())


def test_a_gateway_s_release_that_cannot_be_applied_is_taken_back_without_what_it_withdrew(lab: Lab) -> None:
    # Alice and bob may reach the web; the release that fails withdraws alice's rights, and gives bob the other family.
    web4, web6 = WEB_RULES
    lab.publish(policy=lab.policy_file(alice=WEB_RULES, bob=[web4]))
    lab.start("confirm_timeout=5")
    until("the first release is confirmed", lambda: confirmed(lab.gateway, 1))
    assert ping(lab.alice.host)
    assert ping(lab.bob.host)
    be_picky(lab, lab.gateway)
    files = {
        "peers.json": with_carol(lab.everyone()),
        "policy.json": lab.policy_file(alice=[], bob=[web4, web6]),
    }
    lab.signer.publish(lab.bundles, "gateway", "fra1", files, 2)
    until("it is taken back", lambda: (lab.gateway.status() or {}).get("rolled_back"), seconds=30)

    def check() -> None:
        until("nothing is in trouble", lambda: (lab.gateway.status() or {"trouble": 1})["trouble"] is None)
        status = lab.gateway.status()
        assert status is not None
        assert (status["release"]["serial"], status["rolled_back"]["serial"], status["trial"]) == (1, 2, None)
        assert not ping(lab.alice.host)  # withdrawn stays withdrawn
        until("bob gets through", lambda: ping(lab.bob.host))
        assert not ping(lab.bob.host, WEB6)  # and what only the failed one gave is not given
        assert peers_of(lab.gateway) == {lab.alice.public_key, lab.bob.public_key}
        assert memory(lab.gateway) == 2

    check()
    assert {"release-failed", "rolled-back"} <= set(names(lab.gateway))
    # It is not tried again: neither by a running agent, nor by one that starts, nor after a kill -9.
    lab.signer.publish(lab.bundles, "gateway", "fra1", files, 2)
    until("its refusal is named", lambda: refusal(lab.gateway) == "failed-trial")
    for number in (signal.SIGTERM, signal.SIGKILL):
        lab.gateway.stop(number)
        lab.gateway.start()
        lab.forget_session(lab.bob)
        check()
        assert refusal(lab.gateway) == "failed-trial"
    assert names(lab.gateway).count("release-failed") == 1
    # Without what it took away it is not found again either, should the failed release be gone from the directory.
    lab.gateway.stop()
    shutil.rmtree(lab.bundles / "gateway")
    lab.gateway.start()
    lab.forget_session(lab.bob)
    check()
    lab.republish(3, policy=lab.policy_file(alice=[web6], bob=[]))
    until("a newer release is confirmed", lambda: confirmed(lab.gateway, 3))
    assert (lab.gateway.status() or {})["rolled_back"] is None
    until("alice gets through", lambda: ping(lab.alice.host, WEB6))


# What anybody may send to a gateway: bytes of every kind of WireGuard's messages, and of none.
NOISE = """
import os, socket, time
out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for kind, size in ((1, 148), (2, 92), (3, 64), (4, 96), (9, 40)):
        try: out.sendto(bytes((kind, 0, 0, 0)) + os.urandom(size - 4), ("203.0.113.10", 51820))
        except OSError: pass
    time.sleep(0.001)
"""


def test_nobody_outside_decides_whether_a_gateway_keeps_a_release(lab: Lab) -> None:
    """By local facts alone it is confirmed: without a single client, and under what a stranger sends."""
    lab.publish()
    lab.gateway.start()
    lab.gateway.set("confirm_timeout=5")
    until("the first release is confirmed", lambda: confirmed(lab.gateway, 1), seconds=30)
    stranger = lab.bob.host.start(PYTHON, "-c", NOISE)
    files = {"peers.json": with_carol(lab.everyone()), "policy.json": lab.policy_file(alice=WEB_RULES)}
    for serial in (2, 3):
        lab.signer.publish(lab.bundles, "gateway", "fra1", files, serial)
        until("it is confirmed", lambda serial=serial: confirmed(lab.gateway, serial), seconds=30)
        files = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(bob=WEB_RULES)}
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert not {"release-failed", "rolled-back"} & set(names(lab.gateway))
    shaken = lab.gateway.host.sh("wg", "show", DEVICE, "latest-handshakes").split()[1::2]
    assert set(shaken) == {"0"}  # nobody was there


def client_file(lab: Lab, endpoint: str, networks: str, public_key: str = "") -> bytes:
    return (
        "[Interface]\nAddress = 10.64.0.11/32, fd64::11/128\n\n[Peer]\n"
        f"PublicKey = {public_key or lab.gateway.public_key}\nEndpoint = {endpoint}\nAllowedIPs = {networks}\n"
    ).encode()


def publish(lab: Lab, serial: int, *arguments: str) -> None:
    lab.signer.publish(
        lab.bundles, "client", lab.alice.name, {"wg0.conf": client_file(lab, *arguments)}, serial
    )


def routes(agent: Agent) -> str:
    return agent.host.sh("ip", "route", "show", "dev", DEVICE) + agent.host.sh(
        "ip", "-6", "route", "show", "dev", DEVICE
    )


def test_a_client_s_release_without_a_handshake_is_taken_back_without_what_it_withdrew(lab: Lab) -> None:
    lab.alice.host.sh("mkdir", "-p", "/run/etc")
    lab.alice.host.sh("sh", "-c", "echo 'confirm_timeout: 5' > /run/etc/client.yaml")
    lab.publish()
    lab.start()
    until("the first release is confirmed", lambda: confirmed(lab.alice, 1))
    # Another endpoint, at which nobody answers, and one network less.
    publish(lab, 2, "203.0.113.99:51820", "10.20.0.0/16")
    until("it is applied", lambda: "203.0.113.99" in lab.alice.host.sh("wg", "show", DEVICE, "endpoints"))
    until("it is taken back", lambda: (lab.alice.status() or {}).get("rolled_back"), seconds=30)
    until("alice gets through", lambda: ping(lab.alice.host), seconds=30)
    assert "203.0.113.10:51820" in lab.alice.host.sh("wg", "show", DEVICE, "endpoints")
    assert "fd20::/48" not in routes(lab.alice)
    assert memory(lab.alice) == 2
    lab.alice.stop()
    lab.alice.start()
    until("alice gets through", lambda: ping(lab.alice.host))
    assert refusal(lab.alice) == "failed-trial"
    assert "fd20::/48" not in routes(lab.alice)
    # A release after which no gateway is left that both know: there is nothing to go back to, so it stays on trial.
    publish(lab, 3, "203.0.113.10:51820", "10.20.0.0/16", key("other gateway"))
    until("it is applied", lambda: peers_of(lab.alice) == {key("other gateway")})
    publish(lab, 4, "203.0.113.10:51820", "10.20.0.0/16, fd20::/48")
    until("a newer release is confirmed", lambda: confirmed(lab.alice, 4), seconds=30)
    assert ping(lab.alice.host, WEB6)
    assert names(lab.alice).count("release-failed") == 1


def test_a_client_that_is_offline_keeps_a_new_release_and_confirms_it_later(lab: Lab) -> None:
    lab.alice.host.sh("mkdir", "-p", "/run/etc")
    lab.alice.host.sh("sh", "-c", "echo 'confirm_timeout: 5' > /run/etc/client.yaml")
    lab.publish()
    lab.start()
    until("the first release is confirmed", lambda: confirmed(lab.alice, 1))
    lab.alice.host.sh("ip", "link", "set", "eth0", "down")
    lab.alice.host.sh("wg", "set", DEVICE, "peer", lab.gateway.public_key, "remove")  # its session with it
    publish(lab, 2, "203.0.113.10:51820", "10.20.0.0/16")
    until("it is on trial", lambda: ((lab.alice.status() or {}).get("trial") or {}).get("serial") == 2)
    until("it waits", lambda: (lab.alice.status() or {})["trial"])
    time.sleep(8)  # longer than confirm_timeout: nothing is held against it
    status = lab.alice.status()
    assert status is not None
    assert (status["trial"]["serial"], status["rolled_back"]) == (2, None)
    lab.alice.host.sh("ip", "link", "set", "eth0", "up")
    until("alice gets through", lambda: ping(lab.alice.host, WEB4), seconds=30)
    until("it is confirmed", lambda: confirmed(lab.alice, 2))


@pytest.mark.whole
def test_at_its_end_a_running_release_goes_on_and_at_a_start_too_with_an_alarm(lab: Lab) -> None:
    lab.publish()
    lab.start()
    files = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(alice=WEB_RULES)}
    lab.signer.publish(lab.bundles, "gateway", "fra1", files, 2, not_after=int(time.time()) + 8)
    until("it is confirmed", lambda: confirmed(lab.gateway, 2))
    until("the alarm is raised", lambda: (lab.gateway.status() or {})["stale"], seconds=30)
    assert ping(lab.alice.host)
    assert names(lab.gateway).count("release-stale") == 1
    lab.gateway.stop()
    lab.gateway.start()
    assert refusal(lab.gateway) == "expired"
    lab.forget_session(lab.alice)
    until("alice gets through", lambda: ping(lab.alice.host))
    assert not ping(lab.bob.host)
    lab.gateway.set("on_stale=deny")
    assert not ping(lab.alice.host)
    lab.gateway.set("on_stale=keep")
    until("alice gets through", lambda: ping(lab.alice.host))
