"""The kinds of object and their fields, read from the inventory's schemas: the one source of the forms' words.

A field's shape decides how it is written in a form:

    text     one line                       TEXT
    choice   one of a few words             CHOICE
    lines    a list, an item on each line   LINES
    pairs    a mapping, "key: value" lines  PAIRS
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from tidegate_schema import validation

TEXT, CHOICE, LINES, PAIRS = "text", "choice", "lines", "pairs"


@dataclass(frozen=True)
class Field:
    """One field of a kind; `hint` and `example` are the schema's words, `choices` of a CHOICE only.

    `names` are the kinds whose names its items may mention, each with the prefix that it is written with.
    """

    name: str
    title: str
    hint: str
    shape: str
    is_required: bool
    example: str
    choices: tuple[str, ...] = ()
    names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Kind:
    """A kind of object: the word that the inventory's service uses, its path on the pages, and its words for people."""

    word: str
    path: str
    singular: str
    plural: str
    about: str
    fields: tuple[Field, ...]
    columns: tuple[str, ...]
    is_named: bool = True

    def field(self, name: str) -> Field | None:
        """Return the field of that name, or None."""
        return next((field for field in self.fields if field.name == name), None)


_COLUMNS = {
    "client": ("client_id", "addresses", "gateways"),
    "gateway": ("endpoint", "networks"),
    "group": ("members", "expires"),
    "resource": ("addresses", "ports"),
    "policy": ("action", "from", "to", "ports", "expires"),
    "test": ("from", "to", "port", "expect", "at"),
    "overlay": ("fleet", "prefixes"),
}
_WORDS = {
    "client": ("clients", "client", "Clients"),
    "gateway": ("gateways", "gateway", "Gateways"),
    "group": ("groups", "group", "Groups"),
    "resource": ("resources", "resource", "Resources"),
    "policy": ("policies", "policy", "Policies"),
    "test": ("tests", "access test", "Access tests"),
    "overlay": ("overlay", "overlay", "Overlay"),
}
_NAMES: Mapping[tuple[str, str], tuple[tuple[str, str], ...]] = {
    ("client", "gateways"): (("gateway", ""),),
    ("group", "members"): (("client", ""),),
    ("policy", "from"): (("group", "group:"), ("client", "client:")),
    ("policy", "to"): (("resource", "resource:"),),
    ("test", "from"): (("group", "group:"), ("client", "client:")),
    ("test", "to"): (("resource", "resource:"),),
}


@cache
def kinds() -> Mapping[str, Kind]:
    """Return every kind by its path on the pages, in the order in which they are shown."""
    found = {word: _kind(word) for word in _WORDS}
    return {kind.path: kind for kind in found.values()}


def of_word(word: str) -> Kind:
    """Return a kind by the service's word for it."""
    return kinds()[_WORDS[word][0]]


def _kind(word: str) -> Kind:
    path, singular, plural = _WORDS[word]
    schema = validation.schema(path)
    shape: dict[str, Any] = (
        schema["items"]
        if word == "test"
        else schema["properties"]["overlay"]
        if word == "overlay"
        else schema["additionalProperties"]
    )
    about = str((schema if word == "overlay" else shape)["description"])
    required = set(shape["required"])
    fields = tuple(_field(word, name, inner, name in required) for name, inner in shape["properties"].items())
    return Kind(word, path, singular, plural, about, fields, _COLUMNS[word], word not in ("test", "overlay"))


def _field(word: str, name: str, schema: Mapping[str, Any], is_required: bool) -> Field:
    hint = str(schema["description"])
    choices = tuple(map(str, schema.get("enum", ())))
    if choices:
        shape = CHOICE
    elif schema["type"] == "array":
        shape = LINES
        hint = f"{hint} {schema['items'].get('description', '')}".strip()
    elif schema["type"] == "object":
        shape = PAIRS
        hint = f"{hint} {schema['additionalProperties'].get('description', '')}".strip()
    else:
        shape = TEXT
    example = next(iter(schema.get("examples", ())), "")
    if isinstance(example, list):
        example = "\n".join(map(str, example))
    elif isinstance(example, dict):
        example = "\n".join(f"{key}: {value}" for key, value in example.items())
    return Field(
        name,
        str(schema["title"]),
        hint,
        shape,
        is_required,
        str(example),
        choices,
        _NAMES.get((word, name), ()),
    )
