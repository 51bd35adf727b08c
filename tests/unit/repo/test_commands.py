"""The command tree is text (docs/adr/0001-layout.md), so something must check that the text is true."""

from __future__ import annotations

import importlib

import click
import pytest

from tidegate_schema.cli import COMMANDS


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_where_the_table_says(name: str) -> None:
    target, _, help_ = COMMANDS[name]
    module, _, attribute = target.partition(":")
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    assert command.name == name
    assert help_.endswith(".")
