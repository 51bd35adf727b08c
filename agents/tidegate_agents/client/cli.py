"""`tidegate client …`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from tidegate_agents import cli
from tidegate_agents.files import FileRefused
from tidegate_agents.host import HostError
from tidegate_agents.receive import cli as receive
from tidegate_schema.cli import Failure

_BUNDLES = click.option(
    "--bundles", type=cli.DIRECTORY, required=True, help="The bundle directory that is pushed to."
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def client() -> None:
    """Run the agent of a client host."""


client.add_command(cli.init_command("client", "alice-laptop"))
client.add_command(receive.command("client", "alice-laptop"))
client.add_command(cli.history_command("client"))


@client.command(short_help="Follow the bundle directory.")
@_BUNDLES
@click.option("--dry-run", is_flag=True, help="Print what would be done now, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON.")
@cli.place_options
def run(bundles: Path, dry_run: bool, as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Watch the bundle directory and keep the WireGuard interface as it says.

    Runs in the foreground; ends, and takes the interface down, on SIGTERM or Ctrl-C. With --dry-run it prints the
    actions that lead from the interface as it is to the one that is wanted, one a line, and ends.

    \b
    Example:
      tidegate client run --bundles /var/lib/tidegate/bundles
      tidegate client run --bundles /var/lib/tidegate/bundles --dry-run
    """
    if as_json and not dry_run:
        raise click.UsageError("--json goes with --dry-run")
    where, tools = cli.places("client", etc, state_dir, run_dir), ("wg", "wg-quick", "ip")
    if dry_run:
        from tidegate_agents.client.dryrun import actions

        cli.run(tools, lambda: _print_actions(*actions(where, bundles.absolute()), as_json))
        return
    from tidegate_agents.client.agent import ClientAgent  # not needed for --help

    cli.run(tools, lambda: ClientAgent(where, bundles.absolute()).run())


def _print_actions(found: list[dict[str, str]], problems: list[str], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"format": 1, "problems": problems, "actions": found}, indent=2))
        return
    for problem in problems:
        click.echo(problem, err=True)
    for action in found:
        click.echo(action["text"])
    if not found:
        click.echo("nothing to do: the interface is as wanted", err=True)


@client.command(short_help="Say what runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cli.place_options
def status(as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Say what runs: release, gateways with their networks and last handshake, drift, a pending change of keys.

    Exit status 1 when no agent runs here.

    \b
    Example:
      tidegate client status --json
    """
    from tidegate_agents.client import statusview

    found = statusview.status(cli.places("client", etc, state_dir, run_dir))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    statusview.show(found)


@client.command(short_help="Make the next key of this host.")
@click.option("--cancel", is_flag=True, help="Destroy the next key again.")
@click.option("--status", "as_status", is_flag=True, help="Print which keys there are, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cli.place_options
def rotate(cancel: bool, as_status: bool, as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Make the next key pair on this host, and print its public key for the inventory.

    The key in use stays in use until a gateway knows the next one; the running agent notices and changes over by
    itself. A new key is a new client ID. Running it again prints the same key.

    \b
    Example:
      tidegate client rotate
      tidegate client rotate --status
      tidegate client rotate --cancel
    """
    from tidegate_agents.client import rotatecli

    if cancel and as_status:
        raise click.UsageError("--cancel and --status do not go together")
    where = cli.places("client", etc, state_dir, run_dir)
    verbs = {
        (False, False): rotatecli.rotate,
        (True, False): rotatecli.cancel,
        (False, True): rotatecli.status,
    }
    try:
        found, lines, advice = verbs[cancel, as_status](where)
    except (HostError, FileRefused) as error:
        raise Failure(str(error)) from None
    if as_json:
        click.echo(json.dumps(found))
        return
    for line in lines:
        click.echo(line)
    if advice:
        click.echo(advice, err=True)


@client.command(short_help="Print a configuration for another WireGuard program.")
@_BUNDLES
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Write a file, mode 0600.")
@click.option("--qr", is_flag=True, help="Print a QR code for a phone's camera.")
@click.option("--no-key", is_flag=True, help="Leave the private key out: the app has made its own.")
@cli.place_options
def export(
    bundles: Path, out: Path | None, qr: bool, no_key: bool, etc: Path, state_dir: Path, run_dir: Path
) -> None:
    """Print this client's release as a complete wg-quick file, with its private key, for an app that reads one.

    Made on the client itself, from the release that is offered, once it is checked. It goes to standard output, unless
    that is a terminal, to a file of mode 0600, or onto the terminal as a QR code. With --no-key it holds no secret,
    and is what to type into a phone whose app has made its own key.

    \b
    Example:
      tidegate client export --bundles /var/lib/tidegate/bundles --out alice.conf
      tidegate client export --bundles /var/lib/tidegate/bundles --qr
      tidegate client export --bundles /var/lib/tidegate/bundles --no-key
    """
    from tidegate_agents.client import export as exporting

    if qr and (no_key or out):
        raise click.UsageError(
            "--qr goes without --no-key and --out: a camera reads it from the terminal, complete"
        )
    where = cli.places("client", etc, state_dir, run_dir)
    if not (out or qr or no_key) and sys.stdout.isatty():
        raise Failure(
            "this holds the private key, which does not belong on a terminal: give --out FILE, or --qr"
        )
    try:
        text, notes = exporting.configuration(where, bundles.absolute(), with_key=not no_key)
        shown = exporting.qr_code(text, coloured=sys.stdout.isatty()) if qr else text
        if out:
            exporting.write(out, text)
    except (HostError, FileRefused) as error:
        raise Failure(str(error)) from None
    for note in notes:
        click.echo(note, err=True)
    if not out:
        click.echo(shown, nl=False)
