"""The kernel's flow set: what it spares, what it never remembers, and that nothing in it outlives its permission."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from typing import Any

import pytest

from netns.lab import PLACES, PYTHON, WEB4, WEB6, Host, Lab, until

pytestmark = pytest.mark.netns

EVERY = 0.01  # seconds between two packets
# Both ends send the moment of sending, and print every moment that reaches them.
SERVER = """
import socket, sys, threading, time
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(("::", 8083))
def talk(address):
    while True:
        s.sendto(b"%d" % time.monotonic_ns(), address); time.sleep(0.01)
known = set()
while True:
    data, address = s.recvfrom(100)
    if address not in known:
        known.add(address); threading.Thread(target=talk, args=(address,), daemon=True).start()
    print(data.decode(), flush=True)
"""
CLIENT = """
import socket, sys, threading, time
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
s.connect((sys.argv[1], 8083))
def talk():
    while True:
        try: s.send(b"%d" % time.monotonic_ns())
        except OSError: pass
        time.sleep(0.01)
threading.Thread(target=talk, daemon=True).start()
while True:
    try: print(s.recv(100).decode(), flush=True)
    except OSError: pass
"""
UDP_RULES = [{"to": [f"{WEB4}/32", f"{WEB6}/128"], "ports": ["udp/8083"]}]


class Stream:
    """A UDP stream in both directions; each packet carries the moment it was sent, in ns of the one clock there is."""

    def __init__(self, lab: Lab, client: Host, address: str = WEB4) -> None:
        self._files = {end: lab.directory / f"flow-{client.name}-{end}" for end in ("client", "server")}
        with self._files["server"].open("wb") as out:
            lab.service.start(PYTHON, "-c", SERVER, stdout=out)
        until("the server listens", lambda: ":8083" in lab.service.sh("ss", "-lun"))
        with self._files["client"].open("wb") as out:
            client.start(PYTHON, "-c", CLIENT, address, stdout=out)
        until("the stream runs both ways", lambda: all(self.arrived(end) for end in self._files))

    def arrived(self, end: str, since: int = 0) -> list[int]:
        """Return the moments of sending after `since` of what has arrived at an end."""
        return [moment for moment in map(int, self._files[end].read_text().split()) if moment > since]

    def arrived_anywhere(self, since: int) -> list[int]:
        return self.arrived("client", since) + self.arrived("server", since)


def crossed(lab: Lab) -> int:
    """Return how many packets have crossed the TUN and were allowed."""
    status = json.loads(lab.gateway.tidegate("status", "--json", *PLACES))
    return int(status["packets"]["allowed"])


def remembered(lab: Lab) -> str:
    """Return the flow set as nft prints it."""
    return "".join(
        lab.gateway.host.sh("nft", "list", "set", "inet", "tidegate", name) for name in ("flows4", "flows6")
    )


@pytest.mark.parametrize("address", [WEB4, pytest.param(WEB6, marks=pytest.mark.whole)])
def test_a_flow_crosses_the_tun_once_per_timeout(lab: Lab, address: str) -> None:
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start("flow_timeout=4")
    stream = Stream(lab, lab.alice.host, address)
    assert "8083" in remembered(lab)
    before, since = crossed(lab), time.monotonic_ns()
    time.sleep(9)
    # Packets on their way while the first one is judged cross, too.
    assert 2 <= crossed(lab) - before <= 12
    assert len(stream.arrived("server", since)) > 400
    assert len(stream.arrived("client", since)) > 400


def test_a_setting_is_in_force_when_its_command_returns(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start()
    for chosen in ("off", "on") * 3:
        lab.gateway.set(f"flow_cache={chosen}")
        assert lab.gateway.host.ok("nft", "list", "set", "inet", "tidegate", "flows4") is (chosen == "on")


@pytest.mark.parametrize("chosen", [["flow_cache=off"], ["logging_enabled=on", "log_granularity=packet"]])
def test_with_the_cache_off_or_packets_logged_every_packet_crosses(lab: Lab, chosen: list[str]) -> None:
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start(*chosen)
    stream = Stream(lab, lab.alice.host)
    before, since = crossed(lab), time.monotonic_ns()
    until("enough have arrived", lambda: len(stream.arrived("server", since)) > 80)
    sent = len(stream.arrived("server", since))
    assert crossed(lab) - before >= sent
    assert not lab.gateway.host.ok("nft", "list", "set", "inet", "tidegate", "flows4")


@pytest.mark.parametrize("address", [pytest.param(WEB4, marks=pytest.mark.whole), WEB6])
@pytest.mark.parametrize("change", ["policy", "client"])
@pytest.mark.never
def test_of_what_is_sent_after_the_new_generation_nothing_arrives_either_way(
    lab: Lab, address: str, change: str
) -> None:
    rules = {"alice": UDP_RULES, "bob": []}
    lab.publish(policy=lab.policy_file(**rules))
    lab.start()
    stream = Stream(lab, lab.alice.host, address)
    assert "8083" in remembered(lab)
    only_bob = lab.peers_file((lab.bob, ["10.64.0.12/32", "fd64::12/128"]))
    if change == "policy":
        lab.republish(2, policy=lab.policy_file(alice=[], bob=[]))
    else:
        lab.republish(2, policy=lab.policy_file(bob=[]), peers=only_bob)
    in_force = time.monotonic_ns()
    time.sleep(2)
    assert stream.arrived_anywhere(in_force) == []
    assert "8083" not in remembered(lab)


def test_a_flow_ends_with_the_second_its_rule_expires(lab: Lab) -> None:
    end = int(time.time()) + 12
    rules: list[dict[str, Any]] = [UDP_RULES[0] | {"expires": end}]
    lab.publish(policy=lab.policy_file(alice=rules))
    lab.start()
    stream = Stream(lab, lab.alice.host)
    offset = time.time_ns() - time.monotonic_ns()
    until("the rule has expired", lambda: time.time() > end + 3)
    # The agent wakes at that second and takes some milliseconds.
    assert stream.arrived_anywhere(end * 10**9 - offset + 300_000_000) == []
    assert len(stream.arrived("server", (end - 2) * 10**9 - offset)) > 80


def test_with_nobody_left_both_directions_end_within_a_timeout(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start("flow_timeout=6")
    stream = Stream(lab, lab.alice.host)
    status = lab.gateway.status()
    assert status is not None
    for name in ("pid", "forwarder"):
        os.kill(status[name], signal.SIGKILL)
    killed = time.monotonic_ns()
    time.sleep(9)
    assert stream.arrived_anywhere(killed + 6_300_000_000) == []
    # The other way round: for some of that time the kernel went on by itself.
    assert len(stream.arrived("server", killed)) > 20


# Packets of a flow that is remembered, to go by its first one: with IPv4 options, and with an IPv6 routing header whose
# last destination is another one.
OPENING = """
import socket, sys
for family, address in zip((socket.AF_INET, socket.AF_INET6), sys.argv[1:]):
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind(("", 7777)); s.sendto(b"x", (address, 8083)); s.close()
"""
DISGUISED = """
import socket, struct, sys
four, six = sys.argv[1:3]
udp = struct.pack("!HHHH", 7777, 8083, 9, 0) + b"x"
source = [socket.inet_aton("10.64.0.11"), socket.inet_pton(socket.AF_INET6, "fd64::11")]
options = b"\\x01\\x01\\x01\\x00"
ip4 = struct.pack("!BBHHHBBH", 0x46, 0, 24 + len(udp), 7, 0, 64, 17, 0) + source[0] + socket.inet_aton(four)
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(ip4 + options + udp, (four, 0))
routing = struct.pack("!BBBBI", 17, 2, 2, 1, 0) + socket.inet_pton(socket.AF_INET6, "fd20::99")
ip6 = struct.pack("!IHBB", 6 << 28, len(routing) + len(udp), 43, 64) + source[1]
ip6 += socket.inet_pton(socket.AF_INET6, six)
raw = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW)
raw.sendto(ip6 + routing + udp, (six, 0))
"""


def test_a_packet_with_options_or_a_routing_header_is_judged_though_its_flow_is_known(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start()

    def counted() -> dict[str, int]:
        found: dict[str, int] = json.loads(lab.gateway.tidegate("status", "--json", *PLACES))["packets"]
        return found

    before = counted()
    lab.alice.host.sh(PYTHON, "-c", OPENING, WEB4, WEB6)
    until("both flows are known", lambda: remembered(lab).count("7777 . 8083") == 2)
    lab.alice.host.sh(PYTHON, "-c", DISGUISED, WEB4, WEB6)
    # The two that open the flows, and the one with options; the routing header hides where the packet is going.
    until("the options are judged", lambda: counted()["allowed"] == before["allowed"] + 3)
    until("the routing header is denied", lambda: counted()["unparseable"] == before["unparseable"] + 1)


@pytest.mark.whole
def test_replies_go_on_while_the_agent_is_in_trouble(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start("flow_timeout=4")
    stream = Stream(lab, lab.alice.host)
    wg = shutil.which("wg")
    assert wg is not None
    lab.gateway.host.sh("mount", "--bind", "/bin/false", wg)
    files = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(alice=UDP_RULES, bob=UDP_RULES)}
    lab.signer.publish(lab.bundles, "gateway", "fra1", files, 2)
    until("the agent is in trouble", lambda: (lab.gateway.status() or {}).get("trouble"))
    time.sleep(8)
    since = time.monotonic_ns()
    time.sleep(1)
    assert len(stream.arrived("client", since)) > 40
    assert len(stream.arrived("server", since)) > 40


KNOCK = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(("", 7777))
s.sendto(b"x", (sys.argv[1], int(sys.argv[2])))
"""
OTHER_TABLE = """
table inet other {
 chain forward { type filter hook forward priority filter; iifname "tidegate-tun" udp dport 9 drop; }
 chain nat {
  type nat hook prerouting priority dstnat;
  iifname "tidegate-tun" udp dport 10 dnat ip to 10.20.0.80:12;
 }
}
"""


def test_a_flow_that_another_rule_drops_or_sends_elsewhere_is_not_remembered(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=[{"to": [f"{WEB4}/32"], "ports": ["udp/9-12"]}]))
    lab.start()
    lab.gateway.host.sh("nft", "-f", "-", text=OTHER_TABLE)
    before = crossed(lab)
    for port in (9, 10, 11):
        lab.alice.host.sh(PYTHON, "-c", KNOCK, WEB4, str(port))
    until("all three were allowed", lambda: crossed(lab) >= before + 3)
    found = remembered(lab)
    assert "7777 . 11" in found
    assert not any(f"7777 . {port} " in found for port in (9, 10, 12))
