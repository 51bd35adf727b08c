"""Printing, for every command: once, and never more than the terminal's encoding can show."""

from __future__ import annotations

import sys
from collections.abc import Iterable
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
