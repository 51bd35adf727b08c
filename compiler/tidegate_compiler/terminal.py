"""Printing, for every command: once, and never more than the terminal's encoding can show."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence
from typing import TextIO

import click


def say(lines: Iterable[str], err: bool = False) -> None:
    """Print lines on standard output, or with `err` on standard error; nothing at all for no text."""
    text = "\n".join(lines)
    if text:
        # What the encoding lacks, and a path's undecodable bytes, are told escaped.
        stream: TextIO | None = sys.stderr if err else sys.stdout  # None when it was closed
        encoding = (stream and stream.encoding) or "utf-8"
        click.echo(text.encode(encoding, "backslashreplace").decode(encoding), err=err)


def is_terminal() -> bool:
    """Tell whether standard output is a terminal."""
    return sys.stdout is not None and sys.stdout.isatty()


def width() -> int:
    """Return the terminal's width in columns."""
    return shutil.get_terminal_size().columns


def print_table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table with borders on a terminal, and tab-separated lines in a pipe."""
    if not is_terminal():
        say("\t".join(row) for row in (titles, *rows))
        return
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*titles)
    for row in rows:
        table.add_row(*map(escape, row))
    Console().print(table)
