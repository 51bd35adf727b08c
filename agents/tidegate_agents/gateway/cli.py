"""`tidegate gateway …`."""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import time
from pathlib import Path
from typing import Any

import click

from tidegate_agents import cli, settings
from tidegate_agents.datapath import counters
from tidegate_agents.events import tail
from tidegate_agents.events.names import PolicyNames
from tidegate_agents.events.ring import ANY, Ring, RingError
from tidegate_agents.files import FileRefused, read_bounded
from tidegate_agents.gateway import generation
from tidegate_agents.gateway.desired import FIXED
from tidegate_agents.receive import cli as receive
from tidegate_schema import jsonfile
from tidegate_schema.cli import Failure

_APPLY_SECONDS = 10.0
_OF_EVENTS = ("sent", "rate", "last_ack", "in_flight", "paused_until", "dropped_by_reason")


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def gateway() -> None:
    """Run the agent of a gateway host."""


gateway.add_command(cli.init_command("gateway", "fra1"))
gateway.add_command(receive.command("gateway", "fra1"))
gateway.add_command(cli.history_command("gateway"))


@gateway.command(short_help="Follow the bundle directory and the settings.")
@click.option("--bundles", type=cli.DIRECTORY, required=True, help="The bundle directory that is pushed to.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
@cli.place_options
def run(bundles: Path, dry_run: bool, as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Watch the bundle directory and the settings, and keep the gateway as they say.

    Without ETC/gateway.yaml the gateway enforces and logs nothing. Runs in the foreground; on SIGTERM or Ctrl-C
    it takes WireGuard down first and then everything else it made. On SIGUSR1 it ends and leaves everything at
    work; the next start, of a newer version for instance, takes it over without losing a packet.

    With --dry-run it compares what should be with what is, prints the actions that lead from one to the other, and
    changes nothing, also while an agent runs.

    \b
    Examples:
      tidegate gateway run --bundles /var/lib/tidegate/bundles
      tidegate gateway run --bundles /var/lib/tidegate/bundles --dry-run
    """
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run")
    if dry_run:
        from tidegate_agents.gateway import dryrun

        where = cli.places("gateway", etc, state_dir, run_dir)
        cli.run(
            ("wg", "ip", "nft", "unshare"),
            lambda: click.echo("\n".join(dryrun.report(where, bundles.absolute(), as_json=as_json))),
        )
        return
    from tidegate_agents.gateway.supervisor import Supervisor  # imports netlink, which --help does not need

    where = cli.places("gateway", etc, state_dir, run_dir)
    cli.run(("wg", "ip", "nft"), lambda: Supervisor(where, bundles.absolute()).run())


@gateway.command("set", short_help="Change local settings, live.")
@click.argument("assignments", nargs=-1, required=True, metavar="NAME=VALUE…")
@cli.place_options
def set_(assignments: tuple[str, ...], etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Change local settings; the running gateway follows at once, without losing a packet or a session.

    NAME= takes a setting out of the file, so that its default counts. docs/interface.md lists all of them.

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
            if name in changes:
                raise click.UsageError(f"{name} is given twice; write it once")
            changes[name] = settings.parse_value("gateway", name, text)
        chosen = settings.change("gateway", where.settings, changes)
    except settings.SettingsError as error:
        raise Failure(str(error)) from None
    found = cli.running(where)
    if found is None:
        click.echo("written; no gateway agent runs here, so it counts from the next start", err=True)
        return
    live = {name: chosen.get(name) for name in changes if name not in FIXED}
    deadline = time.monotonic() + _APPLY_SECONDS
    while any(found["settings"].get(name) != value for name, value in live.items()):
        if time.monotonic() > deadline:
            raise Failure(
                "written, but the agent has not followed within 10 s; see 'tidegate gateway status'"
            )
        time.sleep(0.05)  # the status file is polled: it is replaced, not written to
        found = cli.running(where) or found
    shown = ", ".join(f"{name}={json.dumps(chosen.get(name))}" for name in changes)
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
        events = jsonfile.parse(read_bounded(where.flusher_status, 1 << 16))
        found["events"] = events if isinstance(events, dict) else {}
    found["rings"] = {path.stem: used for path in where.rings if (used := _usage(path)) is not None}
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print(found)


class _Network(click.ParamType):  # type: ignore[type-arg]
    name = "network"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return ipaddress.ip_network(value)
        except ValueError as error:
            self.fail(f"{error}; write an address or a prefix, like 10.20.0.0/16", param, ctx)


@gateway.command(short_help="Show events as they come.")
@click.option("--client", metavar="ID", help="Only of the client whose ID begins with this.")
@click.option("--verdict", type=click.Choice(["allow", "deny"]), help="Only with this verdict.")
@click.option("--to", "destination", type=_Network(), help="Only to this address or prefix.")
@click.option("--port", type=click.IntRange(0, 65535), help="Only to this port.")
@click.option(
    "--last", type=click.IntRange(0), default=10, show_default=True, help="Begin with the last so many."
)
@click.option("--once", is_flag=True, help="Show what is there and end; do not wait for more.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print each as a line of JSON, as a log endpoint gets it."
)
@cli.place_options
def events(
    client: str | None,
    verdict: str | None,
    destination: Any,
    port: int | None,
    last: int,
    once: bool,
    as_json: bool,
    etc: Path,
    state_dir: Path,
    run_dir: Path,
) -> None:
    """Show events as they come, straight from the gateway's rings; whether and where they are sent makes no difference.

    Ends with Ctrl-C. Events that come faster than they can be shown are left out, and counted at the end.

    \b
    Examples:
      tidegate gateway events --verdict deny
      tidegate gateway events --to 10.20.0.0/16 --port 443 --json
    """
    where = cli.places("gateway", etc, state_dir, run_dir)
    found = cli.status(where)
    if not found["logging_enabled"]:
        click.echo("logging is off; 'tidegate gateway set logging_enabled=on' makes events", err=True)
    wanted = tail.Wanted(client and client.lower(), verdict, destination, port)
    try:
        names = PolicyNames(os.open(generation.names(where), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        shown = tail.Tail(where.rings, found["host"], names.of)
        with contextlib.suppress(KeyboardInterrupt):
            tail.follow(shown, wanted, click.echo, last=last, as_json=as_json, once=once)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Failure(f"{error.filename}: {error.strerror}; events are for root to read") from None
    if shown.missed or shown.unreadable:
        said = f"{shown.missed} came too fast to be shown, {shown.unreadable} could not be read"
        click.echo(said, err=True)


def _told(name: str, value: object) -> str:
    if name in ("last_ack", "paused_until") and isinstance(value, int | float) and 0 < value < 1e11:
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(value))
    if isinstance(value, dict):
        value = ", ".join(f"{reason}: {count}" for reason, count in value.items()) or "none"
    # The flusher, which talks to the network, has written it; nothing of it is to steer a terminal.
    return "none" if value is None else "".join(one if one.isprintable() else "?" for one in str(value))


def _usage(path: Path) -> dict[str, int] | None:
    """Return what is in a ring, also while nobody sends it; None where there is none, or it is not for us to see."""
    try:
        with contextlib.closing(Ring(path, ANY)) as ring:
            return {"pending": ring.pending(), "capacity": ring.capacity, "dropped": ring.dropped()}
    except (OSError, RingError):
        return None


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
    flows = found["flow_records"]
    table.add_row("flow records", "on" if flows["recording"] else escape(flows["problem"] or "off"))
    for name in ("told", "dropped", "gaps", "unreadable"):
        if flows[name]:
            table.add_row(f"flow records {name}", str(flows[name]))
    for name, used in found["rings"].items():
        share = f"{used['pending']} of {used['capacity']} ({used['pending'] / used['capacity']:.0%})"
        lost = f", {used['dropped']} dropped when it was full" if used["dropped"] else ""
        table.add_row(f"ring {name}", share + lost)
    for name in _OF_EVENTS if found["flusher"] else ():
        if name in found.get("events", {}):
            table.add_row(f"events {name}", escape(_told(name, found["events"][name])))
    console.print(table)
    cli.print_trust(console, found)
    cli.print_problems(console, found)
