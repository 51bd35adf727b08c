"""The compiler's first commands: parse arguments, call the pipeline, print once, return the exit status."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tidegate_compiler import output, pipeline, progress, report, stepwise, terminal
from tidegate_compiler.diagnostics import has_errors
from tidegate_compiler.formats import text
from tidegate_compiler.formats.sources import Sources, repository_path
from tidegate_compiler.options import at_option as _at
from tidegate_compiler.options import cache, cache_option
from tidegate_compiler.options import compiled as _compiled
from tidegate_compiler.options import json_option as _json
from tidegate_compiler.terminal import say as _print
from tidegate_schema.cli import PATH, Failure, keep

if TYPE_CHECKING:
    from tidegate_compiler.cache import Cache

OK, PROBLEMS = 0, 1


@click.command(
    epilog="Examples: tidegate validate inventory; tidegate validate inventory --strict --at now; "
    "tidegate validate inventory --format sarif > tidegate.sarif"
)
@click.argument("inventory", metavar="INV", type=PATH)
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json", "sarif", "github"]),
    help="text (the default); json; sarif, for code scanning; github, for annotations in GitHub Actions.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    show_default=True,
    help="Colour text; auto means on a terminal, unless NO_COLOR is set.",
)
@click.option("--strict", is_flag=True, help="Let warnings fail, too.")
@_at
@cache_option
def validate(
    inventory: Path,
    form: str | None,
    as_json: bool,
    color: str,
    strict: bool,
    at: int | None,
    cache_directory: Path | None,
) -> int:
    """Report every problem of an inventory, with its place, code, and how to mend it.

    With --at, policies and memberships that have expired by then are reported too.
    """
    form = terminal.chosen_format(form, as_json)
    with progress.shown(), cache(cache_directory) as known:
        checked = pipeline.validate(inventory, at, cache=known)
    keep(checked)
    diagnostics = checked.diagnostics
    sources = Sources(inventory)
    colored = form == "text" and terminal.wants_color(color, sys.stdout, os.environ)
    if form == "json":
        told: Iterable[str] = [report.to_json(report.diagnostics_document(diagnostics))]
    elif form == "sarif":
        from tidegate_compiler.formats import sarif

        told = [report.to_json(sarif.document(diagnostics, repository_path(inventory), sources))]
    elif form == "github":
        from tidegate_compiler.formats import github

        told = [*github.lines(diagnostics, repository_path(inventory)), report.counts(diagnostics)]
    else:
        encoding = terminal.encoding(sys.stdout)
        told = [
            *text.lines(diagnostics, str(inventory), sources, colored, encoding),
            report.counts(diagnostics),
        ]
    terminal.say(told, color=colored)
    return PROBLEMS if has_errors(diagnostics, strict) else OK


@click.command("compile", epilog="Example: tidegate compile inventory --out out")
@click.argument("inventory", metavar="INV", type=PATH)
@click.option("--out", metavar="DIR", type=PATH, required=True, help="Absent, empty, or an earlier output.")
@cache_option
@_json
def compile_(inventory: Path, out: Path, cache_directory: Path | None, as_json: bool) -> int:
    """Turn an inventory into one bundle per host, all or nothing; files that are right stay untouched."""
    with cache(cache_directory) as known:
        try:
            hosts, written = _compile(inventory, out, known)
        except output.OutputError as error:
            raise Failure(str(error)) from None
    if as_json:
        _print([report.to_json({"format": 1, "changed": written.changed, "removed": written.removed})])
    else:
        files = report.counted(len(written.changed), "file")
        _print(
            [f"{hosts} hosts; {files} written, {len(written.removed)} removed, {written.unchanged} unchanged"]
        )
    return OK


def _compile(inventory: Path, out: Path, known: Cache | None) -> tuple[int, output.Written]:
    """Compile and write; the number of hosts, and what was written."""
    now = time.time_ns()
    if known is not None:
        with stepwise.change(known, inventory, out, now) as change:
            if change is not None:
                keep(change)
                _print(report.diagnostic_lines(change.warnings, str(inventory)), err=True)
                return change.hosts, change.write()
    compiled = _compiled(inventory, known)
    hosts = len(compiled.fleet.clients) + len(compiled.fleet.gateways)
    with progress.shown():
        if known is None:
            return hosts, pipeline.write(compiled, out)
        return hosts, stepwise.write(known, compiled, out, now)
