"""The example organisation's bundles, byte by byte.

A mismatch leaves what came out as `<file>.actual` beside the golden file. To accept it, look at the difference and
run `TIDEGATE_ACCEPT=1 pytest tests/unit/compiler/test_golden.py`; the change belongs in the same commit.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import compilerkit
from tidegate_compiler.pipeline import Compiled, compile_inventory

GOLDEN = compilerkit.ROOT / "tests" / "golden" / "example"


def _compiled() -> Compiled:
    result = compile_inventory(compilerkit.ROOT / "inventory")
    assert isinstance(result, Compiled)
    return result


def test_bundles_are_the_golden_ones() -> None:
    files = _compiled().files
    if os.environ.get("TIDEGATE_ACCEPT"):
        _accept(files)
    expected = {
        str(path.relative_to(GOLDEN)): path.read_bytes()
        for path in GOLDEN.rglob("*")
        if path.is_file() and path.suffix != ".actual"
    }
    for path in sorted(set(files) | set(expected)):
        actual = GOLDEN / f"{path}.actual"
        if files.get(path) == expected.get(path):
            actual.unlink(missing_ok=True)
        elif path in files:
            actual.parent.mkdir(parents=True, exist_ok=True)
            actual.write_bytes(files[path])
    assert sorted(files) == sorted(expected)
    assert [path for path in files if files[path] != expected[path]] == []


def _accept(files: Mapping[str, bytes]) -> None:
    for path in GOLDEN.rglob("*"):
        if path.is_file():
            path.unlink()
    for path, data in files.items():
        (GOLDEN / path).parent.mkdir(parents=True, exist_ok=True)
        (GOLDEN / path).write_bytes(data)


def test_same_input_same_bytes_whatever_the_order_of_files(tmp_path: Path) -> None:
    once = _compiled().files
    source = compilerkit.ROOT / "inventory"
    for path in sorted(source.rglob("*.yaml"), reverse=True):
        copy = tmp_path / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    again = compile_inventory(tmp_path)
    assert isinstance(again, Compiled)
    assert again.files == once


def test_order_inside_a_file_changes_nothing_but_the_inventory_digest() -> None:
    policies = {f"p{n}": compilerkit.policy(to=f"10.20.{n}.0/24") for n in range(5)}
    one = compilerkit.compiled(compilerkit.inventory(policies=policies)).files
    other = compilerkit.compiled(compilerkit.inventory(policies=dict(reversed(policies.items())))).files
    assert {path for path in one if one[path] != other[path]} == {"manifest.json"}
