"""The import directions of design §2, and that their check would notice a breach."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
FOLDERS = ("schema", "compiler", "agents", "control")


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of a tree, reading the packages of that tree and no other."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()", "--no-cache"],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(str(tree / folder) for folder in FOLDERS)},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_are_kept() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("schema", "agents"),
        ("schema", "compiler"),
        ("schema", "control"),
        ("agents", "compiler"),
        ("agents", "control"),
        ("compiler", "agents"),
        ("compiler", "control"),
        ("control", "agents"),
    ],
)
def test_an_import_in_a_forbidden_direction_is_noticed(copy: Path, importer: str, imported: str) -> None:
    breach = copy / importer / f"tidegate_{importer}" / "breach.py"
    breach.write_text(f'"""A breach."""\n\nimport tidegate_{imported}\n')
    done = lint_imports(copy)
    assert done.returncode == 1, done.stdout
    assert f"tidegate_{importer}.breach" in done.stdout


@pytest.mark.parametrize("imported", ["compiler", "schema"])
def test_control_may_import(copy: Path, imported: str) -> None:
    (copy / "control/tidegate_control/use.py").write_text(f'"""A use."""\n\nimport tidegate_{imported}\n')
    assert lint_imports(copy).returncode == 0
