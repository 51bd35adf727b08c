"""The compiler as a user meets it: whole processes over the inventory of a generated fleet, output to memory.

The baseline B0 is the least that any Python tool must do with the same files: start, and load them with PyYAML's
C loader. It checks nothing. Beside it stands the same with Python's cycle collector switched off.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from bench import beside, fleet
from bench.measure import Cost, medians, run
from bench.rows import Options, Row

TMPFS = Path("/dev/shm")
CHANGED = 100  # objects that differ between two revisions of a busy day

LOAD = """
import sys, yaml
from pathlib import Path
kept = [yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader) for path in Path(sys.argv[1]).rglob("*.yaml")]
"""


def rows(options: Options) -> list[Row]:
    """Measure a generated fleet, then stand beside others' tools; everything lies in memory."""
    with tempfile.TemporaryDirectory(
        prefix="tidegate-bench-", dir=TMPFS if TMPFS.is_dir() else None
    ) as scratch:
        (Path(scratch) / "fleet").mkdir()
        measured = _fleet(Path(scratch) / "fleet", options)
        shutil.rmtree(Path(scratch) / "fleet")
        return [*measured, *beside.rows(Path(scratch), options.rounds)]


def _fleet(scratch: Path, options: Options) -> list[Row]:
    """Measure validate, compile and plan: of a whole fleet, of a tenth of it, and after small changes."""
    inventory, before, after, hundred, tenth = (
        scratch / name for name in ("inventory", "before", "after", "hundred", "tenth")
    )
    fresh, kept, small = (scratch / f"out-{name}" for name in ("fresh", "kept", "small"))
    fewer = max(1, options.clients // 10)
    fleet.generate(inventory, options.clients)
    fleet.generate(tenth, fewer)
    for copy in (before, after, hundred):
        shutil.copytree(inventory, copy)
    fleet.change(hundred, CHANGED)
    changes = iter(range(1_000_000))

    os.environ.pop("TIDEGATE_CACHE", None)
    state = {"XDG_STATE_HOME": str(scratch / "state")}

    def cold(*args: str | Path) -> Cost:
        return run("-m", "tidegate_schema", *args, fine=(0, 2), env=state)

    def tidegate(*args: str | Path) -> Cost:
        return cold(*args, "--cache", scratch / "cache")

    def compile_fresh(root: Path, out: Path) -> Cost:
        shutil.rmtree(out, ignore_errors=True)
        return cold("compile", root, "--out", out)

    def change_one(root: Path) -> None:
        number = options.clients + next(changes)
        (root / "clients/changed.yaml").write_text(fleet.client(number, number % fleet.GATEWAYS))

    def compile_changed() -> Cost:
        change_one(inventory)
        return tidegate("compile", inventory, "--out", kept)

    def plan_changed() -> Cost:
        change_one(after)
        return tidegate("plan", before, after)

    costs = medians(
        {
            "load": lambda: run("-c", LOAD, inventory),
            "load, GC off": lambda: run("-c", f"import gc; gc.disable(){LOAD}", inventory),
            "validate": lambda: cold("validate", inventory),
            "compile": lambda: compile_fresh(inventory, fresh),
            "compile, a tenth": lambda: compile_fresh(tenth, small),
            "compile, nothing changed": lambda: tidegate("compile", inventory, "--out", kept),
            "compile, one client changed": compile_changed,
            "plan, one client changed": plan_changed,
            "plan, many changed": lambda: cold("plan", before, hundred),
        },
        options.rounds,
    )
    base, whole, part = costs["load"], costs["compile"], costs["compile, a tenth"]
    size = f"{options.clients} clients"
    growth = f"growth, {fewer} -> {options.clients} clients: compile"
    factor = options.clients / fewer

    def within(row: str, task: str, share: float | None = None) -> Row:
        target = None if share is None else share * base.wall
        return Row("compiler", row, costs[task].wall, "s", base.wall, target)

    return [
        Row("compiler", f"B0: start Python, load with PyYAML's C loader, {size}", base.wall, "s"),
        within("B0 with the cycle collector off", "load, GC off"),
        within("validate", "validate", 0.20),
        Row("compiler", "compile, CPU", whole.cpu, "s", base.wall, 0.60 * base.wall),
        Row("compiler", "compile, peak memory", whole.memory, "MiB", base.memory, 2048),
        within("compile, nothing changed", "compile, nothing changed"),
        within("compile after one client changed", "compile, one client changed", 0.05),
        within("plan after one client changed", "plan, one client changed", 0.05),
        within(f"plan, {CHANGED} objects changed, cold", "plan, many changed", 0.30),
        Row("compiler", f"{growth}, CPU", whole.cpu / part.cpu, "times", factor, 1.1 * factor),
        Row("compiler", f"{growth}, peak memory", whole.memory / part.memory, "times", factor, 1.1 * factor),
        Row("compiler", f"distinct policy sets, {size}", policy_sets(fresh), "sets", options.clients),
    ]


def policy_sets(out: Path) -> int:
    """Return how many different sets of rules the clients of a compile output have, over all gateways.

    A bundle numbers its own sets and rules, so sets are compared by what their rules say.
    """
    known: set[frozenset[str]] = set()
    for path in out.glob("gateway/*/policy.json"):
        policy = json.loads(path.read_bytes())
        rules = [json.dumps(rule, sort_keys=True) for rule in policy["rules"]]
        known.update(frozenset(rules[number] for number in numbers) for numbers in policy["sets"])
    return len(known)
