"""What recording flows costs, and what it costs who cuts them: `PYTHONPATH=tests python -m bench.flowrecords [FLOWS]`.

Prints processor time of the recorder's thread for a flow, and how long cutting all of them takes beside it.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sandbox
from netns.flowkit import Recorded, address, prepare
from netns.lab import until
from tidegate_agents.gateway import conntrack
from tidegate_agents.gateway.flowrecorder import ROOM_BYTES

INSIDE = "TIDEGATE_BENCH_INSIDE"
PORTS, ROUNDS = 50_000, 3


def open_flows(count: int) -> None:
    """Open so many flows of one datagram."""
    for first in range(0, count, PORTS):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.bind((address(), 6000 + first // PORTS))
            for port in range(10, 10 + min(PORTS, count - first)):
                try:
                    sender.sendto(b"x", ("127.0.0.1", port))
                except ConnectionRefusedError:  # told of the one before; this one was not sent
                    sender.sendto(b"x", ("127.0.0.1", port))


def cut(recorded: Recorded) -> float:
    """Cut every flow, and return the seconds that it took."""
    start = time.monotonic()
    with recorded.recorder.standing_back() as cutting:
        conntrack.revoke(lambda *_: False, cutting)
    return time.monotonic() - start


def main(flows: int) -> None:
    prepare()
    recorded = Recorded(Path(tempfile.mkdtemp()), ROOM_BYTES)
    counts, settings = recorded.recorder.counts, {"ring_records": 1 << 20}
    alone = []
    for _ in range(ROUNDS):
        open_flows(flows)
        alone.append(cut(recorded))
    recorded.keep(**settings)
    thread = recorded.thread_seconds

    def measured(what: str, count: int, begin: Callable[[], object]) -> None:
        told, spent = counts.told, thread()
        begin()
        until(what, lambda: counts.told - told >= count, 120)
        print(f"{what}: {(thread() - spent) / flows * 1e6:.1f} us of the thread for each")

    open_flows(flows)
    measured("a look, all have moved", flows, lambda: recorded.keep(**settings, flow_update_interval=1))
    recorded.keep(**settings)
    beside: list[float] = []
    for _ in range(ROUNDS):
        measured("closes", flows, lambda: beside.append(cut(recorded)))
        open_flows(flows)
    times = (f"{statistics.median(one):.2f} s" for one in (alone, beside))
    print(f"cutting {flows}: {' without the recorder, '.join(times)} beside it; {counts}")
    recorded.recorder.stop()


if __name__ == "__main__":
    if INSIDE in os.environ:
        main(int(sys.argv[1]) if sys.argv[1:] else 100_000)
    else:
        command = [*sandbox.sandbox_prefix(), sys.executable, "-m", "bench.flowrecords", *sys.argv[1:]]
        sys.exit(subprocess.run(command, env={**os.environ, INSIDE: "1"}, check=False).returncode)
