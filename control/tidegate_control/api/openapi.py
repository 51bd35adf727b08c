"""The API's OpenAPI 3.1 document, made of the table of operations and the schema files: neither is written twice."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any

from tidegate_control.api import answers, kinds, objects, proposal
from tidegate_control.api.answers import ref
from tidegate_control.api.kinds import for_ecma
from tidegate_control.api.operation import PREFIX, Operation, Parameter, Reply, Schema
from tidegate_control.api.paths import PATH_PARAMETERS, in_path
from tidegate_control.problems import MEDIA_TYPE
from tidegate_schema import __version__, validation

VERSION = "3.1.0"
BEARER = "token"
_ABOUT = """Read and change the inventory, which is a git repository: every write is one commit by whoever sends it.

Every answer that reads the inventory has its revision, a commit ID, as `ETag`. A read with `If-None-Match` of that
revision gets 304 while nothing has changed. A write of something that is there says in `If-Match` which revision its
author has seen, or `*`: without it 428, with an older one 412. `?dry_run=true` answers with the plan and changes
nothing.

Errors are `application/problem+json` (RFC 9457), with `diagnostics` where the inventory is, or would be, wrong."""
_PROBLEMS = {
    400: "The request cannot be read: a parameter, a header, or what is no JSON.",
    401: "No token, or none that counts.",
    403: "The token lacks the scope.",
    404: "There is no such thing.",
    409: "It cannot be done like this: a name is taken, more would go than was asked, the inventory has errors.",
    412: "The inventory has changed since the revision of If-Match.",
    413: "The body is too large.",
    415: "The body is of another media type.",
    422: "The body has not this shape, or the inventory would have errors: see `errors` and `diagnostics`.",
    428: "If-Match is missing.",
    429: "Too many at once of this token; `Retry-After` says when to ask again.",
    503: "Not to be had right now; `Retry-After` says when to ask again.",
}


@functools.cache
def document(operations: tuple[Operation, ...]) -> dict[str, Any]:
    """Return the document."""
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": VERSION,
        "info": {"title": "Tidegate control", "version": __version__, "description": _ABOUT},
        "servers": [{"url": PREFIX}],
        "tags": [{"name": tag} for tag in dict.fromkeys(one.tag for one in operations)],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": {"Problem": _problem("Something else went wrong.")},
            "securitySchemes": {
                BEARER: {"type": "http", "scheme": "bearer", "description": "tidegate control token add"}
            },
        },
    }


def _operation(one: Operation) -> dict[str, Any]:
    told: dict[str, Any] = {
        "operationId": one.id,
        "tags": [one.tag],
        "summary": one.summary,
        # In OpenAPI 3.1 any scheme may name roles (section 4.8.30).
        "security": [{BEARER: [one.scope]}],
        "x-scope": one.scope,
        "responses": _responses(one),
    }
    if one.description:
        told["description"] = one.description
    given = [*map(_in_path, in_path(one.path)), *map(_in_query, one.parameters), *_headers(one)]
    if given:
        told["parameters"] = given
    if one.body is not None:
        told["requestBody"] = {
            "required": True,
            "content": {one.body.media_type: {"schema": one.body.schema}},
        }
    return told


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": PATH_PARAMETERS[name]}


def _in_query(one: Parameter) -> dict[str, Any]:
    return {
        "name": one.name,
        "in": "query",
        "required": one.required,
        "description": one.description,
        "schema": one.schema,
    }


def _headers(one: Operation) -> Iterable[dict[str, Any]]:
    if one.is_conditional:
        yield _header("If-None-Match", "Revisions that the reader has: 304 for that which still is.")
    if one.takes_match:
        yield _header("If-Match", "The revision that the writer has seen, or *.")


def _header(name: str, description: str) -> dict[str, Any]:
    # Any text is taken and judged: what is no entity tag gets 400.
    return {
        "name": name,
        "in": "header",
        "required": False,
        "description": description,
        "schema": {"type": "string"},
    }


def _responses(one: Operation) -> dict[str, Any]:
    found = {str(reply.status): _reply(reply) for reply in (one.reply, *one.also)}
    if one.is_conditional:
        found["304"] = {"description": "Nothing has changed."}
    statuses = {400, 401, 403, *one.problems}
    if one.body is not None:
        statuses |= {413, 415, 422}
    if one.is_costly or any(parameter.name == "dry_run" for parameter in one.parameters):
        statuses |= {429, 503}
    for status in sorted(statuses):
        found[str(status)] = _problem(_PROBLEMS[status])
    found["default"] = {"$ref": "#/components/responses/Problem"}
    return found


def _reply(reply: Reply) -> dict[str, Any]:
    told: dict[str, Any] = {"description": reply.description}
    if reply.schema is not None:
        told["content"] = {reply.media_type: {"schema": reply.schema}}
    if reply.headers:
        told["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in reply.headers.items()
        }
    return told


def _problem(description: str) -> dict[str, Any]:
    return {"description": description, "content": {MEDIA_TYPE: {"schema": ref("Problem")}}}


_FILES = {
    "plan": "Plan",
    "access": "Access",
    "replay": "Replay",
    "readiness": "Readiness",
    "suggest": "Suggestion",
}
"""Schema files that are components, by the name they have here."""


def _schemas() -> dict[str, Schema]:
    found: dict[str, Schema] = dict(answers.components())
    for kind in kinds.EVERY:
        found[kind.title] = objects.shown_schema(kind)
        found[f"Written{kind.title}"] = objects.written_schema(kind)
        if kind in kinds.KINDS:
            found[f"New{kind.title}"] = objects.new_schema(kind)
    found["Proposal"] = proposal.schema()
    for name, title in _FILES.items():
        found[title] = _bundled(title, for_ecma(validation.schema(name)))
    return found


def _bundled(title: str, schema: Schema) -> Schema:
    """Return a schema file's content as a component: its own `$ref`s lead to where it is now."""
    kept = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    moved: Schema = _moved(kept, f"#/components/schemas/{title}")
    return moved


def _moved(value: Any, place: str) -> Any:
    if isinstance(value, dict):
        return {
            key: f"{place}{inner[1:]}" if key == "$ref" and isinstance(inner, str) else _moved(inner, place)
            for key, inner in value.items()
        }
    return [_moved(inner, place) for inner in value] if isinstance(value, list) else value
