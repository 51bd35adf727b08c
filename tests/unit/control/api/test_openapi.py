"""The description: valid by its own standard, made of the schema files, and a page without scripts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import jsonschema
import pytest

from apikit import BASE, Api
from apisamples import KINDS, NEW
from tidegate_control.api import kinds, openapi
from tidegate_control.api.table import operations
from tidegate_schema import validation

DOCUMENT = openapi.document(operations())


def refs(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from refs(inner)


def test_every_reference_leads_somewhere() -> None:
    for ref in set(refs(DOCUMENT)):
        at: Any = DOCUMENT
        assert ref.startswith("#/")
        for step in ref[2:].split("/"):
            at = at[step.replace("~1", "/").replace("~0", "~")]


def test_every_schema_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_operations_have_names_of_their_own_and_whole_descriptions() -> None:
    found = [one for methods in DOCUMENT["paths"].values() for one in methods.values()]
    names = [one["operationId"] for one in found]
    assert len(set(names)) == len(names) == len(operations())
    for path, methods in DOCUMENT["paths"].items():
        for method, one in methods.items():
            in_path = {given["name"] for given in one.get("parameters", ()) if given["in"] == "path"}
            assert in_path == set(re.findall(r"\{(\w+)\}", path))
            assert {"400", "401", "403", "default"} <= set(one["responses"])
            assert ("requestBody" in one) == (
                method in ("put", "patch") or (method == "post" and "revert" not in path)
            )
            if method in ("put", "patch", "delete"):
                assert {"404", "409", "412", "428"} <= set(one["responses"])


@pytest.mark.parametrize("path", KINDS)
def test_fields_are_those_of_the_schema_files(path: str) -> None:
    """One source: what a file may say, a body may say, in the same words."""
    kind = next(one for one in kinds.KINDS if one.path == path)
    whole = validation.schema(path)
    source = whole["items"] if path == "tests" else whole["additionalProperties"]
    for name in (kind.title, f"Written{kind.title}", f"New{kind.title}"):
        component = DOCUMENT["components"]["schemas"][name]
        for field, schema in source["properties"].items():
            assert component["properties"][field] == kinds.for_ecma(schema)
    jsonschema.validate(NEW[path], DOCUMENT["components"]["schemas"][f"New{kind.title}"])


def test_patterns_are_those_of_ecma_262() -> None:
    text = str(DOCUMENT)
    assert kinds.PYTHON_END not in text
    assert "^[a-z0-9][a-z0-9-]{0,62}$" in text


def test_it_is_served(reading: Api) -> None:
    answer = reading("GET", "/openapi.json", scope="reader")
    assert answer.json() == DOCUMENT
    assert answer.headers["content-type"] == "application/json"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        self.ids += [found["id"] or ""] if "id" in found else []
        self.links += [value or "" for key, value in attrs if key in ("href", "src")]
        self.inline += [key for key in found if key.startswith("on") or key == "style"]


def test_the_page_needs_no_script_and_nothing_from_elsewhere(reading: Api) -> None:
    answer = reading("GET", "/docs", scope="reader")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = Page(answer.text)
    assert not page.tags & {"script", "style", "iframe", "object", "form"}
    assert not page.inline
    assert len(set(page.ids)) == len(page.ids)
    assert {"/", "/static/icon.svg"} <= set(page.links)  # of the pages, which are another room
    for link in set(page.links) - {"/", "/static/icon.svg"}:
        assert link.startswith((f"{BASE}/", "#"))
        if link.startswith("#"):
            assert link[1:] in page.ids
        else:
            assert reading("GET", link, scope="reader").status_code == 200
    for one in operations():
        assert one.id in page.ids


def test_the_page_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    from tidegate_control.api import pages

    hostile = "<script>alert(1)</script>`<b>`"
    document = {**DOCUMENT, "info": {**DOCUMENT["info"], "title": hostile, "description": hostile}}
    text = pages.page(document).decode()
    assert "<script" not in text
    assert "<code>&lt;b&gt;</code>" in text
