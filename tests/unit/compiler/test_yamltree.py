"""The strict YAML reader: core schema, positions, bounds, and no way to make it raise."""

from __future__ import annotations

import json
import math
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_compiler.load import load
from tidegate_compiler.yamltree import parse, plain


def read(text: str) -> Any:
    node, flaws = parse(text)
    assert flaws == []
    assert node is not None
    return plain(node)


def test_scalars_follow_the_core_schema() -> None:
    text = "[2027-01-31, yes, on, 010, 0o10, 0x1F, 1e3, .5, ~, null, true, FALSE, '1', 1:30, -7, +8, 1_000, .inf, a b]"
    assert read(text) == [
        "2027-01-31", "yes", "on", 10, 8, 31, 1000.0, 0.5, None, None, True, False, "1", "1:30", -7, 8, "1_000",
        math.inf, "a b",
    ]  # fmt: skip


def test_keys_are_always_text() -> None:
    assert read("{1: a, true: b, 2027-01-31: c, null: d}") == {
        "1": "a",
        "true": "b",
        "2027-01-31": "c",
        "null": "d",
    }


def test_every_key_and_value_has_its_place() -> None:
    node, _ = parse("a:\n  b: [x,\n    y]\n")
    assert node is not None
    assert isinstance(node.value, dict)
    a = node.value["a"]
    assert isinstance(a.node.value, dict)
    b = a.node.value["b"]
    assert isinstance(b.node.value, list)
    assert (a.line, a.column) == (1, 1)
    assert (b.line, b.column) == (2, 3)
    assert [(item.line, item.column) for item in b.node.value] == [(2, 7), (3, 5)]


TEXT = st.text(
    st.characters(
        codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp"], exclude_characters="\ufeff\ufffe\uffff"
    ),
    max_size=20,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_json_reads_as_what_it_says(value: Any) -> None:
    node, flaws = parse(json.dumps({"value": value}, ensure_ascii=False))
    if not any(flaw.code == "TG008" for flaw in flaws):
        assert flaws == []
        assert node is not None
        assert plain(node) == {"value": value}


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.binary(max_size=200), st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
    )
)
def test_no_bytes_make_it_raise(data: bytes) -> None:
    for file in ("clients/x.yaml", "tests/x.yaml", "overlay.yaml"):
        load({file: data})


@settings(max_examples=300, deadline=None)
@given(st.text("-:?,[]{}#&*!|>'\"%@` \n\ta1<=.~\\", max_size=60))
def test_no_yaml_syntax_makes_it_raise(text: str) -> None:
    node, flaws = parse(text)
    assert node is not None or flaws or not text.strip() or "#" in text or text.strip("\n -.\t") == ""


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "{a: " * 100_000,
        "- " * 100_000,
        "? " * 50_000,
        "a: &a [x]\nb: &b [*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b]\nd: [*c,*c,*c,*c]\n",
        "&a " * 10_000,
        "!" * 100_000,
        "a: " + "x" * 1_000_000,
        "'" + "x" * 1_000_000,
        "9" * 1_000_000,
        "# " + "x" * 1_000_000,
        "\n" * 100_000,
        "a: |\n" + " x\n" * 50_000,
    ],
    ids=lambda text: ascii(text[:8]),
)
def test_bombs_end_soon(text: str) -> None:
    start = time.monotonic()
    load({"clients/x.yaml": text.encode()})
    assert time.monotonic() - start < 20
