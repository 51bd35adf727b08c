"""`tidegate gateway …`."""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import click

from tidegate_agents import cli, settings
from tidegate_agents.datapath import counters
from tidegate_agents.files import FileRefused, read_bounded
from tidegate_agents.gateway.desired import FIXED
from tidegate_schema import jsonfile
from tidegate_schema.cli import Failure

_APPLY_SECONDS = 10.0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def gateway() -> None:
    """Run the agent of a gateway host."""


gateway.add_command(cli.init_command("gateway", "fra1"))


@gateway.command(short_help="Follow the bundle directory and the settings.")
@click.option("--bundles", type=cli.DIRECTORY, required=True, help="The bundle directory that is pushed to.")
@cli.place_options
def run(bundles: Path, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Watch the bundle directory and the settings, and keep the gateway as they say.

    Without ETC/gateway.yaml the gateway enforces and logs nothing. Runs in the foreground; on SIGTERM or Ctrl-C
    it takes WireGuard down first and then everything else it made.

    \b
    Example:
      tidegate gateway run --bundles /var/lib/tidegate/bundles
    """
    from tidegate_agents.gateway.supervisor import Supervisor  # imports netlink, which --help does not need

    where = cli.places("gateway", etc, state_dir, run_dir)
    cli.run(("wg", "ip", "nft"), lambda: Supervisor(where, bundles.absolute()).run())


@gateway.command("set", short_help="Change local settings, live.")
@click.argument("assignments", nargs=-1, required=True, metavar="NAME=VALUE…")
@cli.place_options
def set_(assignments: tuple[str, ...], etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Change local settings; the running gateway follows at once, without losing a packet or a session.

    \b
    Examples:
      tidegate gateway set authz_mode=enforce
      tidegate gateway set logging_enabled=on log_endpoint=https://logs.example.net/v1/events
    """
    where = cli.places("gateway", etc, state_dir, run_dir)
    changes: dict[str, Any] = {}
    try:
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            if not equals:
                raise click.UsageError(f"write NAME=VALUE, not {assignment!r}")
            changes[name] = settings.parse_value("gateway", name, text)
        settings.change("gateway", where.settings, changes)
    except settings.SettingsError as error:
        raise Failure(str(error)) from None
    found = cli.running(where)
    if found is None:
        click.echo("written; no gateway agent runs here, so it counts from the next start", err=True)
        return
    live = {name: value for name, value in changes.items() if name in ("authz_mode", "logging_enabled")}
    deadline = time.monotonic() + _APPLY_SECONDS
    while any(found[name] != value for name, value in live.items()):
        if time.monotonic() > deadline:
            raise Failure(
                "written, but the agent has not followed within 10 s; see 'tidegate gateway status'"
            )
        time.sleep(0.05)  # the status file is polled: it is replaced, not written to
        found = cli.running(where) or found
    shown = ", ".join(f"{name}={json.dumps(value)}" for name, value in changes.items())
    click.echo(f"{shown} (generation {found['generation']})")
    later = [name for name in changes if name in FIXED]
    if later:
        click.echo(f"{', '.join(later)}: from the next start of the agent", err=True)


@gateway.command(short_help="Say what runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cli.place_options
def status(as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Say what runs: mode, release, generation, packets by reason, events.

    Exit status 1 when no agent runs here.

    \b
    Example:
      tidegate gateway status --json
    """
    where = cli.places("gateway", etc, state_dir, run_dir)
    found = cli.status(where)
    with contextlib.suppress(FileNotFoundError, PermissionError):
        counted = counters.read(where.run / "counters")
        found["packets"], found["bytes"] = counted.packets, counted.bytes
        found["write_errors"] = counted.write_errors
        found["refused_super_packets"] = counted.refused_super_packets
    with contextlib.suppress(FileNotFoundError, FileRefused, jsonfile.JsonError):
        events = jsonfile.parse(read_bounded(where.run / "flusher.json", 1 << 16))
        found["events"] = events if isinstance(events, dict) else {}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print(found)


def _print(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    release = f"release {found['release']['serial']}" if found["release"] else "no release yet"
    console.print(f"{found['host']} ({found['fleet']}): {release}, generation {found['generation']}")
    table = Table(show_header=False)
    table.add_row("authz_mode", found["authz_mode"])
    table.add_row("logging_enabled", "on" if found["logging_enabled"] else "off")
    table.add_row("peers", str(found["peers"]))
    table.add_row("offloads", found["offloads"])
    table.add_row("policy", "yes" if found["policy"] else "none: enforce denies all")
    for reason, count in found.get("packets", {}).items():
        if count:
            table.add_row(f"packets {reason}", str(count))
    for name, value in found.get("events", {}).items():
        table.add_row(f"events {name}", escape(str(value)))
    console.print(table)
    cli.print_problems(console, found)
