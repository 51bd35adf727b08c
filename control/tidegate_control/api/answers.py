"""The shapes of what the API answers, as JSON Schemas: those of its own, the others come from the schema files."""

from __future__ import annotations

from typing import Any

from tidegate_control import problems
from tidegate_control.api.operation import Reply, Schema
from tidegate_control.api.plans import COMMIT_SCHEMA

TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
MAYBE: Schema = {"type": ["string", "null"]}
TEXTS: Schema = {"type": "array", "items": TEXT}
INSTANT: Schema = {"type": "string", "format": "date-time"}
PAGE_HEADERS = {
    "Link": "The next page and the first one (RFC 8288).",
    "Total-Count": "How many there are on all pages.",
}


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(**members: Schema) -> Schema:
    """Return the schema of an object with exactly these members."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": list(members),
        "properties": members,
    }


def many(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def _page(items: Schema, **more: Schema) -> Schema:
    return record(
        commit=COMMIT_SCHEMA,
        total={**COUNT, "description": "How many there are on all pages."},
        items=many(items),
        next={**MAYBE, "description": "The address of the next page; null on the last one."},
        **more,
    )


def page(title: str) -> Reply:
    """Return the reply of a list of objects."""
    return Reply("One page.", _page(ref(title)), headers=PAGE_HEADERS)


def of_object(title: str) -> Reply:
    """Return the reply that is one object."""
    return Reply("The object.", ref(title))


def of_write(description: str) -> Reply:
    """Return the reply of a write."""
    return Reply(description, ref("Written"))


DIAGNOSTICS: Schema = {
    **many(ref("Diagnostic")),
    "maxItems": problems.MOST,
    "description": "The first of them, errors before warnings where some are left out.",
}
_TOTAL: Schema = {**COUNT, "description": "How many there are, those that are not told among them."}
_OUTCOME: dict[str, Schema] = {
    "commit": {
        "type": ["string", "null"],
        "description": "The new commit; null for a dry run, and where nothing was to be changed.",
    },
    "revision": {**COMMIT_SCHEMA, "description": "The inventory's revision now: what ETag says."},
    "branch": {
        **MAYBE,
        "description": "The branch that waits for review; null where writes go to the branch itself.",
    },
    "plan": {"anyOf": [ref("Plan"), {"type": "null"}], "description": "With dry_run: what the change does."},
    "warnings": DIAGNOSTICS,
    "warnings_total": _TOTAL,
    "losses": many(ref("Loss")),
    "diff": {**TEXTS, "description": "With dry_run: the change as lines of a unified diff."},
}
_OF_COMMIT: dict[str, Schema] = {
    "commit": COMMIT_SCHEMA,
    "author": record(name=TEXT, email=TEXT),
    "when": INSTANT,
    "subject": TEXT,
    "files": TEXTS,
}
_FILE = record(file=TEXT, sha256={"type": "string", "pattern": "^[0-9a-f]{64}$"}, size=COUNT)
_WHICH = {"type": "string", "enum": ["client", "gateway"]}
_PLACED = {"policy": TEXT, "file": MAYBE, "line": {"type": ["integer", "null"]}}
PLAN_BETWEEN = record(**{"from": COMMIT_SCHEMA}, to=COMMIT_SCHEMA, plan=ref("Plan"))
PLAN_PROPOSED = record(commit=COMMIT_SCHEMA, plan=ref("Plan"), warnings=DIAGNOSTICS, warnings_total=_TOTAL)
HOSTS = Reply(
    "One page of hosts.",
    _page(record(kind=_WHICH, host=TEXT, files=many(_FILE)), digest=TEXT),
    headers=PAGE_HEADERS,
)
HOST = record(
    commit=COMMIT_SCHEMA,
    kind=_WHICH,
    host=TEXT,
    files={"type": "object", "additionalProperties": TEXT, "description": "Their text by name."},
)
HANDED = record(
    commit=COMMIT_SCHEMA,
    handed_to={"type": "string", "enum": ["command", "directory"]},
    file={**MAYBE, "description": "The request's name in the directory."},
)
COMMITS = record(
    commit=COMMIT_SCHEMA,
    items=many(record(**_OF_COMMIT)),
    next={**MAYBE, "description": "What `before` is for the next page; null on the last one."},
)
REPLAYED = record(
    commit=COMMIT_SCHEMA,
    entries={
        **record(breaks=COUNT, passes=COUNT),
        "description": "How many entries there are; the first thousand of each are in the answer.",
    },
    replay=ref("Replay"),
)
READINESS = record(commit=COMMIT_SCHEMA, readiness=ref("Readiness"))
SUGGESTED = record(commit=COMMIT_SCHEMA, suggestion=ref("Suggestion"))
DIFF = record(**_OF_COMMIT, diff=TEXTS)
CALLER = record(name=TEXT, email=TEXT, scopes=TEXTS)
STATUS = record(
    version=TEXT,
    commit=COMMIT_SCHEMA,
    branch=TEXT,
    writes={"type": "string", "enum": ["branch", "review"]},
    fleet=MAYBE,
    objects={"type": "object", "additionalProperties": COUNT},
    released={
        "anyOf": [COMMIT_SCHEMA, {"type": "null"}],
        "description": "What was published last, where git tells.",
    },
    errors=COUNT,
    warnings=COUNT,
)
EXPLANATION = record(
    commit=COMMIT_SCHEMA,
    format={"const": 1},
    verdict={"type": "string", "enum": ["allow", "deny"]},
    reason=TEXT,
    why=TEXT,
    client=TEXT,
    client_id=TEXT,
    destination=TEXT,
    port=TEXT,
    at=INSTANT,
    policy=MAYBE,
    file=MAYBE,
    line={"type": ["integer", "null"]},
    gateway=MAYBE,
    endpoint=MAYBE,
    route=MAYBE,
    standbys=TEXTS,
    denied_by=many(record(**_PLACED)),
    otherwise_allowed_by=many(record(**_PLACED)),
    no_route=MAYBE,
    near=many(record(**_PLACED, missing=TEXT, message=TEXT)),
    near_total=COUNT,
    changes=many(record(change=TEXT, file=MAYBE, line={"type": ["integer", "null"]}, yaml=MAYBE)),
)
_VERDICT = record(
    file=TEXT,
    line=COUNT,
    client=TEXT,
    destination=TEXT,
    port=TEXT,
    at=INSTANT,
    expect=TEXT,
    witness=TEXT,
    verdict=TEXT,
    reason=TEXT,
    policy=MAYBE,
    passed={"type": "boolean"},
)
TEST_RUN = record(
    commit=COMMIT_SCHEMA,
    format={"const": 1},
    results=many(_VERDICT),
    untested_policies=many(record(name=TEXT, file=TEXT, line=COUNT)),
)


def components() -> dict[str, Any]:
    """Return the schemas that others refer to by name and that no schema file has."""
    diagnostic = record(
        code=TEXT,
        name=TEXT,
        severity={"type": "string", "enum": ["error", "warning"]},
        where={**TEXT, "description": "file:line:column"},
        file=TEXT,
        line=COUNT,
        column=COUNT,
        message=TEXT,
        hint={**TEXT, "description": "What the code means, and how to mend it."},
    )
    error = record(pointer={**TEXT, "description": "A JSON pointer (RFC 6901) into the body."}, message=TEXT)
    return {
        "Diagnostic": diagnostic,
        "Loss": {
            **record(where=TEXT, message=TEXT, widens={"type": "boolean"}),
            "description": "What a delete takes out; `widens`: access may be gained by it.",
        },
        "Written": record(
            **_OUTCOME, object={"type": ["object", "null"], "description": "The object as it is now."}
        ),
        "Undone": record(**_OUTCOME),
        "Diagnosed": record(
            commit=COMMIT_SCHEMA,
            errors=COUNT,
            warnings=COUNT,
            diagnostics=DIAGNOSTICS,
            diagnostics_total=_TOTAL,
        ),
        "Problem": {
            "type": "object",
            "description": "RFC 9457: what went wrong, and how to mend it.",
            "required": ["title", "status"],
            "properties": {
                "type": {
                    **TEXT,
                    "description": "Tells problems of one status apart; an identifier, not an address.",
                },
                "title": TEXT,
                "status": {"type": "integer", "minimum": 400, "maximum": 599},
                "detail": TEXT,
                "diagnostics": DIAGNOSTICS,
                "diagnostics_total": _TOTAL,
                "errors": many(error),
                "losses": many(ref("Loss")),
                "parameter": TEXT,
                "id": {**TEXT, "description": "Of a mistake of the server's: its log has more under it."},
            },
        },
    }
