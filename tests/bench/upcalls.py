"""What it costs to ask the forwarder: its CPU per packet, flows that are new, and how long another client waits."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
from collections.abc import Callable
from pathlib import Path

from bench.crossing import BARE, FEW, FLOW_SET, LOGGED, MANY, OTHER_SOURCE, UNLIMITED, Crossing
from bench.probe import ECHO
from netns.lab import PYTHON, until

PROBE_SECONDS, FLOOD_SECONDS = 4.0, 60.0
FLOODING = 20_000
"""So many packets have come from who floods before another client is looked at."""


def tasks(path: Crossing) -> dict[str, Callable[[], float]]:
    """Return the tasks by name."""
    path.service.start(PYTHON, "-m", "bench.probe", "serve")
    until("the service answers", lambda: f":{ECHO} " in path.service.sh("ss", "-lnu"))
    return {
        "CPU, bare": lambda: user_cpu(path, BARE, *FEW),
        "CPU, full": lambda: user_cpu(path, LOGGED, FEW[0], MANY[1]),
        "new flows, few": lambda: new_flows(path, *FEW),
        "new flows, many": lambda: new_flows(path, *MANY),
        "wait, quiet": lambda: wait(path, None),
        "wait, denied": lambda: wait(path, "denied"),
        "wait, allowed": lambda: wait(path, "new"),
    }


def user_cpu(path: Crossing, settings: tuple[str, ...], clients: int, rules: int) -> float:
    """Return the microseconds in user mode that whoever reads the TUN takes for a packet."""
    with path.as_gateway(settings, clients, rules) as gateway:
        seconds, packets = _user_seconds(gateway["pid"]), crossed_tun(path)
        path.flood("frames")
        seconds = _user_seconds(gateway["pid"]) - seconds
        packets = crossed_tun(path) - packets
    return seconds / packets * 1e6


def crossed_tun(path: Crossing) -> int:
    """Return how many packets whoever reads the TUN has been given."""
    return _packets(path, "tidegate-tun", "tx")


def _packets(path: Crossing, link: str, way: str) -> int:
    listed = json.loads(path.gateway.sh("ip", "-json", "-stats", "link", "show", link))
    return int(listed[0]["stats64"][way]["packets"])


def _user_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) / os.sysconf("SC_CLK_TCK")  # utime, proc_pid_stat(5)


def new_flows(path: Crossing, clients: int, rules: int) -> float:
    """Return how many thousand flows a second are let through with their first packet."""
    with path.as_gateway(UNLIMITED, clients, rules):
        return path.flood("new", clients)


def wait(path: Crossing, flood: str | None) -> float:
    """Return after how many ms 99 in 100 new flows of one client are answered while another floods, or does not."""
    with path.as_gateway(FLOW_SET):
        flooding = _start_flood(path, flood) if flood else None
        words = (PYTHON, "-m", "bench.probe", OTHER_SOURCE, str(PROBE_SECONDS))
        found: list[float] = json.loads(path.client.sh(*words))
        if flooding:
            assert flooding.poll() is None, "the flood has ended too early"
            flooding.terminate()
            flooding.wait()
    return statistics.quantiles(found, n=100)[98]


def _start_flood(path: Crossing, how: str) -> subprocess.Popen[bytes]:
    before = _packets(path, "wan0", "rx")
    process = path.client.start(*path.flood_words(how, 1, FLOOD_SECONDS))
    until("one client floods", lambda: _packets(path, "wan0", "rx") - before > FLOODING)
    return process
