"""Hosts made of namespaces, joined by links, each running the real `tidegate` on real WireGuard.

              203.0.113.0/24  "internet" (a bridge)
      ┌───────────────┬────────────────────┐
    alice           bob                  fra1 ── 10.20.0.0/16, fd20::/48 ── service
    .101            .102                 .10      .0.1, ::1                 .0.80, ::80

Runs inside a sandbox (tests/sandbox.py): when the process that made it ends, everything here is gone. Each host
has a network, a mount table and a /run of its own, so the agents use their default interface names.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from securesystemslib.signer import Signer as OneSigner

from tidegate_schema import jsonfile, keyset, release
from tidegate_schema.keys import client_id, parse_public_key
from tidegate_schema.keyset import Link

PYTHON = sys.executable
TIDEGATE = [PYTHON, "-m", "tidegate_schema"]
PLACES = ("--etc", "/run/etc", "--state-dir", "/run/state")
WEB4, WEB6 = "10.20.0.80", "fd20::80"
GATEWAY4, GATEWAY6 = "10.20.0.1", "fd20::1"
REPOSITORY = Path(__file__).resolve().parents[2]
DEVICE = "tidegate0"
# How many times as long as usual everything may take.
PATIENCE = float(os.environ.get("TIDEGATE_TEST_PATIENCE", "1"))


def sh(*command: str, text: str | None = None, check: bool = True, timeout: float = 30) -> str:
    """Run a command here and return its output; AssertionError with all it said when it fails."""
    done = subprocess.run(
        command,
        input=text,
        stdin=None if text else subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout * PATIENCE,
    )
    assert not check or done.returncode == 0, (
        f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}"
    )
    return done.stdout


def until(what: str, true: Callable[[], Any], seconds: float = 15, every: float = 0.05) -> Any:
    """Poll until `true()` is truthy and return that; AssertionError naming `what` after the deadline."""
    seconds, every = seconds * PATIENCE, every * PATIENCE
    deadline = time.monotonic() + seconds
    while True:
        result = true()
        if result:
            return result
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(every)


@dataclass
class Host:
    """One machine: what is run through it sees its network, its /run and nothing of the others'."""

    name: str
    directory: Path
    holder: subprocess.Popen[bytes] = field(init=False)
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        script = "mount -t tmpfs tmpfs /run && ip link set lo up && echo up && exec sleep infinity"
        self.holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "sh", "-c", script],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert self.holder.stdout is not None
        assert self.holder.stdout.readline() == b"up\n"
        self.prefix = ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "--"]

    def sh(self, *command: str, text: str | None = None, check: bool = True, timeout: float = 30) -> str:
        """Run a command on this host."""
        return sh(*self.prefix, *command, text=text, check=check, timeout=timeout)

    def ok(self, *command: str, timeout: float = 30) -> bool:
        """Tell whether a command on this host succeeds."""
        return (
            subprocess.run(
                [*self.prefix, *command], capture_output=True, timeout=timeout * PATIENCE, check=False
            ).returncode
            == 0
        )

    def start(self, *command: str, **options: Any) -> subprocess.Popen[bytes]:
        """Start a command on this host; its stderr goes to <directory>/<host>.log."""
        with self.log.open("ab") as log:
            options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log} | options
            process = subprocess.Popen([*self.prefix, *command], **options)
        self.running.append(process)
        return process

    @property
    def log(self) -> Path:
        """What the processes started here have said."""
        return self.directory / f"{self.name}.log"

    def sysctl(self, name: str, value: str) -> None:
        """Set a sysctl of this host's network."""
        self.sh("sh", "-c", f"echo {value} > /proc/sys/net/{name}")


@dataclass
class Agent:
    """A host that runs `tidegate <kind> run`."""

    host: Host
    kind: str
    name: str
    bundles: Path
    public_key: str = ""
    process: subprocess.Popen[bytes] | None = None

    def init(self, trusted: Path, fleet: str = "example") -> None:
        """Make its key and identity."""
        arguments = ("--name", self.name, "--fleet", fleet, "--trust", str(trusted), "--json", *PLACES)
        self.public_key = json.loads(self.tidegate("init", *arguments))["public_key"]

    @property
    def client_id(self) -> str:
        """The client ID of its key."""
        return client_id(parse_public_key(self.public_key))

    def tidegate(self, verb: str, *arguments: str, check: bool = True) -> str:
        """Run one of its commands."""
        return self.host.sh(*TIDEGATE, self.kind, verb, *arguments, check=check)

    def start(self, seconds: float = 15) -> None:
        """Start the agent and wait until it speaks of itself."""
        self.process = self.host.start(*TIDEGATE, self.kind, "run", "--bundles", str(self.bundles), *PLACES)
        until(f"{self.name}'s agent is up\n{self.host.log.read_text()}", self.status, seconds)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Stop the agent and return its exit status."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(20)

    def kill_everything(self) -> None:
        """Kill a gateway's agent and its forwarder, which would go on without it."""
        forwarder = until("a forwarder runs", lambda: (self.status() or {}).get("forwarder"))
        self.stop(signal.SIGKILL)
        os.kill(forwarder, signal.SIGKILL)
        until("the TUN is gone", lambda: not self.host.ok("ip", "link", "show", "tidegate-tun"))

    def status(self) -> dict[str, Any] | None:
        """What its status says, None while no agent runs."""
        with contextlib.suppress(OSError, ValueError):
            found: dict[str, Any] = json.loads(
                self.host.sh("cat", f"/run/tidegate/{self.kind}/status.json", check=False)
            )
            if self.process is not None and found["pid"] == self.process.pid:
                return found
        return None

    def set(self, *assignments: str) -> None:
        """Change the gateway's local settings and wait until it has followed."""
        self.tidegate("set", *assignments, *PLACES)

    def applied(self, serial: int) -> bool:
        """Tell whether a release with this serial is in force."""
        status = self.status()
        return bool(
            status
            and status["release"]
            and status["release"]["serial"] >= serial
            and status.get("applied", True)
        )


class Signer:
    """A signing key and its directory; publishes raw files, well-formed or not, as the transport would carry them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        private, public = release.generate_key()
        self.private, self.public = directory / "tidegate.key", directory / "tidegate.pub"
        self.private.write_bytes(private)
        self.private.chmod(0o600)
        self.public.write_bytes(public)
        self.signer: OneSigner | Sequence[OneSigner] = release.load_signer(private)
        self.key_sets: Sequence[Link] = ()
        """The chain that is put beside each release."""

    def publish(
        self, bundles: Path, kind: str, host: str, files: dict[str, bytes], serial: int, /, **other: Any
    ) -> Path:
        """Write one signed release and point `current` at it; `other` replaces fields of the statement."""
        entries = {name: release.FileEntry.of(data) for name, data in files.items()}
        fields: dict[str, Any] = {
            "fleet": "example",
            "kind": kind,
            "host": host,
            "serial": serial,
            "not_after": int(time.time()) + 86400,
        }
        newest = self.key_sets[-1].key_set.version if self.key_sets else 0
        fields |= {"source": "test", "files": entries, "key_set": newest}
        statement = release.Release(**{**fields, **other})
        folder = bundles / kind / host / "releases" / release.files_digest(entries)
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
        if self.key_sets:
            (folder / "keys.json").write_bytes(keyset.write(self.key_sets))
        (folder / "release.json").write_bytes(release.sign(statement, self.signer))
        aside = bundles / kind / host / ".current"
        aside.unlink(missing_ok=True)
        aside.symlink_to(f"releases/{folder.name}")
        aside.replace(bundles / kind / host / "current")
        return folder


class Lab:
    """The topology above, with agents that have keys but run only when told to."""

    AGENT = Agent

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.hosts: dict[str, Host] = {}
        self.bundles = directory / "bundles"
        self.bundles.mkdir(parents=True, exist_ok=True)
        self.signer = Signer(directory / "keys")
        sh("ip", "link", "add", "internet", "type", "bridge")
        sh("ip", "link", "set", "internet", "up")
        self.alice = self._agent("client", "alice", "alice-laptop", "203.0.113.101")
        self.bob = self._agent("client", "bob", "bob-laptop", "203.0.113.102")
        self.gateway = self._agent("gateway", "fra1", "fra1", "203.0.113.10")
        self.service = self.host("service")
        self.join(self.gateway.host, self.service, "inside", "eth0")
        self.address(self.gateway.host, "inside", "10.20.0.1/16", "fd20::1/48")
        self.address(self.service, "eth0", "10.20.0.80/16", "fd20::80/48")
        self.service.sh("ip", "route", "add", "default", "via", GATEWAY4)
        self.service.sh("ip", "-6", "route", "add", "default", "via", GATEWAY6)
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda agent: agent.init(self.signer.public), self.agents))

    def second_gateway(self) -> Agent:
        """Make fra2, another gateway to the service, of which the others know nothing yet.

        It hides clients behind its own address, so that the service answers to it, and not to fra1.
        """
        agent = self._agent("gateway", "fra2", "fra2", "203.0.113.20")
        self.join(agent.host, self.service, "inside", "eth1")
        for host, link, number in ((agent.host, "inside", 1), (self.service, "eth1", 2)):
            self.address(host, link, f"10.21.0.{number}/30", f"fd21::{number}/126")
        agent.host.sh("ip", "route", "add", f"{WEB4}/32", "via", "10.21.0.2")
        agent.host.sh("ip", "-6", "route", "add", f"{WEB6}/128", "via", "fd21::2")
        agent.init(self.signer.public)
        agent.set("masquerade=[inside]")
        return agent

    @property
    def agents(self) -> tuple[Agent, ...]:
        """The hosts that run an agent."""
        return (self.alice, self.bob, self.gateway)

    def host(self, name: str) -> Host:
        """Make a host without any link."""
        self.hosts[name] = Host(name, self.directory)
        return self.hosts[name]

    def join(self, one: Host, other: Host, name: str, other_name: str) -> None:
        """Join two hosts by a link."""
        sh(
            *("ip", "link", "add", name, "netns", str(one.holder.pid), "type", "veth"),
            *("peer", "name", other_name, "netns", str(other.holder.pid)),
        )
        one.sh("ip", "link", "set", name, "up")
        other.sh("ip", "link", "set", other_name, "up")

    def address(self, host: Host, link: str, *addresses: str) -> None:
        """Give a host's link addresses, usable at once."""
        for address in addresses:
            host.sh("ip", "address", "add", address, "dev", link, *(["nodad"] if ":" in address else []))

    def uplink(self, host: Host, address: str) -> None:
        """Join a host to the internet, as its eth0."""
        port = f"to-{host.name}"
        sh("ip", "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(host.holder.pid))
        sh("ip", "link", "set", port, "master", "internet", "up")
        host.sh("ip", "link", "set", "eth0", "up")
        self.address(host, "eth0", f"{address}/24")

    def _agent(self, kind: str, host_name: str, name: str, address: str) -> Agent:
        host = self.host(host_name)
        self.uplink(host, address)
        return self.AGENT(host, kind, name, self.bundles)

    # Bundles made by hand -----------------------------------------------------------------------------------

    def client_file(self, addresses: str) -> bytes:
        """Return a client's bundle that leads to fra1."""
        return (
            f"[Interface]\nAddress = {addresses}\n\n[Peer]\nPublicKey = {self.gateway.public_key}\n"
            "Endpoint = 203.0.113.10:51820\nAllowedIPs = 10.20.0.0/16, fd20::/48\n"
        ).encode()

    def peers_file(self, *who: tuple[Agent, list[str]]) -> bytes:
        """Return the gateway's peers."""
        peers = [
            {"client_id": agent.client_id, "public_key": agent.public_key, "allowed_ips": addresses}
            for agent, addresses in who
        ]
        return jsonfile.canonical(
            {"format": 1, "peers": sorted(peers, key=lambda peer: str(peer["client_id"]))}
        )

    def policy_file(self, **rules: list[dict[str, Any]]) -> bytes:
        """Return a policy: for each agent by its attribute's name, its rules (`to`, `ports`, and more)."""
        every: list[dict[str, Any]] = []
        sets, clients = [], {}
        for name, wanted in rules.items():
            clients[getattr(self, name).client_id] = len(sets)
            sets.append([len(every) + n for n in range(len(wanted))])
            every += [{"policy": "p", "action": "allow"} | rule for rule in wanted]
        return jsonfile.canonical({"format": 1, "rules": every, "sets": sets, "clients": clients})

    def everyone(self) -> bytes:
        """Return the peers file with alice and bob at their usual addresses."""
        return self.peers_file(
            (self.alice, ["10.64.0.11/32", "fd64::11/128"]), (self.bob, ["10.64.0.12/32", "fd64::12/128"])
        )

    def publish(self, serial: int = 1, policy: bytes | None = None, peers: bytes | None = None) -> None:
        """Publish to all three agents; without `policy`, alice may reach the web and bob nothing."""
        policy = policy if policy is not None else self.policy_file(alice=WEB_RULES, bob=[])
        files = {"peers.json": peers or self.everyone()} | ({"policy.json": policy} if policy else {})
        self.signer.publish(self.bundles, "gateway", "fra1", files, serial)
        for agent, addresses in (
            (self.alice, "10.64.0.11/32, fd64::11/128"),
            (self.bob, "10.64.0.12/32, fd64::12/128"),
        ):
            self.signer.publish(
                self.bundles, "client", agent.name, {"wg0.conf": self.client_file(addresses)}, serial
            )

    def start(self, *settings: str, serial: int = 1) -> None:
        """Start every agent on what is published and wait until both clients have shaken hands with the gateway."""
        if settings:
            self.gateway.tidegate("set", *settings, *PLACES)
        # The gateway first: a client shakes hands as soon as it is up, and with nobody there again after 5 s only.
        for agents in ((self.gateway,), (self.alice, self.bob)):
            with ThreadPoolExecutor() as pool:
                list(pool.map(lambda agent: agent.start(), agents))
            for agent in agents:
                until(f"{agent.name} has applied release {serial}", lambda agent=agent: agent.applied(serial))
        for agent in (self.alice, self.bob):
            until(f"{agent.name} and the gateway have shaken hands", lambda agent=agent: self.shaken(agent))

    def shaken(self, agent: Agent) -> bool:
        """Make the client speak once, and tell whether a handshake has happened."""
        agent.host.ok("ping", "-c1", "-W0.2", WEB4)
        return any(
            int(line.split()[1])
            for line in agent.host.sh("wg", "show", DEVICE, "latest-handshakes").splitlines()
        )

    def forget_session(self, agent: Agent) -> None:
        """Make a client shake hands anew now; by itself it would after 15 s without an answer (WireGuard, 6.5)."""
        agent.host.sh("wg", "set", DEVICE, "peer", self.gateway.public_key, "remove")
        networks = "10.20.0.0/16,fd20::/48"
        peer = (self.gateway.public_key, "endpoint", "203.0.113.10:51820", "allowed-ips", networks)
        agent.host.sh("wg", "set", DEVICE, "peer", *peer)

    def republish(self, serial: int, policy: bytes | None = None, peers: bytes | None = None) -> None:
        """Publish a further release for the gateway and wait until it is in force."""
        policy = policy if policy is not None else self.policy_file(alice=WEB_RULES, bob=[])
        files = {"peers.json": peers or self.everyone()} | ({"policy.json": policy} if policy else {})
        self.signer.publish(self.bundles, "gateway", "fra1", files, serial)
        until(f"the gateway has applied release {serial}", lambda: self.gateway.applied(serial))

    def close(self) -> None:
        """End everything, agents first, so that they have tidied up when the network goes."""
        for host in self.hosts.values():
            for process in host.running:
                process.terminate()
        for host in self.hosts.values():
            for process in host.running:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
                process.kill()
                process.wait()
        for host in self.hosts.values():
            host.holder.kill()
            host.holder.wait()
            if host.holder.stdout:
                host.holder.stdout.close()
        sh("ip", "link", "del", "internet", check=False)


WEB_RULES: list[dict[str, Any]] = [
    {"to": ["10.20.0.80/32"], "ports": ["tcp/8080", "proto/1"]},
    {"to": ["fd20::80/128"], "ports": ["tcp/8080", "proto/58"]},
]


def ping(host: Host, address: str = WEB4, seconds: int = 1) -> bool:
    """Tell whether one ping is answered."""
    return host.ok("ping", "-n", "-c1", f"-W{seconds}", address)


WEB_SERVER = """
import http.server, socket
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.client_address[0].encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_): pass
Server(("::", 8080), Handler).serve_forever()
"""


def serve_web(host: Host) -> None:
    """Start a web server on port 8080, both families, that answers with the client's address."""
    host.start(PYTHON, "-c", WEB_SERVER)
    until("the web server listens", lambda: ":8080" in host.sh("ss", "-ltn"))


def get(host: Host, address: str = WEB4, seconds: float = 2) -> str | None:
    """Return what the web server at an address answers, None when it cannot be reached."""
    url = f"http://[{address}]:8080/" if ":" in address else f"http://{address}:8080/"
    script = f"import urllib.request as u; print(u.urlopen({url!r}, timeout={seconds}).read().decode())"
    done = subprocess.run([*host.prefix, PYTHON, "-c", script], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


class Pings:
    """A stream of pings, one every 20 ms, that counts what was lost."""

    def __init__(self, host: Host, address: str = WEB4, interval: float = 0.02) -> None:
        descriptor, path = tempfile.mkstemp(prefix="pings-", dir=host.directory)
        self._output = Path(path)  # a pipe that nobody reads would stop a long stream
        try:
            self._process = host.start(
                *("ping", "-n", "-i", str(interval), "-W", "2", address),
                stdout=descriptor,
                stderr=subprocess.STDOUT,
            )
        finally:
            os.close(descriptor)

    def answered(self) -> set[int]:
        """Return the numbers of the pings answered so far."""
        return {int(number) for number in re.findall(r"icmp_seq=(\d+) ttl=", self._output.read_text())}

    def _sent(self) -> int:
        """Ask ping, which goes on: at SIGQUIT it prints `answered/sent packets` (ping(8))."""
        told = len(re.findall(r"\d+/\d+ packets", self._output.read_text()))
        self._process.send_signal(signal.SIGQUIT)
        found = until(
            "ping tells how many it sent",
            lambda: re.findall(r"\d+/(\d+) packets", self._output.read_text())[told:],
        )
        return int(found[0])

    def end(self) -> tuple[int, int]:
        """Return how many were sent until now and how many of these were answered, and stop.

        A stream of which anything was answered goes on until a later ping is: whatever was sent before and has no
        answer by then is lost, wherever in the stream it was. Of one that was never answered, nothing is under way.
        """
        sent = self._sent()
        if self.answered():
            until("a ping sent after the end is answered", lambda: max(self.answered()) > sent)
        self._process.send_signal(signal.SIGINT)
        self._process.wait(timeout=10)
        answered = {number for number in self.answered() if number <= sent}
        lost = sorted(set(range(1, sent + 1)) - answered)
        if answered and lost:
            print(f"{len(lost)} of {sent} pings lost: {lost[:20]}")  # shown with a failure
        return sent, len(answered)


class Sniffer:
    """Records the IP packets that a host receives on a link, by raw socket, from before anything until after all."""

    SCRIPT = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(3)); s.bind((sys.argv[1], 0))
print("up", flush=True)
while True:
    data, (_, protocol, kind, _, _) = s.recvfrom(65535)
    if kind == 4: continue
    if protocol == 0x0800: print(socket.inet_ntoa(data[12:16]), socket.inet_ntoa(data[16:20]), data[9], flush=True)
    if protocol == 0x86dd:
        a = [socket.inet_ntop(socket.AF_INET6, data[n:n + 16]) for n in (8, 24)]; print(*a, data[6], flush=True)
"""

    def __init__(self, host: Host, link: str = "eth0") -> None:
        self._process = host.start(PYTHON, "-c", self.SCRIPT, link, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"up\n"

    def end(self) -> list[tuple[str, str, int]]:
        """Stop, and return (source, destination, protocol) of every packet received."""
        self._process.terminate()
        lines = self._process.communicate(timeout=10)[0].decode().splitlines()
        return [
            (source, destination, int(protocol)) for source, destination, protocol in map(str.split, lines)
        ]


LOG_SERVER = """
import gzip, http.server, socketserver, sys
out = open(sys.argv[1], "a", buffering=1)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        out.write((gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body).decode())
        self.send_response(204); self.send_header("content-length", "0"); self.end_headers()
    def log_message(self, *_): pass
class Server(socketserver.ThreadingTCPServer):  # http.server's own would look its name up, and wait for that
    allow_reuse_address = daemon_threads = True
Server((sys.argv[2], 9000), Handler).serve_forever()
"""


class LogEndpoint:
    """A log endpoint on a host, port 9000, that keeps the events it receives in a file."""

    def __init__(self, host: Host, directory: Path, address: str = WEB4) -> None:
        self.url = f"http://{address}:9000/events"
        self._file = directory / "events.ndjson"
        self._file.touch()
        host.start(PYTHON, "-c", LOG_SERVER, str(self._file), address)
        until("the log endpoint listens", lambda: ":9000" in host.sh("ss", "-ltn"))

    def events(self) -> list[dict[str, Any]]:
        """Return every event received so far."""
        text = self._file.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]


@contextlib.contextmanager
def lab(directory: Path) -> Iterator[Lab]:
    """Make the lab, and end it whatever happens."""
    prepare_sandbox()
    made = Lab(directory)
    try:
        yield made
    finally:
        made.close()


def prepare_sandbox() -> None:
    """Give the sandbox what a fresh machine has: a /run of its own and a loopback."""
    sh("mount", "-t", "tmpfs", "tmpfs", "/run")
    sh("ip", "link", "set", "lo", "up")
