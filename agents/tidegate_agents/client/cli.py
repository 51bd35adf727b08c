"""`tidegate client …`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from tidegate_agents import cli, wireguard


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def client() -> None:
    """Run the agent of a client host."""


client.add_command(cli.init_command("client", "alice-laptop"))


@client.command(short_help="Follow the bundle directory.")
@click.option("--bundles", type=cli.DIRECTORY, required=True, help="The bundle directory that is pushed to.")
@cli.place_options
def run(bundles: Path, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Watch the bundle directory and keep the WireGuard interface as it says.

    Runs in the foreground; ends, and takes the interface down, on SIGTERM or Ctrl-C.

    \b
    Example:
      tidegate client run --bundles /var/lib/tidegate/bundles
    """
    from tidegate_agents.client.agent import ClientAgent  # not needed for --help

    where = cli.places("client", etc, state_dir, run_dir)
    cli.run(("wg", "wg-quick", "ip"), lambda: ClientAgent(where, bundles.absolute()).run())


@client.command(short_help="Say what runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@cli.place_options
def status(as_json: bool, etc: Path, state_dir: Path, run_dir: Path) -> None:
    """Say what runs: release, interface, and each gateway's last handshake.

    Exit status 1 when no agent runs here.

    \b
    Example:
      tidegate client status --json
    """
    where = cli.places("client", etc, state_dir, run_dir)
    found = cli.status(where)
    try:
        peers = wireguard.show(found["interface"]).peers
    except wireguard.WireGuardError:
        peers = {}
    found["gateways"] = [
        {
            "public_key": key,
            "endpoint": peer.config.endpoint,
            "allowed_ips": sorted(peer.config.allowed_ips),
            "latest_handshake": peer.latest_handshake or None,
        }
        for key, peer in peers.items()
    ]
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    _print(found)


def _print(found: dict[str, object]) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    console = Console()
    release = found["release"]
    serial = f"release {release['serial']}" if isinstance(release, dict) else "no release yet"
    console.print(
        f"{found['host']} ({found['fleet']}): {serial}, interface {found['interface']}", highlight=False
    )
    cli.print_problems(console, found)
    table = Table(Column("gateway", overflow="fold"), "endpoint", "networks", "last handshake")
    gateways = found["gateways"]
    assert isinstance(gateways, list)
    for peer in gateways:
        age = f"{time.time() - peer['latest_handshake']:.0f} s ago" if peer["latest_handshake"] else "never"
        table.add_row(peer["public_key"], peer["endpoint"], ", ".join(peer["allowed_ips"]) or "standby", age)
    console.print(table)
