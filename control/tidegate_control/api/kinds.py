"""The kinds of objects as the API names and shapes them, out of the inventory's own schemas.

{"public_key": …, "addresses": […], "gateways": […],                        as clients/*.yaml has it
 "name": …, "client_id": …, "file": …, "line": …}                           read-only beside it
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_control.api.operation import Schema
from tidegate_control.inventory.model import OVERLAY, Object
from tidegate_schema import validation
from tidegate_schema.names import NAME_PATTERN

PYTHON_END = r"(?![\s\S])"
"""How the schemas end a pattern for Python; where regular expressions are ECMA-262's, as in OpenAPI, that is `$`."""


@dataclass(frozen=True)
class Kind:
    """A kind of object: its path below the API, its name in the inventory, its schema's name, and a noun for people."""

    path: str
    kind: str
    title: str
    noun: str
    has_given_name: bool = True

    @property
    def schema(self) -> Schema:
        """Return the schema of the fields that people write."""
        return _fields(self.path, self.kind)

    @property
    def fields(self) -> tuple[str, ...]:
        """Return the names of the fields."""
        return tuple(self.schema["properties"])


CLIENTS = Kind("clients", "client", "Client", "client")
KINDS = (
    CLIENTS,
    Kind("gateways", "gateway", "Gateway", "gateway"),
    Kind("groups", "group", "Group", "group"),
    Kind("resources", "resource", "Resource", "resource"),
    Kind("policies", "policy", "Policy", "policy"),
    Kind("tests", "test", "AccessTest", "access test", has_given_name=False),
)
THE_OVERLAY = Kind("overlay", OVERLAY, "Overlay", "overlay", has_given_name=False)
EVERY = (*KINDS, THE_OVERLAY)


@functools.cache
def _fields(path: str, kind: str) -> Schema:
    whole = validation.schema(path)
    inner = whole["items"] if kind == "test" else whole.get("additionalProperties")
    found: Schema = for_ecma(whole["properties"][OVERLAY] if kind == OVERLAY else inner)
    return found


def for_ecma(schema: Any) -> Any:
    """Return a schema whose patterns end as ECMA-262 ends them."""
    if isinstance(schema, dict):
        return {
            key: value.replace(PYTHON_END, "$")
            if key == "pattern" and isinstance(value, str)
            else for_ecma(value)
            for key, value in schema.items()
        }
    return [for_ecma(one) for one in schema] if isinstance(schema, list) else schema


def read_only(kind: Kind) -> dict[str, Schema]:
    """Return the members that an answer has beside the fields. They may be sent back, unchanged."""
    name = {"type": "string", "pattern": f"^{NAME_PATTERN}$"}
    found: dict[str, Schema] = {
        "name": {**name, "description": f"The {kind.noun}'s name."},
        "file": {"type": "string", "description": "The inventory's file that it stands in."},
        "line": {"type": "integer", "minimum": 1, "description": "The line in it, in this revision."},
    }
    if kind is CLIENTS:
        found["client_id"] = {
            "type": ["string", "null"],
            "pattern": "^[0-9a-f]{32}$",
            "description": "The client ID, which follows from the public key; null when the key cannot be read.",
        }
    if kind.kind == "test":
        found["name"]["description"] = "What tells it from others. It follows from its file and what it says."
    return {member: {**schema, "readOnly": True} for member, schema in found.items()}


def document(kind: Kind, one: Object) -> dict[str, Any]:
    """Return an object as every answer has it."""
    told: dict[str, Any] = {**one.fields, "name": one.name, "file": one.file, "line": one.line}
    if kind is CLIENTS:
        told["client_id"] = one.client_id
    return told


def split(kind: Kind, body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return (the fields, the read-only members) of what was sent."""
    apart = read_only(kind)
    return (
        {key: value for key, value in body.items() if key not in apart},
        {key: value for key, value in body.items() if key in apart},
    )
