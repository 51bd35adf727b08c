"""JSON in and out: one meaning per file, and never another exception than JsonError."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tidegate_schema.jsonfile import JsonError, canonical, parse

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_written_reads_back_alike(value: Any) -> None:
    data = canonical(value)
    assert parse(data) == value
    assert canonical(parse(data)) == data
    assert data.isascii()
    assert data.endswith(b"\n")
    assert data.count(b"\n") == 1


@given(st.dictionaries(st.text(), st.integers(), max_size=6), st.randoms())
def test_the_order_of_keys_does_not_show(value: dict[str, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert canonical(dict(items)) == canonical(value)


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_no_json_is_not_written(number: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical({"a": number})


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b'{"a":1,"a":1}', "twice"),
        (b'{"b":{"a":1,"\\u0061":2}}', "twice"),
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b"-Infinity", "Infinity"),
        (b"1e999", "too large"),
        (b"[-1e400]", "too large"),
        (b"[" * 200_000, "too deep"),
        (b'{"a":' * 200_000, "too deep"),
        (b"1" * 10_000, "too long"),
        (b"\xff", "UTF-8"),
        (b'"\xed\xa0\x80"', "UTF-8"),
        (b"\xef\xbb\xbf1", "BOM"),
        (b"1\x002", "line 1"),
        (b"", "line 1"),
        (b"{}\n{}", "line 2"),
        (b"[1,]", "line 1"),
        (b"'a'", "line 1"),
        (b"// c\n1", "line 1"),
        (b'"a\nb"', "line 1"),
        ("{}".encode("utf-16"), "UTF-8"),
    ],
    ids=range(21),
)
def test_refused_in_one_line(data: bytes, word: str) -> None:
    with pytest.raises(JsonError, match=word) as caught:
        parse(data)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 200


@given(
    st.binary(max_size=200)
    | st.text(alphabet='{}[]",:0123456789eE+-.\\untrfalsNI \n\x00\ud800', max_size=60).map(
        lambda text: text.encode("utf-8", "surrogatepass")
    )
)
@example(b'{"":0,"":0}')
def test_any_bytes_are_a_value_or_a_json_error(data: bytes) -> None:
    problem = ""
    try:
        value = parse(data)
    except JsonError as error:
        problem = str(error)
    else:
        assert json.loads(data) == value
        canonical(value)
    assert "\n" not in problem


def test_a_secret_in_a_broken_file_is_not_repeated() -> None:
    with pytest.raises(JsonError) as caught:
        parse(b'{"private_key": "c2VjcmV0" "x"}')
    assert "c2VjcmV0" not in str(caught.value)
