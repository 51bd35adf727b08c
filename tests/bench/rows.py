"""A row of results, and the table that it is shown in."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Options:
    """How much to measure."""

    clients: int = 1000
    rounds: int = 5
    flows: int = 1_000_000


@dataclass(frozen=True)
class Row:
    """One result. `baseline` is what it is compared with, in the same unit; `target` is a promise, if any.

    A target is met when the value is at or below it, as a cost is; or at or above it, with `at_least`, as a rate.
    """

    part: str
    row: str
    value: float
    unit: str
    baseline: float | None = None
    target: float | None = None
    at_least: bool = False

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "met": self.met}


def show(console: Console, part: str, rows: Iterable[Row]) -> None:
    """Print a part's table."""
    table = Table("row", title=part, title_justify="left")
    for heading in ("value", "unit", "baseline", "times", "target", "met"):
        table.add_column(heading, justify="left" if heading in ("unit", "met") else "right")
    for row in rows:
        table.add_row(
            row.row,
            _number(row.value),
            row.unit,
            _number(row.baseline),
            _number(row.value / row.baseline) if row.baseline else "",
            _number(row.target),
            {None: "", True: "yes", False: "NO"}[row.met],
        )
    console.print(table)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"
