"""The pull-request comment: it fits, declares what it cut, and nothing in a value gets out of its cell."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilerkit import client, inventory, policy
from plankit import told
from tidegate_compiler.plan import report
from tidegate_compiler.plan.markdown import MARKER, MAX_CHARS, code, markdown

HOSTILE = [
    "@tidegate/admins", "<img src=x onerror=alert(1)>", "a|b", "`x`", "``` \n# head", "[x](http://e.example)", "#1",
    "a\u202eb", "a\u200bb", "\u2800", "\ufe0f", "\x1b[2J", "-->", "&#64;team", "\\", "line\r\nline", "\ud800",
    "x" * 5000,
]  # fmt: skip


def clean(text: str) -> None:
    """Assert that a code span stays one, and shows all that it holds."""
    assert re.fullmatch(r"`[A-Za-z0-9 ._/:,;=+()~^\\\-]+`|-", text), text


@pytest.mark.parametrize("value", HOSTILE)
def test_a_value_stays_inside_its_code_span(value: str) -> None:
    clean(code(value))
    assert len(code(value)) <= 802


@given(st.text())
def test_any_text_is_harmless_in_a_code_span(value: str) -> None:
    clean(code(value))


def test_different_values_stay_different() -> None:
    assert code("a\\x40") != code("a@")
    assert code("@") == "`\\x40`"


def test_revisions_are_shown_as_they_are_written() -> None:
    assert code("HEAD~1:inventory") == "`HEAD~1:inventory`"
    assert code("main^2") == "`main^2`"


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_names_everywhere(value: str) -> None:
    found = told(inventory(), inventory(policies={"p": policy()}))

    def poison(node: Any) -> Any:
        if isinstance(node, dict):
            return {name: poison(below) for name, below in node.items()}
        if isinstance(node, list):
            return [poison(below) for below in node]
        return value if isinstance(node, str) and node not in ("added", "changed", "removed") else node

    text = markdown(poison(found))
    assert len(text) <= MAX_CHARS
    body = re.sub(r"`[^`\n]*`", "code", text.removeprefix(MARKER))
    assert not set(body) & set("@<>&`\\[]\r\x1b")
    assert all(line.count("|") in (0, 4, 5, 7) for line in body.splitlines())
    assert all(char.isprintable() or char == "\n" for char in text)
    for line in report.lines(poison(found)):
        assert line.isascii()
        assert line.isprintable()


def big(count: int) -> dict[str, Any]:
    clients: dict[str, Any] = {}
    for number in range(1, count + 1):
        clients |= client(f"client-number-{number}", number)
    policies = {
        f"policy-{number}": policy(f"client:client-number-{number}", f"10.20.{number}.0/24")
        for number in range(1, count + 1)
    }
    return told(inventory(clients=clients), inventory(clients=clients, policies=policies))


def test_a_comment_fits_gains_first_totals_full_and_the_cut_declared() -> None:
    found = big(200)
    found["access"]["gained"] *= 4
    text = markdown(found)
    assert len(text) <= MAX_CHARS
    assert text.startswith(MARKER + "\n")
    assert "800 gained (200 clients)" in text.splitlines()[3]
    shown = text.count("`policy-")
    assert f"**Cut here: {800 - shown} of 800 rows are not shown;**" in text
    assert shown > 150
    titles = re.findall(r"^#### (.*)$", text, re.MULTILINE)
    assert titles == ["Access gained (800)", "Hosts that reload (1)", "Objects changed (200)"]
    assert re.search(r"Cut here: \d+ of 200 rows", text)


def test_every_gain_names_the_file_that_grants_it() -> None:
    text = markdown(big(5))
    rows = text.partition("#### Access gained")[2].partition("####")[0].splitlines()[4:]
    assert len([row for row in rows if "inv/policies/all.yaml:1" in row]) == 5


def test_nothing_to_tell_is_told() -> None:
    text = markdown(told(inventory(), inventory()))
    assert text.splitlines() == [MARKER, "### Tidegate plan", "", "`inv` → `inv`: **no changes**"]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 400), st.integers(0, 300), st.integers(0, 900))
def test_it_always_fits(gained: int, lost: int, objects: int) -> None:
    row = {
        "clients": [{"name": "n" * 63, "client_id": "0" * 32, "new_key": True}] * 9,
        "group": None, "to": ["fd20:1111:2222:3333:4444:5555:6666:7777/128"] * 9, "ports": ["tcp/10000-20000"] * 9,
        "not_before": "2027-01-01T00:00:00Z", "expires": "2028-01-01T00:00:00Z", "denied_by": None,
        "policy": {"name": "p" * 63, "file": "@" * 400, "line": 1},
        "witnesses": [{"client": "n" * 63, "client_id": "0" * 32, "destination": "fd20::1", "port": "any", "at": None}],
    }  # fmt: skip
    thing = {
        "kind": "group", "name": "g" * 63, "change": "changed", "was": None, "file": "f" * 4000, "line": 1,
        "fields": [{"field": "expires of " + "c" * 63, "removed": ["x" * 900], "added": []}] * 50,
    }  # fmt: skip
    document = told(inventory(), inventory()) | {
        "changes": True,
        "access": {"gained": [row] * gained, "lost": [row] * lost},
        "objects": [thing] * objects,
    }
    text = markdown(document)
    assert len(text) <= MAX_CHARS
    assert f"{gained} gained" in text
