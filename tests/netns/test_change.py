"""Changes while traffic runs: releases, revocation, a hundred reloads."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time

import pytest

from netns.lab import (
    DEVICE,
    PYTHON,
    WEB4,
    WEB6,
    WEB_RULES,
    Agent,
    Host,
    Lab,
    Pings,
    Sniffer,
    ping,
    until,
)
from tidegate_schema import wgquick

pytestmark = pytest.mark.netns

# UDP, so that nothing but the gateway can end the stream: the client speaks once, the server for ever.
STREAM_SERVER = """
import socket, threading, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", 8082))
def talk(address):
    while True:
        s.sendto(b"x" * 100, address); time.sleep(0.02)
while True: threading.Thread(target=talk, args=(s.recvfrom(100)[1],), daemon=True).start()
"""
STREAM_CLIENT = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b"talk", (sys.argv[1], 8082))
while True: print(len(s.recv(4096)), flush=True)
"""
SINK = """
import socket
c = socket.create_server(("0.0.0.0", 8082)).accept()[0]
while data := c.recv(4096): print(len(data), flush=True)
"""
PUSH = """
import socket, sys, time
s = socket.create_connection((sys.argv[1], 8082))
while True: s.sendall(b"x" * 100); time.sleep(0.02)
"""


class ServerTalks:
    """A UDP stream in which only the server talks; what the client received so far is in a file."""

    def __init__(self, lab: Lab, client: Host, address: str = WEB4) -> None:
        self._file = lab.directory / f"stream-{client.name}-{address}"
        with self._file.open("wb") as out:
            self.process = client.start(PYTHON, "-c", STREAM_CLIENT, address, stdout=out)
        until("the stream runs", lambda: self.received() > 0)

    def received(self) -> int:
        """Return how many bytes the client has received."""
        return sum(int(line) for line in self._file.read_text().split())

    def flows(self, seconds: float = 1.0) -> bool:
        """Tell whether anything more arrives within some time."""
        before = self.received()
        time.sleep(seconds)
        return self.received() > before


def stream_rules(*addresses: str) -> list[dict[str, object]]:
    return [
        {"to": [address], "ports": ["tcp/8082", "icmp" if "." in address else "proto/58"]}
        for address in addresses
    ]


def _serve_streams(lab: Lab) -> None:
    lab.service.start(PYTHON, "-c", STREAM_SERVER)
    until("the stream server listens", lambda: ":8082" in lab.service.sh("ss", "-lun"))


def test_a_revoked_policy_ends_open_streams_in_both_directions_and_leaves_the_others_alone(lab: Lab) -> None:
    _serve_streams(lab)
    rules = [{"to": [f"{WEB4}/32"], "ports": ["any"]}, {"to": [f"{WEB6}/128"], "ports": ["any"]}]
    lab.publish(policy=lab.policy_file(alice=rules, bob=rules))
    lab.start()
    streams = {
        (agent.name, address): ServerTalks(lab, agent.host, address)
        for agent in (lab.alice, lab.bob)
        for address in (WEB4, WEB6)
    }
    pings = Pings(lab.alice.host)
    lab.republish(2, policy=lab.policy_file(alice=rules, bob=[]))
    for (name, _), stream in streams.items():
        assert stream.flows() == (name == lab.alice.name)
    assert not ping(lab.bob.host)
    sent, answered = pings.end()
    assert sent == answered > 0


def test_a_stream_that_a_server_opened_in_observe_ends_with_the_switch_to_enforce(lab: Lab) -> None:
    """Its replies cross the TUN, too; that does not make it a connection the client was allowed to open."""
    everything = [{"to": ["0.0.0.0/0"], "ports": ["any"]}]
    lab.publish(policy=lab.policy_file(alice=everything))
    lab.start("authz_mode=observe")
    received = lab.directory / "received"
    with received.open("wb") as out:
        lab.alice.host.start(PYTHON, "-c", SINK, stdout=out)
    until("alice listens", lambda: ":8082" in lab.alice.host.sh("ss", "-ltn"))
    lab.service.start(PYTHON, "-c", PUSH, "10.64.0.11")
    until("the stream runs", lambda: received.stat().st_size)
    lab.gateway.set("authz_mode=enforce")
    before = received.stat().st_size
    time.sleep(1)
    assert received.stat().st_size == before
    assert ping(lab.alice.host)


def test_a_rule_s_expiry_ends_an_open_stream_without_any_release(lab: Lab) -> None:
    _serve_streams(lab)
    end = int(time.time()) + 14
    lab.publish(policy=lab.policy_file(alice=[{"to": [f"{WEB4}/32"], "ports": ["any"], "expires": end}]))
    lab.start()
    stream = ServerTalks(lab, lab.alice.host)
    assert time.time() < end - 1, "the lab took too long to start"
    assert stream.flows(0.5)
    time.sleep(max(0.0, end + 1 - time.time()))
    assert not stream.flows()
    assert not ping(lab.alice.host)


@pytest.mark.never
def test_a_removed_client_is_cut_off_without_a_restart(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=WEB_RULES, bob=WEB_RULES))
    lab.start()
    pid = lab.gateway.status()["pid"]  # type: ignore[index]
    assert ping(lab.bob.host)
    only_alice = lab.peers_file((lab.alice, ["10.64.0.11/32", "fd64::11/128"]))
    lab.republish(2, policy=lab.policy_file(alice=WEB_RULES), peers=only_alice)
    assert not ping(lab.bob.host)
    assert not ping(lab.bob.host, WEB6)
    assert ping(lab.alice.host)
    assert lab.gateway.status()["pid"] == pid  # type: ignore[index]
    assert lab.bob.public_key not in lab.gateway.host.sh("wg", "show", DEVICE, "peers")


def _device(agent: Agent) -> str:
    """Key, port and mark of an agent's device, without its peers."""
    return agent.host.sh("wg", "show", DEVICE, "dump").splitlines()[0]


def _handshakes(agent: Agent) -> str:
    return agent.host.sh("wg", "show", DEVICE, "latest-handshakes")


def test_a_hundred_reloads_keep_key_port_session_and_every_ping(lab: Lab) -> None:
    lab.publish()
    lab.start()
    before = [_device(agent) for agent in (lab.alice, lab.gateway)]
    shaken = _handshakes(lab.alice)
    pings = [Pings(lab.alice.host), Pings(lab.alice.host, WEB6)]
    carol = ["10.64.0.13/32", "fd64::13/128"]
    stranger = Agent(lab.bob.host, "client", "carol", lab.bundles)
    stranger.public_key = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
    for n in range(2, 102):
        # The client's release adds and drops a network and an address of its own; the gateway's adds and drops a peer.
        extra = ", 10.21.0.0/16" if n % 2 else ""
        file = lab.client_file("10.64.0.11/32, fd64::11/128").replace(
            b"fd20::/48", f"fd20::/48{extra}".encode()
        )
        lab.signer.publish(lab.bundles, "client", lab.alice.name, {"wg0.conf": file}, n)
        everyone = [
            (lab.alice, ["10.64.0.11/32", "fd64::11/128"]),
            (lab.bob, ["10.64.0.12/32", "fd64::12/128"]),
        ]
        peers = lab.peers_file(*everyone, *([(stranger, carol)] if n % 2 else []))
        policy = lab.policy_file(alice=WEB_RULES, bob=WEB_RULES if n % 3 else [])
        lab.signer.publish(lab.bundles, "gateway", "fra1", {"peers.json": peers, "policy.json": policy}, n)
        for agent in (lab.alice, lab.gateway):
            until(f"{agent.name} has applied release {n}", lambda agent=agent, n=n: agent.applied(n))
    for stream in pings:
        sent, answered = stream.end()
        assert sent > 500
        assert answered == sent
    assert [_device(agent) for agent in (lab.alice, lab.gateway)] == before
    assert _handshakes(lab.alice) == shaken
    assert "10.21.0.0/16" in lab.alice.host.sh("ip", "route")


def test_a_client_s_new_address_and_gateway_are_applied_live(lab: Lab) -> None:
    lab.publish()
    lab.start()
    before = _device(lab.alice)
    moved = ["10.64.0.77/32", "fd64::77/128"]
    peers = lab.peers_file((lab.alice, moved), (lab.bob, ["10.64.0.11/32", "fd64::12/128"]))
    lab.republish(2, peers=peers)
    assert not ping(lab.alice.host)  # it still sends from an address that is now bob's: WireGuard drops it
    file = lab.client_file(", ".join(moved))
    lab.signer.publish(lab.bundles, "client", lab.alice.name, {"wg0.conf": file}, 2)
    until("alice's release is in force", lambda: lab.alice.applied(2))
    assert ping(lab.alice.host)
    assert ping(lab.alice.host, WEB6)
    assert _device(lab.alice) == before
    addresses = lab.alice.host.sh("ip", "address", "show", DEVICE)
    assert "10.64.0.77" in addresses
    assert "10.64.0.11" not in addresses


@pytest.mark.parametrize("restart", [False, pytest.param(True, marks=pytest.mark.whole)])
@pytest.mark.never
def test_an_address_that_moves_takes_no_stream_along(lab: Lab, restart: bool) -> None:
    """Both clients may reach the server, yet what it sends to the one never goes to the other."""
    _serve_streams(lab)
    rules = [{"to": [f"{WEB4}/32"], "ports": ["any"]}]
    policy = lab.policy_file(alice=rules, bob=rules)
    lab.publish(policy=policy)
    lab.start()
    ServerTalks(lab, lab.alice.host)
    lab.bob.host.sh(
        "ip", "address", "add", "10.64.0.11/32", "dev", "lo"
    )  # on the interface the agent would undo it
    sniffer = Sniffer(lab.bob.host, DEVICE)
    peers = lab.peers_file((lab.alice, ["10.64.0.99/32"]), (lab.bob, ["10.64.0.11/32", "10.64.0.12/32"]))
    if (
        restart
    ):  # the release comes while no agent runs, and the next one is to know whose the connections were
        assert lab.gateway.stop(signal.SIGUSR1) == 0
        lab.signer.publish(lab.bundles, "gateway", "fra1", {"peers.json": peers, "policy.json": policy}, 2)
        lab.gateway.start()
    else:
        lab.republish(2, policy=policy, peers=peers)
    time.sleep(1)
    assert not any(destination == "10.64.0.11" for _, destination, _ in sniffer.end())
    assert lab.bob.host.ok("ping", "-c1", "-W2", "-I", "10.64.0.11", WEB4)


@pytest.mark.never
def test_a_post_up_slipped_into_a_signed_bundle_is_refused_by_name_and_runs_nowhere(lab: Lab) -> None:
    lab.publish()
    lab.start()
    mark = lab.directory / "ran"
    good = lab.client_file("10.64.0.11/32, fd64::11/128")
    for serial, (line, name) in enumerate(
        [
            (f"PostUp = touch {mark}", "PostUp"),
            (f"PreDown = touch {mark}", "PreDown"),
            ("DNS = 10.20.0.53", "DNS"),
            ("Table = off", "Table"),
            ("PrivateKey = " + "A" * 43 + "=", "PrivateKey"),
            (f"{wgquick.KEYLESS_POSTUP}; touch {mark}", "is not a line"),
        ],
        2,
    ):
        bad = good.replace(b"[Peer]", line.encode() + b"\n\n[Peer]", 1)
        lab.signer.publish(lab.bundles, "client", lab.alice.name, {"wg0.conf": bad}, serial)
        problem = until(
            f"{name} is refused",
            lambda name=name: _problem(lab.alice) if name in _problem(lab.alice) else None,
        )
        assert problem.startswith("invalid-bundle: wg0.conf: line ")
    assert ping(lab.alice.host)
    assert not mark.exists()


def _problem(agent: Agent) -> str:
    status = agent.status()
    return ((status and status["refusal"]) or {}).get("reason", "")


@pytest.mark.never
def test_releases_that_are_not_for_this_host_or_not_authentic_change_nothing(lab: Lab) -> None:
    lab.publish(serial=5)
    lab.start(serial=5)
    other = type(lab.signer)(lab.directory / "other-keys")
    everyone = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(bob=WEB_RULES)}
    nobody = {"peers.json": lab.peers_file()}
    cases = [
        ("wrong-key", lambda: other.publish(lab.bundles, "gateway", "fra1", everyone, 6)),
        ("other-host", lambda: lab.signer.publish(lab.bundles, "gateway", "fra1", nobody, 6, host="nyc1")),
        (
            "other-fleet",
            lambda: lab.signer.publish(lab.bundles, "gateway", "fra1", everyone, 6, fleet="evil"),
        ),
        ("other-kind", lambda: lab.signer.publish(lab.bundles, "gateway", "fra1", nobody, 6, kind="client")),
        ("replayed", lambda: lab.signer.publish(lab.bundles, "gateway", "fra1", everyone, 4)),
        ("expired", lambda: lab.signer.publish(lab.bundles, "gateway", "fra1", nobody, 6, not_after=1)),
    ]
    for name, publish in cases:
        publish()
        until(f"{name} is named", lambda name=name: _refusal(lab) == name)
        assert lab.gateway.status()["release"]["serial"] == 5  # type: ignore[index]
        assert ping(lab.alice.host)
        assert not ping(lab.bob.host)
    aside = lab.directory / "aside"
    for name, file, data in (
        ("mixed-files", "policy.json", everyone["policy.json"].replace(b"10.20.0.80", b"10.20.0.81")),
        ("bad-file", "policy.json", lab.policy_file(alice=WEB_RULES, bob=WEB_RULES)),
        ("malformed-envelope", "release.json", b"{}"),
    ):
        folder = lab.signer.publish(aside, "gateway", "fra1", everyone, 6)
        (folder / file).write_bytes(data)
        (lab.bundles / "gateway/fra1/current").unlink()
        shutil.copytree(aside, lab.bundles, symlinks=True, dirs_exist_ok=True, copy_function=shutil.copyfile)
        until(f"{name} is named", lambda name=name: _refusal(lab) == name)
        assert ping(lab.alice.host)
        assert not ping(lab.bob.host)


def _refusal(lab: Lab) -> str | None:
    status = lab.gateway.status()
    name: str | None = ((status and status["refusal"]) or {}).get("name")
    return name


@pytest.mark.never
def test_no_private_key_is_in_a_status_a_log_or_a_process_list(lab: Lab) -> None:
    lab.publish()
    lab.start()
    keys = [agent.host.sh("cat", f"/run/etc/{agent.kind}.key").strip() for agent in lab.agents]
    for agent in lab.agents:
        assert agent.host.sh("stat", "-c", "%a", f"/run/etc/{agent.kind}.key").strip() == "600"
    said = [path.read_text(errors="replace") for path in lab.directory.glob("*.log")]
    said += [agent.host.sh("grep", "-rs", "", "/run/tidegate", check=False) for agent in lab.agents]
    said += [agent.tidegate("status", "--json", "--etc", "/run/etc") for agent in lab.agents]
    said.append(
        subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    )
    said += [path.read_text(errors="replace") for path in lab.bundles.rglob("*") if path.is_file()]
    for key in keys:
        assert len(key) == 44
        assert not any(key in text for text in said)


def test_routes_come_before_routes_go(lab: Lab) -> None:
    """Neighbours share a prefix: when one of them comes or leaves, the others are led by another one, without a gap."""
    quads = {number: [f"10.64.0.{number}/32"] for number in range(12, 16)}

    def peers(*numbers: int) -> bytes:
        return lab.peers_file(
            (lab.alice, ["10.64.0.11/32"]), (lab.bob, [one for number in numbers for one in quads[number]])
        )

    lab.publish(peers=peers(12, 13, 14, 15))
    lab.gateway.start()
    until("the release is in force", lambda: lab.gateway.applied(1))
    told = lab.directory / "routes"
    with told.open("wb") as out:
        monitor = lab.gateway.host.start("ip", "monitor", "route", stdout=out)
    for serial, numbers in ((2, (12, 13, 14)), (3, (12, 13, 14, 15))):
        time.sleep(0.5)  # ip monitor does not say when it is listening
        before = len(told.read_text().splitlines())
        lab.republish(serial, peers=peers(*numbers))
        until(
            "routes have gone",
            lambda before=before: "Deleted" in "".join(told.read_text().splitlines()[before:]),
        )
        lines = [line for line in told.read_text().splitlines()[before:] if "proto 116" in line]
        gone = ["Deleted" in line for line in lines]
        assert gone == sorted(gone)
        assert not all(gone)
    monitor.kill()
    monitor.wait()


FLOOD = """
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("10.64.0.11", 7777))
while True:
    for port in range(8000, 8100):
        try: s.sendto(b"alice", ("10.20.0.80", port))
        except OSError: pass
"""
FROM_THE_ADDRESS = """
table inet seen {
 counter arrived { }
 chain raw {
  type filter hook prerouting priority raw; policy accept;
  ip saddr 10.64.0.11 udp dport 8000-8099 counter name arrived
 }
}
"""


@pytest.mark.never
def test_an_address_that_moves_while_its_client_floods_never_speaks_for_the_other(lab: Lab) -> None:
    """Alice may nothing and sends all the time; bob may, and sends nothing: so whatever arrives was taken for bob's."""
    policy = lab.policy_file(alice=[], bob=[{"to": [f"{WEB4}/32"], "ports": ["udp/8000-8099"]}])
    others = {"alice": ["10.64.0.21/32"], "bob": ["10.64.0.12/32"]}
    at_alice = lab.peers_file((lab.alice, ["10.64.0.11/32", *others["alice"]]), (lab.bob, others["bob"]))
    at_bob = lab.peers_file((lab.alice, others["alice"]), (lab.bob, ["10.64.0.11/32", *others["bob"]]))
    lab.publish(policy=policy, peers=at_alice)
    lab.start("client_upcalls=0")
    lab.service.sh("nft", "-f", "-", text=FROM_THE_ADDRESS)
    flood = lab.alice.host.start(PYTHON, "-c", FLOOD)
    for turn in range(6):
        lab.republish(turn + 2, policy, at_bob if turn % 2 == 0 else at_alice)
        time.sleep(0.3)
    assert flood.poll() is None
    assert "packets 0 " in lab.service.sh("nft", "list", "counter", "inet", "seen", "arrived")
    # The control: the counter counts, and the flood is one, when alice is somebody who may.
    lab.republish(9, lab.policy_file(alice=[{"to": [f"{WEB4}/32"], "ports": ["udp/8000-8099"]}]), at_alice)
    until(
        "it arrives",
        lambda: "packets 0 " not in lab.service.sh("nft", "list", "counter", "inet", "seen", "arrived"),
    )
