"""Lists: what a filter finds, in which order, and that going through the pages meets everything exactly once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_control.api.listing import CursorError, Index, Query, read_cursor, write_cursor


@dataclass(frozen=True)
class One:
    fields: dict[str, Any]
    file: str = "clients/a.yaml"


def index(**addresses: list[str]) -> Index:
    return Index({name: One({"addresses": value}) for name, value in addresses.items()})


def names(found: Index, **query: Any) -> tuple[str, ...]:
    return found.page(Query(**query)).names


def test_numbers_in_values_are_sorted_by_their_size() -> None:
    found = index(a=["10.64.0.11/32"], b=["10.64.0.9/32"], c=["10.64.0.100/32"])
    assert names(found, sort="addresses") == ("b", "a", "c")
    assert names(found, sort="addresses", descending=True) == ("c", "a", "b")


def test_a_text_is_found_anywhere_in_any_case() -> None:
    found = Index({"x": One({"to": ["resource:Prod-DB"]}), "y": One({}, "clients/prod.yaml"), "z": One({})})
    assert names(found, text="PROD") == ("x", "y")


def test_a_field_is_compared_whole() -> None:
    found = index(a=["10.64.0.1/32", "fd64::1/128"], b=["10.64.0.11/32"])
    assert names(found, wanted=(("addresses", "10.64.0.1/32"),)) == ("a",)
    assert names(found, wanted=(("addresses", "10.64.0.1"),)) == ()
    assert names(found, wanted=(("name", "b"),)) == ("b",)


OBJECTS = st.dictionaries(
    st.text("abc", min_size=1, max_size=3),
    st.builds(
        One, st.fixed_dictionaries({"v": st.lists(st.sampled_from(["1", "10", "9", "ä", ""]), max_size=2)})
    ),
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(
    OBJECTS,
    st.sampled_from(["name", "v"]),
    st.booleans(),
    st.integers(1, 5),
    st.sampled_from(["", "a", "1"]),
    st.sampled_from([(), (("v", "9"),)]),
)
def test_pages_together_are_the_whole_list(
    objects: dict[str, One],
    sort: str,
    descending: bool,
    limit: int,
    text: str,
    wanted: tuple[tuple[str, str], ...],
) -> None:
    found = Index(objects)
    query = Query(text=text, wanted=wanted, sort=sort, descending=descending, limit=limit)
    met: list[str] = []
    while True:
        page = found.page(query)
        assert len(page.names) <= limit
        met += page.names
        if page.last is None:
            break
        query = replace(query, after=read_cursor(query.order, write_cursor(query, page.last)))
    expected = [
        name
        for name, one in objects.items()
        if (text in name or text in "\n".join([one.file, *one.fields["v"]]).casefold())
        and all(value in one.fields[field] for field, value in wanted)
    ]
    assert sorted(met) == sorted(expected)
    assert page.total == len(expected)
    if sort == "name":
        assert met == sorted(expected, reverse=descending)


def test_what_comes_and_goes_meanwhile_moves_nothing_past_the_reader() -> None:
    first = index(**{name: ["1"] for name in "bdfh"}).page(Query(limit=2))
    assert first.names == ("b", "d")
    later = index(**{name: ["1"] for name in "acdfgh"})
    assert later.page(Query(limit=9, after=first.last)).names == ("f", "g", "h")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "!",
        "bnVsbA",
        "W10",
        "WyJuYW1lIiwiIl0",
        "e30",
        "WyJuYW1lIiwxLDJd",
        "A" * 5000,
        "ä",
        "W1tbW1tb",
    ],
)
def test_a_cursor_that_no_answer_gave_is_refused(text: str) -> None:
    with pytest.raises(CursorError):
        read_cursor("name", text)


def test_a_cursor_of_another_order_is_refused() -> None:
    cursor = write_cursor(Query(sort="name"), ("", "a"))
    assert read_cursor("name", cursor) == ("", "a")
    with pytest.raises(CursorError, match="another `sort`"):
        read_cursor("-name", cursor)


ASKED = [Query(sort="v"), Query(), Query(text="A", sort="v"), Query(wanted=(("v", "9"),), descending=True)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(OBJECTS, st.sets(st.sampled_from(ASKED))), min_size=2, max_size=4))
def test_an_index_made_of_an_earlier_one_finds_what_a_new_one_finds(
    steps: list[tuple[dict[str, One], set[Query]]],
) -> None:
    found, before = None, dict[str, One]()
    for objects, asked in steps:
        differing = {name for name in objects.keys() | before.keys() if objects.get(name) != before.get(name)}
        found = Index(objects, found, differing)
        before = objects
        for query in asked:
            assert found.page(query) == Index(objects).page(query)


def test_only_what_differs_is_read_anew() -> None:
    read: list[str] = []

    class Objects(dict[str, One]):
        def __getitem__(self, name: str) -> One:
            read.append(name)
            return super().__getitem__(name)

    old = Objects({name: One({"v": [name]}) for name in "abcdef"})
    first = Index(old)
    new = Objects(old | {"c": One({"v": ["z"]})})
    for query in (Query(sort="v"), Query(text="x")):
        first.page(query)
    read.clear()
    second = Index(new, first, {"c"})
    assert names(second, sort="v") == ("a", "b", "d", "e", "f", "c")
    assert names(second, text="z") == ("c",)
    assert names(second, text="a") == ("a", "b", "c", "d", "e", "f"), "in the file's name"
    assert set(read) == {"c"}
