"""`tidegate inventory add`: one command a kind; each makes the fields, and one piece adds them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from tidegate_compiler import fields
from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.edit import add as adding
from tidegate_compiler.edit.change import EditError
from tidegate_compiler.edit.edges import inside, place, read, under, write
from tidegate_compiler.edit.options import (
    F,
    as_written,
    dry_run_option,
    expires_option,
    file_option,
    hosts,
    inventory_option,
    many,
    many_pairs,
    not_before_option,
    reads,
)
from tidegate_compiler.edit.survey import Survey, survey
from tidegate_compiler.edit.writing import Fields
from tidegate_compiler.options import json_option
from tidegate_schema.cli import Failure


def _key_option(help_: str) -> Callable[[F], F]:
    return click.option(
        "--public-key", metavar="KEY", required=True, callback=reads(fields.public_key), help=help_
    )


def _adds(command: F) -> F:
    """Give a command the options that every `add` has."""
    for option in (json_option, dry_run_option, file_option, inventory_option):
        command = option(command)
    return command


@click.group(short_help="Add an object.")
def add() -> None:
    """Add an object to the inventory."""


_name = click.argument("name", callback=reads(fields.name))


@add.command(
    "client",
    short_help="Add a client.",
    epilog="Example: tidegate inventory add client zoe-laptop --public-key KEY --group engineers --gateway fra1",
)
@_name
@_key_option("The client's WireGuard public key; 'tidegate client init' on the host prints it.")
@click.option(
    "--address",
    "addresses",
    metavar="ADDRESS",
    multiple=True,
    callback=hosts,
    help="Its addresses; default: the lowest free one of each family of the overlay.",
)
@many("--gateway", "gateways", "NAME", fields.name, "Its gateways, in order; default: the only one there is.")
@many("--group", "groups", "NAME", fields.name, "Groups it joins.")
@_adds
def add_client(
    name: str,
    public_key: str,
    addresses: tuple[str, ...],
    gateways: tuple[str, ...],
    groups: tuple[str, ...],
    **common: Any,
) -> int:
    """Add a client; it gets the next free addresses, joins its groups, and uses its gateways."""

    def make(known: Survey) -> Fields:
        adding.check_members(known, "group", groups)
        return {
            "public_key": public_key,
            "addresses": adding.addresses(known, addresses),
            "gateways": adding.gateways(known, gateways),
        }

    return _add("client", name, make, groups=groups, **common)


@add.command(
    "gateway",
    short_help="Add a gateway.",
    epilog="Example: tidegate inventory add gateway tok1 --public-key KEY --endpoint 203.0.113.30:51820 "
    "--network 10.40.0.0/16",
)
@_name
@_key_option("The gateway's WireGuard public key; 'tidegate gateway init' on the host prints it.")
@click.option(
    "--endpoint", metavar="IP:PORT", required=True, callback=reads(fields.endpoint), help="IP:PORT."
)
@many("--network", "networks", "PREFIX", fields.network, "What lies behind it.", required=True)
@_adds
def add_gateway(name: str, public_key: str, endpoint: str, networks: tuple[str, ...], **common: Any) -> int:
    """Add a gateway and the networks behind it."""
    return _add(
        "gateway",
        name,
        lambda _: {"public_key": public_key, "endpoint": endpoint, "networks": list(networks)},
        **common,
    )


@add.command(
    "group",
    short_help="Add a group.",
    epilog="Example: tidegate inventory add group auditors --member carol-laptop --expires carol-laptop=2027-01-31",
)
@_name
@many("--member", "members", "CLIENT", fields.member, "A client in it.", required=True)
@many_pairs(
    "--not-before", "not_before", "CLIENT=TIME", as_written(fields.instant), "When a membership begins."
)
@many_pairs("--expires", "expires", "CLIENT=TIME", as_written(fields.instant), "When a membership ends.")
@_adds
def add_group(
    name: str,
    members: tuple[str, ...],
    not_before: tuple[tuple[str, str], ...],
    expires: tuple[tuple[str, str], ...],
    **common: Any,
) -> int:
    """Add a group of clients."""

    def make(known: Survey) -> Fields:
        adding.check_members(known, "client", members)
        return _present(members=members, not_before=dict(not_before), expires=dict(expires))

    return _add("group", name, make, **common)


_ports = many("--port", "ports", "PROTO/PORT", fields.ports, "tcp/N, tcp/N-M, udp/..., icmp, proto/N or any.")


@add.command(
    "resource",
    short_help="Add a resource.",
    epilog="Example: tidegate inventory add resource wiki --address 10.20.0.90/32 --port tcp/443",
)
@_name
@many("--address", "addresses", "PREFIX", fields.network, "Where it is.", required=True)
@_ports
@_adds
def add_resource(name: str, addresses: tuple[str, ...], ports: tuple[str, ...], **common: Any) -> int:
    """Add a resource; without --port, each policy that names it says the ports."""
    return _add("resource", name, lambda _: _present(addresses=addresses, ports=ports), **common)


@add.command(
    "policy",
    short_help="Add a policy.",
    epilog="Example: tidegate inventory add policy ops-reach-web --from group:operators --to resource:web "
    "--action allow",
)
@_name
@many("--from", "sources", "WHO", fields.source, "client:NAME, group:NAME or all-clients.", required=True)
@many("--to", "destinations", "WHERE", fields.destination, "resource:NAME or a prefix.", required=True)
@click.option("--action", type=click.Choice(["allow", "deny"]), required=True)
@_ports
@not_before_option
@expires_option
@_adds
def add_policy(
    name: str,
    sources: tuple[str, ...],
    destinations: tuple[str, ...],
    action: str,
    ports: tuple[str, ...],
    not_before: str | None,
    expires: str | None,
    **common: Any,
) -> int:
    """Add a policy."""
    made: dict[str, Any] = {"from": sources, "to": destinations, "ports": ports, "action": action}
    made |= {"not_before": not_before, "expires": expires}
    return _add("policy", name, lambda _: _present(**made), **common)


@add.command(
    "test",
    short_help="Add an access test.",
    epilog="Example: tidegate inventory add test --from client:carol-laptop --to 10.20.5.3 --port tcp/5432 "
    "--expect deny --file tests/operations.yaml",
)
@click.option("--from", "source", metavar="WHO", required=True, callback=reads(fields.test_source))
@click.option("--to", "destination", metavar="WHERE", required=True, callback=reads(fields.test_destination))
@click.option("--port", metavar="PROTO/PORT", required=True, callback=reads(fields.one_port))
@click.option("--expect", type=click.Choice(["allow", "deny"]), required=True)
@click.option("--at", metavar="TIME", callback=reads(fields.instant), help="The packet's moment, UTC.")
@_adds
def add_test(source: str, destination: str, port: str, expect: str, at: str | None, **common: Any) -> int:
    """Add an access test; 'tidegate test' runs it."""
    made = {"from": source, "to": destination, "port": port, "expect": expect, "at": at}
    return _add("test", "", lambda _: _present(**made), **common)


def _add(
    kind: str,
    name: str,
    make: Callable[[Survey], Fields],
    root: Path,
    file: str | None,
    dry_run: bool,
    as_json: bool,
    groups: Sequence[str] = (),
) -> int:
    content, unreadable, before = read(root)
    try:
        known = survey(content, before)
        added = adding.add(content, known, kind, name, make(known), inside(root, file), groups)
    except EditError as error:
        raise Failure(under(root, error)) from None
    verb = "would add" if dry_run else "added"
    lines = [f"{place(root, where)}: {verb} {what}" for where, what in added.places]
    if "addresses" in added.fields and kind == "client":
        lines[0] += f" with {', '.join(added.fields['addresses'])}"
    told = {
        "added": {"kind": kind, "name": name or None, "fields": added.fields},
        "places": [
            {"file": show_path(where.file), "line": where.line, "what": what} for where, what in added.places
        ],
    }
    return write(root, added.change, unreadable, before, lines, told, dry_run, as_json)


def _present(**values: Any) -> Fields:
    return {key: list(v) if isinstance(v, tuple) else v for key, v in values.items() if v}
