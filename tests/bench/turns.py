"""What an event costs the forwarder: two that take turns at one TUN, of which one logs every packet.

`python -m bench.turns TUN REPORT TABLES DIRECTORY`: two descriptors, the file of a generation, and where to write. It
stands where a forwarder would, and reports as one does. At SIGTERM it writes `turns.json`: microseconds of processor
time for a packet without an event, and for the event.

The event takes a tenth of what the packet does, and a shared machine is that much slower or faster from one second to
the next. So a turn takes milliseconds, and each is compared with the one beside it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import statistics
import sys
import time
from pathlib import Path

from tidegate_agents.datapath.counters import Counters
from tidegate_agents.datapath.forwarder import ACTIVE, BATCH, Forwarder
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import ring
from tidegate_agents.settings import defaults

RESULT = "turns.json"
FIRST, COUNTED = 6, 20
"""Batches of a turn: those that bring its code and its flows into the processor's cache, and those that count."""


def turn(forwarder: Forwarder) -> float | None:
    """Return the microseconds that a packet took; None when the TUN had too few."""
    for _ in range(FIRST):
        forwarder.step()
    before = time.thread_time_ns()
    packets = sum(forwarder.step() for _ in range(COUNTED))
    spent = time.thread_time_ns() - before
    return spent / packets / 1e3 if packets == COUNTED * BATCH else None


def main() -> None:
    tun, report, tables, directory = *map(int, sys.argv[1:3]), *map(Path, sys.argv[3:5])
    known = Tables.parse(tables.read_bytes())
    ring.create(directory / "turns.ring", defaults("gateway")["ring_records"])
    log = ring.Ring(directory / "turns.ring")
    both = [Forwarder(tun, known, Counters(directory / "turns.counters"), one) for one in (None, log)]
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
    os.write(report, ACTIVE)
    poller = select.poll()
    poller.register(tun, select.POLLIN)
    silent, events = [], []
    while not stopping:
        poller.poll(100)
        without, logged = map(turn, both)
        log.free(log.pending())  # into a full one nothing would be written
        if without is not None and logged is not None:
            silent.append(without)
            events.append(logged - without)
    found = {"silent": statistics.median(silent), "event": statistics.median(events)} if silent else {}
    (directory / RESULT).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
