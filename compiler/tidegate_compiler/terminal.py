"""Printing, for every command: once, and never more than the terminal's encoding can show."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

import click

FORMAT_JSON = "json"


def say(lines: Iterable[str], err: bool = False, color: bool | None = None) -> None:
    """Print lines on standard output, or with `err` on standard error; nothing at all for no text.

    SGR sequences in the text pass with `color`, and by default on a terminal only.
    """
    text = "\n".join(lines)
    if text:
        # What the encoding lacks, and a path's undecodable bytes, are told escaped.
        stream: TextIO | None = sys.stderr if err else sys.stdout  # None when it was closed
        known = encoding(stream)
        click.echo(text.encode(known, "backslashreplace").decode(known), err=err, color=color)


def encoding(stream: TextIO | None) -> str:
    """Return a stream's encoding."""
    return (stream and stream.encoding) or "utf-8"


def wants_color(choice: str, stream: TextIO | None, environ: Mapping[str, str]) -> bool:
    """Tell whether to colour: "always" and "never" as said; "auto" on a terminal, unless the environment objects.

    See https://no-color.org/.
    """
    if choice != "auto":
        return choice == "always"
    plain = environ.get("NO_COLOR") or environ.get("TERM") == "dumb"
    return stream is not None and stream.isatty() and not plain


def chosen_format(form: str | None, as_json: bool) -> str:
    """Return the format that `--format` and `--json` name together; "text" when neither is given."""
    if as_json and form not in (None, FORMAT_JSON):
        raise click.UsageError(f"--json is --format json; it cannot go with --format {form}")
    return FORMAT_JSON if as_json else form or "text"


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def width() -> int:
    """Return the terminal's width in columns."""
    import shutil  # with all of its archives

    return shutil.get_terminal_size().columns


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with borders on a terminal, and tab-separated lines in a pipe."""
    if not is_terminal():
        say("\t".join(row) for row in (titles, *rows))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    table = Table(
        *(Column(title, overflow="fold") for title in titles)
    )  # nothing is left out, however narrow
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
