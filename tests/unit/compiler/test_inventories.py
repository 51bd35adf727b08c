"""Good inventories are clean, bad ones give exactly the expected diagnostics, and every code has a bad one."""

from __future__ import annotations

from pathlib import Path

import pytest

import compilerkit
from tidegate_compiler import pipeline
from tidegate_compiler.codes import CODES
from tidegate_compiler.diagnostics import has_errors
from tidegate_compiler.times import parse_instant

FOLDER = compilerkit.ROOT / "tests" / "inventories"
BAD = sorted((FOLDER / "bad").iterdir())
GOOD = [compilerkit.ROOT / "inventory", *sorted((FOLDER / "good").iterdir())]


@pytest.mark.parametrize("folder", GOOD, ids=lambda folder: folder.name)
def test_good_is_clean(folder: Path) -> None:
    assert pipeline.validate(folder).diagnostics == ()


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_bad_gives_exactly_what_is_expected(folder: Path) -> None:
    at = folder / "at.txt"
    found = pipeline.validate(folder, parse_instant(at.read_text().strip()) if at.exists() else None)
    assert [f"{d.where} {d.code}" for d in found.diagnostics] == (
        folder / "expected.txt"
    ).read_text().splitlines()
    code = folder.name.partition("-")[0]
    assert folder.name == f"{code}-{CODES[code].slug}"
    assert code in {d.code for d in found.diagnostics}
    assert has_errors(found.diagnostics) == (CODES[code].severity == "error")
    assert has_errors(found.diagnostics, strict=True)
    assert (found.inventory is None) == (CODES[code].severity == "error")


@pytest.mark.parametrize("folder", BAD, ids=lambda folder: folder.name)
def test_messages_are_one_printable_line(folder: Path) -> None:
    for diagnostic in pipeline.validate(folder, at=0).diagnostics:
        assert diagnostic.message.isprintable()
        assert len(diagnostic.message) < 300


def test_every_code_has_a_bad_inventory_and_a_page() -> None:
    page = (compilerkit.ROOT / "docs" / "diagnostics.md").read_text()
    assert [folder.name.partition("-")[0] for folder in BAD] == list(CODES)
    sections = [line for line in page.splitlines() if line.startswith("## TG")]
    assert sections == [f"## {code.code} {code.slug} ({code.severity})" for code in CODES.values()]
