"""The gateway's datapath beside the kernel's own forwarding, without WireGuard, as rows.

`python -m bench.datapath ROUNDS` in a sandbox prints JSON: the median of all rounds by name.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection
from contextlib import closing
from pathlib import Path

import sandbox
from bench import upcalls
from bench.crossing import FEW, FLOW_SET, KERNEL_ONLY, LOGGED, MANY, TUN_ONLY, Crossing
from bench.measure import in_turn
from bench.rows import Options, Row
from netns.lab import prepare_sandbox

PART = "datapath"
GATEWAYS = {
    "kernel": KERNEL_ONLY,
    "flow set": FLOW_SET,
    "TUN only": TUN_ONLY,
    "TUN only, packets logged": LOGGED,
}
TARGETS = {
    ("flow set", "TCP"): 0.95,
    ("flow set", "UDP"): 0.88,
    ("TUN only", "TCP"): 0.70,
    ("TUN only", "UDP"): 0.70,
}
"""What a gateway should carry, as a share of the kernel's own forwarding."""
UNITS = {"TCP": "Gbit/s", "UDP": "kpps", "frames": "kpps"}
TOLD = {
    "TCP": "one TCP stream",
    "UDP": "64-byte UDP, 1,000 flows from sockets",
    "frames": "the same as ready frames",
}
SIZE = f"{MANY[0]:,} clients, {MANY[1]:,} rules"


def rows(options: Options) -> list[Row]:
    """Return the rows of this part."""
    values = in_sandbox(PART, options.rounds, ("iperf3",))
    found = [Row(PART, f"memory of a forwarder, {SIZE}", values["memory"], "MiB", None, 300)]
    for kind, unit in UNITS.items():
        base = values[f"kernel, {kind}"]
        for gateway in GATEWAYS:
            share = TARGETS.get((gateway, kind))
            target, value = None if share is None else share * base, values[f"{gateway}, {kind}"]
            found.append(Row(PART, f"{gateway}: {TOLD[kind]}", value, unit, base, target, True))
    cpu, few, quiet = values["CPU, bare"], values["new flows, few"], values["wait, quiet"]
    told = f"user CPU per packet: full forwarder, {MANY[1]:,} rules, packets logged"
    found.append(Row(PART, told, values["CPU, full"], "µs", cpu, 3 * cpu))
    told = f"new flows a second, {SIZE}; baseline {FEW[0]} and {FEW[1]}"
    found.append(Row(PART, told, values["new flows, many"], "k/s", few, 0.9 * few, True))
    for kind, what in (("denied", "denied ports"), ("allowed", "new flows that are allowed")):
        told = f"a new flow waits (p99) while another client floods: {what}"
        found.append(Row(PART, told, values[f"wait, {kind}"], "ms", quiet, 3 * quiet))
    return found


def in_sandbox(part: str, rounds: int, programs: Collection[str]) -> dict[str, float]:
    """Run a part in a sandbox and return what it has measured; ends the bench in one line where it cannot."""
    missing = [name for name in programs if shutil.which(name) is None]
    reason = sandbox.why_not() or (f"not installed: {', '.join(missing)}" if missing else None)
    if reason:
        sys.exit(f"{part}: needs network namespaces and {', '.join(programs)} ({reason})")
    command = [*sandbox.sandbox_prefix(), sys.executable, "-m", f"bench.{part}", str(rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ)
    values: dict[str, float] = json.loads(done.stdout)
    return values


def main() -> None:
    prepare_sandbox()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, closing(Crossing(Path(directory))) as path:
        kinds: dict[str, Callable[[], float]] = {
            "TCP": path.tcp,
            "UDP": lambda: path.flood("sockets"),
            "frames": lambda: path.flood("frames"),
        }
        tasks = path.forwards(GATEWAYS, kinds) | upcalls.tasks(path)
        values = {name: statistics.median(found) for name, found in in_turn(tasks, int(sys.argv[1])).items()}
        with path.as_gateway(FLOW_SET, *MANY) as large:
            values["memory"] = large["memory"]
    print(json.dumps(values))


if __name__ == "__main__":
    main()
