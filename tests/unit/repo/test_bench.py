"""The benches measure what they say: a valid inventory, medians, and parts that own up to measuring nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from bench import fleet
from bench.compiler import Cost, medians
from bench.rows import Row
from tidegate_compiler import pipeline, quick

ROOT = Path(__file__).parents[3]


def test_the_generated_fleet_is_valid_and_the_same_each_time(tmp_path: Path) -> None:
    trees = [tmp_path / "one", tmp_path / "two"]
    for tree in trees:
        fleet.generate(tree, 600)
    checked = pipeline.validate(trees[0])
    assert checked.inventory is not None
    assert {diagnostic.code for diagnostic in checked.diagnostics} <= {"TG055", "TG056"}
    assert len(checked.inventory.clients) == 600
    assert len(checked.inventory.gateways) == fleet.GATEWAYS
    one, two = ({p.relative_to(tree): p.read_bytes() for p in tree.rglob("*.yaml")} for tree in trees)
    assert one == two
    assert all(
        quick.read(path.parent.name, data.decode())
        for path, data in one.items()
        if path.name != "overlay.yaml"
    )


def test_medians_leave_out_the_first_round() -> None:
    calls: list[str] = []

    def task(name: str) -> Cost:
        calls.append(name)
        return Cost(len(calls), 1, 2)

    assert medians({"a": lambda: task("a"), "b": lambda: task("b")}, rounds=3) == {
        "a": (5, 1, 2),
        "b": (6, 1, 2),
    }
    assert calls == ["a", "b"] * 4


def test_a_row_knows_whether_it_meets_its_target() -> None:
    assert [Row("p", "r", 2.0, "s", target=target).met for target in (None, 2.0, 1.0)] == [None, True, False]


def test_a_part_without_measurements_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "datapath", "--json", "rows.json"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests"), "RUN_FROM": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "datapath: nothing to measure yet\n"
    assert json.loads((tmp_path / "rows.json").read_text()) == []
