"""Query parameters as values, by the schemas that the OpenAPI document shows: text, integer, boolean, or a list.

Nothing is passed over: an unknown parameter, one given twice, or a value out of bounds is an error that names it. A
misspelt `dry_run` must not write.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tidegate_compiler.diagnostics import did_you_mean, show
from tidegate_control.api.operation import Parameter, Schema
from tidegate_control.problems import Problem, named

_INTEGER = re.compile(r"-?[0-9]{1,15}")
_MOST_VALUES = 100


def read(known: Sequence[Parameter], given: Iterable[tuple[str, str]]) -> Mapping[str, Any]:
    """Return the values by name, with the schemas' defaults; a parameter without either is not there. Problem 400."""
    values: dict[str, list[str]] = {}
    for name, text in given:
        values.setdefault(name, []).append(text)
    by_name = {one.name: one for one in known}
    for name in values:
        if name not in by_name:
            raise _wrong(name, f"there is no such parameter{did_you_mean(name, by_name)}")
    found: dict[str, Any] = {}
    for name, one in by_name.items():
        if name in values:
            found[name] = _value(one, values[name])
        elif one.required:
            raise _wrong(name, "is missing")
        elif "default" in one.schema:
            found[name] = one.schema["default"]
    return found


def _value(one: Parameter, texts: list[str]) -> Any:
    if one.schema["type"] == "array":
        if len(texts) > _MOST_VALUES:
            raise _wrong(one.name, f"at most {_MOST_VALUES} of them")
        return [_single(one.name, one.schema["items"], text) for text in texts]
    if len(texts) > 1:
        raise _wrong(one.name, "stands there more than once")
    return _single(one.name, one.schema, texts[0])


def _single(name: str, schema: Schema, text: str) -> Any:
    if schema["type"] == "boolean":
        if text not in ("true", "false"):
            raise _wrong(name, "is true or false")
        return text == "true"
    if schema["type"] == "integer":
        return _integer(name, schema, text)
    if not schema.get("minLength", 0) <= len(text) <= schema.get("maxLength", 1000):
        raise _wrong(name, f"has {schema.get('minLength', 0)} to {schema.get('maxLength', 1000)} characters")
    if "enum" in schema and text not in schema["enum"]:
        raise _wrong(name, f"is one of {', '.join(schema['enum'])}{did_you_mean(text, schema['enum'])}")
    if "pattern" in schema and not re.fullmatch(schema["pattern"].removeprefix("^").removesuffix("$"), text):
        raise _wrong(name, f"{show(text)} is not of the form {schema['pattern']}")
    return text


def _integer(name: str, schema: Schema, text: str) -> int:
    least, most = schema["minimum"], schema["maximum"]
    if not _INTEGER.fullmatch(text) or not least <= int(text) <= most:
        raise _wrong(name, f"is a number from {least} to {most}")
    return int(text)


def _wrong(name: str, why: str) -> Problem:
    return named(400, "bad-parameter", "Bad parameter", f"{show(name)}: {why}", parameter=name[:60])
