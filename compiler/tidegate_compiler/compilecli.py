"""`tidegate compile`: parse arguments, call the pipeline, print once, return the exit status.

Nothing is imported here that reads an inventory: where little has changed, a look at the output begins before that.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate_compiler import output, progress
from tidegate_compiler.options import cache, cache_option, compiled, json_option
from tidegate_compiler.stepwise import changes
from tidegate_compiler.terminal import say
from tidegate_schema.cli import PATH, Failure, keep

if TYPE_CHECKING:
    from tidegate_compiler.cache import Cache


@click.command("compile", epilog="Example: tidegate compile inventory --out out")
@click.argument("inventory", metavar="INV", type=PATH)
@click.option("--out", metavar="DIR", type=PATH, required=True, help="Absent, empty, or an earlier output.")
@cache_option
@json_option
def compile_(inventory: Path, out: Path, cache_directory: Path | None, as_json: bool) -> int:
    """Turn an inventory into one bundle per host, all or nothing; files that are right stay untouched."""
    with cache(cache_directory) as known:
        try:
            hosts, written = _compile(inventory, out, known)
        except output.OutputError as error:
            raise Failure(str(error)) from None
    from tidegate_compiler import report  # with the model

    if as_json:
        say([report.to_json({"format": 1, "changed": written.changed, "removed": written.removed})])
    else:
        files = report.counted(len(written.changed), "file")
        say(
            [f"{hosts} hosts; {files} written, {len(written.removed)} removed, {written.unchanged} unchanged"]
        )
    return 0


def _compile(inventory: Path, out: Path, known: Cache | None) -> tuple[int, output.Written]:
    """Compile and write; the number of hosts, and what was written."""
    now = time.time_ns()
    if known is not None:
        with changes.change(known, inventory, out, now) as change:
            if change is not None:
                from tidegate_compiler import report

                keep(change)
                say(report.diagnostic_lines(change.warnings, str(inventory)), err=True)
                return change.hosts, change.write()
    from tidegate_compiler import pipeline  # a run that finds little changed does without

    made = compiled(inventory, known)
    hosts = len(made.fleet.clients) + len(made.fleet.gateways)
    with progress.shown():
        if known is None:
            return hosts, pipeline.write(made, out)
        return hosts, changes.write(known, made, out, now)
