"""The words of diagnostics for the commonest slips: what is wrong, where, and what to write instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compilerkit import client, gateway, inventory, policy
from tidegate_compiler.model import Network
from tidegate_compiler.networks import SPECIAL
from tidegate_compiler.pipeline import validate_files
from tidegate_compiler.yamltree import parse


def said(files: dict[str, bytes]) -> list[tuple[str, int, int, str]]:
    found = validate_files(files).diagnostics
    return [(d.code, d.where.line, d.where.column, d.message) for d in found]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a:\n\tb: 1\n", "2:1", "a tab; write spaces"),
        ("a:\tb\n", "1:3", "a tab; write spaces"),
        ("a:\n  b: [x, y\n", "2:6", "the '[' that stands here is never closed; add the ']'"),
        ("a: {b: c\n", "1:4", "the '{' that stands here is never closed; add the '}'"),
        ("a: [x, y\nb: 1\n", "2:2", "a ',' or a ']' is missing before this; the '[' of line 1 is open"),
        ("a: [x}\n", "1:6", "a ',' or a ']' is missing before this; the '[' of line 1 is open"),
        ("a: 'x\nb: 1\n", "1:4", "the quote that begins here is never closed"),
        ('a: 1\nb: "x\nc: 1\n', "2:4", "the quote that begins here is never closed"),
        ("a: b: c\n", "1:5", "a second ': ' in one line; put text that has one in quotes"),
        ("a\nb: 1\n", "2:2", "the line above has no ':' behind its name"),
        ("a: 1\nb\n", "2:1", "this name has no ':' behind it"),
        ("a:\n  b: 1\n    c: 2\n", "3:6", "indented deeper than the line above, which has its value already"),
        ("a:\n    b: 1\n  c: 2\n", "3:3", "wrong indentation: this line belongs to nothing above it"),
        ("a:\n  - x\n  y: 1\n", "3:3", "a field where the list above goes on; begin it with '- '"),
        ("a:\n  y: 1\n  - x\n", "3:3", "a list item where the fields above go on; correct its indentation"),
        ("a: - x\n", "1:4", "a list item begins a line of its own; write [a, b]"),
        ("a: @x\n", "1:4", "no value begins with '@'; put it in quotes"),
        ("a: *\n", "1:4", "'*' and '&' begin an alias or an anchor; put text that begins so in quotes"),
        ('a: "\\d"\n', "1:6", "means nothing in double quotes; use single quotes"),
        ("a: 'x' y\n", "1:8", "more text after a value that is complete; put all of it in quotes"),
        ("a: [b,, c]\n", "1:7", "a value is missing before ',', or this is one too many"),
        ("a: | x\n", "1:6", "'|' and '>' have their text in the lines below"),
    ],
)
def test_a_slip_in_yaml_is_told_in_plain_words(text: str, place: str, words: str) -> None:
    _, [flaw] = parse(text)
    assert (flaw.code, f"{flaw.line}:{flaw.column}") == ("TG005", place)
    assert flaw.message.startswith("not YAML: ")
    assert words in flaw.message
    assert "expected" not in flaw.message
    assert "<" not in flaw.message


@given(st.text(st.sampled_from("ab:,[]{}'\"|>-?!&*@%\\#~ \t\n\u2028é\x00"), max_size=40))
def test_whatever_the_text_the_words_are_one_printable_line(text: str) -> None:
    for flaw in parse(text)[1]:
        assert flaw.message.isprintable()
        assert flaw.message.isascii()
        assert len(flaw.message) < 200
        assert flaw.line >= 1 <= flaw.column


@pytest.mark.parametrize(
    ("field", "place", "words"),
    [
        ("ports:", (3, 3), "'ports': nothing where a list is wanted; write it, or remove the line"),
        ("ports: ~", (3, 10), "'ports': nothing where a list is wanted"),
        ("ports: tcp/80", (3, 10), "'ports': 'tcp/80' where a list is wanted; write it in brackets"),
        ("ports: [443]", (3, 11), "443 where text is wanted; write tcp/443 or udp/443"),
        ("ports: [70000]", (3, 11), "70000 where text is wanted; put it in quotes"),
        ("ports: [true]", (3, 11), "true where text is wanted; put it in quotes"),
        ("ports: [[tcp/80]]", (3, 11), "a list where text is wanted; write one value, without brackets"),
        ("ports: [{tcp: 80}]", (3, 11), "a mapping where text is wanted; write one value"),
    ],
)  # fmt: skip
def test_a_wrong_type_is_told_with_what_to_write(field: str, place: tuple[int, int], words: str) -> None:
    files = inventory() | {"resources/r.yaml": f"web:\n  addresses: [10.20.0.80/32]\n  {field}\n".encode()}
    [(code, *where, message)] = said(files)
    assert (code, tuple(where)) == ("TG014", place)
    assert message.startswith(words)


def test_a_colon_without_a_space_is_told() -> None:
    files = inventory() | {"groups/g.yaml": b"staff:\n  {members:[alice]}\n"}
    messages = [message for *_, message in said(files)]
    assert any("a ':' needs a space behind it" in message for message in messages), messages
    files = inventory() | {"groups/g.yaml": b"staff:alice\n"}
    assert said(files)[0][3].endswith("; a ':' needs a space behind it")


@pytest.mark.parametrize("special", SPECIAL, ids=str)
def test_nobody_lives_where_nothing_is_routed(special: Network) -> None:
    """Neither the clients, nor what stands behind a gateway."""
    base = inventory()
    assert said(base) == []
    name = SPECIAL[special]
    overlay = {"overlay": {"prefixes": ["10.64.0.0/16", "fd64::/48", str(special)]}}
    found = [message for code, *_, message in said(inventory(overlay=overlay)) if code == "TG029"]
    if name == "IPv4-mapped":  # its reader is first
        assert [code for code, *_ in said(inventory(overlay=overlay))] == ["TG022"]
        return
    assert len(found) == 1
    assert name in found[0]
    behind = gateway("gw", "10.20.0.0/16", "fd20::/48", str(special))
    found = [message for code, *_, message in said(inventory(gateways=behind)) if code == "TG029"]
    assert len(found) == 1
    assert name in found[0]


def test_a_network_that_contains_special_ranges_is_fine_and_so_is_a_policy_about_one() -> None:
    files = inventory(
        overlay={"overlay": {"prefixes": ["fd64::/48"]}},
        gateways=gateway("gw", "0.0.0.0/0", "fd20::/48", endpoint="[2001:db8::1]:51820"),
        clients=client("alice", 11, families=(6,)),
        policies={"p": policy(to="169.254.169.254/32", action="deny")},
    )
    assert {code for code, *_ in said(files)} <= {"TG054"}
    wide = inventory(overlay={"overlay": {"prefixes": ["10.64.0.0/16", "::/0"]}}, clients=client("alice", 11))
    assert "TG029" in {code for code, *_ in said(wide)}
