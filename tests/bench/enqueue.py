"""What an event costs whoever reads the TUN, and what a dead log endpoint costs the packets, as rows.

`python -m bench.enqueue ROUNDS` in a sandbox prints JSON: the median of all rounds by name.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench.crossing import FEW, LOGGED, MANY, TUN_ONLY, Crossing
from bench.datapath import TOLD, UNITS, in_sandbox
from bench.measure import in_turn
from bench.rows import Row
from bench.upcalls import crossed_tun
from netns.lab import prepare_sandbox

DEAD_SECONDS = 60.0
DEAD = (*LOGGED, "log_endpoint=http://127.0.0.1:9/")
"""Nobody listens there: each batch is made, refused, and dropped, as fast as the flusher can."""


def rows(part: str, rounds: int) -> list[Row]:
    """Return the rows, as part of another part."""
    values = in_sandbox("enqueue", rounds, ("iperf3",))
    silent, logged = values["CPU, silent"], values["CPU, logged"]
    told = "an event, of the forwarder's CPU; baseline what a packet through the TUN takes without"
    found = [Row(part, told, logged - silent, "µs", silent, 0.12 * silent)]
    for kind in ("TCP", "UDP", "frames"):
        base = values[f"off, {kind}"]
        told = f"TUN, every packet logged: {TOLD[kind]}; baseline logging off"
        found.append(Row(part, told, values[f"on, {kind}"], UNITS[kind], base, 0.85 * base, True))
    base = values["off, frames"]
    told = f"endpoint dead for {DEAD_SECONDS:.0f} s, every packet logged: ready frames; baseline logging off"
    found.append(Row(part, told, values["dead, carried"], "kpps", base, 0.8 * base, True))
    early, late = values["dead, memory early"], values["dead, memory late"]
    told = "the same: memory of forwarder and flusher at the end; baseline after 10 s"
    found.append(Row(part, told, late, "MiB", early, 1.05 * early))
    return found


def tasks(path: Crossing) -> dict[str, Callable[[], float]]:
    """Return the tasks by name."""
    kinds: dict[str, Callable[[], float]] = {
        "TCP": path.tcp,
        "UDP": lambda: path.flood("sockets"),
        "frames": lambda: path.flood("frames"),
    }
    return {
        **path.forwards({"off": TUN_ONLY, "on": LOGGED}, kinds),
        "CPU, silent": lambda: cpu(path, TUN_ONLY),
        "CPU, logged": lambda: cpu(path, LOGGED),
    }


def cpu(path: Crossing, settings: tuple[str, ...]) -> float:
    """Return the microseconds, in user mode and in the kernel, that the forwarder takes for a packet."""
    with path.as_gateway(settings, FEW[0], MANY[1]) as gateway:
        seconds, packets = cpu_seconds(gateway["pid"]), crossed_tun(path)
        path.flood("frames")
        return (cpu_seconds(gateway["pid"]) - seconds) / (crossed_tun(path) - packets) * 1e6


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime: proc_pid_stat(5)


def dead_endpoint(path: Crossing) -> dict[str, float]:
    """Return kpps and MiB through a minute in which packets are logged for an endpoint that is dead."""
    with path.as_gateway(DEAD, FEW[0], MANY[1]) as gateway:
        pids = (gateway["pid"], gateway["flusher"])
        before, began = path.seen(), time.monotonic()
        flooding = path.client.start(*path.flood_words("frames", 1000, DEAD_SECONDS))
        memory: list[float] = []
        while flooding.poll() is None:
            time.sleep(DEAD_SECONDS / 12)
            memory.append(sum(resident(pid) for pid in pids))
        seconds = time.monotonic() - began
        carried = (path.settled() - before) / seconds / 1e3
    return {"dead, carried": carried, "dead, memory early": memory[1], "dead, memory late": max(memory[-3:])}


def resident(pid: int) -> float:
    """Return the MiB of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    prepare_sandbox()
    with tempfile.TemporaryDirectory() as directory, closing(Crossing(Path(directory))) as path:
        values = {
            name: statistics.median(found) for name, found in in_turn(tasks(path), int(sys.argv[1])).items()
        }
        values |= dead_endpoint(path)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
