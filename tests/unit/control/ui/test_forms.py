"""Fields as text and back, diagnostics at fields, and keys that are none."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import controlkit
from tidegate_compiler.diagnostics import Diagnostic, Where
from tidegate_compiler.pipeline import validate_files
from tidegate_control.ui import forms, keycheck, listing, places
from tidegate_control.ui.kinds import CHOICE, LINES, PAIRS, TEXT, Kind, kinds, of_word
from tidegate_control.ui.visit import read_form

_WORD = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=12
)
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    TEXT: _WORD,
    CHOICE: _WORD,
    LINES: st.lists(_WORD, min_size=1, max_size=5),
    PAIRS: st.dictionaries(_WORD, _WORD, min_size=1, max_size=4),
}


def test_the_kinds_are_those_of_the_schemas_with_every_field() -> None:
    assert [kind.word for kind in kinds().values()] == [
        *("client", "gateway", "group", "resource", "policy", "test", "overlay")
    ]
    client = of_word("client")
    assert [(field.name, field.shape, field.is_required) for field in client.fields] == [
        ("public_key", TEXT, True),
        ("addresses", LINES, True),
        ("gateways", LINES, True),
    ]
    action = of_word("policy").field("action")
    assert action is not None
    assert (action.shape, action.choices) == (CHOICE, ("allow", "deny"))
    expires = of_word("group").field("expires")
    assert expires is not None
    assert expires.shape == PAIRS


@pytest.mark.parametrize("kind", kinds().values(), ids=kinds())
@given(data=st.data())
def test_what_a_form_shows_comes_back_as_it_was(kind: Kind, data: st.DataObject) -> None:
    wanted = data.draw(st.fixed_dictionaries({}, optional={f.name: _VALUES[f.shape] for f in kind.fields}))
    assert forms.to_fields(forms.to_text(wanted, kind), kind) == wanted


def test_a_browsers_line_ends_and_empty_lines_do_not_matter() -> None:
    fields = forms.to_fields(
        {"addresses": " 10.0.0.1/32\r\n\r\n\tfd64::1/128 \r", "gateways": " \r\n"}, of_word("client")
    )
    assert fields == {"addresses": ["10.0.0.1/32", "fd64::1/128"]}


def test_a_value_of_another_form_is_shown_as_json() -> None:
    text = forms.to_text(
        {"addresses": {"a": [1]}, "gateways": [1, None, "fra1"], "public_key": True}, of_word("client")
    )
    assert text == {"public_key": "true", "addresses": '{"a": [1]}', "gateways": "1\nnull\nfra1"}
    assert forms.unknown({"gateways": [], "psk": 1}, of_word("client")) == ["psk"]


# --- places -----------------------------------------------------------------------------------------


def told(edited: dict[str, str], of: places.Of) -> places.Told:
    files = {path: text.encode() for path, text in (controlkit.example() | edited).items()}
    found = [problem for problem in validate_files(files).diagnostics if problem.is_error]
    assert found
    return places.at_fields(found, files, of)


def test_a_problem_is_told_at_its_field_and_no_other() -> None:
    file = "resources/prod.yaml"
    text = controlkit.example()[file].replace("tcp/5432", "tcp/70000")
    at = told({file: text}, places.Of(file, "prod-db")).at
    assert {field: [one.code for one in ones] for field, ones in at.items()} == {"ports": ["TG026"]}
    assert told({file: text}, places.Of(file, "web")).at == {}
    assert told({file: text}, places.Of("clients/", "prod-db")).at == {}


def test_a_missing_field_is_told_at_the_name() -> None:
    file = "resources/more.yaml"
    at = told({file: "wiki: {ports: [tcp/1]}\n"}, places.Of("resources/", "wiki")).at
    assert set(at) == {"name"}


def test_an_access_test_is_known_by_its_line_or_is_the_last() -> None:
    file = "tests/engineering.yaml"
    text = controlkit.example()[file]
    bad = text + "- {from: client:nobody, to: 10.20.0.80, port: tcp/1, expect: deny}\n"
    assert set(told({file: bad}, places.Of("tests/", "")).at) == {"from"}
    assert set(told({file: bad}, places.Of(file, "", text.count("\n") + 1)).at) == {"from"}
    assert told({file: bad}, places.Of(file, "", 1)).at == {}


def test_a_file_that_is_no_yaml_puts_problems_nowhere() -> None:
    problem = Diagnostic(Where("clients/x.yaml", 1, 1), "TG005", "not YAML")
    assert places.at_fields([problem], {"clients/x.yaml": b"\xff{"}, places.Of("clients/", "x")).others == (
        problem,
    )
    assert places.at_fields([problem], {}, places.Of("clients/", "x")).others == (problem,)


# --- keys -------------------------------------------------------------------------------------------


def key(first: int, last: int) -> str:
    return base64.b64encode(bytes([first, *range(1, 31), last])).decode()


@pytest.mark.parametrize(
    ("text", "confirmed", "taken"),
    [
        (key(1, 0x40), False, True),
        (key(8, 0x80), False, True),
        (key(8, 0x00), False, True),
        (key(8, 0x40), False, False),
        (f" {key(8, 0x40)}\n", False, False),
        (key(8, 0x40), True, True),
        ("PrivateKey = x", True, False),
        ("-----BEGIN OPENSSH PRIVATE KEY-----", True, False),
        ("private_key: x", True, False),
        ("nonsense", False, True),
    ],
)
def test_private_keys_are_refused_and_suspected_ones_asked_about(
    text: str, confirmed: bool, taken: bool
) -> None:
    """Nonsense is for the inventory's check to refuse."""
    assert (keycheck.problem(text, confirmed) is None) == taken


# --- queries and forms ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"sort": "evil"},
        {"sort": "--name"},
        {"after": "!!"},
        {"after": "x" * 9999},
        {"sort": "-name", "after": "e30"},
    ],
    ids=str,
)
def test_a_query_that_makes_no_sense_is_the_default(params: dict[str, str]) -> None:
    query = listing.read(params, ("addresses",))
    assert (query.sort, query.after) == ("name", None)


@pytest.mark.parametrize(
    "body", [b"a=%ff", b"a=\xff", b"&".join(b"a%d=1" % n for n in range(200))], ids=["utf8", "raw", "many"]
)
def test_a_form_that_cannot_be_read_is_refused(body: bytes) -> None:
    with pytest.raises(Exception, match="form") as caught:
        read_form("application/x-www-form-urlencoded", body)
    assert getattr(caught.value, "status", 0) == 400
    with pytest.raises(Exception, match="send") as caught:
        read_form("multipart/form-data; boundary=x", b"")
    assert getattr(caught.value, "status", 0) == 415
