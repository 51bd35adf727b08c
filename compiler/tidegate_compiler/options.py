"""What several commands share: options, and the compile that most of them begin with."""

from __future__ import annotations

import time
from pathlib import Path

import click

from tidegate_compiler import fields, pipeline, report
from tidegate_compiler.diagnostics import show
from tidegate_compiler.terminal import say
from tidegate_schema.cli import Failure, keep


def _instant(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Read a point in time: a date, a UTC time, or "now"."""
    if value is None or value == "now":
        return None if value is None else int(time.time())
    try:
        return fields.instant(value)
    except fields.FieldError as error:
        raise click.BadParameter(f"{show(value)}: {error}") from None


at_option = click.option(
    "--at", callback=_instant, metavar="TIME", help="2027-06-30, 2027-06-30T18:00Z or now."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def compiled(inventory: Path) -> pipeline.Compiled:
    """Compile, tell every diagnostic on stderr, and fail in one line when there are errors."""
    result = pipeline.compile_inventory(inventory)
    keep(result)
    say(report.diagnostic_lines(result.diagnostics, str(inventory)), err=True)
    if isinstance(result, pipeline.Compiled):
        return result
    raise Failure(f"{inventory}: {report.counts(result.diagnostics)}")
