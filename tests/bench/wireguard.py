"""The gateway's datapath with real WireGuard on the path, and beside Nebula, as rows.

`python -m bench.wireguard ROUNDS` in a sandbox prints JSON: the median of all rounds by name.
"""

from __future__ import annotations

import functools
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from bench.crossing import FLOW_SET, KERNEL_ONLY, TUN_ONLY
from bench.datapath import TOLD, UNITS, in_sandbox
from bench.measure import in_turn
from bench.rows import Options, Row
from bench.tunnels import NEBULA, WIREGUARD, Tunnels
from netns.lab import prepare_sandbox

PART = "wireguard"
GATEWAYS = {
    "wireguard-go, kernel forwarding": (WIREGUARD, KERNEL_ONLY),
    "wireguard-go, flow set": (WIREGUARD, FLOW_SET),
    "wireguard-go, TUN only": (WIREGUARD, TUN_ONLY),
    "Nebula": (NEBULA, KERNEL_ONLY),
}
PLAIN, FLOWS, TUN, OTHER = GATEWAYS
TARGETS = {
    (FLOWS, "TCP", PLAIN): 0.97,
    (TUN, "TCP", PLAIN): 0.88,
    (FLOWS, "TCP", OTHER): 2.0,
    (PLAIN, "TCP", OTHER): None,
    (FLOWS, "UDP", PLAIN): None,
    (TUN, "UDP", PLAIN): None,
    (FLOWS, "UDP", OTHER): 2.0,
    (PLAIN, "UDP", OTHER): None,
}
"""What a gateway should carry, as a share of what another one does."""


def rows(options: Options) -> list[Row]:
    """Return the rows of this part."""
    values = in_sandbox(PART, options.rounds, ("iperf3", "wireguard-go", "nebula", "nebula-cert"))
    found = []
    for (gateway, kind, other), share in TARGETS.items():
        base = values[f"{other}, {kind}"]
        target, told = None if share is None else share * base, f"{gateway}: {TOLD[kind]}; baseline {other}"
        found.append(Row(PART, told, values[f"{gateway}, {kind}"], UNITS[kind], base, target, True))
    return found


def main() -> None:
    prepare_sandbox()
    with tempfile.TemporaryDirectory() as directory, closing(Tunnels(Path(directory))) as path:
        kinds: dict[str, Callable[[], float]] = {"TCP": path.tcp, "UDP": lambda: path.flood("sockets")}
        tasks = {
            f"{name}, {kind}": functools.partial(path.through, *gateway, task)
            for kind, task in kinds.items()
            for name, gateway in GATEWAYS.items()
        }
        found = in_turn(tasks, int(sys.argv[1]))
    print(json.dumps({name: statistics.median(values) for name, values in found.items()}))


if __name__ == "__main__":
    main()
