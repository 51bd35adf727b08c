"""Lists: filtered, sorted and cut into pages; of many objects only those that are shown are ever made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

PAGE = 50


@dataclass(frozen=True)
class Query:
    """What a list is asked for. `sort` is a column's name, with "-" before it for the reverse; `page` from 1."""

    text: str = ""
    sort: str = "name"
    page: int = 1

    @classmethod
    def read(cls, params: Mapping[str, str], columns: Sequence[str]) -> Query:
        """Read a query string; what makes no sense is as if it were not there."""
        sort = params.get("sort", "name")
        page = params.get("page", "1")
        return cls(
            params.get("q", "").strip()[:200],
            sort if sort.removeprefix("-") in ("name", *columns) else "name",
            int(page) if page.isascii() and page.isdecimal() and len(page) < 8 and int(page) else 1,
        )


@dataclass(frozen=True)
class Listed:
    """A page: the names on it, how many there are on all pages, and how many pages."""

    names: Sequence[str]
    total: int
    pages: int
    page: int


def listed(objects: Mapping[str, Any], query: Query, columns: Sequence[str]) -> Listed:
    """Return one page of objects. Without a filter and by name, no object but those on the page is looked at."""
    names: Sequence[str] = list(objects)
    if query.text:
        wanted = query.text.lower().split()
        names = [name for name in names if _matches(name, objects[name], columns, wanted)]
    column = query.sort.removeprefix("-")
    names = sorted(names, key=None if column == "name" else lambda name: (text_of(objects[name], column), name))
    if query.sort.startswith("-"):
        names = names[::-1]
    pages = max(1, -(-len(names) // PAGE))
    page = min(query.page, pages)
    return Listed(names[(page - 1) * PAGE : page * PAGE], len(names), pages, page)


def _matches(name: str, found: Any, columns: Sequence[str], wanted: Iterable[str]) -> bool:
    text = " ".join((name, *(text_of(found, column) for column in columns))).lower()
    return all(word in text for word in wanted)


def text_of(found: Any, column: str) -> str:
    """Return what a column says of an object, as one line."""
    value = found.client_id if column == "client_id" else found.fields.get(column)
    return one_line(value)


def one_line(value: Any) -> str:
    """Return a value as one line: the items of a list with commas between."""
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(map(one_line, value))
    if isinstance(value, dict):
        return ", ".join(f"{key}: {one_line(inner)}" for key, inner in value.items())
    return str(value)
