"""What was sent, against the shape of its schema: which members there are, and of which types. Pure.

What a value means (a key, an address, a name) is the compiler's to judge: its diagnostics have codes and places. So
patterns and enumerations are left to it here, and no value is quoted: one may be a private key that went astray.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from tidegate_compiler.diagnostics import did_you_mean, show
from tidegate_control.api.operation import Schema
from tidegate_control.problems import Problem, named

_MOST_TOLD = 50
_LEFT = ("pattern", "enum", "format", "uniqueItems")


def check(schema: Schema, value: Any) -> None:
    """Raise Problem 422 with `errors`, each with a JSON pointer, unless the value has the schema's shape."""
    found = list({tuple(one.values()): one for one in _errors(schema, value)}.values())
    if found:
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        first = found[0]
        place = f"{first['pointer']}: " if first["pointer"] else ""
        raise refused(f"{place}{first['message']}{more}", found[:_MOST_TOLD])


def refused(detail: str, errors: Sequence[dict[str, str]]) -> Problem:
    """Return the problem of a body that cannot be taken."""
    return named(422, "wrong-shape", "Not of this shape", detail, errors=list(errors))


def error(path: Iterable[str | int], message: str) -> dict[str, str]:
    """Return an entry of `errors`: a JSON pointer (RFC 6901) into the body, and one line."""
    steps = (str(step).replace("~", "~0").replace("/", "~1") for step in path)
    return {"pointer": "".join(f"/{step}" for step in steps), "message": message}


def _errors(schema: Schema, value: Any) -> Iterable[dict[str, str]]:
    problems = _validator(json.dumps(schema, sort_keys=True)).iter_errors(value)
    leaves = (leaf for problem in problems for leaf in _leaves(problem))
    for one in sorted(leaves, key=lambda leaf: (list(map(str, leaf.absolute_path)), leaf.validator)):
        for message in _messages(one):
            yield error(one.absolute_path, message)


def _leaves(problem: Any) -> Iterable[Any]:
    """Yield what is wrong in the branch of a `oneOf` that was meant: the one that says the least."""
    if not problem.context:
        yield problem
        return
    branches: dict[Any, list[Any]] = {}
    for inner in problem.context:
        branches.setdefault(inner.schema_path[0], []).append(inner)
    for inner in min(branches.values(), key=len):
        yield from _leaves(inner)


def _messages(one: Any) -> Iterable[str]:
    keyword, expected, value = one.validator, one.validator_value, one.instance
    if keyword == "required":
        yield from (f"{show(name)} is missing" for name in expected if name not in value)
    elif keyword == "additionalProperties":
        known = one.schema.get("properties", {})
        yield from (
            f"there is no member {show(name)}{did_you_mean(name, known)}"
            for name in value
            if name not in known
        )
    elif keyword == "type":
        wanted = expected if isinstance(expected, str) else " or ".join(expected)
        yield f"is {wanted}, not {_type(value)}"
    elif keyword == "minItems":
        yield f"has at least {expected} {'entry' if expected == 1 else 'entries'}"
    elif keyword == "maxItems":
        yield f"has at most {expected} entries"
    elif keyword == "maxLength":
        yield f"has at most {expected} characters"
    elif keyword == "const":
        yield f"is {json.dumps(expected)}"
    else:
        yield f"breaks {keyword}"


def _type(value: Any) -> str:
    if isinstance(value, bool):
        return "boolean"
    kinds = {str: "string", int: "number", float: "number", list: "array", dict: "object"}
    return kinds.get(type(value), "null")


def _nothing(*_: Any) -> Iterable[Any]:
    return ()


@functools.lru_cache(maxsize=256)
def _validator(schema: str) -> Any:
    made: Any = extend(  # type: ignore[no-untyped-call]
        Draft202012Validator, dict.fromkeys(_LEFT, _nothing)
    )
    return made(json.loads(schema))
