"""How values are written on the pages: times in UTC, numbers with room, and nothing hidden in a text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import quote

from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.times import format_instant

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")


def when(second: float | None) -> str:
    """Return a Unix second as UTC in ISO 8601, "never" for None."""
    return "never" if second is None else format_instant(int(second))


def size(count: int) -> str:
    """Return a number of bytes in the largest unit that leaves a digit before the point."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} B" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def number(count: int) -> str:
    """Return a number with its digits in groups of three."""
    return f"{count:,}".replace(",", "\u202f")


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")


def visible(text: Any) -> str:
    """Return a text from outside with every control and bidi character written out."""
    return show_path(str(text))


def by(rows: Iterable[Mapping[str, Any]], key: str) -> dict[str, Mapping[str, Any]]:
    """Return rows by one of their values."""
    return {row[key]: row for row in rows}
