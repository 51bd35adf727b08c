"""The lists of objects, and the pages of other lists: `items`, `total`, and where the next page is."""

from __future__ import annotations

import urllib.parse
from typing import Any

from tidegate_control.api import kinds
from tidegate_control.api.indexes import index
from tidegate_control.api.kinds import Kind
from tidegate_control.api.listing import (
    LIMIT,
    MOST,
    NAME,
    CursorError,
    Query,
    read_cursor,
    write_cursor,
)
from tidegate_control.api.operation import PREFIX, Answer, Call, Parameter
from tidegate_control.problems import named

LIMIT_PARAMETER = Parameter(
    "limit",
    "How many there are on a page.",
    {"type": "integer", "minimum": 1, "maximum": MOST, "default": LIMIT},
)
CURSOR_PARAMETER = Parameter(
    "cursor",
    "Where the page begins: from `next` of the page before, as it is.",
    {"type": "string", "minLength": 1, "maxLength": 4096},
)


def sortable(kind: Kind) -> tuple[str, ...]:
    """Return the fields that a list of the kind is sorted and filtered by."""
    return (NAME, "file", *kind.fields)


def parameters(kind: Kind) -> tuple[Parameter, ...]:
    """Return what a list of the kind may be asked."""
    orders = [order for field in sortable(kind) for order in (field, f"-{field}")]
    return (
        Parameter(
            "q",
            "Only those with this text anywhere: in the name, the file, any value. Upper and lower case are the same.",
            {"type": "string", "minLength": 1, "maxLength": 200},
        ),
        *(
            Parameter(
                field,
                f"Only those whose `{field}` is this, or has it among its entries. Repeated: all of them.",
                {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 200}},
            )
            for field in sortable(kind)
        ),
        Parameter(
            "sort",
            "The order; with '-' before it, the other way round. Numbers in values count as numbers.",
            {"type": "string", "enum": orders, "default": NAME},
        ),
        LIMIT_PARAMETER,
        CURSOR_PARAMETER,
    )


def list_objects(kind: Kind, call: Call) -> Answer:
    """Answer with one page of objects."""
    snapshot = call.services.inventory.snapshot()
    objects = snapshot.objects(kind.kind)
    query = _query(kind, call)
    page = index(call.made, snapshot, kind.kind).page(query)
    cursor = None if page.last is None else write_cursor(query, page.last)
    items = [kinds.document(kind, objects[name]) for name in page.names]
    return paged(call, kind.path, items, page.total, cursor, commit=snapshot.commit)


def _query(kind: Kind, call: Call) -> Query:
    given = call.query
    sort: str = given["sort"]
    return Query(
        text=given.get("q", ""),
        wanted=tuple((field, value) for field in sortable(kind) for value in given.get(field, ())),
        sort=sort.removeprefix("-"),
        descending=sort.startswith("-"),
        limit=given["limit"],
        after=after(call, sort),
    )


def after(call: Call, order: str) -> tuple[str, str] | None:
    """Return where a page begins, None for the first. Problem 400 for a cursor that is none."""
    text = call.query.get("cursor")
    if text is None:
        return None
    try:
        return read_cursor(order, text)
    except CursorError as error:
        raise named(400, "bad-parameter", "Bad parameter", f"'cursor': {error}", parameter="cursor") from None


def paged(
    call: Call, path: str, items: list[Any], total: int, cursor: str | None, *, commit: str, **more: Any
) -> Answer:
    """Return the answer of one page, with `Link` (RFC 8288) to the next one and the first one."""
    first = [(key, value) for key, value in _pairs(call) if key != "cursor"]
    links = [f'<{_address(path, first)}>; rel="first"']
    following = None
    if cursor is not None:
        following = _address(path, [*first, ("cursor", cursor)])
        links.insert(0, f'<{following}>; rel="next"')
    body = {"commit": commit, "total": total, "items": items, "next": following, **more}
    headers = {"Link": ", ".join(links), "Total-Count": str(total)}
    return Answer(body, commit=commit, headers=headers)


def _pairs(call: Call) -> list[tuple[str, str]]:
    """Return the parameters as they are written in an address; a default need not be."""
    found = []
    for name, value in call.query.items():
        for one in value if isinstance(value, list) else [value]:
            found.append((name, str(one).lower() if isinstance(one, bool) else str(one)))
    return found


def _address(path: str, pairs: list[tuple[str, str]]) -> str:
    return f"{PREFIX}/{path}" + (f"?{urllib.parse.urlencode(pairs)}" if pairs else "")
