"""`verify` proves the compiler, so it shares nothing with it: not by import, and not by way of another module."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from compilerkit import ROOT

PACKAGE = ROOT / "compiler/tidegate_compiler/verify"
MINE = "tidegate_compiler.verify"
SHARED = {"tidegate_schema.jsonfile", "tidegate_schema.validation"}


def imports(path: Path) -> set[str]:
    """Return every module of Tidegate that a file may import, at its top or anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write imports absolute"
            found.update({f"{node.module}.{alias.name}" for alias in node.names})
    return {name for name in found if name.startswith("tidegate_")}


def foreign(path: Path) -> set[str]:
    return {name for name in imports(path) if not name.startswith(f"{MINE}.") and name not in SHARED}


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*.py")), ids=lambda path: path.name)
def test_a_module_imports_nothing_of_the_compiler(path: Path) -> None:
    assert foreign(path) == set()


@pytest.mark.parametrize(
    "line",
    [
        "from tidegate_compiler import resolve",
        "import tidegate_compiler.grants",
        "from tidegate_compiler.times import parse_instant",
        "from tidegate_schema.policy import PolicyTable",
        "from tidegate_schema import wgquick",
        "def late():\n    from tidegate_compiler.networks import intersect",
    ],
)
def test_a_breach_would_be_noticed(line: str, tmp_path: Path) -> None:
    (tmp_path / "breach.py").write_text(line)
    assert foreign(tmp_path / "breach.py")


def test_running_it_loads_nothing_of_the_compiler() -> None:
    code = f"import sys, {MINE}; print(*(name for name in sys.modules if name.startswith('tidegate_')), sep='\\n')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name for name in done.stdout.split() if not name.startswith(MINE)}
    assert loaded == {"tidegate_compiler", "tidegate_schema", *SHARED}
