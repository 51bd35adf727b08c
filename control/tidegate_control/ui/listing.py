"""What a list is asked for, and how its rows are written; filter and order are those of the API's lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tidegate_control.api.listing import NAME, CursorError, Query, read_cursor

PAGE = 50
LONGEST = 200


def read(params: Mapping[str, str], columns: Sequence[str]) -> Query:
    """Read a query string; what makes no sense is as if it were not there."""
    order = params.get("sort", NAME)
    sort = order.removeprefix("-")
    if sort not in (NAME, *columns):
        order = sort = NAME
    after = None
    if params.get("after"):
        try:
            after = read_cursor(order, params["after"])
        except CursorError:
            after = None
    text = params.get("q", "").strip()[:LONGEST]
    return Query(text=text, sort=sort, descending=order.startswith("-"), limit=PAGE, after=after)


def text_of(found: Any, column: str) -> str:
    """Return what a column says of an object, as one line."""
    return one_line(found.client_id if column == "client_id" else found.fields.get(column))


def one_line(value: Any) -> str:
    """Return a value as one line: the items of a list with commas between."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(one_line, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one_line(inner)}" for key, inner in value.items())
    return str(value)
