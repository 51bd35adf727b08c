"""The rules every package keeps: it is typed, and it says in one place what it is for."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = (
    "schema/tidegate_schema",
    "compiler/tidegate_compiler",
    "agents/tidegate_agents",
    "control/tidegate_control",
)


def test_the_packages_of_the_wheel_are_the_packages_there_are() -> None:
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert tuple(wheel["packages"]) == PACKAGES
    assert sorted(PACKAGES) == sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("[a-z]*/tidegate_*"))


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_typed(package: str) -> None:
    assert (ROOT / package / "py.typed").is_file()


@pytest.mark.parametrize("package", PACKAGES)
def test_every_directory_of_modules_is_a_package_with_one_docstring(package: str) -> None:
    for directory in {path.parent for path in (ROOT / package).rglob("*.py")}:
        init = directory / "__init__.py"
        assert init.is_file(), f"{directory} has modules and no __init__.py"
        body = ast.parse(init.read_text()).body
        texts = [
            node
            for node in body
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ]
        assert texts == body[:1], f"{init} needs exactly one docstring, at its top"


@pytest.mark.parametrize("package", PACKAGES)
def test_every_module_says_what_it_is_for(package: str) -> None:
    silent = [
        path for path in (ROOT / package).rglob("*.py") if not ast.get_docstring(ast.parse(path.read_text()))
    ]
    assert silent == []


def test_the_licence_is_the_one_that_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_the_changelog_has_a_section_for_what_is_not_released_yet() -> None:
    assert re.search(r"^## \[?Unreleased\]?", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)


def test_decisions_are_numbered_without_gaps_and_dated() -> None:
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [path.name[:4] for path in decisions] == [f"{n:04}" for n in range(1, len(decisions) + 1)]
    undated = [
        path.name
        for path in decisions
        if not re.search(r"^Date: \d{4}-\d\d-\d\d$", path.read_text(), re.MULTILINE)
    ]
    assert undated == []
