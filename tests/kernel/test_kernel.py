"""The agents on the kernel's WireGuard: one lab with a hundred peers, which these tests take from state to state."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from netns.lab import (
    DEVICE,
    GATEWAY4,
    GATEWAY6,
    PYTHON,
    WEB4,
    WEB6,
    WEB_RULES,
    Agent,
    Host,
    Lab,
    Pings,
    ping,
    prepare_sandbox,
    serve_web,
    until,
)
from netns.test_flows import CLIENT, SERVER, UDP_RULES, remembered
from tidegate_agents import host as agent_host
from tidegate_agents.client import keyfiles
from tidegate_agents.datapath import counters
from tidegate_agents.host import Places

SINK_PORT = 8082
RULES: list[dict[str, Any]] = [*WEB_RULES, *UDP_RULES, {"to": [f"{WEB4}/32"], "ports": [f"tcp/{SINK_PORT}"]}]
ALICE, BOB = ["10.64.0.11/32", "fd64::11/128"], ["10.64.0.12/32", "fd64::12/128"]
SINK = """
import hashlib, socket, sys
server = socket.create_server(("", int(sys.argv[1]))); print("up", flush=True)
connection, digest = server.accept()[0], hashlib.sha256()
while data := connection.recv(1 << 20): digest.update(data)
print(digest.hexdigest(), flush=True)
"""
PUSH = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2]))).sendall(open(sys.argv[3], "rb").read())
"""


class QuickAgent(Agent):
    """An agent that this process speaks with by files: emulated, a command takes up to ten seconds."""

    def init(self, trusted: Path, fleet: str = "example") -> None:
        """Make its key and identity."""
        aside = self.host.directory / f"init-{self.host.name}"
        places = agent_host.Places(self.kind, aside / "etc", aside / "state", aside / "run")
        self.public_key = agent_host.init(places, fleet, self.name, [trusted.read_bytes()])
        self.host.sh("cp", "-a", f"{aside}/.", "/run")

    def file(self, name: str) -> Path:
        """Return where this process finds a file of the agent's /run."""
        return Path(f"/proc/{self.host.holder.pid}/root/run") / name

    def status(self) -> dict[str, Any] | None:
        """What its status says, None while no agent runs."""
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(self.file(f"tidegate/{self.kind}/status.json").read_bytes())
            if self.process is not None and found["pid"] == self.process.pid:
                return found
        return None

    def set(self, *assignments: str) -> None:
        """Put these settings, and no others, where a running agent finds them."""
        aside = self.file("etc/.aside")
        aside.write_text("".join(f"{words.replace('=', ': ')}\n" for words in assignments) or "{}\n")
        aside.replace(self.file("etc/gateway.yaml"))


class KernelLab(Lab):
    """The lab with a hundred peers, of which only alice and bob exist."""

    AGENT = QuickAgent
    gateway: QuickAgent

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.serial = 0
        self.strangers = [base64.b64encode(os.urandom(32)).decode() for _ in range(98)]

    def hundred(self, *gone: Agent, moved: int | None = None) -> bytes:
        """Return the peers; the stranger of that number has another address."""
        every = [
            (agent, prefixes)
            for agent, prefixes in ((self.alice, ALICE), (self.bob, BOB))
            if agent not in gone
        ]
        for number, key in enumerate(self.strangers):
            stranger = Agent(self.bob.host, "client", f"stranger-{number}", self.bundles, key)
            every.append((stranger, [f"10.64.{2 if number == moved else 1}.{number}/32"]))
        return self.peers_file(*every)

    def follow(self, policy: bytes, peers: bytes) -> None:
        """Publish the next release for the gateway and wait until it is in force."""
        self.serial += 1
        self.republish(self.serial, policy=policy, peers=peers)

    def run_all(self) -> None:
        """Start every agent and wait until both clients have shaken hands with the gateway."""
        self.serial += 1
        self.publish(self.serial, policy=self.policy_file(alice=RULES, bob=[]), peers=self.hundred())
        with ThreadPoolExecutor() as pool:
            list(pool.map(Agent.start, self.agents))
        for agent in self.agents:
            until(f"{agent.name} has applied its release", lambda agent=agent: agent.applied(self.serial))
        for agent in (self.alice, self.bob):
            until(f"{agent.name} and the gateway have shaken hands", lambda agent=agent: self.shaken(agent))

    def shake_anew(self, *agents: Agent) -> None:
        """Have clients shake hands now, so that for two minutes none will by itself (WireGuard, 6.1)."""
        for agent in agents:
            self.forget_session(agent)
            until(f"{agent.name} and the gateway have shaken hands", lambda agent=agent: self.shaken(agent))

    def gateway_status(self) -> dict[str, Any]:
        """Return the gateway's status."""
        return until("the gateway says how it is", self.gateway.status)  # type: ignore[no-any-return]

    def crossed(self) -> counters.Snapshot:
        """Return what has crossed the TUN."""
        return counters.read(self.gateway.file("tidegate/gateway/counters"))


class Stream:
    """A UDP stream in both directions; each packet carries the moment it was sent, in ns of the one clock there is."""

    def __init__(self, lab: KernelLab, address: str) -> None:
        self._ends = {"server": (lab.service, (SERVER,)), "client": (lab.alice.host, (CLIENT, address))}
        self._files = {end: lab.directory / f"stream-{end}" for end in self._ends}
        self._processes = [self._start(end) for end in self._ends]
        until("the stream runs both ways", lambda: all(self.arrived(end) for end in self._ends))

    def _start(self, end: str) -> subprocess.Popen[bytes]:
        host, (script, *words) = self._ends[end]
        script = script.replace(
            "0.01", "0.1"
        )  # as often as in the other tests would leave no time for anything else
        with self._files[end].open("wb") as out:
            process = host.start(PYTHON, "-c", script, *words, stdout=out)
        if end == "server":
            until("the server listens", lambda: ":8083" in host.sh("ss", "-lun"))
        return process

    def arrived(self, end: str, since: int = 0) -> list[int]:
        """Return the moments of sending after `since` of what has arrived at an end."""
        return [moment for moment in map(int, self._files[end].read_text().split()) if moment > since]

    def end(self) -> None:
        """Stop both ends."""
        for process in self._processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def stream(lab: KernelLab, address: str = WEB4) -> Iterator[Stream]:
    """Run a stream from alice to the service."""
    made = Stream(lab, address)
    try:
        yield made
    finally:
        made.end()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KernelLab]:
    prepare_sandbox()
    made = KernelLab(tmp_path_factory.mktemp("lab"))
    try:
        serve_web(made.service)
        made.run_all()
        yield made
    finally:
        made.close()


def answer(host: Host, address: str = WEB4, seconds: int = 10) -> str | None:
    """Return what the web server answers, asked by the shell: emulated, Python takes seconds to be able to."""
    script = f"exec 3<>/dev/tcp/{address}/8080 && printf 'GET / HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3"
    done = subprocess.run(
        [*host.prefix, "timeout", str(seconds), "bash", "-c", script], capture_output=True, text=True
    )
    return done.stdout.splitlines()[-1] if done.returncode == 0 else None


def handshakes(agent: Agent) -> dict[str, int]:
    """Return the time of each peer's last handshake, of those that had one."""
    lines = agent.host.sh("wg", "show", DEVICE, "latest-handshakes").splitlines()
    found = {key: int(moment) for key, moment in map(str.split, lines)}
    return {key: moment for key, moment in found.items() if moment}


def device(agent: Agent) -> tuple[str, str]:
    """Return what tells a device from one made anew, and its key, port and mark."""
    number = agent.host.sh("ip", "-o", "link", "show", DEVICE).partition(":")[0]
    return number, agent.host.sh("wg", "show", DEVICE, "dump").splitlines()[0]


def test_every_agent_runs_on_the_kernel_s_own_wireguard(lab: KernelLab) -> None:
    for agent in lab.agents:
        assert " wireguard " in agent.host.sh("ip", "-d", "link", "show", DEVICE)
    status = lab.gateway_status()
    assert status["wireguard_go"] is None
    assert status["peers"] == 100
    assert len(lab.gateway.host.sh("wg", "show", DEVICE, "peers").split()) == 100


def test_clients_shake_hands_and_get_what_the_policy_allows_and_nothing_else(lab: KernelLab) -> None:
    assert handshakes(lab.gateway).keys() == {lab.alice.public_key, lab.bob.public_key}
    for address, source in ((WEB4, "::ffff:10.64.0.11"), (WEB6, "fd64::11")):
        assert ping(lab.alice.host, address, 5)
        assert answer(lab.alice.host, address) == source
        assert not ping(lab.bob.host, address)
        assert answer(lab.bob.host, address, 2) is None
    assert not ping(lab.alice.host, GATEWAY4)


@pytest.mark.whole
@pytest.mark.parametrize("address", [WEB4, WEB6])
def test_the_kernel_remembers_a_flow_once_it_was_judged(lab: KernelLab, address: str) -> None:
    with stream(lab, address) as udp:
        assert "8083" in remembered(lab)
        before, since = lab.crossed().packets["allowed"], time.monotonic_ns()
        until(
            "much has arrived", lambda: all(len(udp.arrived(end, since)) > 20 for end in ("server", "client"))
        )
        assert lab.crossed().packets["allowed"] - before <= 12


# The tests below go on from the release that this one makes.
def test_a_release_changes_one_peer_of_a_hundred_and_the_policy_and_disturbs_nobody(lab: KernelLab) -> None:
    lab.shake_anew(lab.alice, lab.bob)
    before = handshakes(lab.gateway), [device(agent) for agent in lab.agents]
    pings = [Pings(lab.alice.host, address, 0.2) for address in (WEB4, WEB6)]
    until("pings are answered", lambda: all(each.answered() for each in pings))
    lab.follow(lab.policy_file(alice=RULES, bob=WEB_RULES[:1]), lab.hundred(moved=7))
    for each in pings:
        sent, answered = each.end()
        assert sent == answered > 10
    assert (handshakes(lab.gateway), [device(agent) for agent in lab.agents]) == before
    peers = lab.gateway.host.sh("wg", "show", DEVICE, "allowed-ips")
    assert f"{lab.strangers[7]}\t10.64.2.7/32" in peers
    assert peers.count("10.64.2.") == 1
    assert ping(lab.bob.host, seconds=5)


@pytest.mark.whole
def test_masquerade_hides_clients_as_soon_as_it_is_set(lab: KernelLab) -> None:
    lab.gateway.set("masquerade=[inside]")
    until("the rules hide clients", lambda: "masquerade" in lab.gateway.host.sh("nft", "list", "ruleset"))
    assert answer(lab.alice.host) == f"::ffff:{GATEWAY4}"
    assert answer(lab.alice.host, WEB6) == GATEWAY6


@pytest.mark.whole
def test_observe_forwards_all_live_and_a_stream_through_the_tun_arrives_whole(lab: KernelLab) -> None:
    sessions = handshakes(lab.gateway)
    lab.gateway.set("authz_mode=observe", "flow_cache=false")
    until("it observes", lambda: lab.gateway_status()["authz_mode"] == "observe")
    assert ping(lab.bob.host, WEB6, 5)  # which no rule allows
    data = lab.directory / "data"
    data.write_bytes(os.urandom(2 << 20))
    before = lab.crossed()
    sink = lab.service.start(PYTHON, "-c", SINK, str(SINK_PORT), stdout=subprocess.PIPE)
    assert sink.stdout is not None
    with sink.stdout:
        assert sink.stdout.readline() == b"up\n"
        lab.alice.host.sh(PYTHON, "-c", PUSH, WEB4, str(SINK_PORT), str(data))
        assert sink.stdout.readline().decode().strip() == hashlib.sha256(data.read_bytes()).hexdigest()
    after = lab.crossed()
    assert sum(after.bytes.values()) - sum(before.bytes.values()) > 2 << 20
    assert (after.refused_super_packets, after.write_errors) == (0, 0)
    assert lab.gateway_status()["offloads"] != "none"
    lab.gateway.set()
    until("it enforces", lambda: lab.gateway_status()["authz_mode"] == "enforce")
    assert not ping(lab.bob.host, WEB6)
    assert answer(lab.alice.host) == "::ffff:10.64.0.11"
    assert handshakes(lab.gateway).keys() == sessions.keys()


def test_of_what_is_sent_after_a_revocation_nothing_arrives_either_way(lab: KernelLab) -> None:
    before = device(lab.gateway)
    assert ping(lab.bob.host, seconds=5)
    with stream(lab) as udp:
        assert "8083" in remembered(lab)
        lab.follow(lab.policy_file(alice=WEB_RULES), lab.hundred(lab.bob))
        in_force = time.monotonic_ns()
        time.sleep(3)
        assert udp.arrived("server", in_force) + udp.arrived("client", in_force) == []
        assert udp.arrived("server", in_force - 30 * 10**9)
    assert "8083" not in remembered(lab)
    assert ping(lab.alice.host, seconds=5)
    assert not ping(lab.bob.host)
    assert not ping(lab.bob.host, WEB6)
    assert lab.bob.public_key not in lab.gateway.host.sh("wg", "show", DEVICE, "peers")
    assert device(lab.gateway) == before


@pytest.mark.whole
def test_a_device_that_another_tool_deletes_comes_back_with_its_peers(lab: KernelLab) -> None:
    def peers() -> list[str]:
        return sorted(lab.gateway.host.sh("wg", "show", DEVICE, "peers", check=False).split())

    before = peers()
    lab.gateway.host.sh("ip", "link", "del", DEVICE)
    until("it is back", lambda: peers() == before)
    lab.forget_session(lab.alice)
    until("alice gets through", lambda: ping(lab.alice.host))
    assert lab.gateway_status()["restarts"]["wireguard"] == 1


@pytest.mark.whole
def test_a_client_changes_its_key_when_the_gateway_knows_the_next_one(lab: KernelLab) -> None:
    etc = Places("client", lab.alice.file("etc"))
    new = keyfiles.make_next(etc)
    until("it is tried", lambda: lab.alice.host.ok("ip", "link", "show", "tidegate-next"), 60)
    number = device(lab.alice)[0]
    lab.alice.public_key = new
    lab.follow(lab.policy_file(alice=WEB_RULES), lab.hundred(lab.bob))
    until("it is in use", lambda: new in lab.alice.host.sh("wg", "show", DEVICE, "public-key"), 60)
    assert ping(lab.alice.host, seconds=10)
    assert device(lab.alice)[0] == number
    assert keyfiles.public_keys(etc)["current"] == new


@pytest.mark.whole
def test_with_everything_killed_enforce_is_closed_and_a_new_start_keeps_device_and_sessions(
    lab: KernelLab,
) -> None:
    lab.shake_anew(lab.alice)
    before, shaken = device(lab.gateway), handshakes(lab.gateway)
    status = lab.gateway_status()
    for name in ("pid", "forwarder"):
        os.kill(status[name], signal.SIGKILL)
    assert lab.gateway.process is not None
    lab.gateway.process.wait()
    assert not ping(lab.alice.host)
    assert answer(lab.alice.host, WEB6, 2) is None
    lab.gateway.start()
    until("the release is in force again", lambda: lab.gateway.applied(lab.serial))
    assert ping(lab.alice.host, seconds=5)
    assert (device(lab.gateway), handshakes(lab.gateway)) == (before, shaken)


@pytest.mark.whole
def test_a_clock_that_jumps_past_a_rule_s_end_and_back_revives_nothing(lab: KernelLab) -> None:
    start, began = time.time(), time.monotonic()
    ending = [rule | {"expires": int(start) + 3600} for rule in WEB_RULES]
    lab.follow(lab.policy_file(alice=ending), lab.hundred(lab.bob))
    assert ping(lab.alice.host, seconds=5)
    time.clock_settime(time.CLOCK_REALTIME, start + 7200)
    until("alice's time is over", lambda: not ping(lab.alice.host))
    time.clock_settime(time.CLOCK_REALTIME, start + time.monotonic() - began)
    for address in (WEB4, WEB6):
        assert not ping(lab.alice.host, address)
    assert lab.gateway_status()["trouble"] is None


def test_a_stop_leaves_nothing_behind(lab: KernelLab) -> None:
    assert lab.gateway.process is not None
    lab.gateway.process.send_signal(signal.SIGTERM)
    assert lab.gateway.process.wait(60) == 0
    for name in (DEVICE, "tidegate-tun", "tidegate-denied"):
        assert not lab.gateway.host.ok("ip", "link", "show", name)
    assert "tidegate" not in lab.gateway.host.sh("nft", "list", "ruleset")
    assert "7400" not in lab.gateway.host.sh("ip", "rule")
