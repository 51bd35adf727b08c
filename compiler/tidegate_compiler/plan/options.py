"""The option that says how much a change may do."""

from __future__ import annotations

import click

from tidegate_compiler.diagnostics import show
from tidegate_compiler.plan import limits


def _limits(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> limits.Limits:
    """Read limits, NAME=VALUE each."""
    for value in values:
        try:
            limits.parse([value])
        except ValueError as error:
            raise click.BadParameter(f"{show(value)}: {error}") from None
    return limits.parse(values)


limit_option = click.option(
    "--limit",
    "limits",
    callback=_limits,
    multiple=True,
    metavar="NAME=VALUE",
    help="Another limit than the default, for instance clients-removed=100 or access-widened-share=80%; "
    "may be repeated.",
)
