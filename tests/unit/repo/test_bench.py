"""The benches measure what they say: a valid inventory, medians, and parts that own up to measuring nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from bench.compiler import grow
from bench.rows import Row, medians
from tidegate_compiler import pipeline

ROOT = Path(__file__).parents[3]


def test_the_grown_inventory_is_valid_and_the_same_each_time(tmp_path: Path) -> None:
    trees = [tmp_path / "one", tmp_path / "two"]
    for tree in trees:
        shutil.copytree(ROOT / "inventory", tree)
        grow(tree, 120)
    assert [d for d in pipeline.validate(trees[0]).diagnostics if "bench" in str(d)] == []
    one, two = ({p.relative_to(tree): p.read_bytes() for p in tree.rglob("*.yaml")} for tree in trees)
    assert one == two
    assert (
        sum(text.count(b"public_key") for path, text in one.items() if path.name.startswith("bench")) == 120
    )


def test_medians_leave_out_the_first_round() -> None:
    calls: list[str] = []
    assert set(medians({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, rounds=2)) == {
        "a",
        "b",
    }
    assert calls == ["a", "b"] * 3


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
