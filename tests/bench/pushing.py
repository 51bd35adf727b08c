"""From a push to the kernel: how long a running agent takes to apply what has come into its watched directory.

python -m bench.pushing          (the part `release` has these rows, too)

A client and a gateway with real WireGuard, each in a namespace of its own, are pushed one release after the other, at
odd moments: a client's adds or drops a network, a gateway's a peer and a policy's rules. The time is that from the
moment at which `current` names the release until the agent's status says that it is applied.
"""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sandbox
from bench.rows import Options, Row
from netns.lab import WEB_RULES, Agent, Lab, lab

PUSHES = 100
_PART, _SECONDS = "release", 30.0
_CAROL = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


def rows(_options: Options) -> list[Row]:
    """Measure in a sandbox of its own."""
    with tempfile.TemporaryDirectory(prefix="pushing-") as place:
        done = subprocess.run(
            [*sandbox.sandbox_prefix(), sys.executable, "-m", "bench.pushing", place],
            stdout=subprocess.PIPE,
            check=True,
        )
    return [
        Row(_PART, f"push to applied, {kind}: {what} of {PUSHES}", milliseconds, "ms")
        for kind, found in json.loads(done.stdout).items()
        for what, milliseconds in found.items()
    ]


def _measure(place: Path) -> dict[str, dict[str, float]]:
    with lab(place) as made:
        made.publish()
        made.start()
        return {
            agent.kind: _told(_times(agent, lambda number, push=push: push(made, number)))
            for agent, push in ((made.alice, _push_client), (made.gateway, _push_gateway))
        }


def _times(agent: Agent, push: Callable[[int], object]) -> list[float]:
    assert agent.process is not None
    file = Path(f"/proc/{agent.process.pid}/root/run/tidegate/{agent.kind}/status.json")
    moments = random.Random(1)
    times = []
    for number in range(2, PUSHES + 2):
        time.sleep(0.2 + moments.random())
        push(number)
        start = time.monotonic()
        while not _is_applied(file, number):
            assert time.monotonic() - start < _SECONDS, f"release {number} is not applied"
            time.sleep(0.001)
        times.append(time.monotonic() - start)
    return times


def _is_applied(file: Path, serial: int) -> bool:
    status: dict[str, Any] = json.loads(file.read_bytes())
    return bool(status["release"]["serial"] == serial and status.get("applied", True))


def _told(times: list[float]) -> dict[str, float]:
    ordered = sorted(times)
    p99 = ordered[int(len(ordered) * 0.99) - 1]
    return {"median": statistics.median(times) * 1e3, "p99": p99 * 1e3}


def _push_client(made: Lab, number: int) -> None:
    extra = ", 10.21.0.0/16" if number % 2 else ""
    file = made.client_file("10.64.0.11/32, fd64::11/128")
    file = file.replace(b"fd20::/48", f"fd20::/48{extra}".encode())
    made.signer.publish(made.bundles, "client", made.alice.name, {"wg0.conf": file}, number)


def _push_gateway(made: Lab, number: int) -> None:
    stranger = Agent(made.bob.host, "client", "carol", made.bundles)
    stranger.public_key = _CAROL
    everyone = [
        (made.alice, ["10.64.0.11/32", "fd64::11/128"]),
        (made.bob, ["10.64.0.12/32", "fd64::12/128"]),
        *([(stranger, ["10.64.0.13/32", "fd64::13/128"])] if number % 2 else []),
    ]
    policy = made.policy_file(alice=WEB_RULES, bob=WEB_RULES if number % 3 else [])
    files = {"peers.json": made.peers_file(*everyone), "policy.json": policy}
    made.signer.publish(made.bundles, "gateway", "fra1", files, number)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(_measure(Path(sys.argv[1]))))
    else:
        sandbox.add_sbin_to_path()
        print("\n".join(f"{row.row}: {row.value:.1f} {row.unit}" for row in rows(Options())))
