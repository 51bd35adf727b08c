"""An object's fields as the text of a form, and back. Pure: what is wrong with a value, the inventory's check says.

A value that is not of its field's form (an inventory may be broken) is shown as JSON, so that nothing is hidden.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tidegate_control.ui.kinds import LINES, PAIRS, Field, Kind


def to_text(fields: Mapping[str, Any], kind: Kind) -> dict[str, str]:
    """Return what a form shows of an object, by field; "" for what it does not say."""
    return {
        field.name: _text(fields[field.name], field) if field.name in fields else "" for field in kind.fields
    }


def to_fields(form: Mapping[str, str], kind: Kind) -> dict[str, Any]:
    """Return the fields that a form says; an empty one is not written at all."""
    found: dict[str, Any] = {}
    for field in kind.fields:
        value = _value(form.get(field.name, ""), field)
        if value:
            found[field.name] = value
    return found


def unknown(fields: Mapping[str, Any], kind: Kind) -> list[str]:
    """Return the names of fields that the form has no place for; saving takes them out."""
    return [name for name in fields if kind.field(name) is None]


def lines(text: str) -> list[str]:
    """Return the lines that say something, whatever a browser ends them with."""
    return [line.strip() for line in text.replace("\r", "\n").split("\n") if line.strip()]


def _text(value: Any, field: Field) -> str:
    if field.shape == LINES and isinstance(value, list):
        return "\n".join(map(_one, value))
    if field.shape == PAIRS and isinstance(value, dict):
        return "\n".join(f"{key}: {_one(inner)}" for key, inner in value.items())
    return _one(value)


def _one(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _value(text: str, field: Field) -> Any:
    if field.shape == LINES:
        return lines(text)
    if field.shape == PAIRS:
        split = (line.partition(":") for line in lines(text))
        return {key.strip(): value.strip() for key, _, value in split}
    return text.strip()
