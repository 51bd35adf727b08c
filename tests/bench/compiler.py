"""The compiler as a user meets it: whole processes over the inventory of a generated fleet, output to memory.

The baseline B0 is the least that any Python tool must do with the same files: start, and load them with PyYAML's
C loader. It checks nothing. Beside it stands the same with Python's cycle collector switched off.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench import fleet
from bench.rows import Options, Row

TMPFS = Path("/dev/shm")

LOAD = """
import sys, yaml
from pathlib import Path
kept = [yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) for path in Path(sys.argv[1]).rglob("*.yaml")]
"""


class Cost(NamedTuple):
    """What one process took: seconds on the clock, seconds of CPU, MiB of memory at its peak."""

    wall: float
    cpu: float
    memory: float


def run(*args: str | Path) -> Cost:
    """Run Python with these arguments; what it prints is shown only when it fails."""
    with tempfile.TemporaryFile() as printed:
        before = os.times()
        process = subprocess.Popen([sys.executable, *map(str, args)], stdout=printed, stderr=printed)
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        wall = os.times().elapsed - before.elapsed
        if process.returncode:
            printed.seek(0)
            sys.exit(f"{' '.join(map(str, args))}\n{printed.read().decode()[-2000:]}")
    return Cost(wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def medians(tasks: dict[str, Callable[[], Cost]], rounds: int) -> dict[str, Cost]:
    """Return each task's median costs. Rounds are interleaved, after one that does not count."""
    costs: dict[str, list[Cost]] = {name: [] for name in tasks}
    for round_ in range(rounds + 1):
        for name, task in tasks.items():
            cost = task()
            if round_:
                costs[name].append(cost)
    return {name: Cost(*map(statistics.median, zip(*of, strict=True))) for name, of in costs.items()}


def rows(options: Options) -> list[Row]:
    """Measure validate and compile, of a whole fleet, of one that did not change, and of one with one more client."""
    with tempfile.TemporaryDirectory(
        prefix="tidegate-bench-", dir=TMPFS if TMPFS.is_dir() else None
    ) as scratch:
        inventory, fresh, kept = (Path(scratch, name) for name in ("inventory", "fresh", "kept"))
        fleet.generate(inventory, options.clients)
        changes = iter(range(1_000_000))

        def tidegate(*args: str | Path) -> Cost:
            return run("-m", "tidegate_schema", *args)

        def compile_fresh() -> Cost:
            shutil.rmtree(fresh, ignore_errors=True)
            return tidegate("compile", inventory, "--out", fresh)

        def compile_changed() -> Cost:
            number = options.clients + next(changes)
            (inventory / "clients/changed.yaml").write_text(fleet.client(number, number % fleet.GATEWAYS))
            return tidegate("compile", inventory, "--out", kept)

        costs = medians(
            {
                "load": lambda: run("-c", LOAD, inventory),
                "load, GC off": lambda: run("-c", f"import gc; gc.disable(){LOAD}", inventory),
                "validate": lambda: tidegate("validate", inventory),
                "compile": compile_fresh,
                "compile, nothing changed": lambda: tidegate("compile", inventory, "--out", kept),
                "compile, one client changed": compile_changed,
            },
            options.rounds,
        )
    base = costs["load"]
    size = f"{options.clients} clients"
    return [
        Row("compiler", f"B0: start Python, load with PyYAML's C loader, {size}", base.wall, "s"),
        Row("compiler", "B0 with the cycle collector off", costs["load, GC off"].wall, "s", base.wall),
        Row("compiler", "validate", costs["validate"].wall, "s", base.wall, 0.20 * base.wall),
        Row("compiler", "compile, CPU", costs["compile"].cpu, "s", base.wall, 0.60 * base.wall),
        Row("compiler", "compile, peak memory", costs["compile"].memory, "MiB", base.memory, 2048),
        Row("compiler", "compile, nothing changed", costs["compile, nothing changed"].wall, "s", base.wall),
        Row(
            "compiler",
            "compile after one client changed",
            costs["compile, one client changed"].wall,
            "s",
            base.wall,
            0.05 * base.wall,
        ),
    ]
