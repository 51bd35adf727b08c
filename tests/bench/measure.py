"""Measuring: what one process costs, and medians of rounds in which every task has its turn."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Cost(NamedTuple):
    """What one process took: seconds on the clock, seconds of CPU, MiB of memory at its peak."""

    wall: float
    cpu: float
    memory: float


def run(*args: str | Path, fine: Collection[int] = (0,), env: Mapping[str, str] | None = None) -> Cost:
    """Run Python with these arguments; what it prints is shown only when its exit status is not `fine`.

    Its bytecode is kept, as that of an installed package is, whatever the environment says of that.
    """
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile() as printed:
        before = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            stdout=printed,
            stderr=printed,
            env={**ours, **(env or {})},
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = time.monotonic() - before
        if process.returncode not in fine:
            printed.seek(0)
            sys.exit(f"{' '.join(map(str, args))}\n{printed.read().decode()[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def in_turn(tasks: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Return what each task returns, one a round. Rounds are interleaved, after one that does not count."""
    found: dict[str, list[T]] = {name: [] for name in tasks}
    for round_ in range(rounds + 1):
        for name, task in tasks.items():
            value = task()
            if round_:
                found[name].append(value)
    return found


def medians(tasks: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, Cost]:
    """Return each task's median costs."""
    costs = in_turn(tasks, rounds)
    return {name: Cost(*map(statistics.median, zip(*of, strict=True))) for name, of in costs.items()}
