"""What an event costs whoever reads the TUN, and what a dead log endpoint costs the packets, as rows.

`python -m bench.enqueue ROUNDS` in a sandbox prints JSON: the median of all rounds by name.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench import turns
from bench.crossing import FEW, LOGGED, MANY, TUN_ONLY, TURNS, Crossing
from bench.datapath import TOLD, UNITS, in_sandbox
from bench.measure import in_turn
from bench.rows import Row
from netns.lab import prepare_sandbox

DEAD_SECONDS = 60.0
DEAD = (*LOGGED, "log_endpoint=http://127.0.0.1:9/")
"""Nobody listens there: each batch is made, refused, and dropped, as fast as the flusher can."""


def rows(part: str, rounds: int) -> list[Row]:
    """Return the rows, as part of another part."""
    values = in_sandbox("enqueue", rounds, ("iperf3",))
    silent = values["silent"]
    told = "an event, of the forwarder's CPU; baseline what a packet through the TUN takes without"
    found = [Row(part, told, values["event"], "µs", silent, 0.12 * silent)]
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
    return path.forwards({"off": TUN_ONLY, "on": LOGGED}, kinds)


def event(path: Crossing, rounds: int) -> dict[str, float]:
    """Return the microseconds, in user mode and in the kernel, that a packet takes without an event, and the event."""
    found: list[dict[str, float]] = []
    for _ in range(rounds):
        with path.as_gateway(TURNS, FEW[0], MANY[1]):
            path.flood("frames")
        found.append(json.loads((path.run / turns.RESULT).read_text()))
    return {name: statistics.median(one[name] for one in found) for name in ("silent", "event")}


def dead_endpoint(path: Crossing) -> dict[str, float]:
    """Return kpps and MiB through a minute in which packets are logged for an endpoint that is dead."""
    with path.as_gateway(DEAD, FEW[0], MANY[1]) as gateway:
        pids = (gateway["pid"], gateway["flusher"])
        before = path.seen()
        flooding = path.client.start(*path.flood_words("frames", 1000, DEAD_SECONDS))
        memory: list[float] = []
        while flooding.poll() is None:
            time.sleep(DEAD_SECONDS / 12)
            memory.append(sum(resident(pid) for pid in pids))
        carried = (path.settled() - before) / DEAD_SECONDS / 1e3  # as in `Crossing.flood`
    return {"dead, carried": carried, "dead, memory early": memory[1], "dead, memory late": max(memory[-3:])}


def resident(pid: int) -> float:
    """Return the MiB of a process that are in memory."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def main() -> None:
    prepare_sandbox()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, closing(Crossing(Path(directory))) as path:
        values = {
            name: statistics.median(found) for name, found in in_turn(tasks(path), int(sys.argv[1])).items()
        }
        values |= event(path, int(sys.argv[1])) | dead_endpoint(path)
    print(json.dumps(values))


if __name__ == "__main__":
    main()
