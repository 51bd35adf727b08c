"""kill -9 of the producer and of the real flusher, at random moments: produced = delivered + counted as dropped.

A full ring drops, and so does the flusher what a receiver refuses. A batch that was refused to a flusher that was then
killed may be taken from its successor: what counts is what became of it in the end.

`./run stress` kills 500 times; `./run tests` a few times. What the protocol is in at a kill is left to chance here; in
`test_interleavings` it is every point there is.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from stress.progress import Progress
from stress.victims import WHO_MOST, Journal, Receiver, kill, start_flusher, start_producer
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from unit.agents.kit import until

IS_LONG = "TIDEGATE_STRESS" in os.environ
ROUNDS = 500 if IS_LONG else 5
CAPACITY = 4096
VICTIMS = (("producer",), ("flusher",), ("flusher", "producer"))


@pytest.mark.timeout(0 if IS_LONG else 300)
def test_produced_is_delivered_and_dropped_whoever_is_killed(tmp_path: Path) -> None:
    path, journal = tmp_path / "events.ring", tmp_path / "journal"
    ring.create(path, CAPACITY)
    observer = Ring(path)
    written = Journal(journal)
    chance = random.Random(ROUNDS)
    killed = dict.fromkeys(VICTIMS, 0)
    with contextlib.closing(Receiver(observer.epoch)) as receiver, contextlib.ExitStack() as stack:
        running: dict[str, subprocess.Popen[bytes]] = {}
        stack.callback(lambda: [process.kill() for process in running.values()])
        with Progress("kills", ROUNDS) as progress:
            for number in range(ROUNDS):
                if "producer" not in running:
                    running["producer"] = start_producer(path, journal, 1 + number % (WHO_MOST - 1))
                if "flusher" not in running:
                    running["flusher"] = start_flusher(path, receiver.url)
                victims = VICTIMS[number % len(VICTIMS)]
                wait_for_a_moment(receiver, chance)
                for name in victims:
                    kill(running.pop(name))
                if (
                    "flusher" in victims
                ):  # else a batch of its own could come after the successor's was refused
                    until("its requests are over", lambda: receiver.connections == 0, 60)
                if "producer" in victims:
                    assert made(path) in written.totals()
                killed[victims] += 1
                progress.at(number + 1)
        if "producer" in running:
            kill(running.pop("producer"))
        if "flusher" not in running:
            running["flusher"] = start_flusher(path, receiver.url)
        until("everything is sent", lambda: observer.pending() == 0, 60)
        last = running.pop("flusher")
        until("it is at work", lambda: status(path).get("pid") == last.pid, 60)
        last.send_signal(signal.SIGTERM)
        assert last.wait(30) == 0
        produced, dropped, reasons = made(path), observer.dropped(), status(path)["dropped_by_reason"]
        refused = sum(reasons.values())
        table = ", ".join(f"{' and '.join(victims)} {times} times" for victims, times in killed.items())
        print(
            f"\nkilled {table}: produced {produced}, delivered {receiver.distinct} (and {receiver.again} again), "
            f"dropped and counted {dropped} by a full ring and {refused} by the flusher ({receiver.refused} refusals)"
        )
        assert receiver.wrong == []
        assert produced in written.totals()
        assert produced == receiver.distinct + dropped + refused
        assert set(reasons) <= {"http-500"}
        assert receiver.distinct > 0
        assert not IS_LONG or (receiver.again > 0 and dropped > 0 and refused > 0), "it was too easy"


def made(path: Path) -> int:
    """Return how many events have been made, as a producer finds it that comes after the killed one."""
    return Ring(path).claim()[4]


def status(path: Path) -> dict[str, Any]:
    """Return what the flusher says of itself, nothing before it has said anything."""
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads((path.parent / "flusher" / "status.json").read_bytes()))
    return {}


def wait_for_a_moment(receiver: Receiver, chance: random.Random) -> None:
    """Wait for a random moment: mostly one at which both are at work, else one at which they may still be starting."""
    if chance.random() < 0.8:
        before = receiver.requests
        until("events come", lambda: receiver.requests > before, 60)
    time.sleep(chance.random() * chance.choice((0.05, 0.5)))
