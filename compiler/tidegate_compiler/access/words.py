"""The words that the table and the picture share; both read the document."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tidegate_compiler.access.document import ranges
from tidegate_compiler.plan.report import when

ELSEWHERE = "elsewhere"
SHOWN = 4
"""How many members of a list people are shown; the rest is counted. JSON and a pipe have them all."""
WAYS = {
    "family": "one family only",
    "addresses": "some addresses",
    "ports": "some ports",
    "time": "for a time",
    "combinations": "not every port everywhere",
}


def who(row: dict[str, Any], most: int | None = SHOWN) -> str:
    """Return the group if it has a name, else the clients."""
    clients = row["clients"]
    if row["group"] and most is not None:
        return f"{row['group']} ({len(clients)} client{'' if len(clients) == 1 else 's'})"
    return some(clients, most)


def some(values: Sequence[str], most: int | None = SHOWN) -> str:
    """Return the first values of a list, and how many more there are; all of them for None."""
    if most is None or len(values) <= most:
        return ", ".join(values)
    return f"{', '.join(values[:most])} and {len(values) - most} more"


def summary(cell: dict[str, Any]) -> str:
    """Return how much of a resource is reached, in a few words."""
    told = {
        "full": "all it offers",
        "partial": f"part of it: {', '.join(WAYS[way] for way in cell['partial'])}",
        "none": "nothing it offers",
    }[cell["reach"]]
    return told + (", and other ports" if cell["beyond_ports"] else "")


def entry(found: dict[str, Any], most: int | None = SHOWN) -> tuple[str, str, str, str]:
    """Return an entry as (to, ports, when, policies); lists longer than `most` are cut and counted."""
    policies = [f"{one['name']} ({one['file']}:{one['line']})" for one in found["policies"]]
    to, ports, by = (some(one, most) for one in (ranges(found["to"]), found["ports"], policies))
    return to, ports, when(found).removeprefix(", ") or "always", by
