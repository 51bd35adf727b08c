"""The schemas' examples go through the compiler's own readers: what an editor proposes is what compiles."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tidegate_compiler import accesstests, fields
from tidegate_compiler.check.read import DEFAULT_FLEET
from tidegate_compiler.pipeline import Compiled, compile_files
from tidegate_compiler.reach import Reach
from tidegate_schema import validation

KINDS = ("overlay", "gateways", "clients", "groups", "resources", "policies", "tests")
NAMED = ("gateways", "clients", "groups", "resources", "policies")
READERS: dict[str, Callable[[str], Any]] = {
    **{f"{kind}.name": fields.name for kind in NAMED},
    "overlay.fleet": fields.name,
    "overlay.prefixes": fields.network,
    "gateways.public_key": fields.public_key,
    "gateways.endpoint": fields.endpoint,
    "gateways.networks": fields.network,
    "clients.public_key": fields.public_key,
    "clients.addresses": fields.host,
    "clients.gateways": fields.name,
    "groups.members": fields.member,
    "groups.not_before": fields.instant,
    "groups.not_before.name": fields.member,
    "groups.expires": fields.instant,
    "groups.expires.name": fields.member,
    "resources.addresses": fields.network,
    "resources.ports": fields.ports,
    "policies.from": fields.source,
    "policies.to": fields.destination,
    "policies.ports": fields.ports,
    "policies.not_before": fields.instant,
    "policies.expires": fields.instant,
    "tests.from": fields.test_source,
    "tests.to": fields.test_destination,
    "tests.port": fields.one_port,
    "tests.at": fields.instant,
}


def examples(place: str, schema: dict[str, Any]) -> dict[str, list[str]]:
    """Return the single values among a schema's examples, under the field that they are a value of."""
    found: dict[str, list[str]] = {}

    def collect(place: str, schema: dict[str, Any], values: list[Any]) -> None:
        values = [*values, *schema.get("examples", ())]
        for name, field in schema.get("properties", {}).items():
            below = [value[name] for value in values if name in value]
            collect(place if name == "overlay" else f"{place}.{name}", field, below)
        if "items" in schema:
            collect(place, schema["items"], [item for value in values for item in value])
        if isinstance(schema.get("additionalProperties"), dict):
            collect(
                place, schema["additionalProperties"], [item for value in values for item in value.values()]
            )
            found[f"{place}.name"] = [
                *(name for value in values for name in value),
                *schema["propertyNames"]["examples"],
            ]
        if schema.get("type") == "string":
            found[place] = values

    collect(place, schema, [])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_is_read(kind: str) -> None:
    found = examples(kind, validation.schema(kind))
    assert sorted(found) == sorted(field for field in READERS if field.partition(".")[0] == kind)
    for field, values in found.items():
        assert values, field
        for value in values:
            READERS[field](value)  # raises FieldError otherwise


def files() -> dict[str, bytes]:
    return {
        "overlay.yaml" if kind == "overlay" else f"{kind}/all.yaml": json.dumps(
            validation.schema(kind)["examples"][0]
        ).encode()
        for kind in KINDS
    }


def test_the_examples_together_are_an_inventory() -> None:
    compiled = compile_files(files(), [])
    assert isinstance(compiled, Compiled)
    assert compiled.diagnostics == ()
    assert not accesstests.run(compiled.inventory, Reach(compiled.fleet), 0).failures


def test_an_example_that_does_not_fit_would_be_noticed() -> None:
    changed = files() | {"groups/all.yaml": b'{"engineers": {"members": ["nobody"]}}'}
    assert not isinstance(compile_files(changed, []), Compiled)


def test_the_default_in_the_schema_is_the_compiler_s() -> None:
    fleet = validation.schema("overlay")["properties"]["overlay"]["properties"]["fleet"]
    assert fleet["default"] == DEFAULT_FLEET
