"""`tidegate plan`: read both sides, compare, print once; the exit status tells whether anything changes."""

from __future__ import annotations

from pathlib import Path

import click
from click.shell_completion import CompletionItem

from tidegate_compiler import pipeline
from tidegate_compiler import report as reports
from tidegate_compiler.cache import Cache
from tidegate_compiler.check import Checked
from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.options import cache, cache_option
from tidegate_compiler.plan import document, markdown, report, source
from tidegate_compiler.plan.limits import Limits
from tidegate_compiler.plan.options import limit_option
from tidegate_compiler.plan.plan import plan as compare
from tidegate_compiler.progress import shown, stage
from tidegate_compiler.terminal import chosen_format, say
from tidegate_schema.cli import Failure, keep

OK, CHANGES = 0, 2


def _directories(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Let the shell complete a directory; revisions are not told."""
    return [CompletionItem(incomplete, type="dir")]


@click.command(
    epilog="Examples: tidegate plan main inventory; tidegate plan HEAD~1:inventory HEAD:inventory --format markdown; "
    "tidegate plan out inventory --format json"
)
@click.argument("old", metavar="OLD", shell_complete=_directories)
@click.argument("new", metavar="NEW", shell_complete=_directories)
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown"]), help="text is the default."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
@limit_option
@cache_option
def plan(
    old: str, new: str, form: str | None, as_json: bool, limits: Limits, cache_directory: Path | None
) -> int:
    """Say what a change does: access gained and lost, hosts that reload, objects changed.

    OLD and NEW are inventory directories, git revisions (REV, for its directory inventory; REV:path, from the top
    of the repository; REV: for the top itself), or compile outputs. A directory wins over a revision of the same name.

    Exit status: 0 no changes, 2 changes, 1 a side cannot be read.
    """
    form = chosen_format(form, as_json)
    try:
        found = [source.read(name) for name in (old, new)]
    except source.SourceError as error:
        raise Failure(str(error)) from None
    with pipeline.without_collector():
        with cache(cache_directory) as known:
            before, after = _sides(found[0], found[1], known)
        with shown():
            stage("comparing")
            told = document.document(compare(before, after, limits))
        keep(told)
    if form == "json":
        say([reports.to_json(told)])
    elif form == "markdown":
        say([markdown.markdown(told).rstrip("\n")])
    else:
        say(report.lines(told))
    return CHANGES if told["changes"] else OK


def _sides(
    old: source.Content | source.Side, new: source.Content | source.Side, known: Cache | None
) -> list[source.Side]:
    """Compile what is an inventory; tell errors of either side and warnings of the new one on stderr."""
    made: list[pipeline.Compiled | Checked | None]
    with shown():
        if isinstance(old, source.Content) and isinstance(new, source.Content):
            made = list(pipeline.compile_both((old.files, old.problems), (new.files, new.problems), known))
        else:
            made = [
                pipeline.compile_files(found.files, found.problems, known)
                if isinstance(found, source.Content)
                else None
                for found in (old, new)
            ]
    sides = [_side(found, compiled) for found, compiled in zip((old, new), made, strict=True)]
    say(reports.diagnostic_lines(sides[1].diagnostics, sides[1].root), err=True)
    return sides


def _side(found: source.Content | source.Side, made: pipeline.Compiled | Checked | None) -> source.Side:
    if isinstance(found, source.Side):
        return found
    assert made is not None
    if isinstance(made, Checked):
        say(reports.diagnostic_lines(made.diagnostics, found.root), err=True)
        raise Failure(f"{show_path(found.title)}: {reports.counts(made.diagnostics)}")
    keep(made)
    return source.of_compiled(found, made)
