"""Fields that no file of an inventory could hold are refused by name before anything is edited.

An object's fields are texts, lists of texts, and mappings of text to text. JSON has more: such fields are judged as if
a file held them, so that the diagnostics are those that a file would earn; their places are that of the object.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tidegate_compiler import pipeline
from tidegate_compiler.diagnostics import Diagnostic, Where
from tidegate_control.inventory.errors import Invalid

MAX_BYTES = 4 << 20
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}")
_OF_VALUES = frozenset(
    {"TG008", "TG009", "TG011", "TG012", "TG013", "TG014"}
)  # what follows from the shape alone


def refuse(kind: str, name: str, fields: Mapping[str, Any], where: Where) -> None:
    """Raise Invalid, with diagnostics at `where`, unless these are fields that an edit can write."""
    try:
        text = json.dumps(fields, allow_nan=False)
    except (ValueError, TypeError, RecursionError):
        raise Invalid("the fields are no JSON of bounded depth; write texts, lists and mappings") from None
    if len(text) > MAX_BYTES:
        raise Invalid(f"the fields are more than {MAX_BYTES} bytes; no file of an inventory is so large")
    if fields and all(_FIELD.fullmatch(field) and _is_value(value) for field, value in fields.items()):
        return
    folder = where.file.partition("/")[0]
    content = f"[{text}]\n" if kind == "test" else f"{{{json.dumps(name)}: {text}}}\n"
    file = where.file if kind == "overlay" else f"{folder}/fields.yaml"
    found = pipeline.validate_files({file: content.encode()}).diagnostics
    problems = [
        Diagnostic(where, p.code, p.message) for p in found if p.where.file == file and p.code in _OF_VALUES
    ]
    told = problems[0].message if problems else "write texts, lists of texts and mappings of text to text"
    raise Invalid(f"{kind}: {told}; nothing is written", list(dict.fromkeys(problems)))


def _is_value(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and isinstance(one, str) for key, one in value.items())
    if isinstance(value, list):
        return all(isinstance(one, str) for one in value)
    return isinstance(value, str)
