"""kill -9 at random moments, under traffic that must not pass. `./run kills` does it by the hundred.

The next hop counts every packet that reaches it by who sent it, in its own kernel, which misses none. The control
takes the protection away and sees that it does count.
"""

from __future__ import annotations

import collections
import json
import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from netns.lab import DEVICE, PYTHON, WEB4, WEB6, Lab, LogEndpoint, until

ROUNDS = int(os.environ.get("TIDEGATE_KILLS", "3"))
pytestmark = [pytest.mark.netns, pytest.mark.timeout(0)]

# UDP to 8083 is allowed to alice alone. What a server or a local user sends towards clients is allowed to nobody.
RULES = [{"to": [f"{WEB4}/32", f"{WEB6}/128"], "ports": ["udp/8083", "proto/1"]}]
AT_SERVICE = """
table inet seen {
 counter allowed { }
 counter forbidden { }
 chain raw {
  type filter hook prerouting priority raw; policy accept;
  ip saddr 10.64.0.11 udp dport 8083 counter name allowed accept
  ip6 saddr fd64::11 udp dport 8083 counter name allowed accept
  ip saddr 10.64.0.11 meta l4proto icmp accept
  ip saddr 10.64.0.0/16 counter name forbidden
  ip6 saddr fd64::/48 counter name forbidden
 }
}
"""
AT_CLIENT = """
table inet seen {
 counter forbidden { }
 chain raw {
  type filter hook prerouting priority raw; policy accept;
  iifname "tidegate0" udp sport 9999 counter name forbidden
 }
}
"""
# Sends to each address and port of its words, for ever, whatever happens.
SENDER = """
import socket, sys, time
every, port, words = float(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
ends = {f: socket.socket(f, socket.SOCK_DGRAM) for f in (socket.AF_INET, socket.AF_INET6)}
ends[socket.AF_INET6].setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
for end in ends.values(): end.bind(("", port))
while True:
    for word in words:
        address, _, to = word.partition("/")
        try: ends[socket.AF_INET6 if ":" in address else socket.AF_INET].sendto(b"x", (address, int(to)))
        except OSError: pass
    time.sleep(every)
"""
CLIENTS = ("10.64.0.11/7777", "fd64::11/7777", "10.64.0.12/7777", "fd64::12/7777")
VICTIMS = {
    "supervisor": ("pid",),
    "forwarder": ("forwarder",),
    "flusher": ("flusher",),
    "wireguard-go": ("wireguard_go",),
    "supervisor and forwarder": ("pid", "forwarder"),
    "forwarder and flusher": ("forwarder", "flusher"),
    "everything": ("pid", "forwarder", "flusher", "wireguard_go"),
}


class Watched:
    """A lab under traffic of every kind, with what arrives counted."""

    def __init__(self, lab: Lab, mode: str) -> None:
        self.lab = lab
        self._wireguard: int | None = None
        endpoint = LogEndpoint(lab.service, lab.directory)
        lab.publish(policy=lab.policy_file(alice=RULES, bob=[]))
        lab.start(f"authz_mode={mode}", "flush_interval=0.2")
        # There is a flusher only where there is a ring, which logging makes.
        lab.gateway.set("logging_enabled=on", f"log_endpoint={endpoint.url}")
        until("a flusher runs", lambda: self.status().get("flusher"))
        lab.gateway.set("logging_enabled=off")
        lab.service.sh("nft", "-f", "-", text=AT_SERVICE)
        for agent in (lab.alice, lab.bob):
            agent.host.sh("nft", "-f", "-", text=AT_CLIENT)
        to_web = [f"{address}/{port}" for address in (WEB4, WEB6) for port in (8083, 8084)]
        lab.alice.host.start(PYTHON, "-c", SENDER, "0.005", "7777", *to_web)
        lab.bob.host.start(PYTHON, "-c", SENDER, "0.005", "7777", *to_web, CLIENTS[0], CLIENTS[1])
        for host in (lab.service, lab.gateway.host):
            host.start(PYTHON, "-c", SENDER, "0.005", "9999", *CLIENTS)
        until("alice gets through", lambda: self.allowed())

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = self.lab.gateway.status() or {}
        return found

    def _count(self, host: Any, name: str) -> int:
        listed = json.loads(host.sh("nft", "-j", "list", "counter", "inet", "seen", name))
        return int(listed["nftables"][1]["counter"]["packets"])

    def allowed(self) -> int:
        """Return how many packets of alice's have arrived that may."""
        return self._count(self.lab.service, "allowed")

    def forbidden(self) -> int:
        """Return how many packets have arrived anywhere that nobody may send."""
        places = (self.lab.service, self.lab.alice.host, self.lab.bob.host)
        return sum(self._count(host, "forbidden") for host in places)

    def kill(self, names: tuple[str, ...]) -> None:
        """Kill these processes at once, whichever of them there are."""
        status = self.status()
        # wireguard-go is its first agent's child only; later ones take it over by its interface.
        self._wireguard = status.get("wireguard_go") or self._wireguard
        pids = {name: status.get(name) for name in names} | (
            {"wireguard_go": self._wireguard} if "wireguard_go" in names else {}
        )
        for pid in filter(None, pids.values()):
            self.lab.gateway.host.ok("kill", "-KILL", str(pid))

    def recover(self, names: tuple[str, ...]) -> None:
        """Do what the host's service manager does, and have clients notice a new WireGuard at once."""
        if "pid" in names:
            assert self.lab.gateway.process is not None
            self.lab.gateway.process.wait(20)
            self.lab.gateway.start()
        if "wireguard_go" in names:
            until("there is a new WireGuard", lambda: self.lab.gateway.host.ok("wg", "show", DEVICE))
            for agent in (self.lab.alice, self.lab.bob):
                self.lab.forget_session(agent)
        before = self.allowed()
        until("alice gets through again", lambda: self.allowed() > before + 10, 30)


def rounds(count: int) -> Iterator[tuple[int, str, tuple[str, ...], float, random.Random]]:
    """Yield (number, victim's name, its processes, seconds to wait before, a source of chance), the same each time."""
    chance = random.Random(20261129)
    order = list(VICTIMS)
    for number in range(count):
        if number % len(order) == 0:
            chance.shuffle(order)
        name = order[number % len(order)]
        yield number, name, VICTIMS[name], chance.uniform(0, 0.4), chance


@contextmanager
def table(title: str) -> Iterator[Callable[[str, float], None]]:
    """Print how many rounds there were of each kind, and the longest time until traffic was back."""
    took: dict[str, list[float]] = collections.defaultdict(list)
    yield lambda name, seconds: took[name].append(seconds)
    print(f"\n{title}")
    for name, seconds in took.items():
        print(f"  {name:26} {len(seconds):4} rounds, back after {max(seconds):.2f} s at most")


@pytest.mark.never
def test_kill_9_at_any_moment_lets_no_unauthorised_packet_through(lab: Lab) -> None:
    watched = Watched(lab, "enforce")
    assert watched.forbidden() == 0
    with table("enforce, kill -9") as tell:
        for number, name, processes, wait, chance in rounds(ROUNDS):
            time.sleep(wait)
            if chance.random() < 0.3:  # in the middle of a change
                policy = lab.policy_file(
                    alice=RULES, bob=[{"to": [f"10.99.0.{number % 250}/32"], "ports": ["any"]}]
                )
                files = {"peers.json": lab.everyone(), "policy.json": policy}
                lab.signer.publish(lab.bundles, "gateway", "fra1", files, number + 2)
                time.sleep(chance.uniform(0, 0.6))
            watched.kill(processes)
            start = time.monotonic()
            time.sleep(chance.uniform(0, 0.5))
            watched.recover(processes)
            tell(name, time.monotonic() - start)
            assert watched.forbidden() == 0, f"round {number}: {name}"
    print(f"  {watched.allowed()} allowed packets arrived, {watched.forbidden()} forbidden ones")


@pytest.mark.whole
def test_the_counters_do_see_such_packets_where_the_protection_is_taken_away(lab: Lab) -> None:
    watched = Watched(lab, "enforce")
    for number, _, _, wait, _ in rounds(max(2, ROUNDS // 20)):
        time.sleep(wait)
        before = watched.forbidden()
        watched.kill(("pid", "forwarder"))
        lab.gateway.host.sh("nft", "delete", "table", "inet", "tidegate")
        until(f"round {number}: they are seen", lambda before=before: watched.forbidden() > before)
        watched.recover(("pid", "forwarder"))
    assert watched.forbidden() > 0


@pytest.mark.whole
def test_kill_9_in_observe_and_traffic_goes_on_within_a_second(lab: Lab) -> None:
    """All but wireguard-go, whose clients shake hands anew only when they miss an answer (WireGuard, 6.5: 15 s)."""
    watched = Watched(lab, "observe")
    with table("observe, kill -9") as tell:
        for number, name, processes, wait, _ in rounds(ROUNDS):
            chosen = tuple(one for one in processes if one != "wireguard_go")
            if not chosen:
                continue
            time.sleep(wait)
            watched.kill(chosen)
            start, before = time.monotonic(), watched.allowed()
            until(f"round {number}: {name}", lambda before=before: watched.allowed() > before + 5, 5, 0.01)
            took = time.monotonic() - start
            tell(name, took)
            assert took < 1, f"round {number}: {name}"
            watched.recover(chosen)
