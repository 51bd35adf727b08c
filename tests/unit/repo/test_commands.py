"""The command tree is text (docs/adr/0001-layout.md), so something must check that the text is true."""

from __future__ import annotations

import importlib
import shlex
import sys
from pathlib import Path

import click
import pytest

from tidegate_schema.cli import COMMANDS, run


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_table_says(name: str) -> None:
    target, _, help_ = COMMANDS[name]
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert help_.endswith(".")


@pytest.mark.parametrize(
    ("words", "extra", "module", "users"),
    [
        ("control check --settings {}/control.yaml", "control", "uvicorn", ["tidegate_control.serve"]),
        ("control serve --settings {}/control.yaml", "control", "uvicorn", ["tidegate_control.serve"]),
        (
            "gateway run --bundles {}",
            "gateway",
            "pyroute2.netlink.exceptions",
            ["tidegate_agents.gateway.supervisor"],
        ),
        (
            "client run --bundles {}",
            "client",
            "prometheus_client",
            ["tidegate_agents.client.agent", "tidegate_agents.client.metrics", "tidegate_agents.metricpage"],
        ),
    ],
)
def test_a_module_that_a_command_lacks_is_told_with_its_extra(
    words: str,
    extra: str,
    module: str,
    users: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    for user in users:
        monkeypatch.delitem(sys.modules, user, raising=False)
        forget(user, monkeypatch)
    assert run(words.format(tmp_path).split()) == 1
    out, err = capsys.readouterr()
    command = words.partition(" ")[0]
    assert out == ""
    assert err.startswith(f"tidegate: '{command}' needs the module {module!r}; install it with: ")
    installer = shlex.split(err.partition("install it with: ")[2])
    assert installer == [sys.executable, "-m", "pip", "install", f"tidegate[{extra}]"]


def forget(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a package look for a module of its own again, though another test has imported it."""
    package, _, name = module.rpartition(".")
    monkeypatch.delattr(importlib.import_module(package), name, raising=False)


def test_a_module_of_our_own_that_is_not_there_is_no_advice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tidegate_control.serve", None)
    forget("tidegate_control.serve", monkeypatch)
    with pytest.raises(ModuleNotFoundError, match=r"tidegate_control\.serve"):
        run(["control", "check", "--settings", str(tmp_path / "control.yaml")])
