"""The description of the API: the OpenAPI document, and the same as a page that needs no script."""

from __future__ import annotations

import functools
import importlib.resources
import json
from typing import Any

import jinja2
from markupsafe import Markup, escape

from tidegate_control.api import openapi as description
from tidegate_control.api.operation import PREFIX, Answer, Call

HTML, CSS = "text/html; charset=utf-8", "text/css; charset=utf-8"


def openapi(call: Call) -> Answer:
    """Answer with the OpenAPI document."""
    return Answer(description.document(call.made.operations))


def docs(call: Call) -> Answer:
    """Answer with the page."""
    return Answer(page(description.document(call.made.operations)), media_type=HTML)


def style(_call: Call) -> Answer:
    """Answer with the page's style sheet."""
    file = importlib.resources.files("tidegate_control.api") / "templates" / "docs.css"
    return Answer(file.read_bytes(), media_type=CSS)


def page(document: dict[str, Any]) -> bytes:
    """Return the page of an OpenAPI document."""
    return _template().render(doc=document, prefix=PREFIX).encode()


def _json(value: Any) -> str:
    return json.dumps(value, indent=2)


def _prose(text: str) -> Markup:
    """Return a text with `code` as code and blank lines as paragraphs; the rest of it is escaped."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        pieces = str(escape(paragraph)).split("`")
        paragraphs.append("".join(f"<code>{p}</code>" if n % 2 else p for n, p in enumerate(pieces)))
    return Markup("".join(f"<p>{one}</p>" for one in paragraphs))  # noqa: S704 - every piece is escaped above


def _type(schema: dict[str, Any]) -> str:
    """Return a schema in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"].rpartition("/")[2])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "const" in schema:
        return json.dumps(schema["const"])
    kind = schema.get("type", "any")
    if kind == "array":
        return f"list of {_type(schema['items'])}"
    return kind if isinstance(kind, str) else " or ".join(kind)


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tidegate_control.api"),
        undefined=jinja2.StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"json": _json, "prose": _prose, "type": _type}
    return environment.get_template("docs.html.j2")
