"""A new inventory in an editor with yaml-language-server: what it marks, shows and proposes, by the schemas alone."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import languageserver
from docinventory import KINDS, described_object
from docskit import ROOT
from languageserver import Editor
from tidegate_compiler import scaffold, schemafiles
from tidegate_schema.cli import run

if not languageserver.PROGRAM.exists() or shutil.which("node") is None:
    pytest.skip("needs yaml-language-server (./run editor installs it)", allow_module_level=True)

OF_KIND = {path.partition("/")[0].removesuffix(".yaml"): path for path in scaffold.FILES.values()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("editor") / "inventory"
    assert run(["init", str(root)]) == 0
    return root


@pytest.fixture(scope="module")
def editor(root: Path) -> Iterator[Editor]:
    with Editor(root) as editor:
        yield editor


def text_of(root: Path, kind: str) -> str:
    return (root / OF_KIND[kind]).read_text()


def place(text: str, word: str) -> tuple[int, int]:
    """Return the line and column of a word's second letter, from 0."""
    before = text[: text.index(word) + 1]
    return before.count("\n"), len(before.rpartition("\n")[2])


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_file_has_nothing_marked(editor: Editor, root: Path, kind: str) -> None:
    assert editor.problems(OF_KIND[kind], text_of(root, kind)) == []


@pytest.mark.parametrize("path", sorted((ROOT / "inventory").rglob("*.yaml")), ids=lambda path: path.name)
def test_the_example_has_nothing_marked(editor: Editor, path: Path) -> None:
    folder = path.parent.relative_to(ROOT / "inventory")
    kind = "overlay" if folder == Path() else folder.name
    text = f"{schemafiles.modeline(kind)}\n{path.read_text()}"
    assert editor.problems(str(folder / f"example-{path.name}"), text) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_that_there_is_not_is_marked_where_it_stands(editor: Editor, root: Path, kind: str) -> None:
    text = text_of(root, kind)
    wrong = text.rstrip("\n")[:-1] + ", colour: red}\n" if kind == "tests" else text + "  colour: red\n"
    assert editor.problems(OF_KIND[kind], text) == []
    (problem,) = editor.problems(OF_KIND[kind], wrong)
    assert "colour" in problem["message"]
    assert problem["range"]["start"]["line"] == wrong.rstrip("\n").count("\n")
    unnamed = wrong.partition("\n")[2]  # without the line that names the schema, nobody would know
    assert editor.problems(f"{OF_KIND[kind]}.unnamed.yaml", unnamed) == []


VALUES = [
    ("overlay", "fleet: my-fleet", "fleet: My_Fleet"),
    ("gateways", "203.0.113.10:51820", "203.0.113.10"),
    ("clients", "10.64.0.11/32", "10.64.0.11"),
    ("clients", "gateways: [gw1]", "gateways: []"),
    ("groups", "members: [laptop1]", "members: laptop1"),
    ("resources", "tcp/443", "https"),
    ("policies", "action: allow", "action: alow"),
    ("policies", "group:engineers", "engineers"),
    ("policies", "  action: allow\n", ""),
    ("tests", "port: tcp/443", "port: tcp"),
]


@pytest.mark.parametrize(("kind", "right", "wrong"), VALUES)
def test_a_value_that_is_none_is_marked(
    editor: Editor, root: Path, kind: str, right: str, wrong: str
) -> None:
    text = text_of(root, kind)
    assert right in text
    assert editor.problems(OF_KIND[kind], text.replace(right, wrong, 1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_explains_itself_under_the_pointer(editor: Editor, root: Path, kind: str) -> None:
    text = text_of(root, kind)
    editor.problems(OF_KIND[kind], text)
    uncommented = re.sub(r"#.*", lambda match: "#" * len(match[0]), text)
    shown = {name: field for name, field in fields(kind).items() if f"{name}: " in uncommented}
    assert shown
    for name, field in shown.items():
        told = editor.hover(OF_KIND[kind], *place(uncommented, f"{name}: "))
        assert field["title"] in told
        assert plain(field["description"]) in plain(told)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "tests"])
def test_a_new_line_in_an_object_proposes_the_fields_it_lacks(editor: Editor, root: Path, kind: str) -> None:
    name = "overlay" if kind == "overlay" else "new-one"
    text = f"{schemafiles.modeline(kind)}\n{name}:\n  \n"
    editor.problems(OF_KIND[kind], text)
    proposed = editor.completions(OF_KIND[kind], 2, 2)
    for field, schema in fields(kind).items():
        assert plain(schema["description"]) in plain(proposed[field])


def test_the_values_of_an_action_are_proposed(editor: Editor, root: Path) -> None:
    text = text_of(root, "policies").replace("action: allow", "action: ")
    editor.problems(OF_KIND["policies"], text)
    line, _ = place(text, "action: ")
    assert {"allow", "deny"} <= set(editor.completions(OF_KIND["policies"], line, len("  action: ")))


def fields(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = described_object(kind)["properties"]
    return found


def plain(text: str) -> str:
    """Return a text without the escapes of Markdown."""
    return "".join(char for char in text if char.isalnum())
