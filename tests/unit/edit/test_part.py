"""A part of a large file is edited as the whole file would be, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate_compiler import quick
from tidegate_compiler.edit import add as adding
from tidegate_compiler.edit.editor import Editor
from tidegate_compiler.edit.part import Objects, edited

EXAMPLE = sorted((Path(__file__).parents[3] / "inventory").glob("*s/*.yaml"))
GROUPS = "groups/a.yaml"
TEXT = "# Top\none: {members: [a]}\n\n# Two\ntwo:\n  members: [b]  # b\n# end\n"


def _same(objects: Objects) -> Objects:
    return objects


@pytest.mark.parametrize("path", EXAMPLE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_an_object_is_appended_as_to_the_whole_file(path: Path) -> None:
    objects = quick.read(path.parent.name, path.read_text())
    if objects is None:
        return  # access tests have no names
    fields = dict(next(iter(objects.values())))
    work = Editor(path.read_text())
    line = work.add_object("zzz", fields)
    done = adding._at_the_end(f"{path.parent.name}/{path.name}", path.read_text(), "zzz", fields)
    assert done == (work.finish(), line)


def test_only_the_part_is_seen() -> None:
    seen = []
    edited(GROUPS, TEXT, lambda names: (names.index("two"), 2), lambda text: seen.append(text) or text, _same)
    edited(GROUPS, TEXT, lambda _: (0, 1), lambda text: seen.append(text) or text, _same)
    assert seen == ["two:\n  members: [b]  # b\n# end\n", "one: {members: [a]}\n\n# Two\n"]


@pytest.mark.parametrize(
    ("text", "made"),
    [
        (TEXT, "one: {members: [c]}\n"),
        (TEXT, "one: {members: [a]}\nthree: {members: [a]}\n"),
        (TEXT, ""),
        (TEXT, "one: {members: [a]}\ntwo: {members: [a]}\n"),
        (TEXT, "one: {members: [a]}\n  two: x\n"),
        (TEXT, None),
        ("one: {members: [a]}\ntwo: &x {members: [b]}\n", "one: {members: [a]}\n"),
        ("one: [\n", "one: {members: [a]}\n"),
        ("", "one: {members: [a]}\n"),
    ],
    ids=range(9),
)
def test_what_the_proof_does_not_accept_is_not_taken(text: str, made: str | None) -> None:
    assert edited(GROUPS, text, lambda _: (0, 1), lambda _: made, _same) is None
