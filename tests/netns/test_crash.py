"""kill -9 at every step of taking a release up: the end state is the old one or the new one, never a mixture.

A few steps of each agent are tried here; `./run crash` tries each, and prints the table. A row: an agent with release N
in force is killed before step n of taking N+1 up; then it is started with an empty bundle directory, and must be what N
or N+1 says; then with the directory, and must be what N+1 says.
Once more with a reboot in between: nothing in /run or the kernel survives.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from netns import crashing
from netns.lab import DEVICE, PLACES, PYTHON, WEB4, WEB_RULES, Agent, Lab, ping, until
from netns.test_trial import client_file, with_carol

HOW = os.environ.get("TIDEGATE_CRASH", "")
ALL = HOW in ("all", "restart", "reboot")
# Those of this network alone; one that ends late would take its successor's socket with it.
END_PROCESSES = """
import os, pathlib, signal, time
here = os.readlink("/proc/self/ns/net")
def found():
    for one in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            said = (one / "cmdline").read_bytes()
            is_one = b"wireguard-go" in said.split(b"\\0")[0] or b"tidegate_agents.datapath" in said
            is_one = is_one and one.name != str(os.getpid())
            if is_one and os.readlink(one / "ns/net") == here: yield int(one.name)
        except OSError: pass
while pids := list(found()):
    for pid in pids: os.kill(pid, signal.SIGKILL)
    time.sleep(0.05)
"""
pytestmark = [pytest.mark.netns, pytest.mark.timeout(0)]


@dataclass
class Victim:
    """An agent, the two releases it is moved between, and what it looks like on each."""

    lab: Lab
    agent: Agent
    files: tuple[dict[str, bytes], dict[str, bytes]]
    look: Callable[[], Any]
    serial: int = 1

    def publish(self, serial: int) -> None:
        self.lab.signer.publish(
            self.agent.bundles, self.agent.kind, self.agent.name, self.files[serial % 2], serial
        )

    def confirmed(self, serial: int) -> bool:
        status = self.agent.status()
        return bool(
            status
            and (status["release"] or {}).get("serial") == serial
            and status["trial"] is None
            and status["trouble"] is None
        )

    def start(self, at: int | None, bundles: Path) -> Path:
        """Start the agent: as it is, or to be killed before step `at`; returns where its steps are noted."""
        log = self.lab.directory / f"steps-{self.serial}-{at}"
        log.touch()
        environment = dict(os.environ)
        command = [PYTHON, "-m", "tidegate_schema"]
        if at is not None:
            command = [PYTHON, crashing.__file__]
            environment |= {
                "TIDEGATE_CRASH_AT": str(at),
                "TIDEGATE_CRASH_SERIAL": str(self.serial + 1),
                "TIDEGATE_CRASH_LOG": str(log),
            }
        words = (self.agent.kind, "run", "--bundles", str(bundles), *PLACES)
        self.agent.process = self.agent.host.start(*command, *words, env=environment)
        until(f"the agent is up\n{self.agent.host.log.read_text()[-2000:]}", self.agent.status, 30)
        return log

    def reboot(self) -> None:
        """Take away all that a reboot does: processes, /run/tidegate, and what is in the kernel."""
        host = self.agent.host
        host.sh(PYTHON, "-c", END_PROCESSES)
        host.ok("ip", "link", "del", DEVICE)
        host.sh("rm", "-rf", "/run/wireguard")
        host.ok("nft", "flush", "ruleset")
        host.ok("ip", "rule", "del", "priority", "7400")
        host.ok("ip", "-6", "rule", "del", "priority", "7400")
        host.ok("ip", "route", "flush", "table", "29696")
        host.ok("ip", "-6", "route", "flush", "table", "29696")
        for name in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            host.sysctl(name, "0")
        host.sh("rm", "-rf", "/run/tidegate")


def _memory(agent: Agent) -> int:
    serial: int = json.loads(agent.host.sh("cat", f"/run/state/{agent.kind}.json"))["serial"]
    return serial


def steps(victim: Victim) -> list[str]:
    """Move the victim on once without a crash, and return the steps that took."""
    victim.agent.stop()
    log = victim.start(0, victim.lab.bundles)
    victim.publish(victim.serial + 1)
    until("it is confirmed", lambda: victim.confirmed(victim.serial + 1), 60)
    victim.serial += 1
    return log.read_text().splitlines()


def crash(victim: Victim, at: int, *, reboot: bool, wanted: dict[int, Any]) -> tuple[str, str, str]:
    """Do one row; returns the step, and which release was in force without and with the bundle directory."""
    old, new = victim.serial, victim.serial + 1
    victim.agent.stop()
    log = victim.start(at, victim.lab.bundles)
    process = victim.agent.process
    assert process is not None
    until("the old one is in force", lambda: victim.confirmed(old), 30)
    victim.publish(new)
    try:
        assert process.wait(60) == -signal.SIGKILL
    except subprocess.TimeoutExpired:
        pytest.fail(f"no step {at}: {log.read_text()}")
    step = log.read_text().splitlines()[-1]
    if reboot:
        victim.reboot()
    empty = victim.lab.directory / "empty"
    victim.start(None, empty)
    settled = until(
        f"after step {at}, {step}: it has settled",
        lambda: next((serial for serial in (old, new) if victim.confirmed(serial)), None),
        60,
    )
    assert victim.look() == wanted[settled % 2], (at, step, settled)
    # What is in force says which serial was at least remembered.
    assert _memory(victim.agent) in (old, new)
    assert _memory(victim.agent) >= settled
    victim.agent.stop()
    victim.start(None, victim.lab.bundles)
    until(f"after step {at}, {step}: the new one is in force", lambda: victim.confirmed(new), 60)
    assert victim.look() == wanted[new % 2], (at, step)
    assert _memory(victim.agent) == new
    victim.serial = new
    return step, "old" if settled == old else "new", "new"


def client(lab: Lab) -> Victim:
    agent = lab.alice
    endpoint = "203.0.113.10:51820"
    one = client_file(lab, endpoint, "10.20.0.0/16, fd20::/48")
    other = client_file(lab, endpoint, "10.20.0.0/16, 10.30.0.0/16").replace(b", fd64::11/128", b"")

    def look() -> Any:
        host = agent.host
        until("alice gets through", lambda: lab.shaken(agent) and ping(host), 30)
        lines = host.sh("ip", "-json", "address", "show", "dev", DEVICE)
        addresses = [info["local"] for info in json.loads(lines)[0]["addr_info"] if info["scope"] == "global"]
        routes = [
            route["dst"]
            for family in ("-4", "-6")
            for route in json.loads(
                host.sh("ip", family, "-json", "route", "show", "dev", DEVICE, "proto", "boot") or "[]"
            )
        ]
        return (
            sorted(host.sh("wg", "show", DEVICE, "allowed-ips").split()),
            host.sh("wg", "show", DEVICE, "endpoints").split(),
            sorted(addresses),
            sorted(routes),
            host.sh("cat", f"/run/tidegate/client/{DEVICE}.conf"),
        )

    return Victim(lab, agent, ({"wg0.conf": one}, {"wg0.conf": other}), look)


def gateway(lab: Lab) -> Victim:
    agent = lab.gateway
    one = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(alice=WEB_RULES, bob=[])}
    fewer = lab.peers_file((lab.alice, ["10.64.0.11/32"]), (lab.bob, ["10.64.0.12/32", "fd64::12/128"]))
    other = {"peers.json": with_carol(fewer), "policy.json": lab.policy_file(alice=[], bob=WEB_RULES)}

    def look() -> Any:
        host = agent.host
        number = (agent.status() or {})["generation"]
        tables = json.loads(host.sh("cat", f"/run/tidegate/gateway/generations/{number}.json"))
        allowed = lab.alice if "alice" in _who(lab, tables) else lab.bob
        refused = lab.bob if allowed is lab.alice else lab.alice
        lab.forget_session(allowed)
        until(f"{allowed.name} gets through", lambda: ping(allowed.host), 30)
        assert not ping(refused.host, WEB4)
        return (
            sorted(
                sorted(line.split()) for line in host.sh("wg", "show", DEVICE, "allowed-ips").splitlines()
            ),
            sorted(host.sh("ip", "route", "show", "proto", "116").splitlines()),
            sorted(host.sh("ip", "-6", "route", "show", "proto", "116").splitlines()),
            tables["clients"],
            tables["policy"],
            host.sh("nft", "--stateless", "--terse", "list", "table", "inet", "tidegate"),
            allowed.name,
        )

    return Victim(lab, agent, (one, other), look)


def _who(lab: Lab, tables: dict[str, Any]) -> set[str]:
    """Return who has any right."""
    policy = tables["policy"]
    return {
        name for name in ("alice", "bob") if policy["sets"][policy["clients"][getattr(lab, name).client_id]]
    }


@pytest.mark.parametrize(
    "make", [client, pytest.param(gateway, marks=pytest.mark.whole)], ids=["client", "gateway"]
)
@pytest.mark.never
def test_killed_at_a_step_of_apply_the_end_state_is_old_or_new(
    lab: Lab, make: Callable[[Lab], Victim]
) -> None:
    lab.publish()
    (lab.directory / "empty").mkdir()
    lab.start()
    victim = make(lab)
    victim.serial = 1
    victim.publish(2)
    until("it is confirmed", lambda: victim.confirmed(2), 30)
    victim.serial = 2
    wanted = {0: victim.look()}
    ways = {1: steps(victim)}  # by what serial % 2 the new one has
    wanted[1] = victim.look()
    ways[0] = steps(victim)
    assert victim.look() == wanted[0]
    assert wanted[0] != wanted[1]
    most = max(map(len, ways.values()))
    chosen = range(1, most + 1) if ALL else (1, most // 2)
    rows = []
    for reboot in (False, True):
        if ("restart" if reboot else "reboot") == HOW:
            continue
        for at in chosen if ALL or not reboot else [most // 3]:
            if at > len(ways[(victim.serial + 1) % 2]):  # one way has more steps than the other
                continue
            way = "A to B" if victim.serial % 2 == 0 else "B to A"
            row = crash(victim, at, reboot=reboot, wanted=wanted)
            rows.append((way, at, "reboot" if reboot else "restart", *row))
            print(*rows[-1], flush=True)
    assert {row[-2] for row in rows} == {
        "old",
        "new",
    }  # it was cut off before and behind the point of no return
    if "TIDEGATE_CRASH_TABLE" in os.environ:
        lines = [
            "| way | before step | then | step | without the directory | with it |",
            "|---|---|---|---|---|---|",
        ]
        lines += [f"| {' | '.join(map(str, row))} |" for row in rows]
        (Path(os.environ["TIDEGATE_CRASH_TABLE"]) / f"{victim.agent.kind}.md").write_text(
            "\n".join(lines) + "\n"
        )
