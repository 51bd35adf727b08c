"""`tidegate doctor`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from tidegate_agents import cli, host
from tidegate_agents.doctor import finding
from tidegate_agents.files import FileRefused, read_bounded
from tidegate_schema import jsonfile
from tidegate_schema.cli import Failure

_STYLE = {"ok": "green", "warn": "yellow", "fail": "bold red"}
_IDENTITY_MAX_BYTES = 64 * 1024
KINDS = ("client", "gateway")


@click.command(short_help="Say what would keep this host's agent from its work.")
@click.option("--kind", type=click.Choice(KINDS), help="Kind of host; by default what its identity says.")
@click.option(
    "--bundles",
    type=cli.DIRECTORY,
    default="/var/lib/tidegate/bundles",
    show_default=True,
    help="The bundle directory that is pushed to.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cli.place_options
def doctor(kind: str | None, bundles: Path, as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> int:
    """Say what would keep this host's agent from its work, and how to mend it. Changes nothing.

    Exit status 0 when there is no problem, 1 when there is one; a warning is none.

    \b
    Examples:
      tidegate doctor
      tidegate doctor --kind gateway --json
    """
    if os.geteuid() != 0:
        raise Failure("the host's key, rules and interfaces are for root to see: run it as root")
    from tidegate_agents.doctor import checks, read  # not needed for --help

    where = cli.places(kind or _kind(etc), etc, state_dir, run_dir)
    found = checks.judge(read.facts(where, bundles.absolute()))
    document = finding.document(where.kind, found)
    if as_json:
        click.echo(json.dumps(document, indent=2))
    else:
        _print(where, found, document["problems"])
    return 1 if document["problems"] else 0


def _kind(etc: Path) -> str:
    """Return what the identity says; Failure when it says nothing, or nothing that can be."""
    try:
        document: Any = jsonfile.parse(read_bounded(etc / "identity.json", _IDENTITY_MAX_BYTES))
    except (FileNotFoundError, FileRefused, jsonfile.JsonError):
        document = None
    kind = document.get("kind") if isinstance(document, dict) else None
    if kind not in KINDS:
        raise Failure(
            f"{etc / 'identity.json'} does not say what this host is; give --kind client or gateway"
        )
    assert isinstance(kind, str)
    return kind


def _print(where: host.Places, found: list[finding.Finding], problems: int) -> None:
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    table = Table(
        Column("check", no_wrap=True), "", Column("what is so, and how to mend it", overflow="fold")
    )
    for one in found:
        said = Text(one.what)
        if one.mend:
            said.append(f"\n→ {one.mend}", style="cyan")
        table.add_row(one.check, Text(one.level, style=_STYLE[one.level]), said)
    console = Console(highlight=False)
    console.print(table)
    warnings = sum(one.level == "warn" for one in found)
    console.print(f"{where.kind}: {len(found)} checks, {problems} problems, {warnings} warnings")
