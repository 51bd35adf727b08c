"""The gateway's datapath beside the kernel's own forwarding: `bench.crossing` in a sandbox, as rows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import sandbox
from bench.crossing import MEMORY
from bench.rows import Options, Row

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


def rows(options: Options) -> list[Row]:
    """Return the rows of this part."""
    reason = sandbox.why_not() or (None if shutil.which("iperf3") else "not installed: iperf3")
    if reason:
        sys.exit(f"datapath: needs network namespaces and iperf3 ({reason})")
    command = [*sandbox.sandbox_prefix(), sys.executable, "-m", "bench.crossing", str(options.rounds)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, env=os.environ)
    values: dict[str, float] = json.loads(done.stdout)
    found = [Row("datapath", MEMORY, values.pop(MEMORY), "MiB", None, 300)]
    for name, value in values.items():
        gateway, _, kind = name.rpartition(", ")
        base, share = values[f"kernel, {kind}"], TARGETS.get((gateway, kind))
        target = None if share is None else share * base
        found.append(Row("datapath", f"{gateway}: {TOLD[kind]}", value, UNITS[kind], base, target, True))
    return found
