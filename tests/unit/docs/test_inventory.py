"""docs/inventory.md is what the schemas say, in a frame that says the rest."""

from __future__ import annotations

import copy
import re

import pytest

import docinventory
from docinventory import KINDS, described_object
from docskit import fences
from tidegate_compiler import yamltree
from tidegate_schema import validation

PAGE = "docs/inventory.md"


def test_the_page_is_what_the_generator_writes() -> None:
    assert docinventory.PAGE.read_text("utf-8") == docinventory.page(), (
        "python tests/doctables.py writes it anew"
    )
    assert docinventory.blocks() == ["overview", *(f"kind {kind}" for kind in KINDS)]


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_of_a_schema_would_change_the_page(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = docinventory.page()
    real = validation.schema
    for name in described_object(kind)["properties"]:
        changed = copy.deepcopy(real(kind))
        described_object(kind, changed)["properties"][name]["description"] = "Something else."
        monkeypatch.setattr(
            validation, "schema", lambda other, to=changed: to if other == kind else real(other)
        )
        assert docinventory.page() != before, name


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_row(kind: str) -> None:
    chapter = docinventory.chapter(kind)
    for name in described_object(kind)["properties"]:
        assert re.search(rf"^\| `{name}`(, optional)? \| .+ \| .+ \| .+ \|$", chapter, re.MULTILINE)


def test_the_examples_of_the_page_are_the_schemas() -> None:
    shown = [fence.text for fence in fences(PAGE) if fence.language == "yaml" and "$schema" not in fence.text]
    assert len(shown) == len(KINDS)
    for kind, text in zip(KINDS, shown, strict=True):
        example = validation.schema(kind)["examples"][0]
        root, flaws = yamltree.parse(text)
        assert not flaws
        assert root is not None
        assert yamltree.plain(root) == example
