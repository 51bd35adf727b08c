"""Who reaches what: a matrix that can be read with or without eyes, and the same as a picture."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

from starlette.responses import Response

from tidegate_compiler.access import picture, words
from tidegate_compiler.access.document import document
from tidegate_compiler.access.survey import survey
from tidegate_compiler.reach import Reach
from tidegate_compiler.times import parse_instant
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.ui import forms
from tidegate_control.ui.visit import Visit

MOST_ROWS, MOST_COLUMNS = 120, 60
"""A larger matrix nobody reads: whoever has one asks about some clients or resources."""
MOST_NAMES = 50
_KEPT = 8

Asked = tuple[str, int | None, tuple[str, ...], tuple[str, ...]]


class _Documents:
    """The latest answers: the same question about the same commit has the same one."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._known: OrderedDict[Asked, dict[str, Any]] = OrderedDict()

    def get(self, snapshot: Snapshot, root: str, asked: Asked) -> dict[str, Any] | None:
        """Return who reaches what; None for an inventory with errors."""
        with self._lock:
            if asked in self._known:
                self._known.move_to_end(asked)
                return self._known[asked]
        compiled = snapshot.compiled
        if compiled is None:
            return None
        _, at, clients, resources = asked
        found = document(survey(compiled.inventory, Reach(compiled.fleet), at, clients, resources), root)
        with self._lock:
            self._known[asked] = found
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return found


_documents = _Documents()


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
        asked = (visit.snapshot.commit, at, tuple(clients), tuple(resources))
        told = _documents.get(visit.snapshot, visit.services.settings.inventory, asked)
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
