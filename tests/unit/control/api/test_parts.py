"""The parts of a request, one by one: parameters, preconditions, paths, shapes, merge patches."""

from __future__ import annotations

from typing import Any

import pytest

from tidegate_control.api import mergepatch, parameters, paths, preconditions, shape
from tidegate_control.api.operation import Parameter
from tidegate_control.problems import Problem

KNOWN = (
    Parameter("limit", "", {"type": "integer", "minimum": 1, "maximum": 9, "default": 5}),
    Parameter("dry_run", "", {"type": "boolean", "default": False}),
    Parameter("sort", "", {"type": "string", "enum": ["name", "-name"]}),
    Parameter("names", "", {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 4}}),
    Parameter("at", "", {"type": "string", "pattern": "^[0-9]{4}$"}),
)
A, B = "a" * 40, "b" * 40


def test_parameters_come_with_their_types_and_defaults() -> None:
    given = [("limit", "3"), ("dry_run", "true"), ("names", "a"), ("names", "b"), ("at", "2030")]
    found = parameters.read(KNOWN, given)
    assert found == {"limit": 3, "dry_run": True, "names": ["a", "b"], "at": "2030"}
    assert parameters.read(KNOWN, []) == {"limit": 5, "dry_run": False}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([("dry-run", "true")], "did you mean 'dry_run'"),
        ([("dry_run", "True")], "true or false"),
        ([("dry_run", "")], "true or false"),
        ([("dry_run", "true"), ("dry_run", "false")], "more than once"),
        ([("limit", "0")], "from 1 to 9"),
        ([("limit", "10")], "from 1 to 9"),
        ([("limit", "1e1")], "from 1 to 9"),
        ([("limit", "٣")], "from 1 to 9"),
        ([("limit", "9" * 5000)], "from 1 to 9"),
        ([("limit", "3\n")], "from 1 to 9"),
        ([("sort", "names")], "one of name, -name"),
        ([("names", "")], "1 to 4 characters"),
        ([("names", "abcde")], "1 to 4 characters"),
        ([("names", "a")] * 101, "at most 100"),
        ([("at", "2030\n")], "not of the form"),
        ([("at", "٢٠٣٠")], "not of the form"),
    ],
    ids=lambda value: "" if isinstance(value, str) else ascii(value)[:40],
)
def test_a_wrong_parameter_is_named(given: list[tuple[str, str]], why: str) -> None:
    with pytest.raises(Problem) as raised:
        parameters.read(KNOWN, given)
    assert raised.value.status == 400
    assert why in raised.value.detail
    assert raised.value.detail.isprintable()


def test_a_required_parameter_is_missed() -> None:
    with pytest.raises(Problem, match="'client': is missing"):
        parameters.read((Parameter("client", "", {"type": "string"}, required=True),), [])


@pytest.mark.parametrize(
    ("header", "known"),
    [
        (None, False),
        ("*", True),
        (f'"{A}"', True),
        (f'W/"{A}"', True),
        (f'"x", "{A}"', True),
        (f'"{B}"', False),
    ],
)
def test_if_none_match(header: str | None, known: bool) -> None:
    assert preconditions.is_known(header, A) is known


@pytest.mark.parametrize(
    ("header", "found"),
    [("*", None), (f'"{A}"', A), (f'"{B}", "{A}"', A), (f'"{B}"', B), (f'W/"{B}", "{B}"', B)],
)
def test_if_match(header: str, found: str | None) -> None:
    assert preconditions.expected(header, A, True) == found


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (None, 428),
        ("", 400),
        (A, 400),
        (f'"{A}', 400),
        (f'"{A}",', 400),
        (f'W/"{A}"', 412),
        ('"main"', 412),
        ('"HEAD"', 412),
        ('"--upload-pack=x"', 412),
        (f'"{A[:12]}"', 412),
    ],
)
def test_if_match_that_does_not_count(header: str | None, status: int) -> None:
    with pytest.raises(Problem) as raised:
        preconditions.expected(header, A, True)
    assert raised.value.status == status


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("name", text)
            for text in ("", "..", ".", "A", "a_b", "-a", "a\n", "a\0", "é", "१", "a" * 64, "a b", "*")
        ),
        *(
            ("commit", text)
            for text in ("HEAD", "main", "a" * 39, "A" * 40, "g" * 40, "a" * 40 + "\n", "-" * 40)
        ),
        *(("kind", text) for text in ("clients", "", "Client")),
    ],
    ids=ascii,
)
def test_a_part_of_a_path_that_can_name_nothing(name: str, value: str) -> None:
    with pytest.raises(Problem) as raised:
        paths.check({name: value})
    assert raised.value.status == 404
    assert raised.value.detail.isprintable()


# RFC 7396, appendix A, whole.
@pytest.mark.parametrize(
    ("target", "patch", "result"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
    ids=str,
)
def test_merge_patch(target: Any, patch: Any, result: Any) -> None:
    before = str(target)
    assert mergepatch.apply(target, patch) == result
    assert str(target) == before


def test_a_shape_is_told_by_pointers_and_no_value_is_quoted() -> None:
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["key", "list"],
        "properties": {
            "key": {"type": "string", "pattern": "^x$"},
            "list": {"type": "array", "minItems": 1, "items": {"type": "string"}},
            "a/b~c": {"type": "object"},
        },
    }
    with pytest.raises(Problem) as raised:
        shape.check(schema, {"lists": 1, "list": ["fine", 7], "a/b~c": "a-private-key"})
    errors = raised.value.extra["errors"]
    assert [(one["pointer"], one["message"]) for one in errors] == [
        ("", "there is no member 'lists'; did you mean 'list'?"),
        ("", "'key' is missing"),
        ("/a~1b~0c", "is object, not string"),
        ("/list/1", "is string, not number"),
    ]
    assert "a-private-key" not in str(raised.value.document())
    # What a text means is the compiler's to judge.
    shape.check(schema, {"key": "not x", "list": ["a"]})
