"""Create, read, update, delete: one object of a kind, or the overlay. Every write is one commit of the caller's."""

from __future__ import annotations

import urllib.parse
from typing import Any

from tidegate_compiler.diagnostics import show
from tidegate_compiler.plan.document import document as plan_document
from tidegate_control import problems
from tidegate_control.api import kinds, mergepatch, preconditions, shape
from tidegate_control.api.kinds import Kind
from tidegate_control.api.operation import PREFIX, Answer, Call, Schema
from tidegate_control.inventory.errors import NotFound, Stale
from tidegate_control.inventory.model import Object, Outcome
from tidegate_control.inventory.snapshot import Snapshot


def get(kind: Kind, call: Call) -> Answer:
    """Answer with one object."""
    snapshot = call.services.inventory.snapshot()
    return Answer(kinds.document(kind, _find(snapshot, kind, _name(kind, call))), commit=snapshot.commit)


def create(kind: Kind, call: Call) -> Answer:
    """Add an object; 201 with its address."""
    body = dict(_shaped(new_schema(kind), call.body))
    file, name = body.pop("file", None), body.pop("name", "")
    inventory = call.services.inventory
    outcome = inventory.create(
        kind.kind,
        name,
        body,
        author=call.author,
        expected=_expected(call, False),
        file=file,
        **_options(call),
    )
    return _written(kind, outcome, created=True)


def replace(kind: Kind, call: Call) -> Answer:
    """Replace an object's fields, all of them."""
    fields, apart = kinds.split(kind, _shaped(written_schema(kind), call.body))
    return _update(kind, call, fields, apart)


def patch(kind: Kind, call: Call) -> Answer:
    """Change the fields that a merge patch names."""
    expected = _expected(call, True)
    snapshot = call.services.inventory.snapshot()
    one = _find(snapshot, kind, _name(kind, call))
    if not isinstance(call.body, dict):
        raise shape.refused("a merge patch of an object is an object", [shape.error((), "is no object")])
    changes, apart = kinds.split(kind, call.body)
    fields = mergepatch.apply(one.fields, changes)
    shape.check(kind.schema, fields)
    _unchanged(kind, one, apart)
    # What was patched is what was read: with `If-Match: *` a change meanwhile would be undone unseen.
    return _save(kind, call, fields, expected or snapshot.commit)


def delete(kind: Kind, call: Call) -> Answer:
    """Remove an object and every mention of it."""
    outcome = call.services.inventory.delete(
        kind.kind,
        _name(kind, call),
        author=call.author,
        expected=_expected(call, True),
        cascade=call.query["cascade"],
        **_options(call),
    )
    return _written(kind, outcome, deleted=True)


def _update(kind: Kind, call: Call, fields: dict[str, Any], apart: dict[str, Any]) -> Answer:
    expected = _expected(call, True)
    if apart:
        _unchanged(kind, _find(_seen(call, expected), kind, _name(kind, call)), apart)
    return _save(kind, call, fields, expected)


def _seen(call: Call, expected: str | None) -> Snapshot:
    """Return the inventory that the caller has seen."""
    try:
        found: Snapshot = call.services.inventory.snapshot(expected)
        return found
    except NotFound:
        raise Stale("If-Match names no revision of this inventory") from None


def _save(kind: Kind, call: Call, fields: dict[str, Any], expected: str | None) -> Answer:
    outcome = call.services.inventory.update(
        kind.kind, _name(kind, call), fields, author=call.author, expected=expected, **_options(call)
    )
    return _written(kind, outcome)


def _unchanged(kind: Kind, one: Object, apart: dict[str, Any]) -> None:
    """Refuse read-only members that are not as they were answered; the line may be: it moves with other edits."""
    known = kinds.document(kind, one)
    wrong = [member for member, value in apart.items() if member != "line" and value != known[member]]
    if wrong:
        errors = [shape.error((member,), "is read-only; leave it out, or as it was") for member in wrong]
        raise shape.refused(f"{', '.join(wrong)}: read-only; leave it out, or as it was", errors)


def _find(snapshot: Snapshot, kind: Kind, name: str) -> Object:
    found = snapshot.objects(kind.kind).get(name)
    if found is None:
        raise NotFound(
            f"there is no {kind.noun} {show(name)}" if kind in kinds.KINDS else "there is no overlay"
        )
    return found


def _name(kind: Kind, call: Call) -> str:
    return call.path["name"] if kind in kinds.KINDS else kind.kind


def _shaped(schema: Schema, body: Any) -> dict[str, Any]:
    shape.check(schema, body)
    assert isinstance(body, dict)
    return body


def _expected(call: Call, needed: bool) -> str | None:
    """Return the revision that a write must meet; a dry run changes nothing, so it may do without."""
    return preconditions.expected(
        call.headers.get("if-match"), call.services.inventory.head(), needed and not call.query["dry_run"]
    )


def _options(call: Call) -> dict[str, Any]:
    return {"dry_run": call.query["dry_run"], "message": call.query.get("message")}


def _written(kind: Kind, outcome: Outcome, *, created: bool = False, deleted: bool = False) -> Answer:
    """Tell what a write did, or would do."""
    one = None if deleted else outcome.snapshot.objects(kind.kind).get(outcome.name)
    body = {
        **outcome_document(outcome),
        "object": None if one is None else kinds.document(kind, one),
    }
    address = f"{PREFIX}/{kind.path}/{urllib.parse.quote(outcome.name)}"
    if created and outcome.commit is not None:
        return Answer(body, 201, outcome.revision, {"Location": address})
    return Answer(body, commit=outcome.revision)


def outcome_document(outcome: Outcome) -> dict[str, Any]:
    """Return what every write tells."""
    return {
        "commit": outcome.commit,
        "revision": outcome.revision,
        "branch": outcome.branch,
        "plan": None if outcome.plan is None else plan_document(outcome.plan),
        **problems.diagnostics(outcome.warnings, "warnings"),
        "losses": problems.losses(outcome.losses),
        "diff": list(outcome.diff),
    }


def written_schema(kind: Kind) -> Schema:
    """Return the schema of a body that replaces an object: its fields, and what an answer has beside them."""
    fields = kind.schema
    return {**fields, "properties": {**fields["properties"], **kinds.read_only(kind)}}


def new_schema(kind: Kind) -> Schema:
    """Return the schema of a body that makes an object: its fields, its name, and the file that it is to stand in."""
    fields = kind.schema
    apart = kinds.read_only(kind)
    more: dict[str, Schema] = {
        "file": {
            "type": "string",
            "maxLength": 200,
            "description": f"The file that it is to stand in, such as {kind.path}/team.yaml. "
            "Without it: where its neighbours are.",
        }
    }
    required = fields["required"]
    if kind.has_given_name:
        name = {key: value for key, value in apart["name"].items() if key != "readOnly"}
        more["name"], required = {**name, "maxLength": 63}, ["name", *required]
    return {**fields, "required": required, "properties": {**fields["properties"], **more}}


def shown_schema(kind: Kind) -> Schema:
    """Return the schema of an object as answers have it; in an inventory with errors, fields may break it."""
    fields = kind.schema
    apart = kinds.read_only(kind)
    return {
        **fields,
        "required": sorted(apart),
        "properties": {**fields["properties"], **apart},
    }
