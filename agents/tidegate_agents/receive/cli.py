"""`tidegate client receive` and `tidegate gateway receive`."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from tidegate_agents import cli, host
from tidegate_agents.receive import run as running
from tidegate_schema.cli import Failure
from tidegate_schema.names import is_name

_FILE = click.Path(dir_okay=False, path_type=Path)


def command(kind: str, example: str) -> click.Command:
    """Return `tidegate <kind> receive`, the same for both kinds of host."""

    @click.command(
        "receive",
        short_help="Take releases from NATS into the bundle directory.",
        help=f"""Take this host's releases from NATS JetStream into the directory that its agent watches.

        Runs in the foreground until SIGTERM or Ctrl-C, best as a user of its own that owns DIR/{kind}/HOST; it needs no
        other right. It reconnects for ever, and looks once a minute and whenever something is published. What it takes
        is complete; whether it is authentic, the agent decides.

        \b
        Examples:
          tidegate {kind} receive --from tls://nats.example.net --bundles bundles --cert host.crt --key host.key
          tidegate {kind} receive --once --from nats://localhost --bundles bundles --name {example} --fleet example
          tidegate {kind} receive --status
        """,
    )
    @click.option("--from", "source", metavar="URL", help="nats:// or tls://HOST[:PORT][,HOST2[:PORT]…].")
    @click.option("--bundles", type=cli.DIRECTORY, help="The bundle directory that the agent watches.")
    @click.option(
        "--ca", type=_FILE, help="Certificates (PEM) that may vouch for the server; default: the system's."
    )
    @click.option("--cert", type=_FILE, help="This host's certificate (PEM), by which the server knows it.")
    @click.option(
        "--key",
        type=_FILE,
        help="The certificate's private key (PEM), unencrypted, readable for its user only.",
    )
    @click.option("--name", help="This host's name in the inventory; default: as in ETC/identity.json.")
    @click.option("--fleet", help="The fleet's name; default: as in ETC/identity.json.")
    @click.option(
        "--keep",
        type=click.IntRange(1, 64),
        default=3,
        show_default=True,
        help="Keep the last so many releases.",
    )
    @click.option("--once", is_flag=True, help="Take what is there and end; exit status 1 when that fails.")
    @click.option(
        "--status", is_flag=True, help="Say what the receiver that runs here has last done, and end."
    )
    @click.option(
        "--json", "as_json", is_flag=True, help="Print JSON, a line for each change, or the status."
    )
    @click.option(
        "--etc",
        type=cli.DIRECTORY,
        default="/etc/tidegate",
        show_default=True,
        help="Where identity.json is.",
    )
    @click.option(
        "--run-dir",
        type=cli.DIRECTORY,
        default="/run/tidegate-receive",
        show_default=True,
        help="Where its status is kept.",
    )
    def receive(
        source: str | None,
        bundles: Path | None,
        ca: Path | None,
        cert: Path | None,
        key: Path | None,
        name: str | None,
        fleet: str | None,
        keep: int,
        once: bool,
        status: bool,
        as_json: bool,
        etc: Path,
        run_dir: Path,
    ) -> int:
        if status:
            return _status(kind, run_dir, as_json)
        if source is None or bundles is None:
            raise click.UsageError("name where from and where to: --from URL --bundles DIR")
        who = _who(kind, name, fleet, etc)
        options = running.Options(
            source, bundles.absolute(), ca, cert, key, keep, once, as_json, run_dir.absolute()
        )
        running.run(*who, options)
        return 0

    return receive


def _who(kind: str, name: str | None, fleet: str | None, etc: Path) -> tuple[str, str, str]:
    """Return fleet, kind and host."""
    for option, given in (("--name", name), ("--fleet", fleet)):
        if given is not None and not is_name(given):
            raise Failure(f"{option}: a name is 1 to 63 of a-z, 0-9 and -, and begins with no -")
    if name is not None and fleet is not None:
        return fleet, kind, name
    try:
        identity = host.load_identity(cli.places(kind, etc, Path("/"), Path("/")))
    except (host.HostError, PermissionError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise Failure(
            f"who this host is cannot be read ({said}); or name it: --name HOST --fleet FLEET"
        ) from None
    return fleet or identity.fleet, kind, name or identity.host


def _status(kind: str, run_dir: Path, as_json: bool) -> int:
    found = running.read_status(run_dir / f"{kind}.json")
    if found is None:
        raise Failure(f"no receiver runs here, or its status in {run_dir} is not yours to read")
    if as_json:
        click.echo(json.dumps(found, indent=2))
    else:
        for line in running.status_lines(found, time.time()):
            click.echo(line)
    return 1 if found["problem"] else 0
