"""Diagnostics for people: the line editors read, then the source line with a caret; coloured on a terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import click

from tidegate_compiler.codes import CODES
from tidegate_compiler.diagnostics import BAD_KEY, KEY_SHOWN, Diagnostic, show_path
from tidegate_compiler.formats.excerpt import excerpt
from tidegate_compiler.formats.sources import Sources

# The file as a whole is wrong, and none of its lines.
_NO_LINE = ("TG001", "TG002", "TG004", "TG010")
_COLORS = {"error": "red", "warning": "yellow"}


def lines(
    diagnostics: Iterable[Diagnostic],
    root: str,
    sources: Sources,
    color: bool = False,
    encoding: str = "utf-8",
) -> Iterator[str]:
    """Yield `path:line:col: severity CODE message [slug]` for each, and below it its source line and a caret.

    With `color` there are SGR sequences around the parts, and nothing else is changed.
    """
    prefix = show_path(root.rstrip("/")) + "/"
    for found in diagnostics:
        place = _styled(color, f"{prefix}{found.where}:", bold=True)
        severity = _styled(color, found.severity, fg=_COLORS[found.severity], bold=True)
        slug = _styled(color, f"[{CODES[found.code].slug}]", dim=True)
        yield f"{place} {severity} {found.code} {found.message} {slug}"
        line = None if found.code in _NO_LINE else sources.line(found.where)
        if line is not None:
            shown, caret = excerpt(_discreet(found, line), found.where.line, found.where.column, encoding)
            yield shown
            yield _styled(color, caret, fg="green", bold=True)


def _discreet(found: Diagnostic, line: str) -> str:
    """Return the line, cut inside a bad key: it may be somebody's private one, and in a form `excerpt` knows not."""
    end = found.where.column - 1 + KEY_SHOWN
    return line[:end] + "..." if found.code == BAD_KEY and end < len(line) else line


def _styled(color: bool, text: str, fg: str | None = None, bold: bool = False, dim: bool = False) -> str:
    return click.style(text, fg=fg, bold=bold or None, dim=dim or None) if color else text
