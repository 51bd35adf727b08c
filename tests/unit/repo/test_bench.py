"""The benches measure what they say: a valid inventory, medians, and parts that own up to measuring nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench import beside, fleet, mesh, rules
from bench.__main__ import PARTS
from bench.compiler import policy_sets
from bench.measure import Cost, medians
from bench.rows import Row
from tidegate_compiler import pipeline, quick
from tidegate_compiler.plan import objects

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
    rates = [Row("p", "r", 2.0, "/s", target=target, at_least=True).met for target in (2.0, 3.0)]
    assert rates == [True, False]


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_measured_by_a_module(part: str) -> None:
    spec = importlib.util.find_spec(PARTS[part])
    assert spec is not None
    assert spec.origin is not None
    assert "def rows(options: Options) -> list[Row]:" in Path(spec.origin).read_text()


def test_a_part_that_is_none_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "nonsense"],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "no such part: nonsense" in done.stderr


def test_a_changed_fleet_differs_in_as_many_objects_as_was_said(tmp_path: Path) -> None:
    inventories = []
    for name in ("before", "after"):
        fleet.generate(tmp_path / name, 600)
        if name == "after":
            fleet.change(tmp_path / name, 100)
        inventories.append(pipeline.validate(tmp_path / name).inventory)
    before, after = inventories
    assert before is not None
    assert after is not None
    found = [(one.kind, one.change) for one in objects.changes(before, after)]
    # A client with a new key is another client, so it goes and comes.
    kinds = {kind: found.count((kind, "changed")) for kind, _ in found}
    assert len([one for one in found if one[1] != "added"]) == 100, kinds
    assert (kinds["group"], kinds["resource"], kinds["policy"]) == (10, 10, 20)


def test_policy_sets_are_counted_by_what_they_say(tmp_path: Path) -> None:
    first, second = ({"policy": name, "action": "allow", "to": [], "ports": []} for name in "ab")
    for host, rules_, sets in (("one", [first, second], [[0], [0, 1]]), ("two", [second, first], [[1], [0]])):
        folder = tmp_path / "gateway" / host
        folder.mkdir(parents=True)
        (folder / "policy.json").write_text(json.dumps({"rules": rules_, "sets": sets}))
    assert policy_sets(tmp_path) == 3  # a alone, which both have; a and b; b alone


def test_what_stands_beside_us_says_the_same(tmp_path: Path) -> None:
    pytest.importorskip("wg_meshconf")
    pytest.importorskip("aerleon")
    rows = beside.rows(tmp_path, rounds=1, hosts=4, count=60)
    assert [row.unit for row in rows] == ["peers/s"] * 4 + ["rules/s"] * 3
    assert all(row.value > 0 for row in rows)


def test_nothing_is_measured_where_the_two_say_different_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wg_meshconf")
    pytest.importorskip("aerleon")
    rules_of = rules.of_ruleset
    with monkeypatch.context() as patch:
        patch.setattr(mesh, "without_own_addresses", lambda host: host)
        with pytest.raises(SystemExit, match="wg-meshconf: the files of host-000"):
            beside.rows(tmp_path / "one", rounds=1, hosts=3, count=20)
    with monkeypatch.context() as patch:
        patch.setattr(rules, "of_ruleset", lambda text: list(rules_of(text))[1:])
        with pytest.raises(SystemExit, match="aerleon: the rules"):
            beside.rows(tmp_path / "two", rounds=1, hosts=3, count=20)
