"""The JSON Schemas beside this module (`schemas/<kind>.schema.json`, draft 2020-12) and the check.

Stricter than the draft in one point: 1.0 is not an integer and NaN is not a number, because what passes here is
used as an index, a size or a command's argument.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

_END = r"(?![\s\S])"


@dataclass(frozen=True)
class SchemaProblem:
    """One way in which a value breaks its schema: where, which keyword, and a one-line message."""

    path: tuple[str | int, ...]
    keyword: str
    message: str
    value: Any
    expected: Any


@functools.cache
def schema(kind: str) -> dict[str, Any]:
    """Return the schema of a kind, for instance "clients", "peers" or "gateway-settings"."""
    file = importlib.resources.files("tidegate_schema") / "schemas" / f"{kind}.schema.json"
    document: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return document


def pattern(part: dict[str, Any]) -> str:
    """Return the pattern of a part of a schema without its ends, to stand in a larger regular expression."""
    return str(part["pattern"]).removeprefix("^").removesuffix(_END)


def kinds() -> list[str]:
    """Return the names of all schemas, sorted."""
    folder = importlib.resources.files("tidegate_schema") / "schemas"
    suffix = ".schema.json"
    return sorted(f.name.removesuffix(suffix) for f in folder.iterdir() if f.name.endswith(suffix))


def _is_integer(_checker: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(_checker: Any, value: Any) -> bool:
    return _is_integer(_checker, value) or (isinstance(value, float) and math.isfinite(value))


@functools.cache
def _validator(kind: str) -> Any:
    # Imported only where something is judged: it takes longer than a small inventory.
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend

    types = Draft202012Validator.TYPE_CHECKER.redefine_many({"integer": _is_integer, "number": _is_number})
    made: Any = extend(Draft202012Validator, type_checker=types)  # type: ignore[no-untyped-call]
    return made(schema(kind))


@functools.cache
def _quick_validator(kind: str) -> Any:
    import jsonschema_rs

    # The schemas end a pattern for Python, whose $ also stands before a last newline. In Rust $ is the end alone, and
    # the engine that knows no look-ahead takes a third of the time, and linear time whatever the text.
    text = json.dumps(schema(kind)).replace(json.dumps(_END)[1:-1], "$")
    return jsonschema_rs.validator_for(json.loads(text), pattern_options=jsonschema_rs.RegexOptions())


def is_valid(kind: str, value: Any) -> bool:
    """Tell quickly whether a value is valid by a kind's schema; one that is not may still be.

    1.0 counts as an integer here: only for values that hold no such number.
    """
    try:
        return bool(_quick_validator(kind).is_valid(value))
    except (ValueError, TypeError, OverflowError, RecursionError):
        return False


def problems(kind: str, value: Any, fractions: Collection[str]) -> list[SchemaProblem]:
    """Return `errors` of what `jsonfile.parse` read, which found these `fractions`; quickly where there are none."""
    return [] if not fractions and is_valid(kind, value) else errors(kind, value)


def errors(kind: str, value: Any) -> list[SchemaProblem]:
    """Return every problem of `value` against a kind's schema, in a stable order; empty when valid."""
    return sorted(
        _leaves(_validator(kind).iter_errors(value)),
        key=lambda p: ([str(step) for step in p.path], p.keyword),
    )


def _leaves(found: Any) -> Iterator[SchemaProblem]:
    for error in found:
        yield SchemaProblem(
            tuple(error.absolute_path),
            str(error.validator),
            error.message,
            error.instance,
            error.validator_value,
        )
