"""Who reaches what: a matrix that can be read with or without eyes, and the same as a picture."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from tidegate_compiler.access import picture, words
from tidegate_compiler.access.document import document
from tidegate_compiler.access.survey import survey
from tidegate_compiler.reach import Reach
from tidegate_compiler.times import parse_instant
from tidegate_control.access.caller import READER
from tidegate_control.access.guard import require
from tidegate_control.ui import forms
from tidegate_control.ui.visit import Visit
from tidegate_schema import jsonfile

MOST_ROWS, MOST_COLUMNS = 120, 60
"""A larger matrix nobody reads: whoever has one asks about some clients or resources."""
MOST_NAMES = 50


def matrix(visit: Visit) -> Response:
    """Show the matrix, or in its place the picture."""
    inventory = visit.snapshot.checked.inventory
    clients = forms.lines(visit.query.get("client", "").replace(",", "\n"))[:MOST_NAMES]
    resources = forms.lines(visit.query.get("resource", "").replace(",", "\n"))[:MOST_NAMES]
    when = visit.query.get("at", "").strip()
    problem = ""
    at = None
    try:
        at = parse_instant(when) if when else None
    except ValueError as error:
        problem = str(error)
    if inventory is not None:
        strangers = [name for name in clients if name not in inventory.clients]
        strangers += [name for name in resources if name not in inventory.resources]
        if strangers:
            problem = f"there is no {', '.join(strangers)[:200]}"
    told = None
    if not problem:
        told = _document(visit, at, tuple(clients), tuple(resources))
    is_picture = visit.query.get("view") == "picture"
    is_large = told is not None and (len(told["rows"]) > MOST_ROWS or len(told["resources"]) > MOST_COLUMNS)
    drawn = None
    if told is not None and is_picture:
        try:
            drawn = picture.svg(told)
        except picture.TooLargeError:
            is_large = True
    return visit.page(
        "access.html",
        422 if problem else 200,
        told=told,
        drawn=drawn,
        is_picture=is_picture,
        is_large=is_large,
        problem=problem,
        words=words,
        client=visit.query.get("client", ""),
        resource=visit.query.get("resource", ""),
        at=when,
        reach={"full": "●", "partial": "◐", "none": "·"},
        told_reach={"full": "all", "partial": "part", "none": "nothing"},
    )


def _document(
    visit: Visit, at: int | None, clients: tuple[str, ...], resources: tuple[str, ...]
) -> dict[str, Any] | None:
    """Return who reaches what; None for an inventory with errors. Problem 429, 503."""
    snapshot, services = visit.snapshot, visit.services
    compiled = snapshot.compiled
    if compiled is None:
        return None

    def compute() -> bytes:
        found = survey(compiled.inventory, Reach(compiled.fleet), at, clients, resources)
        return jsonfile.canonical(document(found, services.settings.inventory))

    asker = require(visit.request, READER).name
    question = ("access page", snapshot.commit, at, clients, resources)
    told: dict[str, Any] = jsonfile.parse(services.costly.answer(asker, question, compute, len))
    return told
