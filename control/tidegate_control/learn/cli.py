"""`tidegate replay` and `tidegate suggest`: read flows, judge or learn from them, print once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tidegate_compiler import fields, pipeline
from tidegate_compiler import report as reports
from tidegate_compiler.check import Checked
from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.edit.editor import LayoutError
from tidegate_compiler.learn import readiness as ready
from tidegate_compiler.learn import replaytext, suggestdoc
from tidegate_compiler.learn.flows import TooManyFlowsError
from tidegate_compiler.learn.history import is_shallow, timeline
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.learn.suggest import STRICTNESS
from tidegate_compiler.options import json_option
from tidegate_compiler.plan import source
from tidegate_compiler.plan.revision import RevisionError
from tidegate_compiler.progress import shown, stage
from tidegate_compiler.terminal import chosen_format, print_table, say
from tidegate_control.learn import answers, sources
from tidegate_control.learn.answers import Subject
from tidegate_schema.cli import PATH, Failure, keep

OK, CHANGES = 0, 2
RECORDED = -1
"""What `--at recorded` is read as: no Unix second."""


def _moment(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if value in ("now", "recorded"):
        return int(time.time()) if value == "now" else RECORDED
    try:
        return fields.instant(value)
    except fields.FieldError as error:
        raise click.BadParameter(f"{show(value)}: {error}") from None


def _span(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    try:
        return sources.span(value)
    except ValueError as error:
        raise click.BadParameter(f"{show(value)}: {error}") from None


def flow_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say which flows are read."""
    for option in (
        click.option(
            "--last", callback=_span, metavar="SPAN", help="Only flows of the last 90m, 12h, 7d or 4w."
        ),
        click.option("--to", "end", callback=_moment, metavar="TIME", help="Only flows from before then."),
        click.option("--from", "begin", callback=_moment, metavar="TIME", help="Only flows since then."),
        click.option(
            "--flows",
            required=True,
            metavar="FLOWS",
            help="A file of NDJSON events (.gz too), - for standard input, or the intake's store: duckdb:///PATH, "
            "clickhouse://USER@HOST:PORT/DB. A store is asked about the last 7 days, unless told otherwise, which "
            "its URL may do: ?last=30d.",
        ),
    ):
        command = option(command)
    return command


@dataclass(frozen=True)
class Named:
    """An inventory of the command line, compiled, and its files."""

    subject: Subject
    files: Mapping[str, bytes]


def named(name: str, past: Timeline, warn: bool = True) -> Named:
    """Compile what a name stands for, a directory or a git revision; diagnostics go to stderr, errors fail."""
    try:
        content = source.read(name)
    except source.SourceError as error:
        raise Failure(str(error)) from None
    if isinstance(content, source.Side):
        raise Failure(f"{show_path(name)}: a compile output has no names of its own; name the inventory")
    with shown():
        made = pipeline.compile_files(content.files, content.problems)
    keep(made)
    if warn or isinstance(made, Checked):
        say(reports.diagnostic_lines(made.diagnostics, content.root), err=True)
    if isinstance(made, Checked):
        raise Failure(f"{show_path(content.title)}: {reports.counts(made.diagnostics)}")
    return Named(Subject(content.title, content.root, made, past), content.files)


def history(name: str) -> Timeline:
    """Return the names of the past; a repository that git cannot read has none, a shallow one few: that is told."""
    try:
        found = timeline(name)
        if is_shallow(name):
            say(
                ["tidegate: git: a shallow clone; names from before its first commit are not known"], err=True
            )
        return found
    except RevisionError as error:
        say([f"tidegate: git: {error}; names are those of the inventory alone"], err=True)
        return Timeline()


@contextmanager
def opened(flows: str, asked: sources.Asked, what: str) -> Iterator[sources.Reader]:
    """Open the flows, and show progress while they are read; a failure, then or now, is one line."""
    try:
        with sources.opened(flows, asked, int(time.time())) as reader, shown():
            stage(what)
            yield reader
    except (sources.SourceError, TooManyFlowsError) as error:
        raise Failure(str(error)) from None


@click.command(
    "replay",
    epilog="Examples: tidegate replay --flows events.ndjson inventory; tidegate replay "
    "--flows 'duckdb:///var/lib/tidegate-control/intake.duckdb?last=7d' --against main inventory --format markdown; "
    "tidegate replay --flows events.ndjson.gz --readiness inventory",
)
@click.argument("inventory", metavar="INV")
@flow_options
@click.option("--against", metavar="OLD", help="Compare with what OLD says, not with what was recorded.")
@click.option(
    "--at",
    callback=_moment,
    default="now",
    metavar="TIME",
    help="Judge as of then: now (the default), 2027-06-30, or recorded: each flow at its own time.",
)
@click.option("--gateway", metavar="NAME", help="Only what this gateway recorded.")
@click.option("--client", metavar="NAME", help="Only this client, by its name of now or then, or by its ID.")
@click.option("--readiness", is_flag=True, help="Count the days without an unexplained denial instead.")
@click.option(
    "--format", "form", type=click.Choice(["text", "json", "markdown"]), help="text is the default."
)
@click.option("--json", "as_json", is_flag=True, help="The same as --format json.")
def replay_(
    inventory: str,
    flows: str,
    begin: int | None,
    end: int | None,
    last: int | None,
    against: str | None,
    at: int,
    gateway: str | None,
    client: str | None,
    readiness: bool,
    form: str | None,
    as_json: bool,
) -> int:
    """Judge recorded flows by an inventory: what would break, and what was refused and would pass.

    INV and OLD are inventory directories or git revisions, as for plan. The verdict is the gateway's own. Flows that
    were recorded in observe were all let through, so the answer is what enforce would break.

    Exit status: 0 all as before, 2 something changes (with --readiness: unexplained denials), 1 not to be read (with
    --readiness also: nothing was recorded).
    """
    form = chosen_format(form, as_json)
    if readiness and (against or form == "markdown"):
        raise click.UsageError("--readiness goes neither with --against nor with --format markdown")
    if form == "markdown" and not against:
        raise click.UsageError("--format markdown is the comment on a change: say --against OLD")
    past = history(inventory)
    new = named(inventory, past).subject
    old = named(against, past, warn=False).subject if against else None
    moment = None if at == RECORDED else at
    only = answers.Only(gateway, client)
    with opened(flows, sources.Asked(begin, end, last), "replaying") as reader:
        if readiness:
            told = answers.readied(new, reader, moment, only)
        else:
            told, done = answers.replayed(new, reader, moment, old, only)
    if readiness:
        return _tell_readiness(told, form)
    if form == "json":
        say([reports.to_json(told)])
    elif old is not None and form == "markdown":
        say([answers.commented(new, old, told, done).rstrip("\n")])
    else:
        say(replaytext.lines(told))
    return CHANGES if told["changes"] else OK


def _tell_readiness(told: dict[str, Any], form: str) -> int:
    if not told["gateways"]:  # a status of 0 would say that every gateway is ready
        raise Failure(
            "no flow was recorded, so nothing is known; look at --flows, the time, --gateway and --client"
        )
    if form == "json":
        say([reports.to_json(told)])
    else:
        print_table(ready.TITLES, list(ready.cells(told)))
    return CHANGES if any(row["unexplained"] for row in told["gateways"]) else OK


@click.command(
    "suggest",
    epilog="Examples: tidegate suggest --flows events.ndjson inventory; tidegate suggest "
    "--flows 'duckdb:///var/lib/tidegate-control/intake.duckdb?last=30d' inventory --out suggested",
)
@click.argument("inventory", metavar="INV")
@flow_options
@click.option(
    "--out", type=PATH, metavar="DIR", help="Write the inventory with the suggested policies here; new."
)
@click.option("--with-refused", is_flag=True, help="Also ask for what was refused when it was recorded.")
@click.option(
    "--strictness",
    type=click.FloatRange(0.01, 100),
    default=STRICTNESS,
    show_default=True,
    help="How many clients in a list are as bad as one client that is admitted to something it was not seen at.",
)
@json_option
def suggest_(
    inventory: str,
    flows: str,
    begin: int | None,
    end: int | None,
    last: int | None,
    out: Path | None,
    with_refused: bool,
    strictness: float,
    as_json: bool,
) -> int:
    """Suggest the fewest readable policies that admit recorded flows, with evidence and what they admit beyond.

    INV is an inventory directory or a git revision: its groups and resources are the words of the suggestion, its
    deny policies stay. Exit status: 0, or 1 for what cannot be read, and where nothing was recorded.
    """
    if out is not None and out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise Failure(f"{show_path(str(out))}: there is something already; name a new directory")
    known = named(inventory, history(inventory))
    with opened(flows, sources.Asked(begin, end, last), "learning") as reader:
        told, done = answers.suggested(
            known.subject, reader, int(time.time()), with_refused=with_refused, strictness=strictness
        )
    if not told["counts"]["flows"]:  # else the smallest set of policies for no flow would be suggested: none
        raise Failure("no flow was recorded, so there is nothing to learn from; look at --flows and the time")
    if out is not None:
        try:
            _write(out, suggestdoc.files(done, told, known.files))
        except LayoutError as error:
            raise Failure(
                f"the old policies cannot be cut out: {error}; run 'tidegate inventory fmt' first"
            ) from None
    say([reports.to_json(told)] if as_json else suggestdoc.lines(told))
    return OK


def _write(out: Path, files: Mapping[str, bytes]) -> None:
    for name, data in sorted(files.items()):
        path = out / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
