"""What may stand in the variable parts of a path. Anything else names nothing: 404, before anybody looks it up."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tidegate_compiler.diagnostics import show
from tidegate_control.api.operation import Schema
from tidegate_control.api.plans import COMMIT_SCHEMA
from tidegate_control.problems import named
from tidegate_schema.names import NAME_PATTERN

PATH_PARAMETERS: dict[str, Schema] = {
    "name": {"type": "string", "pattern": f"^{NAME_PATTERN}$"},
    "commit": COMMIT_SCHEMA,
    "kind": {"type": "string", "enum": ["client", "gateway"]},
}
_VARIABLE = re.compile(r"\{([a-z]+)\}")


def in_path(path: str) -> list[str]:
    """Return the names of the variable parts."""
    return _VARIABLE.findall(path)


def check(values: Mapping[str, str]) -> None:
    """Raise Problem 404 for a value that can name nothing."""
    for name, value in values.items():
        schema = PATH_PARAMETERS[name]
        # Python's `$` also stands before a last newline; fullmatch leaves no such gap.
        fits = value in schema["enum"] if "enum" in schema else re.fullmatch(schema["pattern"][1:-1], value)
        if not fits:
            raise named(404, "not-found", "No such thing", f"{show(value)} is no {name}")
