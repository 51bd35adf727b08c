"""The documents' commands for hosts, run as they stand, in their order, on real WireGuard.

The hosts are the lab's, under the names of the README: fra1 is gw1, alice is laptop1. What is put in place of the
reader's world: each host has an /etc, a /var/lib and a home of its own; `tidegate` is this interpreter's; `ssh` runs
the command on the gateway. Commands of an agent stay in the foreground, so they get a terminal of their own.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from docskit import HOSTS, Fence, fences, shell_fences
from netns.lab import DEVICE, PLACES, WEB4, WEB6, Host, Lab, LogEndpoint, ping, until

pytestmark = pytest.mark.netns

_SECONDS = 60
_END = "--- that was it:"


class Machine:
    """One of the reader's machines: a shell that stays, and an agent in another terminal."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host = host
        self.home = directory / f"home-{host.name}"
        self.home.mkdir()
        self.programs = directory / f"bin-{host.name}"
        self.programs.mkdir()
        self.program("tidegate", f'exec {shlex.quote(sys.executable)} -m tidegate_schema "$@"')
        self._own("/etc", "cp -a /etc/. $new 2>/dev/null || true; rm -rf $new/tidegate $new/wireguard")
        self._own("/var/lib", "true")
        self.shell = self._shell(
            "exec bash --noprofile --norc", stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self.agents: dict[str, subprocess.Popen[bytes]] = {}

    def program(self, name: str, script: str) -> None:
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def _own(self, place: str, fill: str) -> None:
        new = f"/run/own{place}"
        self.host.sh("sh", "-c", f"new={new}; mkdir -p $new && {{ {fill}; }} && mount --bind $new {place}")

    def _shell(self, script: str, **options: Any) -> subprocess.Popen[bytes]:
        names = " ".join(
            f"GIT_{who}_{what}=reader@example.net"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        )
        environment = f'export {names}; export HOME="{self.home}" PATH="{self.programs}:$PATH"; cd; {script}'
        return self.host.start("sh", "-c", environment, **options)

    def run(self, command: str, status: int = 0) -> str:
        """Run a command of a page in this machine's shell and return what it printed."""
        agent = self._agent(command)
        if agent:
            self._start(agent, command)
            return ""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{{ {command}\n}} 2>&1; said=$?; echo; echo '{_END}' $said\n".encode())
        self.shell.stdin.flush()
        lines: list[str] = []
        while not (lines and lines[-1].startswith(_END)):
            line = self.shell.stdout.readline().decode()
            assert line, f"the shell ended at: {command}\n{''.join(lines)}"
            lines.append(line)
        output = "".join(lines[:-1])
        assert lines[-1].split()[-1] == str(status), f"{self.host.name}: {command}\n{output}{lines[-1]}"
        return output

    @staticmethod
    def _agent(command: str) -> str | None:
        words = command.split()
        stays = words[0] == "tidegate" and words[2:3] == ["run"] and "--dry-run" not in words
        return words[1] if stays else None

    def _start(self, kind: str, command: str) -> None:
        """Run an agent in a terminal of its own, in the directory of the first, until it has applied a release."""
        directory = self.run("pwd").strip()
        self.agents[kind] = self._shell(f"cd {directory} && exec {command}")
        until(
            f"the {kind} agent has applied its release\n{self.host.log.read_text()}",
            lambda: self.status(kind).get("release"),
        )

    def status(self, kind: str) -> dict[str, Any]:
        file = f"/run/tidegate/{kind}/status.json"
        text = self.host.sh("cat", file, check=False)
        result: dict[str, Any] = json.loads(text) if text else {}
        return result

    def stop(self) -> None:
        """Press Ctrl-C in the agents' terminals."""
        for agent in self.agents.values():
            agent.send_signal(signal.SIGINT)
            assert agent.wait(20) == 0
        self.agents.clear()

    def close(self) -> None:
        """End the shell."""
        self.shell.communicate()


class Reader:
    """Somebody who follows a page to the letter."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.machines = {
            "laptop1": Machine(lab.alice.host, lab.directory),
            "gw1": Machine(lab.gateway.host, lab.directory),
        }
        gateway = self.machines["gw1"]
        enter = " ".join(
            [
                *gateway.host.prefix,
                "env",
                f'"HOME={gateway.home}"',
                f'"PATH={gateway.programs}:$PATH"',
                "sh",
                "-c",
            ]
        )
        self.machines["laptop1"].program(
            "ssh", f'[ "$1" = root@203.0.113.10 ] || exit 255\nshift\nexec {enter} "$*"'
        )
        # The network behind the gateway is on eth1, as on a machine with two network cards.
        host = lab.gateway.host
        host.sh("ip", "link", "set", "inside", "down")
        host.sh("ip", "link", "set", "inside", "name", "eth1")
        host.sh("ip", "link", "set", "eth1", "up")
        host.sh("ip", "address", "replace", "fd20::1/48", "dev", "eth1", "nodad")

    def follow(self, page: str) -> dict[str, str]:
        """Run every command of a page for hosts; returns what each printed, under the command."""
        said: dict[str, str] = {}
        for fence in shell_fences(page):
            if fence.on in HOSTS:
                self._block(fence, said)
        return said

    def _block(self, fence: Fence, said: dict[str, str]) -> None:
        machine = self.machines[fence.on]
        if fence.words.get("agent") == "stopped":
            machine.stop()
        for command in fence.commands:
            last = command == fence.commands[-1]
            try:
                said[command] = machine.run(command, int(fence.words.get("status", "0")) if last else 0)
            except AssertionError as error:
                raise AssertionError(f"{fence.where}: {error}") from None


@pytest.fixture
def reader(lab: Lab) -> Iterator[Reader]:
    made = Reader(lab)
    yield made
    for machine in made.machines.values():
        machine.close()


def test_the_first_gateway_of_the_readme(reader: Reader) -> None:
    said = reader.follow("README.md")
    assert "3 received" in said["ping -c 3 10.20.0.80"]
    client, gateway = said["tidegate client status"], said["tidegate gateway status"]
    assert "laptop1 (my-fleet): release 1" in client
    assert "s ago" in client
    assert "gw1 (my-fleet): release 1" in gateway
    for word in ("enforce", "packets observed", "packets allowed", "packets no-rule"):
        assert word in gateway
    for machine in reader.machines.values():
        machine.stop()
        assert not machine.host.ok("ip", "link", "show", DEVICE)


def test_the_gateway_page(reader: Reader) -> None:
    reader.follow("README.md")
    endpoint = LogEndpoint(reader.lab.service, reader.lab.directory)
    said = reader.follow("docs/gateway.md")
    assert json.loads(said["tidegate gateway status --json"])["authz_mode"] == "enforce"
    assert "tidegate-tun" in said["ip route show table 29696"]
    assert "unreachable default" in said["ip route show table 29696"]
    assert "7400:" in said["ip rule show priority 7400"]
    assert "10.64.0." in said["ip route show proto 116"]
    assert "ct mark" in said["nft list table inet tidegate"]
    until("events of the ping have arrived", endpoint.events)
    assert {event["observer.name"] for event in endpoint.events()} == {"gw1"}
    # What counts at once does, and what waits for the next start says so.
    machine = reader.machines["gw1"]
    assert "masquerade" in said["nft list table inet tidegate"]
    assert "next start" not in machine.run("tidegate gateway set masquerade=[]")
    until("masquerade is off", lambda: "masquerade" not in machine.run("nft list table inet tidegate"))
    assert "listen_port: from the next start of the agent" in machine.run(
        "tidegate gateway set listen_port=51821"
    )


def test_the_metrics_page(reader: Reader) -> None:
    reader.follow("README.md")
    said = reader.follow("docs/metrics.md")
    assert "127.0.0.1:9469" in said["tidegate gateway set metrics_listen=127.0.0.1:9469"]
    machine = reader.machines["gw1"]
    until("the socket is back", lambda: machine.host.ok("test", "-S", "/run/tidegate/gateway-metrics.sock"))


def test_the_page_about_hosts(reader: Reader) -> None:
    reader.follow("README.md")
    said = reader.follow("docs/hosts.md")
    assert " 0 problems" in said["tidegate doctor"]
    assert json.loads(said["tidegate doctor --json --bundles bundles"])["problems"] == 0


def test_the_loop_for_hosts_without_systemd(lab: Lab) -> None:
    """It starts a killed agent again, which takes over what runs, and ends with it when it is told to."""
    (loop,) = (fence.text for fence in fences("docs/hosts.md") if "loop" in fence.words)
    words = " ".join(["gateway", "run", "--bundles", str(lab.bundles), *PLACES])
    assert "gateway run --bundles /var/lib/tidegate/bundles" in loop
    script = lab.directory / "loop"
    script.write_text(loop.replace("gateway run --bundles /var/lib/tidegate/bundles", words))
    program = lab.directory / "tidegate"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tidegate_schema "$@"\n')
    program.chmod(0o755)
    lab.publish()
    host = lab.gateway.host
    process = host.start("env", f"PATH={lab.directory}:{os.environ['PATH']}", "sh", str(script))

    def running() -> dict[str, Any]:
        text = host.sh("cat", "/run/tidegate/gateway/status.json", check=False)
        found: dict[str, Any] = json.loads(text) if text else {}
        return found

    first = until("the agent runs", running, 60)
    os.kill(first["pid"], signal.SIGKILL)
    until("it runs again", lambda: running().get("pid") not in (None, first["pid"]), 60)
    second = running()
    assert second["release"]["serial"] == 1
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    assert not running()
    assert not host.ok("ip", "link", "show", DEVICE)


def test_the_client_page(reader: Reader) -> None:
    reader.follow("README.md")
    said = reader.follow("docs/client.md")
    dry = "tidegate client run --bundles bundles --dry-run"
    assert said[dry].strip() == "nothing to do: the interface is as wanted"
    assert json.loads(said[f"{dry} --json"])["actions"] == []
    assert "next\t" in said["tidegate client rotate --status"]
    assert "is destroyed" in said["tidegate client rotate --cancel"]
    laptop = reader.machines["laptop1"]
    assert "PrivateKey = " in laptop.run("cat laptop1.conf")
    assert "▀" in laptop.run("cat code.txt")
    assert "persistent keepalive: every 25 seconds" in said["wg show tidegate0"]
    assert "10.20.0.0/16" in said["ip route show dev tidegate0"]
    assert "3 received" in said["ping -c 3 10.20.0.80"]  # the last one: without the agent
    assert not ping(reader.lab.alice.host, WEB4)


def test_a_hanging_supervisor_without_forwarder_stops_traffic_in_both_modes(lab: Lab) -> None:
    """What docs/gateway.md says of it; observe fails open only while something is there to open it."""
    lab.publish()
    lab.start()
    for mode in ("enforce", "observe"):
        lab.gateway.set(f"authz_mode={mode}")
        status = lab.gateway.status()
        assert status is not None
        lab.gateway.host.sh("kill", "-STOP", str(status["pid"]))
        lab.gateway.host.sh("kill", "-KILL", str(status["forwarder"]))
        assert not ping(lab.alice.host)
        lab.gateway.host.sh("kill", "-CONT", str(status["pid"]))
        until("traffic goes on", lambda: ping(lab.alice.host))


def test_with_everything_killed_observe_goes_on(lab: Lab) -> None:
    lab.publish()
    lab.start("authz_mode=observe")
    lab.gateway.kill_everything()
    until("alice still gets through", lambda: ping(lab.alice.host))
    until("bob still gets through", lambda: ping(lab.bob.host, WEB6))


def test_a_wrong_command_in_a_page_would_be_noticed(reader: Reader) -> None:
    """The control of the tests above."""
    machine = reader.machines["laptop1"]
    start = time.monotonic()
    for command in ("tidegate nonsense", "false", "ssh root@198.51.100.1 true"):
        with pytest.raises(AssertionError):
            machine.run(command)
    assert machine.run("echo still here").strip() == "still here"
    assert time.monotonic() - start < _SECONDS
