"""`tidegate validate`: parse arguments, call the pipeline, print once, return the exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from tidegate_compiler import pipeline, progress, report, terminal
from tidegate_compiler.diagnostics import has_errors
from tidegate_compiler.formats import text
from tidegate_compiler.formats.sources import Sources, repository_path
from tidegate_compiler.options import at_option as _at
from tidegate_compiler.options import cache, cache_option
from tidegate_schema.cli import PATH, keep

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
