"""Packets across a gateway of namespaces and veths, measured in a sandbox: `python -m bench.crossing ROUNDS`.

    client 10.64.0.11 ── wan0   gateway   lan0 ── service 10.20.0.80

What the gateway is differs by task: the kernel's own forwarding with conntrack and masquerade, or Tidegate's rules, TUN
and forwarder, without WireGuard. Prints JSON: the values of all rounds by row.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.flood import DESTINATION, PORT, SOURCE
from netns.lab import PYTHON, Host, prepare_sandbox, sh, until

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
FLOW_SET, TUN_ONLY, LOGGED = ("flow_cache=on",), ("flow_cache=off",), ("logging_enabled=on",)
MANY_CLIENTS, MANY_RULES = 100_000, 3_000
MEMORY = f"memory of a forwarder, {MANY_CLIENTS:,} clients, {MANY_RULES:,} rules"
KERNEL_ONLY: tuple[str, ...] = ()


class Crossing:
    """The three hosts, and what the one in the middle is now."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.client, self.gateway, self.service = (Host(n, directory) for n in ("client", "gw", "service"))
        for one, link, far in ((self.client, "eth0", "wan0"), (self.service, "eth0", "lan0")):
            sh(
                *("ip", "link", "add", link, "netns", str(one.holder.pid), "type", "veth"),
                *("peer", "name", far, "netns", str(self.gateway.holder.pid)),
            )
            one.sh("ip", "link", "set", link, "up")
            self.gateway.sh("ip", "link", "set", far, "up")
        for host, link, address in (
            (self.client, "eth0", f"{SOURCE}/16"),
            (self.gateway, "wan0", "10.64.0.1/15"),
            (self.gateway, "lan0", "10.20.0.1/16"),
            (self.service, "eth0", f"{DESTINATION}/16"),
        ):
            host.sh("ip", "address", "add", address, "dev", link)
        self.client.sh("ip", "route", "add", "default", "via", "10.64.0.1")
        self.service.sh("ip", "route", "add", "default", "via", "10.20.0.1")
        self.gateway.sysctl("ipv4/ip_forward", "1")
        self.service.sh("nft", "-f", "-", text=SINK)
        self.service.start("iperf3", "--server")
        until("iperf3 listens", lambda: ":5201" in self.service.sh("ss", "-ltn"))
        self.mac = json.loads(self.gateway.sh("ip", "-json", "link", "show", "wan0"))[0]["address"]

    @contextmanager
    def as_gateway(
        self, settings: tuple[str, ...], clients: int = 10, rules: int = 1
    ) -> Iterator[dict[str, Any]]:
        """Let the host in the middle be a gateway with these settings; with none, the kernel alone."""
        if not settings:
            self.gateway.sh("nft", "-f", "-", text=KERNEL)
            yield {}
            self.gateway.sh("nft", "delete", "table", "ip", "base")
            return
        words = ("-m", "bench.gateway", "wan0", "lan0", str(self.directory / "run"), str(clients), str(rules))
        process = self.gateway.start(PYTHON, *words, *settings, stdout=subprocess.PIPE)
        assert process.stdout is not None
        yield json.loads(process.stdout.readline() or sys.exit(self.gateway.log.read_text()[-2000:]))
        process.terminate()
        process.wait(20)

    def tcp(self) -> float:
        """Return Gbit/s of one TCP stream."""
        words = ("--client", DESTINATION, "--time", str(SECONDS), "--omit", "0.5", "--json")
        said = json.loads(self.client.sh("iperf3", *words, timeout=60))
        return float(said["end"]["sum_received"]["bits_per_second"]) / 1e9

    def _seen(self) -> int:
        listed = json.loads(self.service.sh("nft", "-j", "list", "counter", "ip", "sink", "seen"))
        return int(listed["nftables"][1]["counter"]["packets"])

    def flood(self, how: str, flows: int = 1000) -> float:
        """Return how many thousand of the small packets of a flood are delivered in a second."""
        before = self._seen()
        words = ("-m", "bench.flood", how, "eth0", self.mac, str(flows), str(SECONDS))
        self.client.sh(PYTHON, *words, timeout=60)
        seen = self._seen()
        while seen != (seen := self._seen()):  # what still waits in the gateway's queues
            pass
        return (seen - before) / SECONDS / 1e3

    def udp(self) -> float:
        """Return what is delivered of what programs send."""
        return self.flood("sockets")

    def frames(self) -> float:
        """Return what is delivered of what costs its sender next to nothing."""
        return self.flood("frames")


def measure(path: Crossing, rounds: int) -> dict[str, list[float]]:
    """Return the values of each row, one a round; rounds are interleaved, after one that does not count."""
    gateways = {
        "kernel": KERNEL_ONLY,
        "flow set": FLOW_SET,
        "TUN only": TUN_ONLY,
        "TUN only, packets logged": LOGGED,
    }
    kinds: dict[str, Callable[[], float]] = {"TCP": path.tcp, "UDP": path.udp, "frames": path.frames}
    tasks = {
        f"{gateway}, {kind}": (settings, task)
        for kind, task in kinds.items()
        for gateway, settings in gateways.items()
    }
    values: dict[str, list[float]] = {name: [] for name in tasks}
    for round_ in range(rounds + 1):
        for name, (settings, task) in tasks.items():
            with path.as_gateway(settings):
                value = task()
            if round_:
                values[name].append(value)
    return values


def main() -> None:
    prepare_sandbox()
    with tempfile.TemporaryDirectory() as directory:
        path = Crossing(Path(directory))
        values = measure(path, int(sys.argv[1]))
        with path.as_gateway(FLOW_SET, MANY_CLIENTS, MANY_RULES) as large:
            values[MEMORY] = [large["memory"]]
    print(json.dumps({name: statistics.median(found) for name, found in values.items()}))


if __name__ == "__main__":
    main()
