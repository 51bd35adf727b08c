"""`tidegate access`: compile, survey, print once."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import click

from tidegate_compiler import report as reports
from tidegate_compiler.access import picture, table
from tidegate_compiler.access.document import document
from tidegate_compiler.access.survey import survey
from tidegate_compiler.access.words import SHOWN
from tidegate_compiler.diagnostics import did_you_mean, show
from tidegate_compiler.options import at_option, compiled, json_option
from tidegate_compiler.reach import Reach
from tidegate_compiler.terminal import chosen_format, is_terminal, print_table, say, width
from tidegate_schema.cli import PATH, Failure

OK = 0


@click.command(
    epilog="Examples: tidegate access inventory; tidegate access inventory --resource prod-db --at now; "
    "tidegate access inventory --format svg > access.svg"
)
@click.argument("inventory", metavar="INV", type=PATH)
@click.option("--client", "clients", metavar="NAME", multiple=True, help="Only this client; may be repeated.")
@click.option(
    "--resource", "resources", metavar="NAME", multiple=True, help="Only this one; may be repeated."
)
@click.option("--format", "form", type=click.Choice(["table", "json", "svg"]), help="table is the default.")
@at_option
@json_option
def access(
    inventory: Path,
    clients: tuple[str, ...],
    resources: tuple[str, ...],
    form: str | None,
    at: int | None,
    as_json: bool,
) -> int:
    """Say who reaches what: which clients reach which resources, on which ports, when, and by which policy.

    Without --at it is told for all time, and access that begins or ends is told with its times. In a pipe, and
    where a matrix does not fit the terminal, the table has a line for every piece of access.
    """
    form = chosen_format(form, as_json)
    made = compiled(inventory)
    _known("client", clients, made.inventory.clients)
    _known("resource", resources, made.inventory.resources)
    found = survey(made.inventory, Reach(made.fleet), at, clients, resources)
    told = document(found, str(inventory))
    if form == "json":
        say([reports.to_json(told)])
    elif form == "svg":
        try:
            say([picture.svg(told).rstrip("\n")])
        except picture.TooLargeError as error:
            raise Failure(str(error)) from None
    else:
        _print(told, by_name=bool(clients or resources))
    return OK


def _print(told: dict[str, object], by_name: bool) -> None:
    fitting = None if by_name or not is_terminal() else table.matrix(told, width())
    if fitting is None:
        print_table(*table.lines(told, SHOWN if is_terminal() else None))
    else:
        print_table(*fitting)
        say(table.LEGEND)


def _known(kind: str, names: Collection[str], known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise Failure(f"there is no {kind} {show(name)}{did_you_mean(name, known)}")
