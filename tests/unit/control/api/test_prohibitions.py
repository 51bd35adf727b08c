"""What this room never does: hold a signing key, run a shell, import what signs, tell what went on inside."""

from __future__ import annotations

import ast
import logging
from pathlib import Path

import pytest

import tidegate_control
from apikit import Api
from tidegate_control import problems
from tidegate_control.inventory.errors import InventoryError

ROOT = Path(tidegate_control.__file__).parent
SIGNING = ("tidegate_compiler.signing", "tidegate_compiler.keysource", "tidegate_compiler.publish", "securesystemslib",
           "tidegate_schema.signatures", "tidegate_schema.release", "tidegate_compiler.sshagent",
           "tidegate_compiler.keyscli", "tidegate_compiler.targets")  # fmt: skip


def imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
    return found


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_here_signs(path: Path) -> None:
    for name in imported(path):
        assert not any(name == one or name.startswith(f"{one}.") for one in SIGNING), name
    assert "shell=True" not in path.read_text()
    assert "os.system" not in path.read_text()


def test_a_mistake_of_ours_is_told_by_an_id(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def crash() -> str:
        raise RuntimeError("the inside /var/lib/secret")

    monkeypatch.setattr(api.inventory, "head", crash)
    with caplog.at_level(logging.ERROR):
        answer = api("GET", "/history")
    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["id"] in caplog.text


def test_every_error_of_the_inventory_has_its_status() -> None:
    assert len(InventoryError.__subclasses__()) == 6
    for kind in InventoryError.__subclasses__():
        problem = problems.of_inventory(kind("one line"))
        assert problem.detail == "one line"
        assert problem.type.startswith(problems.TYPES)
        assert 400 <= problem.status < 600


def test_a_problem_is_what_the_rfc_says() -> None:
    problem = problems.Problem(404, extra={"status": 1, "title": "x", "more": 2})
    assert problem.document() == {"type": "about:blank", "title": "Not Found", "status": 404, "more": 2}
