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
from rich.console import Console
from rich.markup import escape

from tidegate_agents import host
from tidegate_agents.files import FileRefused, read_bounded
from tidegate_schema import release
from tidegate_schema.cli import Failure

_F = TypeVar("_F", bound=Callable[..., Any])
_TRUST_MAX_BYTES = 64 * 1024
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


def init_command(kind: str, example: str) -> click.Command:
    """Return `tidegate <kind> init`, the same for both kinds of host."""

    @click.command(
        "init",
        short_help="Make key pair and identity; print the public key.",
        help=f"""Make this host's key pair and identity, and print the public key.

        The private key stays in ETC/{kind}.key (0600) and is never printed. Running it again prints the same key.

        \b
        Example:
          tidegate {kind} init --name {example} --fleet example --trust signing.pub
        """,
    )
    @click.option("--name", required=True, help="This host's name in the inventory.")
    @click.option("--fleet", default="default", show_default=True, help="The fleet's name in the inventory.")
    @click.option(
        "--trust",
        multiple=True,
        required=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Public signing key (PEM) whose releases this host accepts; may be repeated.",
    )
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @place_options
    def command(
        name: str,
        fleet: str,
        trust: tuple[Path, ...],
        as_json: bool,
        etc: Path,
        state_dir: Path,
        run_dir: Path,
    ) -> None:
        where = places(kind, etc, state_dir, run_dir)
        try:
            public = host.init(where, fleet, name, [_trusted(path) for path in trust])
            identifier = host.own_client_id(where)
        except (host.HostError, FileRefused, ValueError) as error:
            raise Failure(str(error)) from None
        if as_json:
            click.echo(json.dumps({"host": name, "public_key": public, "client_id": identifier}))
            return
        click.echo(public)
        advice = f"Put this public key under {name!r} in inventory/{kind}s/ and open a pull request."
        click.echo(advice, err=True)

    return command


def _trusted(path: Path) -> bytes:
    try:
        pem = read_bounded(path, _TRUST_MAX_BYTES)
        release.load_public_key(pem)
    except ValueError as error:
        raise Failure(f"--trust {path}: {error}") from None
    return pem


def status(where: host.Places) -> dict[str, Any]:
    """Return what the running agent says of itself; Failure when none runs, or when it is not ours to read."""
    if where.run.exists() and not os.access(where.run, os.X_OK):
        raise Failure(f"{where.run} belongs to the agent's user: run this as root")
    found = running(where)
    if found is None:
        raise Failure(f"no agent runs here; start it with 'tidegate {where.kind} run --bundles DIR'")
    return found


def running(where: host.Places) -> dict[str, Any] | None:
    """Return the running agent's status, None when none runs; Failure when it is of a version we cannot read."""
    found = host.read_status(where)
    if found is not None and found.get("format") != host.STATUS_FORMAT:
        raise Failure("the agent that runs here is of another version than this command; restart it")
    return found


def print_problems(console: Console, status: dict[str, Any]) -> None:
    """Print what a status says is wrong, a line each."""
    for problem in (status["settings_problem"], status["trouble"], (status["refusal"] or {}).get("reason")):
        if problem:
            console.print(f"[red]{escape(problem)}[/red]", highlight=False)


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
