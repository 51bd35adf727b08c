"""What the command lines of both agents share."""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.console import Console
from rich.markup import escape

from tidegate_agents import host, hostevents
from tidegate_agents.files import FileRefused, read_bounded
from tidegate_schema import keyset, release
from tidegate_schema.cli import Failure
from tidegate_schema.keyset import KeySet
from tidegate_schema.names import is_name

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
        help="Public signing key (PEM) whose releases this host accepts; may be repeated. Or the fleet's keys.json.",
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
        for option, given in (("--name", name), ("--fleet", fleet)):
            if not is_name(given):
                raise click.UsageError(f"{option} {given!r}: write a-z, 0-9 and -, at most 63")
        try:
            pems, key_set = _trusted(trust)
            public = host.init(where, fleet, name, pems, key_set)
            identifier = host.own_client_id(where)
        except (host.HostError, FileRefused, ValueError) as error:
            raise Failure(str(error)) from None
        if as_json:
            click.echo(json.dumps({"host": name, "public_key": public, "client_id": identifier}))
            return
        click.echo(public)
        advice = f"Put this public key under {name!r} in inventory/{kind}s/ of fleet {fleet!r} and open a pull request."
        click.echo(advice, err=True)

    return command


def _trusted(paths: Sequence[Path]) -> tuple[list[bytes], KeySet | None]:
    """Read what --trust names: public keys in PEM, or one chain of key sets, of which the newest counts."""
    pems: list[bytes] = []
    for path in paths:
        try:
            data = read_bounded(path, _TRUST_MAX_BYTES)
            if data.startswith(b"["):
                if len(paths) > 1:
                    raise ValueError("a key set says by itself which keys count; give it alone")
                return [], keyset.read(data)[-1].key_set
            release.load_public_key(data)
        except ValueError as error:
            raise Failure(f"--trust {path}: {error}") from None
        pems.append(data)
    return pems, None


def history_command(kind: str) -> click.Command:
    """Return `tidegate <kind> history`, the same for both kinds of host."""

    @click.command(
        "history",
        short_help="Say what happened to this host.",
        help=f"""Say what happened to this host: releases applied, refused, failed and rolled back, drift, keys.

        It reads a journal in the state directory, also while no agent runs.

        \b
        Examples:
          tidegate {kind} history
          tidegate {kind} history --last 1 --json
        """,
    )
    @click.option("--last", type=click.IntRange(1), metavar="N", help="Only the last so many.")
    @click.option("--json", "as_json", is_flag=True, help="Print each as a line of JSON.")
    @place_options
    def command(last: int | None, as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> None:
        where = places(kind, etc, state_dir, run_dir)
        try:
            found = list(hostevents.read(where))
        except FileRefused as error:
            raise Failure(str(error)) from None
        if not found:
            click.echo(f"nothing has happened yet, as far as {where.state_directory} tells", err=True)
        for one in found[-last:] if last else found:
            click.echo(json.dumps(one) if as_json else _told(one))

    return command


def _told(event: dict[str, Any]) -> str:
    rest = " ".join(
        f"{key}={value}" for key, value in event.items() if key not in ("number", "time", "event")
    )
    line = f"{event['time'][:19]}Z  {event['event']:<16} {rest}".rstrip()
    return "".join(one if one.isprintable() else "?" for one in line)


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


def print_trust(console: Console, status: dict[str, Any]) -> None:
    """Print whose signatures the agent takes releases by."""
    trust = status.get("trust")  # an agent of the version before says nothing of it
    if trust:
        named = f"key set {trust['key_set']}" if trust["key_set"] else "public keys alone"
        console.print(f"signatures: {trust['threshold']} of {trust['keys']}, by {named}", highlight=False)


def print_problems(console: Console, status: dict[str, Any]) -> None:
    """Print what a status says is wrong, a line each."""
    for problem in _problems(status):
        console.print(f"[red]{escape(problem)}[/red]", highlight=False)
    if on_trial := status.get("trial"):
        console.print(f"release {on_trial['serial']} is on trial", highlight=False)


def _problems(status: dict[str, Any]) -> Iterator[str]:
    refusal = (status["refusal"] or {}).get("reason")
    for problem in (status["settings_problem"], status["trouble"], refusal, status.get("log_problem")):
        if problem:
            yield problem
    if failed := status.get("rolled_back"):
        yield f"release {failed['serial']} was taken back: {failed['reason']}"
    if status.get("stale"):
        yield "the release in force is past its end; publish again"
    if status.get("kind") == "gateway":  # a client's is told with what mends it
        for name, what in status["drift"].items():
            yield f"drift, {name}: {what}"


def run(tools: tuple[str, ...], agent: Callable[[], object]) -> None:
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
