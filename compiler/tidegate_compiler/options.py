"""What several commands share: options, and the compile that most of them begin with."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate_compiler import progress
from tidegate_compiler.diagnostics import show
from tidegate_compiler.terminal import say
from tidegate_schema.cli import PATH, Failure, keep

if TYPE_CHECKING:
    from tidegate_compiler import pipeline
    from tidegate_compiler.cache import Cache


def _instant(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Read a point in time: a date, a UTC time, or "now"."""
    if value is None or value == "now":
        return None if value is None else int(time.time())
    from tidegate_compiler import fields  # with all that an inventory is made of

    try:
        return fields.instant(value)
    except fields.FieldError as error:
        raise click.BadParameter(f"{show(value)}: {error}") from None


at_option = click.option(
    "--at", callback=_instant, metavar="TIME", help="2027-06-30, 2027-06-30T18:00Z or now."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


cache_option = click.option(
    "--cache",
    "cache_directory",
    metavar="DIR",
    type=PATH,
    envvar="TIDEGATE_CACHE",
    help="Keep there what was read of each file, so that the next run need not read it again. Deleting it changes "
    "nothing but time. Also from $TIDEGATE_CACHE.",
)


@contextmanager
def cache(directory: Path | None) -> Iterator[Cache | None]:
    """Open the cache of a run, if there is to be one, and save it when the run has come to its end."""
    if directory is None:
        yield None
        return
    from tidegate_compiler.cache import Cache  # few ask for one

    opened = Cache(directory)
    try:
        yield opened
    finally:  # what was read of an inventory with errors is worth as much
        if opened.is_changed:
            from tidegate_compiler.stepwise import record

            record.retain(opened)
            opened.save()


def compiled(inventory: Path, known: Cache | None = None) -> pipeline.Compiled:
    """Compile, tell every diagnostic on stderr, and fail in one line when there are errors."""
    from tidegate_compiler import pipeline, report  # not every command that has options compiles

    with progress.shown():
        result = pipeline.compile_inventory(inventory, known)
    keep(result)
    say(report.diagnostic_lines(result.diagnostics, str(inventory)), err=True)
    if isinstance(result, pipeline.Compiled):
        return result
    raise Failure(f"{inventory}: {report.counts(result.diagnostics)}")
