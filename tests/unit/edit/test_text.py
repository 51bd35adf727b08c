"""Edits of one text: what was not meant stays byte for byte, whatever the layout."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tidegate_compiler.edit import form as formatting
from tidegate_compiler.edit.editor import Editor, LayoutError
from tidegate_compiler.edit.form import form
from tidegate_compiler.yamlplain import is_plain
from tidegate_compiler.yamltree import parse, plain

FIELDS = {"public_key": "K=", "addresses": ["10.64.0.2/32", "fd64::2/128"], "expires": {"x": "2031-01-31"}}


def values(text: str) -> object:
    tree, flaws = parse(text)
    assert flaws == [], text
    return None if tree is None else plain(tree)


# A generator of layouts -------------------------------------------------------------------------------------

names = st.sampled_from(["alice", "bob", "carol", "dave", "eve"])
words = st.sampled_from(
    ["fra1", "10.64.0.1/32", '"fd64::1/128"', "'it''s'", '"a # b"', "2031-01-31", "yes", "12", "null"]
)
notes = st.sampled_from(["", "", "", " # a note", "  #tight [x], {y}: '"])
blanks = st.sampled_from(["", "", "\n", "\n\n", "# alone\n", "\n# apart\n", "  # deeper\n", "   \n"])


@st.composite
def lists(draw: st.DrawFn, indent: int) -> str:
    """A list after its key, in one of the styles, with its line end."""
    items = draw(st.lists(words, min_size=1, max_size=4))
    note = draw(notes)
    pad = " " * indent
    match draw(st.integers(0, 5)):
        case 0:
            return f" [{', '.join(items)}]{note}\n"
        case 1:
            return f" [ {' ,'.join(items)}, ]{note}\n"
        case 2:
            inner = "".join(f"{pad}  {item},{draw(notes)}\n" for item in items)
            return f" [{note}\n{inner}{pad}]\n"
        case 3:
            inner = ",\n".join(f"{pad}  {item}" for item in items)
            return f" [\n{inner}{note}\n{pad} # last\n{pad}]\n"
        case 4:
            return f"{note}\n" + "".join(f"{pad}-  {item}{draw(notes)}\n" for item in items)
        case _:
            return f"{note}\n" + "".join(f"{pad}  - {item}{draw(notes)}\n" for item in items)


@st.composite
def bodies(draw: st.DrawFn) -> str:
    """An object's text behind its name's colon."""
    if draw(st.booleans()):
        return (
            f" {{members: [{', '.join(draw(st.lists(words, min_size=1, max_size=3)))}], a: b}}{draw(notes)}\n"
        )
    step = draw(st.sampled_from([1, 2, 4]))
    pad = " " * step
    text = f"{draw(notes)}\n{pad}members:{draw(lists(step))}"
    if draw(st.booleans()):
        text += f"{pad}expires: {{x: 2031-01-31}}{draw(notes)}\n"
    if draw(st.booleans()):
        text += f'{pad}not_before:\n{pad}  y: "2031-01-31"{draw(notes)}\n{pad}  # under y\n'
    return text


@st.composite
def files(draw: st.DrawFn) -> str:
    chosen = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    text = draw(st.sampled_from(["", "# head\n", "# head\n\n", "---\n", "\n"]))
    for name in chosen:
        text += f"{name}:{draw(bodies())}{draw(blanks)}"
    text += draw(st.sampled_from(["", "", "...\n", "\n\n", "# tail\n"]))
    if draw(st.booleans()):
        text = text.replace("\n", "\r\n")
    if draw(st.integers(0, 3)) == 0:
        text = text.rstrip("\r\n")
    return text


LONG = os.environ.get("TIDEGATE_FUZZ") == "long"
quick = settings(
    max_examples=20_000 if LONG else 150, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


@quick
@given(files())
def test_add_then_remove_leaves_every_byte(text: str) -> None:
    before = values(text)
    assert isinstance(before, dict)
    work = Editor(text)
    line = work.add_object("zoe", FIELDS)
    added = work.finish()
    assert added.split("\n")[line - 1].startswith("zoe:")
    assert values(added) == {**before, "zoe": FIELDS}
    back = Editor(added)
    back.remove([("zoe",)])
    assert back.finish() == text


@quick
@given(files(), st.data())
def test_a_member_added_and_removed_leaves_every_byte(text: str, data: st.DataObject) -> None:
    before = values(text)
    assert isinstance(before, dict)
    owner = data.draw(st.sampled_from(sorted(before)))
    work = Editor(text)
    line = work.add_item((owner, "members"), "zoe")
    added = work.finish()
    assert "zoe" in added.split("\n")[line - 1]
    back = Editor(added)
    back.remove([(owner, "members", len(before[owner]["members"]))])
    assert back.finish() == text


def is_less(line: str, whole: str) -> bool:
    """Tell whether a line is another one with characters taken out."""
    rest = iter(whole)
    return all(char in rest for char in line)


@quick
@given(files(), st.data())
def test_a_removal_keeps_every_other_value_and_line(text: str, data: st.DataObject) -> None:
    before = values(text)
    assert isinstance(before, dict)
    paths: list[tuple[str | int, ...]] = []
    for owner, fields in before.items():
        size = len(fields["members"])
        choice = data.draw(st.sampled_from(["all", "some", "none"]))
        if choice == "all":
            paths.append((owner,))
        elif choice == "some":
            paths += [
                (owner, "members", i) for i in data.draw(st.sets(st.integers(0, size - 1), max_size=size - 1))
            ]
    work = Editor(text)
    work.remove(paths)
    assume(
        "..." not in text or len([p for p in paths if len(p) == 1]) < len(before)
    )  # a bare end marker is no file
    old = text.split("\n")
    for line in work.finish().split("\n"):
        assert line in old or any(is_less(line, whole) for whole in old)
    after = values(work.text) or {}
    assert isinstance(after, dict)
    gone = set(paths)
    for owner, fields in before.items():
        if (owner,) in gone:
            assert owner not in after
            continue
        kept = [m for i, m in enumerate(fields["members"]) if (owner, "members", i) not in gone]
        assert after[owner] == {**fields, "members": kept}


@quick
@given(files())
def test_fmt_keeps_meaning_order_and_comments_and_is_stable(text: str) -> None:
    once = form(text)
    assert json.dumps(values(once)) == json.dumps(values(text))
    assert form(once) == once
    lines = once.split("\n")
    assert not any(line.rstrip("\r") != line.rstrip("\r").rstrip() for line in lines)
    assert "\n\n\n" not in once.replace("\r", "")


def test_fmt_writes_the_one_form() -> None:
    untidy = (
        "\n\n# head\na:   # first\n    networks:   [ 10.0.0.0/8 ,fd20::/48 ]   # both\n    endpoint: '[::1]:1'\n"
        "    list:\n    - yes\n    # between\n    -   2031-01-31\n\n\n    # after\n    x: {b: c}\n"
        "b:\n  z: [\n  1, # one\n   b\n  ]\n\n\n# end\n\n"
    )
    assert form(untidy) == (
        '# head\na: # first\n  networks: [10.0.0.0/8, "fd20::/48"] # both\n  endpoint: "[::1]:1"\n'
        '  list:\n    - "yes"\n    # between\n    - "2031-01-31"\n\n  # after\n  x: {b: c}\n\n'
        "b:\n  z: [\n    1, # one\n    b\n  ]\n\n# end\n"
    )


@pytest.mark.parametrize(
    "text",
    [
        "yes",
        "No",
        "2031-01-31",
        "fd64::1/128",
        "::1",
        "1e3",
        "010",
        "0x1f",
        "0x-f",
        "0o-7",
        "1:20",
        "",
        "~",
        "=",
        "a b",
        "#x",
    ],
)
def test_what_old_parsers_misread_is_quoted(text: str) -> None:
    assert not is_plain(text)


@pytest.mark.parametrize(
    "text",
    ["fra1", "10.64.0.0/16", "tcp/443", "tcp/1-2", "group:engineers", "all-clients", "b+/=", "10.20.0.80"],
)
def test_what_no_parser_misreads_is_plain(text: str) -> None:
    assert is_plain(text)


@pytest.mark.parametrize(
    ("text", "added"),
    [
        ("", "zoe:\n  a: b\n"),
        ("# only a note\n", "# only a note\nzoe:\n  a: b\n"),
        ("{}", "{zoe: {a: b}}"),
        ('{"x": {"a": "b"}}', '{"x": {"a": "b"}, "zoe": {"a": "b"}}'),
        ("x: {a: b}\n", "x: {a: b}\nzoe: {a: b}\n"),
        ("x:\n    a: b\n", "x:\n    a: b\n\nzoe:\n    a: b\n"),
        ("x:\n  a: b\ny:\n  a: b", "x:\n  a: b\ny:\n  a: b\nzoe:\n  a: b"),
        ("x: {a: b}\n...\n# after\n", "x: {a: b}\nzoe: {a: b}\n...\n# after\n"),
    ],
)
def test_a_new_object_is_written_like_its_neighbours(text: str, added: str) -> None:
    work = Editor(text)
    work.add_object("zoe", {"a": "b"})
    assert work.finish() == added


def test_tests_are_added_and_removed_in_both_styles() -> None:
    for text, added in (
        ("- {a: b}\n", "- {a: b}\n- {c: d}\n"),
        ("- a: b\n  x: y\n", "- a: b\n  x: y\n- c: d\n"),
        ("[{a: b}]\n", "[{a: b}, {c: d}]\n"),
        ("", "- {c: d}\n"),
    ):
        work = Editor(text)
        work.add_test({"c": "d"})
        assert work.finish() == added
        back = Editor(added)
        back.remove([(1 if text else 0,)])
        assert back.finish() == text


def test_several_neighbours_go_at_once() -> None:
    for text, left in (
        ("[a, b, c, d]", "[d]"),
        ("[\n  a,\n  b, # two\n  c,\n  d # four\n]", "[\n  d # four\n]"),
        ("- a\n- b\n# on c\n- c\n- d\n", "# on c\n- d\n"),
    ):
        work = Editor(text)
        work.remove([(0,), (1,), (2,)])
        assert work.finish() == left
    work = Editor("[\n  a,\n  b, # two\n  c # three\n]")
    work.remove([(1,), (2,)])
    assert work.finish() == "[\n  a\n]"


def test_a_comment_above_stays_and_one_inside_goes() -> None:
    work = Editor("# on a\na:\n  x: y # in a\n  # under a\n\n# on b\nb: {x: y}\n")
    work.remove([("a",)])
    assert work.finish() == "# on a\n\n# on b\nb: {x: y}\n"


@pytest.mark.parametrize("text", ["? a\n: {b: c}\n", "- - a\n  - b\n"])
def test_a_layout_that_is_not_understood_is_refused_not_spoiled(text: str) -> None:
    work = Editor(text)
    with pytest.raises(LayoutError, match="by hand"):
        work.remove([("a",)] if text[0] == "?" else [(0, 0)])


def test_a_wrong_edit_is_never_handed_out() -> None:
    work = Editor("a: {x: y}\nb: {x: z}\n")
    work.remove([("a",)])
    work.text = work.text.replace("z", "w")
    with pytest.raises(LayoutError, match="by hand"):
        work.finish()


@pytest.mark.parametrize("broken", [lambda _: '"w"', lambda text: f'"{text}" # more'])
def test_fmt_hands_out_nothing_that_means_something_else(
    broken: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formatting, "quoted", broken)
    with pytest.raises(LayoutError, match="by hand"):
        form("a: 'x'\n")
