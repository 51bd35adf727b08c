"""The inventory's schemas as people read them, in a page or in an editor: every field named, explained and shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tidegate_schema import validation

KINDS = ("overlay", "gateways", "clients", "groups", "resources", "policies", "tests")


def described(kind: str) -> Iterator[tuple[str, dict[str, Any], bool]]:
    """Yield (place, schema, whether it may be absent) of everything that a file of the kind may hold."""
    yield from _described("", validation.schema(kind), False)


def _described(
    place: str, schema: dict[str, Any], optional: bool
) -> Iterator[tuple[str, dict[str, Any], bool]]:
    yield place, schema, optional
    for name, field in schema.get("properties", {}).items():
        yield from _described(f"{place}.{name}", field, name not in schema.get("required", ()))
    for word in ("items", "propertyNames", "additionalProperties"):
        if isinstance(schema.get(word), dict):
            yield from _described(f"{place}.{word}", schema[word], False)


EVERYTHING = [(kind, *found) for kind in KINDS for found in described(kind)]
IDS = [f"{kind}{place}" for kind, place, _, _ in EVERYTHING]


def test_what_is_looked_at_is_everything() -> None:
    assert {word for _, _, schema, _ in EVERYTHING for word in schema} == {
        *("$schema", "$id", "title", "description", "examples", "type", "default"),
        *("properties", "required", "additionalProperties", "propertyNames", "items"),
        *("enum", "pattern", "minItems", "maxItems", "maxLength", "uniqueItems"),
    }


@pytest.mark.parametrize(("kind", "place", "schema", "optional"), EVERYTHING, ids=IDS)
def test_a_field_has_a_title_a_description_and_valid_examples(
    kind: str, place: str, schema: dict[str, Any], optional: bool
) -> None:
    assert schema["title"]
    assert "\n" not in schema["description"]
    assert schema["description"].endswith(".")
    assert schema["examples"]
    for example in schema["examples"]:
        assert list(Draft202012Validator(schema).iter_errors(example)) == []
    if optional:  # the reader learns what its absence means
        assert "Without it" in schema["description"] or "not named here" in schema["description"]


@pytest.mark.parametrize(("kind", "place", "schema", "optional"), EVERYTHING, ids=IDS)
def test_a_limit_is_told_in_words(kind: str, place: str, schema: dict[str, Any], optional: bool) -> None:
    text = schema["description"]
    if "maxItems" in schema:
        assert f"{schema['minItems']} to {schema['maxItems']}" in text
    elif "minItems" in schema:
        assert "t least one" in text
    for value in schema.get("enum", ()):
        assert value in text
    if "default" in schema:
        assert f"Without it: {schema['default']}." in text
