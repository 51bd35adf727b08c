"""Packets across a gateway of namespaces and veths, in a sandbox.

    client 10.64.0.11 ── wan0   gateway   lan0 ── service 10.20.0.80

What the gateway is differs by task: the kernel's own forwarding with conntrack and masquerade, or Tidegate's rules, TUN
and forwarder.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.flood import BEHIND, DESTINATION, PORT, SOURCE
from netns.lab import PYTHON, Host, sh, until

SECONDS = 3.0
KERNEL = """
table ip base {
 chain nat { type nat hook postrouting priority srcnat; policy accept; oifname "lan0" masquerade; }
}
"""
SINK = f"""
table ip sink {{
 counter seen {{ }}
 chain raw {{ type filter hook prerouting priority raw; policy accept; udp dport {PORT} counter name seen drop; }}
}}
"""
KERNEL_ONLY: tuple[str, ...] = ()
FLOW_SET, TUN_ONLY, LOGGED = (
    ("flow_cache=on", "logging_enabled=on"),
    ("flow_cache=off",),
    ("logging_enabled=on", "log_granularity=packet"),
)
BARE, TURNS, UNLIMITED = ("bare", *TUN_ONLY), ("turns", *TUN_ONLY), ("unlimited", *FLOW_SET)
FEW, MANY = (10, 1), (100_000, 3_000)
"""Clients and rules."""
OTHER_SOURCE = "10.64.0.12"
"""Another client, that floods nobody."""


class Crossing:
    """The three hosts, and what the one in the middle is now."""

    link = "wan0"
    """Where clients come in at the gateway."""
    mtu = 1500

    def __init__(self, directory: Path) -> None:
        self.directory, self.run = directory, directory / "run"
        self.client, self.gateway, self.service = (Host(n, directory) for n in ("client", "gw", "service"))
        for one, link, far in ((self.client, "eth0", "wan0"), (self.service, "eth0", "lan0")):
            sh(
                *("ip", "link", "add", link, "netns", str(one.holder.pid), "type", "veth"),
                *("peer", "name", far, "netns", str(self.gateway.holder.pid)),
            )
            one.sh("ip", "link", "set", link, "up")
            self.gateway.sh("ip", "link", "set", far, "up")
        self.gateway.sh("ip", "address", "add", "10.20.0.1/16", "dev", "lan0")
        self.gateway.sh("ip", "route", "add", BEHIND, "via", DESTINATION)
        self.service.sh("ip", "address", "add", f"{DESTINATION}/16", "dev", "eth0")
        self.service.sh("ip", "route", "add", "default", "via", "10.20.0.1")
        self.gateway.sysctl("ipv4/ip_forward", "1")
        self.lead_in()
        self.service.sh("nft", "-f", "-", text=SINK)
        self.service.start("iperf3", "--server")
        until("iperf3 listens", lambda: ":5201" in self.service.sh("ss", "-ltn"))

    def lead_in(self) -> None:
        """Give the client's link its addresses, and the client its way to the gateway."""
        self.client.sh("ip", "address", "add", f"{SOURCE}/16", "dev", "eth0")
        self.client.sh("ip", "address", "add", f"{OTHER_SOURCE}/16", "dev", "eth0")
        self.gateway.sh("ip", "address", "add", "10.64.0.1/15", "dev", "wan0")
        self.client.sh("ip", "route", "add", "default", "via", "10.64.0.1")

    @contextmanager
    def as_gateway(
        self, settings: tuple[str, ...], clients: int = 10, rules: int = 1
    ) -> Iterator[dict[str, Any]]:
        """Let the host in the middle be a gateway with these settings; with none, the kernel alone."""
        if not settings:
            self.gateway.sh("nft", "-f", "-", text=KERNEL)
            try:
                yield {}
            finally:
                self.gateway.sh("nft", "delete", "table", "ip", "base")
            return
        words = ("-m", "bench.gateway", self.link, "lan0", str(self.run))
        sizes = (str(clients), str(rules), f"mtu={self.mtu}")
        process = self.gateway.start(PYTHON, *words, *sizes, *settings, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout:
            said = process.stdout.readline() or sys.exit(self.gateway.log.read_text()[-2000:])
        try:
            yield json.loads(said)
        finally:
            process.terminate()
            process.wait(20)

    def close(self) -> None:
        """End all that runs on the hosts, and the hosts."""
        for host in (self.client, self.gateway, self.service):
            for process in (*host.running, host.holder):
                process.kill()
                process.wait()
            assert host.holder.stdout is not None
            host.holder.stdout.close()

    def tcp(self) -> float:
        """Return Gbit/s of one TCP stream."""
        words = ("--client", DESTINATION, "--time", str(SECONDS), "--omit", "0.5", "--json")
        said = json.loads(self.client.sh("iperf3", *words, timeout=60))
        return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9

    def seen(self) -> int:
        """Return how many of the small packets have come to the service."""
        listed = json.loads(self.service.sh("nft", "-j", "list", "counter", "ip", "sink", "seen"))
        return int(listed["nftables"][1]["counter"]["packets"])

    def settled(self) -> int:
        """Return how many have come when those that waited in the gateway's queues have come, too."""
        seen = -1
        while seen != (seen := self.seen()):
            time.sleep(0.2)
        return seen

    def flood_words(self, how: str, number: int, seconds: float) -> tuple[str, ...]:
        """Return the command that floods (`bench.flood`), for the client to run."""
        links = json.loads(self.gateway.sh("ip", "-json", "link", "show", "wan0"))
        return (PYTHON, "-m", "bench.flood", how, "eth0", links[0]["address"], str(number), str(seconds))

    def flood(self, how: str, number: int = 1000) -> float:
        """Return how many thousand of the small packets of a flood are delivered in a second."""
        before = self.seen()
        self.client.sh(*self.flood_words(how, number, SECONDS), timeout=60)
        return (self.settled() - before) / SECONDS / 1e3

    def forwards(
        self, gateways: Mapping[str, tuple[str, ...]], kinds: Mapping[str, Callable[[], float]]
    ) -> dict[str, Callable[[], float]]:
        """Return tasks that measure each kind of traffic across each of the gateways, by the names of both."""

        def across(settings: tuple[str, ...], kind: Callable[[], float]) -> float:
            with self.as_gateway(settings):
                return kind()

        return {
            f"{gateway}, {name}": lambda settings=settings, kind=kind: across(settings, kind)  # type: ignore[misc]
            for name, kind in kinds.items()
            for gateway, settings in gateways.items()
        }
