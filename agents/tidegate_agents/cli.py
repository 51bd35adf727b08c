"""What the command lines of both agents share."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from tidegate_agents import host
from tidegate_agents.files import FileRefused
from tidegate_schema.cli import Failure

_F = TypeVar("_F", bound=Callable[..., Any])
DIRECTORY = click.Path(file_okay=False, path_type=Path)


def place_options(command: _F) -> _F:
    """Add --etc, --state and --run, which say where the agent keeps its things."""
    for name, default, text in (
        ("--run-dir", "/run/tidegate", "Where the running agent keeps its things."),
        ("--state-dir", "/var/lib/tidegate", "What must survive a reboot."),
        ("--etc", "/etc/tidegate", "Key, identity and settings of this host."),
    ):
        command = click.option(name, type=DIRECTORY, default=default, show_default=True, help=text)(command)
    return command


def places(kind: str, etc: Path, state_dir: Path, run_dir: Path) -> host.Places:
    """Return the agent's places; Failure when a path cannot be one."""
    try:
        return host.Places(kind, etc.absolute(), state_dir.absolute(), run_dir.absolute())
    except host.HostError as error:
        raise Failure(str(error)) from None


def init(where: host.Places, fleet: str, name: str, trust: tuple[Path, ...], as_json: bool) -> None:
    """Make key and identity and print the public key, which goes into the pull request."""
    try:
        public = host.init(where, fleet, name, [path.read_bytes() for path in trust])
        identifier = host.own_client_id(where)
    except (host.HostError, FileRefused, ValueError) as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(json.dumps({"host": name, "public_key": public, "client_id": identifier}))
        return
    click.echo(public)
    folder = "clients" if where.kind == "client" else "gateways"
    click.echo(
        f"Put this public key under {name!r} in inventory/{folder}/ and open a pull request.", err=True
    )


def run(tools: tuple[str, ...], agent: Callable[[], None]) -> None:
    """Run an agent in the foreground, logging to stderr; its failures become one line."""
    missing = [tool for tool in tools if shutil.which(tool) is None]
    if missing:
        raise Failure(f"missing: {', '.join(missing)}; apt install wireguard-tools iproute2 nftables")
    if os.geteuid() != 0:
        raise Failure("the agent sets up interfaces and routes: run it as root")
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it tells of every change it sees
    try:
        agent()
    except (host.HostError, FileRefused) as error:
        raise Failure(str(error)) from None
