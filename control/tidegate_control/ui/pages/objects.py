"""Lists of objects, and one object: what it says, where it is named, what has become of it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from starlette.responses import Response

from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.model import Inventory
from tidegate_control.api.indexes import index
from tidegate_control.api.listing import write_cursor
from tidegate_control.inventory.errors import NotFound
from tidegate_control.inventory.model import Entry, Object
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.ui import forms, listing, places
from tidegate_control.ui.kinds import Kind, kinds
from tidegate_control.ui.pages.flows import of_policy
from tidegate_control.ui.visit import Visit
from tidegate_control.ui.words import segment

MENTIONS = 50
"""How many places in which an object is named are shown."""
_COMMIT = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_CLIENT_ID = re.compile(r"[0-9a-f]{32}")
_BRANCH = re.compile(r"tidegate/[A-Za-z0-9._/-]{1,150}")


def kind_of(visit: Visit) -> Kind:
    """Return the kind that the path names; NotFound."""
    path = visit.request.path_params.get("kind", "overlay")
    found = kinds().get(path)
    if found is None:
        raise NotFound("there is no such page")
    return found


def base_of(kind: Kind, name: str) -> str:
    """Return the path of an object's page."""
    return "/overlay" if kind.word == "overlay" else f"/{kind.path}/{segment(name)}"


def name_of(visit: Visit, kind: Kind) -> str:
    """Return the object's name that the path says."""
    return "overlay" if kind.word == "overlay" else str(visit.request.path_params["name"])


def object_of(snapshot: Snapshot, kind: Kind, name: str) -> Object:
    """Return an object; NotFound."""
    try:
        return snapshot.objects(kind.word)[name]
    except KeyError:
        raise NotFound(f"there is no {kind.singular} of that name") from None


def is_commit(text: str) -> bool:
    """Tell whether a text has the form of a commit's ID."""
    return _COMMIT.fullmatch(text) is not None


def saved(visit: Visit) -> dict[str, Any]:
    """Return what a page says of a change that was just made: only of a commit or a branch that can be one."""
    commit, branch = visit.query.get("saved", ""), visit.query.get("waiting", "")
    entry: Entry | None = None
    if is_commit(commit):
        with contextlib.suppress(NotFound):
            entry = visit.services.inventory.entry(commit)
    return {"saved": entry, "waiting": branch if _BRANCH.fullmatch(branch) else None}


def many(visit: Visit) -> Response:
    """Show a kind's objects."""
    kind = kind_of(visit)
    objects = visit.snapshot.objects(kind.word)
    by_id = _by_id(visit, kind)
    if by_id is not None:
        return visit.goto(base_of(kind, by_id))
    query = listing.read(visit.query, kind.columns)
    page = index(visit.made, visit.snapshot, kind.word).page(query)
    return visit.page(
        "list.html",
        kind=kind,
        query=query,
        page=page,
        after=None if page.last is None else write_cursor(query, page.last),
        objects=[objects[name] for name in page.names],
        row=listing.text_of,
        titles=titles(kind),
        **saved(visit),
    )


def _by_id(visit: Visit, kind: Kind) -> str | None:
    """Return the client whose ID is asked for: an event or a gateway may have told nothing else."""
    text = visit.query.get("q", "").strip().lower()
    if kind.word != "client" or not _CLIENT_ID.fullmatch(text):
        return None
    return visit.names_by_id.get(text)


def one(visit: Visit) -> Response:
    """Show an object."""
    kind = kind_of(visit)
    found = object_of(visit.snapshot, kind, name_of(visit, kind))
    inventory = visit.snapshot.checked.inventory
    mentions = list(mentioned(inventory, kind, found.name)) if inventory is not None else []
    return visit.page(
        "detail.html",
        kind=kind,
        found=found,
        base=base_of(kind, found.name),
        strangers=forms.unknown(found.fields, kind),
        told=about(visit.snapshot, found),
        mentions=mentions[:MENTIONS],
        mentions_more=max(0, len(mentions) - MENTIONS),
        flows=of_policy(visit, found.name) if kind.word == "policy" else None,
        entries=visit.services.inventory.history(kind=kind.word, name=found.name, limit=5),
        **saved(visit),
    )


def titles(kind: Kind) -> dict[str, str]:
    """Return the titles of a kind's fields and columns."""
    return {"name": "Name", "client_id": "Client ID", **{field.name: field.title for field in kind.fields}}


def about(snapshot: Snapshot, found: Object) -> list[Diagnostic]:
    """Return the diagnostics that stand within an object."""
    near = [problem for problem in snapshot.checked.diagnostics if problem.where.file == found.file]
    told = places.at_fields(near, snapshot.files, places.Of(found.file, found.name, found.line))
    return [problem for problems in told.at.values() for problem in problems]


def mentioned(inventory: Inventory, kind: Kind, name: str) -> Iterator[tuple[str, str]]:
    """Yield (kind, name) of every object that names this one."""
    word = kind.word
    if word == "gateway":
        yield from (("client", client) for client, row in inventory.client_rows.items() if name in row[2])
    if word == "client":
        yield from (("group", group) for group, row in inventory.group_rows.items() if name in row[0])
    for policy in inventory.policies.values():
        if word in ("client", "group"):
            names = {source.value.name for source in policy.sources if source.value.kind == word}
        else:
            names = {to.value.resource for to in policy.destinations} if word == "resource" else set()
        if name in names:
            yield "policy", policy.name


def known_names(snapshot: Snapshot, kind: Kind, most: int = 500) -> dict[str, list[str]]:
    """Return for each field the names that its items may mention, as they are written there."""
    return {
        field.name: list(islice(_prefixed(snapshot, field.names), most))
        for field in kind.fields
        if field.names
    }


def _prefixed(snapshot: Snapshot, names: Iterable[tuple[str, str]]) -> Iterator[str]:
    for word, prefix in names:
        yield from (f"{prefix}{name}" for name in snapshot.objects(word))
