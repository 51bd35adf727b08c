"""The tables of fields in docs/interface.md and docs/control.md, made from the schemas, and those of docs/metrics.md.

`python tests/doctables.py` writes them anew, and everything else under docs/ that is generated.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from docskit import ROOT
from tidegate_agents.client.metrics import FAMILIES as OF_A_CLIENT
from tidegate_agents.gateway.metrics import FAMILIES as OF_A_GATEWAY
from tidegate_schema import validation

PAGE = ROOT / "docs" / "interface.md"
CONTROL = ROOT / "docs" / "control.md"
METRICS = ROOT / "docs" / "metrics.md"
KINDS = (
    "release",
    "keys",
    "peers",
    "policy",
    "event",
    "gateway-settings",
    "client-settings",
    "control-settings",
    "identity",
    "plan",
    "access",
    "replay",
    "readiness",
    "suggest",
)
CATALOGUES = {"gateway": OF_A_GATEWAY, "client": OF_A_CLIENT}
_METRICS_TABLE = re.compile(r"(<!-- metrics of (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_TABLE = re.compile(r"(<!-- fields of (\S+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def fields(kind: str) -> list[tuple[str, dict[str, Any], bool]]:
    """Return every field of a schema: its path, its schema, whether it must be there."""
    return list(_fields("", validation.schema(kind)))


def _fields(path: str, schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    for name, field in schema.get("properties", {}).items():
        yield f"{path}{name}", field, name in schema.get("required", ())
        yield from _below(f"{path}{name}", field)
    others = schema.get("additionalProperties")
    if isinstance(others, dict):
        yield from _fields(f"{path}NAME.", others)


def _below(path: str, field: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], bool]]:
    if "items" in field:
        yield from _fields(f"{path}[].", field["items"])
    else:
        yield from _fields(f"{path}.", field)


def table(kind: str) -> str:
    """Return the Markdown table of a schema's fields."""
    settings = kind.endswith("-settings")
    rows = ["| field | value | " + ("default | meaning |" if settings else "meaning |")]
    rows.append("|---|---|---|" + ("---|" if settings else ""))
    for path, field, required in fields(kind):
        name = f"`{path}`" if required or settings else f"`{path}`, optional"
        cells = [name, _value(field)]
        if settings:
            cells.append(f"`{json.dumps(field['default'])}`" if "default" in field else "none")
        cells.append(_escape(field.get("description", "")))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _value(field: dict[str, Any]) -> str:
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if isinstance(field["type"], list):  # a type, or null
        return f"{_value(field | {'type': field['type'][0]})} or null"
    if field["type"] == "array":
        return "list of " + re.sub(r"^(list|string|object|integer)\b", r"\1s", _value(field["items"]))
    low = field.get("minimum", field.get("exclusiveMinimum"))
    if low is None:
        return str(field["type"])
    above = "above " if "exclusiveMinimum" in field else ""
    high = f" to {field['maximum']}" if "maximum" in field else (" or more" if not above else "")
    return f"{field['type']}, {above}{low}{high}"


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def metrics(kind: str) -> str:
    """Return the Markdown table of the metrics of one kind of host."""
    rows = ["| metric | type | labels | unit | meaning |", "|---|---|---|---|---|"]
    for name, family in CATALOGUES[kind].items():
        labels = ", ".join(f"`{label}`" for label in family.labels)
        rows.append(f"| `{name}` | {family.kind} | {labels} | {family.unit} | {family.meaning} |")
    return "\n".join(rows) + "\n"


def written_metrics(kind: str) -> str:
    """Return the table of metrics that the page has for one kind of host."""
    return {match[2]: match[3] for match in _METRICS_TABLE.finditer(METRICS.read_text("utf-8"))}.get(kind, "")


def written() -> dict[str, str]:
    """Return the tables that the pages have, by kind."""
    texts = (page.read_text("utf-8") for page in (PAGE, CONTROL))
    return {match[2]: match[3] for text in texts for match in _TABLE.finditer(text)}


if __name__ == "__main__":
    import docinventory

    docinventory.PAGE.write_text(docinventory.page(), "utf-8")
    METRICS.write_text(
        _METRICS_TABLE.sub(lambda match: match[1] + metrics(match[2]) + match[4], METRICS.read_text("utf-8")),
        "utf-8",
    )
    for page in (PAGE, CONTROL):
        page.write_text(
            _TABLE.sub(lambda match: match[1] + table(match[2]) + match[4], page.read_text("utf-8")), "utf-8"
        )
