"""Lists: which objects of a kind are meant, in which order, one page at a time. Pure.

An index is made once for the objects of one commit, and of each order and each filter only what somebody asks for, so
that a page out of a hundred thousand objects costs what is on it. What an earlier commit's index has is taken over. A
page begins after a position, not at an offset: what is added or deleted meanwhile moves nothing past the reader.
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from tidegate_schema import jsonfile

NAME = "name"
LIMIT, MOST = 50, 1000
"""Objects on a page: by default, and at most."""
_REMEMBERED = 16
_CURSOR_LONGEST = 4096
_KEY_LONGEST = 256
_DIGITS = re.compile(r"[0-9]+")

Position: TypeAlias = tuple[str, str]
"""Where an object stands in an order: the key that it is sorted by, and its name."""


class Listed(Protocol):
    """What is listed: an inventory's `Object`."""

    @property
    def fields(self) -> Mapping[str, Any]:
        """The object's fields as JSON has them."""

    @property
    def file(self) -> str:
        """The file that it stands in."""


class CursorError(ValueError):
    """A cursor that no answer gave, or that belongs to another order; one line."""


@dataclass(frozen=True)
class Query:
    """What is asked for. `wanted`: (field, value) pairs, each of which holds; `text` is found anywhere, in any case."""

    text: str = ""
    wanted: tuple[tuple[str, str], ...] = ()
    sort: str = NAME
    descending: bool = False
    limit: int = LIMIT
    after: Position | None = None

    @property
    def order(self) -> str:
        """Return the order as it is written: a field, with '-' before it when descending."""
        return f"-{self.sort}" if self.descending else self.sort


@dataclass(frozen=True)
class Page:
    """The names on it, how many objects the query finds in all, and after which place the next page begins, if any."""

    names: tuple[str, ...]
    total: int
    last: Position | None


class Index:
    """The objects of one kind in one commit, made ready for lists. Used by several threads."""

    def __init__(
        self,
        objects: Mapping[str, Listed],
        like: Index | None = None,
        differing: Collection[str] = (),
    ) -> None:
        """`like` is that of other objects: but for those of the names `differing` they are the same ones."""
        self._objects = objects
        self._lock = threading.Lock()
        self._orders: dict[str, list[Position]] = {}
        self._older: dict[str, tuple[list[Position], frozenset[str]]] = {}
        self._texts: dict[str, str] = {}
        self._found: OrderedDict[tuple[Any, ...], list[Position]] = OrderedDict()
        if like is not None:
            self._take_over(like, frozenset(differing))

    def _take_over(self, like: Index, differing: frozenset[str]) -> None:
        """Keep what holds here as well: texts, and orders with the names that are to be put in anew, when asked for."""
        with like._lock:
            self._texts = dict(like._texts)
            self._older = {field: (order, names | differing) for field, (order, names) in like._older.items()}
            self._older |= {field: (order, differing) for field, order in like._orders.items()}
        for name in differing:
            self._texts.pop(name, None)

    def page(self, query: Query) -> Page:
        """Return one page."""
        with self._lock:
            entries = self._entries(query)
        total = len(entries)
        if query.descending:
            end = total if query.after is None else bisect_left(entries, query.after)
            begin = max(0, end - query.limit)
            shown, more = entries[begin:end][::-1], begin > 0
        else:
            begin = 0 if query.after is None else bisect_right(entries, query.after)
            shown, more = entries[begin : begin + query.limit], begin + query.limit < total
        return Page(tuple(name for _, name in shown), total, shown[-1] if shown and more else None)

    def _entries(self, query: Query) -> list[Position]:
        """Return what a query finds, ascending."""
        if not query.text and not query.wanted:
            return self._order(query.sort)
        key = (query.sort, query.text, query.wanted)
        if key in self._found:
            self._found.move_to_end(key)
        else:
            self._found[key] = [entry for entry in self._order(query.sort) if self._fits(entry[1], query)]
            if len(self._found) > _REMEMBERED:
                self._found.popitem(last=False)
        return self._found[key]

    def _order(self, field: str) -> list[Position]:
        if field not in self._orders:
            older, names = self._older.pop(field, ([], self._objects.keys()))
            kept = [entry for entry in older if entry[1] not in names]
            self._orders[field] = sorted(
                [*kept, *(self._position(field, name) for name in names if name in self._objects)]
            )
        return self._orders[field]

    def _position(self, field: str, name: str) -> Position:
        # Names are keys already: nothing is read of the objects for the order that most lists have.
        return ("", name) if field == NAME else (_key(_value(self._objects[name], field)), name)

    def _fits(self, name: str, query: Query) -> bool:
        if query.text and query.text.casefold() not in self._text(name):
            return False
        if not query.wanted:
            return True
        one = self._objects[name]
        return all(
            value == name if field == NAME else value in words(_value(one, field))
            for field, value in query.wanted
        )

    def _text(self, name: str) -> str:
        if name not in self._texts:
            found = self._objects[name]
            self._texts[name] = "\n".join((name, found.file, *every_word(found.fields))).casefold()
        return self._texts[name]


def _value(one: Listed, field: str) -> Any:
    return one.file if field == "file" else one.fields.get(field)


def words(value: Any) -> Sequence[str]:
    """Return what a filter compares: a text itself, the entries of a list, the keys of a mapping."""
    if isinstance(value, str):
        return (value,)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list | dict) else ()


def every_word(value: Any) -> Iterator[str]:
    """Yield every text anywhere in a value."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield str(key)
            yield from every_word(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from every_word(inner)


def _key(value: Any) -> str:
    """Return what a value is sorted by, with numbers in it by their size: 10.64.0.9 before 10.64.0.11."""
    return _DIGITS.sub(lambda digits: digits[0].zfill(6), "\n".join(every_word(value))[:_KEY_LONGEST])


def write_cursor(query: Query, last: Position) -> str:
    """Return the text that stands for the place after `last` in the order of a query; it holds nothing secret."""
    return base64.urlsafe_b64encode(jsonfile.canonical([query.order, *last])).rstrip(b"=").decode()


def read_cursor(order: str, text: str) -> Position:
    """Return the place that a cursor stands for. CursorError."""
    if len(text) > _CURSOR_LONGEST:
        raise CursorError("longer than any cursor")
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        found = jsonfile.parse(data)
    except (ValueError, binascii.Error):
        raise CursorError("take the cursor from an answer's `next`, as it is") from None
    match found:
        case [str(made_for), str(key), str(name)]:
            pass
        case _:
            raise CursorError("take the cursor from an answer's `next`, as it is")
    if made_for != order:
        raise CursorError("the cursor belongs to another `sort`; begin again without it")
    return key, name
