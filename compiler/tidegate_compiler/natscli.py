"""`tidegate nats …`: what a nats-server has to know of a fleet."""

from __future__ import annotations

from pathlib import Path

import click

from tidegate_compiler import natsconf, output, report
from tidegate_compiler.options import json_option as _json
from tidegate_compiler.terminal import say as _print
from tidegate_schema.cli import PATH, Failure

OK = 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def nats() -> None:
    """Set up a nats-server for a fleet."""


@nats.command(
    short_help="Print who may do what there.",
    epilog="Example: tidegate nats permissions out > accounts.conf",
)
@click.argument("out", metavar="OUT", type=PATH)
@_json
def permissions(out: Path, as_json: bool) -> int:
    """Print the accounts block of nats-server.conf for the hosts of a compile output.

    Each host may read its own releases and nothing else, and only the publisher may write. Users are the DNS names in
    client certificates (verify_and_map): <host>.<kind>.<fleet>, and publisher.<fleet>. Print it again, and reload the
    server, when hosts come or go. With --json: the users, for whoever issues certificates.
    """
    try:
        compiled = output.read(out)
    except output.OutputError as error:
        raise Failure(str(error)) from None
    if as_json:
        users = [
            {"kind": kind, "host": host, "user": natsconf.user(compiled.fleet, kind, host)}
            for kind, host in sorted(compiled.hosts)
        ]
        publisher = natsconf.publisher(compiled.fleet)
        _print(
            [report.to_json({"format": 1, "fleet": compiled.fleet, "publisher": publisher, "users": users})]
        )
    else:
        _print(natsconf.accounts(compiled.fleet, compiled.hosts).splitlines())
    return OK
