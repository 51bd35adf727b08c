"""An object is given other fields in place: the wanted values, and every byte that has no part in them as before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml12
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_compiler import quick
from tidegate_compiler.edit import update as updating
from tidegate_compiler.edit.change import EditError
from tidegate_compiler.edit.editor import Editor
from tidegate_compiler.edit.update import update
from tidegate_compiler.edit.writing import quoted

FILE = "groups/people.yaml"

CASES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a scalar keeps its comment and its quotes": (
        """\
        # People.
        one:
          public_key: "AAA="  # rotated
          endpoint: '1.2.3.4:5'
        two: {public_key: x}
        """,
        {"public_key": "BBB=", "endpoint": "5.6.7.8:9"},
        """\
        # People.
        one:
          public_key: "BBB="  # rotated
          endpoint: '5.6.7.8:9'
        two: {public_key: x}
        """,
    ),
    "a block list loses one, gains one, and the others keep their comments": (
        """\
        one:
          members:
            # the first
            - alice  # A
            - bob  # B
            - carol  # C
          expires: {bob: 2031-01-01}
        """,
        {"members": ["zoe", "alice", "carol", "dave"], "expires": {"zoe": "2031-01-01"}},
        """\
        one:
          members:
            - zoe
            # the first
            - alice  # A
            - carol  # C
            - dave
          expires: {zoe: "2031-01-01"}
        """,
    ),
    "a list in brackets on several lines": (
        """\
        one:
          members: [
            alice,  # A
            bob,  # B
            carol  # C
          ]
        """,
        {"members": ["alice", "mallory", "carol", "dave"]},
        """\
        one:
          members: [
            alice,  # A
            mallory,  # B
            carol,  # C
            dave
          ]
        """,
    ),
    "a field goes and another comes": (
        """\
        one: {from: [all-clients], to: [10.0.0.0/8], action: allow, expires: 2031-01-01}  # why

        two: {from: [all-clients]}
        """,
        {"from": ["all-clients"], "to": ["10.0.0.0/8", "fd00::/8"], "action": "allow", "ports": ["any"]},
        """\
        one: {from: [all-clients], to: [10.0.0.0/8, "fd00::/8"], action: allow, ports: [any]}  # why

        two: {from: [all-clients]}
        """,
    ),
    "a list becomes empty, which is for check to refuse": (
        """\
        one:
          members:
            - alice
        """,
        {"members": []},
        """\
        one:
          members: []
        """,
    ),
    "an object without fields gets some": (
        """\
        one:
        two: {members: [bob]}
        """,
        {"members": ["alice"]},
        """\
        one: {members: [alice]}
        two: {members: [bob]}
        """,
    ),
    "JSON stays JSON": (
        """\
        {"one": {"members": ["alice"]}, "two": {"members": ["bob"]}}
        """,
        {"members": ["carol", "alice"], "expires": {"alice": "2031-01-01"}},
        """\
        {"one": {"members": ["carol", "alice"], "expires": {"alice": "2031-01-01"}}, "two": {"members": ["bob"]}}
        """,
    ),
    "a new field in the style of its object": (
        """\
        one:
            members:
            - alice
            # the end of one
        # two is next
        two: {}
        """,
        {"members": ["alice"], "expires": {"alice": "2031-01-01"}, "not_before": {"alice": "2030-01-01"}},
        """\
        one:
            members:
            - alice
            expires: {alice: "2031-01-01"}
            not_before: {alice: "2030-01-01"}
            # the end of one
        # two is next
        two: {}
        """,
    ),
}


def _dedent(text: str) -> str:
    return "".join(line[8:] if line.strip() else line for line in text.splitlines(keepends=True))


@pytest.mark.parametrize("name", list(CASES))
def test_cases(name: str) -> None:
    before, fields, after = CASES[name]
    change = update({FILE: _dedent(before).encode()}, FILE, "one", fields)
    assert (change.files[FILE] or b"").decode() == _dedent(after)


def test_a_test_of_a_list() -> None:
    text = "# Tests\n- {from: client:a, to: 10.0.0.1, port: icmp, expect: allow}  # first\n- from: client:b\n  to: x\n"
    change = update(
        {"tests/a.yaml": text.encode()}, "tests/a.yaml", 0, {"from": "client:a", "expect": "deny"}
    )
    assert change.files["tests/a.yaml"] == (
        b"# Tests\n- {from: client:a, expect: deny}  # first\n- from: client:b\n  to: x\n"
    )
    change = update(
        {"tests/a.yaml": text.encode()}, "tests/a.yaml", 1, {"from": "client:b", "to": "z", "port": "icmp"}
    )
    assert change.files["tests/a.yaml"] == text.replace("to: x\n", "to: z\n  port: icmp\n").encode()


def test_the_overlay() -> None:
    text = b"# Space\noverlay:\n  fleet: example  # ours\n  prefixes: [10.64.0.0/16]\n"
    change = update(
        {"overlay.yaml": text}, "overlay.yaml", "overlay", {"fleet": "b", "prefixes": ["10.64.0.0/16"]}
    )
    assert change.files["overlay.yaml"] == text.replace(b"example", b"b")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("one: {a: b\n", "groups/people.yaml:1:6: "),
        ("one: &x {members: [a]}\n", "groups/people.yaml:1:6: "),
        ("two: {members: [a]}\n", None),
    ],
    ids=["syntax", "anchor", "no such object"],
)
def test_what_cannot_be_edited_is_said_in_one_line(text: str, told: str | None) -> None:
    with pytest.raises(EditError) as error:
        update({FILE: text.encode()}, FILE, "one", {"members": ["b"]})
    assert "\n" not in str(error.value)
    assert told is None or str(error.value).startswith(told)


def test_without_the_proof_an_edit_may_hit_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    # The proof is what makes an odd layout harmless: see that it is asked for.
    def refuse(_: Editor) -> str:
        from tidegate_compiler.edit.editor import LayoutError

        raise LayoutError("no")

    monkeypatch.setattr(Editor, "finish", refuse)
    with pytest.raises(EditError, match="edit the file by hand"):
        update({FILE: b"one: {members: [a]}\n"}, FILE, "one", {"members": ["b"]})


# Random layouts -----------------------------------------------------------------------------------------------------

WORDS = [
    "alice",
    "bob",
    "carol",
    "dave",
    "10.0.0.0/8",
    "fd00::/8",
    "2031-01-01",
    "on",
    "no",
    "a b",
    "é",
    "#x",
    "- y",
    "a: b",
    "",
]
words = st.sampled_from(WORDS) | st.text(max_size=6)
keys = st.sampled_from(["members", "expires", "from", "to", "ports", "action"])
values = (
    words
    | st.lists(words, max_size=5)
    | st.dictionaries(st.sampled_from(["alice", "bob", "carol"]), words, max_size=3)
)
objects = st.dictionaries(keys, values, min_size=1, max_size=4)


class Layout:
    """Writes objects in a random layout; every field and item of a block gets a comment of its own."""

    def __init__(self, choose: Callable[[int], int]) -> None:
        self.choose = choose

    def flow(self, value: Any) -> str:
        if isinstance(value, dict):
            return "{" + ", ".join(f"{key}: {self.flow(one)}" for key, one in value.items()) + "}"
        if isinstance(value, list):
            joint = ",\n      " if self.choose(4) == 0 else ", "
            return "[" + joint.join(map(self.flow, value)) + "]"
        plain = (
            value.isascii()
            and value.isalpha()
            and value.lower() not in ("no", "on", "y", "n", "null", "true")
        )
        return value if plain and self.choose(2) else quoted(value)

    def object(self, name: str, fields: dict[str, Any]) -> str:
        if self.choose(3) == 0:
            return f"{name}: {self.flow(fields)}  # {name}\n"
        lines = [f"{name}:"]
        for key, value in fields.items():
            if self.choose(3) == 0:
                lines.append(f"  # above {name}.{key}")
            if isinstance(value, list) and value and self.choose(2):
                lines.append(f"  {key}:")
                step = "  " * (1 + self.choose(2))
                lines += [f"{step}- {self.flow(item)}  # {name}.{key}.{i}" for i, item in enumerate(value)]
            else:
                lines.append(f"  {key}: {self.flow(value)}  # {name}.{key}")
        return "\n".join(lines) + "\n" * (1 + self.choose(2))


@settings(deadline=None, max_examples=250, derandomize=True)
@given(st.lists(objects, min_size=1, max_size=3), objects, st.data())
def test_any_object_of_any_layout(
    before: list[dict[str, Any]], wanted: dict[str, Any], data: st.DataObject
) -> None:
    layout = Layout(lambda n: data.draw(st.integers(0, n - 1)))
    names = [f"obj-{n}" for n in range(len(before))]
    parts = ["# Top\n", *(layout.object(name, fields) for name, fields in zip(names, before, strict=True))]
    which = data.draw(st.integers(0, len(before) - 1))
    if data.draw(st.booleans()):  # often only a little differs
        wanted = {**before[which], **dict(list(wanted.items())[:1])}
    change = update({FILE: "".join(parts).encode()}, FILE, names[which], wanted)
    after = (change.files[FILE] or b"").decode()
    head, tail = "".join(parts[: which + 1]), "".join(parts[which + 2 :])
    assert after.startswith(head)
    assert after.endswith(tail)
    assert yaml12.parse_yaml(after) == dict(zip(names, before, strict=True)) | {names[which]: wanted}
    if wanted == before[which]:
        assert after == "".join(parts)
    for key, value in wanted.items():
        if before[which].get(key) == value and f"  # {names[which]}.{key}\n" in parts[which + 1]:
            assert f"  # {names[which]}.{key}\n" in after  # what did not change kept its comment


EXAMPLE = sorted((Path(__file__).parents[3] / "inventory").glob("*s/*.yaml"))


@pytest.mark.parametrize("path", EXAMPLE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_lines_of_an_object_are_edited_as_the_whole_file_is(path: Path) -> None:
    kind, file = path.parent.name, f"{path.parent.name}/{path.name}"
    objects = quick.read(kind, path.read_text())
    for name, fields in (objects or {}).items():
        first = next(field for field, value in fields.items() if isinstance(value, list))
        wanted = {**fields, first: fields[first][:1]}
        in_its_lines = updating._in_its_lines(file, path.read_text(), name, wanted)
        assert in_its_lines is not None
        assert in_its_lines == updating._edited(path.read_text(), name, wanted)
        assert update({file: path.read_bytes()}, file, name, wanted).files == {file: in_its_lines.encode()}
