"""The history of the inventory: commits, what each changed, and undoing one by a new one."""

from __future__ import annotations

from typing import Any

from tidegate_compiler.times import format_instant
from tidegate_control.api import kinds, objects, preconditions
from tidegate_control.api.lists import LIMIT_PARAMETER
from tidegate_control.api.operation import PREFIX, Answer, Call, Parameter
from tidegate_control.api.plans import COMMIT_SCHEMA
from tidegate_control.inventory.model import Entry
from tidegate_control.problems import named

MOST = 500
_BY_PATH = {kind.path: kind for kind in kinds.EVERY}
PARAMETERS = (
    Parameter(
        "kind",
        "Only commits that touch the object of this kind and name.",
        {"type": "string", "enum": list(_BY_PATH)},
    ),
    Parameter(
        "name", "The object's name, with `kind`.", {"type": "string", "minLength": 1, "maxLength": 100}
    ),
    Parameter("before", "Only commits behind this one: from `next` of the page before.", COMMIT_SCHEMA),
    Parameter(LIMIT_PARAMETER.name, LIMIT_PARAMETER.description, {**LIMIT_PARAMETER.schema, "maximum": MOST}),
)


def listing(call: Call) -> Answer:
    """Answer with commits, the newest first."""
    path, name = call.query.get("kind"), call.query.get("name")
    if (path is None) != (name is None) and path != kinds.THE_OVERLAY.path:
        detail = "'kind' and 'name' name one object: give both, or neither"
        raise named(400, "bad-parameter", "Bad parameter", detail, parameter="kind")
    kind = None if path is None else _BY_PATH[path].kind
    name = kind if kind == kinds.THE_OVERLAY.kind else name
    inventory = call.services.inventory
    head, limit = inventory.head(), call.query["limit"]
    found = inventory.history(kind=kind, name=name, limit=limit, before=call.query.get("before"))
    following = found[-1].commit if len(found) == limit else None
    body = {"commit": head, "items": list(map(document, found)), "next": following}
    return Answer(body, commit=head)


def document(entry: Entry) -> dict[str, Any]:
    """Return a commit as every answer has it."""
    return {
        "commit": entry.commit,
        "author": {"name": entry.name, "email": entry.email},
        "when": format_instant(entry.when),
        "subject": entry.subject,
        "files": list(entry.files),
    }


def one(call: Call) -> Answer:
    """Answer with what a commit changed, as lines of a unified diff."""
    inventory, commit = call.services.inventory, call.path["commit"]
    return Answer({**document(inventory.entry(commit)), "diff": inventory.diff(commit)})


def revert(call: Call) -> Answer:
    """Undo a commit by a new one."""
    inventory = call.services.inventory
    dry_run = call.query["dry_run"]
    expected = preconditions.expected(call.headers.get("if-match"), inventory.head(), not dry_run)
    outcome = inventory.revert(call.path["commit"], author=call.author, expected=expected, dry_run=dry_run)
    body = objects.outcome_document(outcome)
    if outcome.commit is None:
        return Answer(body, commit=outcome.revision)
    if outcome.branch is not None:  # which is not the one that is served, so the commit has no address here
        return Answer(body, 201, outcome.revision)
    location = {"Location": f"{PREFIX}/history/{outcome.commit}"}
    return Answer(body, 201, outcome.revision, location)
