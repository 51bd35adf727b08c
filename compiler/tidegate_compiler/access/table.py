"""The survey's document as a table: a matrix where it fits a terminal, otherwise a line for every piece of access."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate_compiler.access.words import ELSEWHERE, entry, summary, who

TITLES = ("clients", "resource", "reach", "to", "ports", "when", "by")
LEGEND = (
    "all: everything the resource offers; part: some of its ports, addresses, families or times; "
    "+: other ports than its own, too; -: nothing",
    "elsewhere: destinations in no resource. Details: name --client or --resource, or pipe this into a pager.",
)
_WORDS = {"full": "all", "partial": "part", "none": ""}
_BORDER = 3
Table = tuple[Sequence[str], list[tuple[str, ...]]]


def matrix(document: dict[str, Any], width: int) -> Table | None:
    """Return (titles, rows) of clients by resources, or None when that is wider than `width` columns."""
    names = [resource["name"] for resource in document["resources"]]
    with_elsewhere = any(row["elsewhere"] for row in document["rows"])
    titles = ("clients", *names, *([ELSEWHERE] if with_elsewhere else ()))
    rows = []
    for row in document["rows"]:
        marks = {cell["resource"]: _mark(cell) for cell in row["resources"]}
        told = [marks.get(name, "-") for name in names]
        rows.append((who(row), *told, *(["part" if row["elsewhere"] else "-"] if with_elsewhere else ())))
    wide = sum(max(len(line[column]) for line in (titles, *rows)) + _BORDER for column in range(len(titles)))
    return (titles, rows) if wide + 1 <= width else None


def _mark(cell: dict[str, Any]) -> str:
    return _WORDS[cell["reach"]] + ("+" if cell["beyond_ports"] else "")


def lines(document: dict[str, Any], most: int | None) -> Table:
    """Return (titles, rows), one row for every entry; lists longer than `most` are cut and counted, None never."""
    rows: list[tuple[str, ...]] = []
    for row in document["rows"]:
        clients = who(row, most)
        for cell in row["resources"]:
            rows += [(clients, cell["resource"], summary(cell), *entry(one, most)) for one in cell["access"]]
        rows += [(clients, ELSEWHERE, "in no resource", *entry(one, most)) for one in row["elsewhere"]]
        if not row["resources"] and not row["elsewhere"]:
            rows.append((clients, "", "nothing", "", "", "", ""))
    return TITLES, rows
