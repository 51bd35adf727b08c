"""The reference in docs/inventory.md, made from the schemas; `python tests/doctables.py` writes it anew.

What the schemas say stands between `<!-- kind NAME -->` and `<!-- end -->`, and in the overview; around it stands
what no schema says. So the page itself is the frame, and whoever changes a field changes one place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from docskit import ROOT
from tidegate_schema import validation

PAGE = ROOT / "docs" / "inventory.md"
KINDS = ("overlay", "gateways", "clients", "groups", "resources", "policies", "tests")
_BLOCK = re.compile(r"(<!-- (overview|kind (\S+)) -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_BARE = re.compile(r"(client:|group:|resource:)?[A-Za-z0-9][A-Za-z0-9+=./-]*")
_TYPES = {"string": "text", "array": "list", "object": "mapping"}


def page() -> str:
    """Return the page as it should be: the frame as it stands, every block anew."""
    text = PAGE.read_text("utf-8")
    return _BLOCK.sub(lambda m: m[1] + (chapter(m[3]) if m[3] else overview()) + m[5], text)


def blocks() -> list[str]:
    """Return the names of the page's blocks, in their order."""
    return [match[2] for match in _BLOCK.finditer(PAGE.read_text("utf-8"))]


def overview() -> str:
    """Return the table of kinds: file, object, fields."""
    rows = ["| file | holds | fields, optional ones in italics |", "|---|---|---|"]
    for kind in KINDS:
        described = described_object(kind)
        required = described["required"]
        names = [f"`{name}`" if name in required else f"*`{name}`*" for name in described["properties"]]
        rows.append(
            f"| `{_files(kind)}` | [{validation.schema(kind)['title'].lower()}]({_anchor(kind)}) | {', '.join(names)} |"
        )
    return "\n".join(rows) + "\n"


def chapter(kind: str) -> str:
    """Return a kind's heading, words, table of fields and example."""
    schema = validation.schema(kind)
    lines = [f"## {schema['title']}", "", re.sub(r"^(\S+\.yaml)", r"`\1`", schema["description"])]
    told = described_object(kind)
    lines += ["", f"**{told['title']}.** {told['description']}", ""]
    lines += ["| field | form | meaning | example |", "|---|---|---|---|"]
    if "propertyNames" in schema:
        lines.append(_row("*the name*", schema["propertyNames"] | {"type": "string"}))
    for name, field in told["properties"].items():
        optional = "" if name in told["required"] else ", optional"
        lines.append(_row(f"`{name}`{optional}", field))
        lines += [_row(f"… {part}", below) for part, below in _below(field)]
    lines += ["", "```yaml", *_yaml(schema["examples"][0]), "```"]
    return "\n".join(lines) + "\n"


def described_object(kind: str, schema: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the schema of one object of a kind: the only one of the overlay, each one of the others."""
    schema = schema or validation.schema(kind)
    found: dict[str, Any] = (
        schema["properties"]["overlay"]
        if kind == "overlay"
        else schema["items"]
        if kind == "tests"
        else schema["additionalProperties"]
    )
    return found


def _below(field: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if "items" in field:
        yield "each entry", field["items"]
    if "propertyNames" in field:
        yield "each key", field["propertyNames"] | {"type": "string"}
        yield "each value", field["additionalProperties"]


def _row(name: str, field: Mapping[str, Any]) -> str:
    examples = ", ".join(f"`{_flow(example)}`" for example in field["examples"][:3])
    return f"| {name} | {_form(field)} | {_escape(field['description'])} | {_escape(examples)} |"


def _form(field: Mapping[str, Any]) -> str:
    if "enum" in field:
        return " or ".join(f"`{value}`" for value in field["enum"])
    form = _TYPES[field["type"]]
    if "maxItems" in field:
        return f"{form} of {field['minItems']} to {field['maxItems']}"
    return f"{form} of {field['minItems']} or more" if "minItems" in field else form


def _escape(text: str) -> str:
    return text.replace("|", "\\|")


def _files(kind: str) -> str:
    return "overlay.yaml" if kind == "overlay" else f"{kind}/*.yaml"


def _anchor(kind: str) -> str:
    return "#" + validation.schema(kind)["title"].lower().replace(" ", "-")


def _yaml(value: Any, indent: str = "") -> list[str]:
    """Return a value as the example inventory is written: mappings in blocks, what is in them on a line."""
    if isinstance(value, list):
        return [f"- {_flow(item)}" for item in value]
    lines = []
    for key, item in value.items():
        if isinstance(item, dict) and not indent:
            lines += [*([""] if lines else []), f"{key}:", *_yaml(item, "  ")]
        else:
            lines.append(f"{indent}{key}: {_flow(item)}")
    return lines


def _flow(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_flow, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_flow(item)}' for key, item in value.items())}}}"
    return value if _BARE.fullmatch(value) else json.dumps(value)
