"""A plan in words: who gains and loses access to what, when and why; then hosts, objects and limits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.plan import report
from tidegate_compiler.plan.document import document
from tidegate_compiler.plan.plan import Plan

MOST = 200
"""How many rows of a kind a page shows; the rest is counted."""


@dataclass(frozen=True)
class Sentence:
    """One difference in access: the sentence, why, and packets that show it."""

    text: str
    why: str
    witnesses: tuple[str, ...]


@dataclass(frozen=True)
class Line:
    """A host that reloads, or an object that changes: what, and in which way."""

    what: str
    change: str
    where: str
    details: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """What a page shows of a plan; `more` counts by kind what is left out."""

    summary: str
    is_empty: bool
    gained: tuple[Sentence, ...]
    lost: tuple[Sentence, ...]
    limits: tuple[str, ...]
    hosts: tuple[Line, ...]
    objects: tuple[Line, ...]
    more: dict[str, int]


def view(plan: Plan) -> View:
    """Return a plan in words."""
    told = document(plan)
    rows = {
        "gained": told["access"]["gained"],
        "lost": told["access"]["lost"],
        "hosts": told["bundles"],
        "objects": told["objects"] or [],
    }
    return View(
        report.summary(told),
        not told["changes"],
        tuple(_sentence("gained", one) for one in rows["gained"][:MOST]),
        tuple(_sentence("lost", one) for one in rows["lost"][:MOST]),
        tuple(f"limit {one['name']} exceeded: {one['message']}" for one in told["limits"]),
        tuple(_host(one) for one in rows["hosts"][:MOST]),
        tuple(_object(one) for one in rows["objects"][:MOST]),
        {kind: len(found) - MOST for kind, found in rows.items() if len(found) > MOST},
    )


def _sentence(kind: str, one: dict[str, Any]) -> Sentence:
    verb = "can reach" if kind == "gained" else "can no longer reach"
    return Sentence(
        f"{report.who(one)} {verb} {report.some(one['to'])} on {report.some(one['ports'])}{report.when(one)}",
        report.cause(kind, one),
        tuple(map(report.witness_text, one["witnesses"])),
    )


def _host(one: dict[str, Any]) -> Line:
    details = (
        f"{file['file']}: {report.some(file['parts'], '; ') or file['change']}" for file in one["files"]
    )
    return Line(f"{one['kind']} {one['host']}", one["change"], "", tuple(details))


def _object(one: dict[str, Any]) -> Line:
    change = one["change"] + (f", was {one['was']}" if one["was"] else "")
    return Line(
        f"{one['kind']} {one['name']}", change, f"{one['file']}:{one['line']}", tuple(_fields(one["fields"]))
    )


def _fields(fields: list[dict[str, Any]]) -> Iterator[str]:
    for field in fields[: report.SHOWN]:
        yield f"{field['field']}: {report.field_text(field)}"
    if len(fields) > report.SHOWN:
        yield f"and {len(fields) - report.SHOWN} more fields"
