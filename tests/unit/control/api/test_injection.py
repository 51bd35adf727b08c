"""Hostile texts through every field: each comes back to the letter as data, or is refused and nothing is written."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
from ruamel.yaml import YAML

import controlkit
from apikit import Api
from apisamples import KINDS, NEW
from tidegate_compiler.pipeline import validate_files

HOSTILE = (
    "x\nevil: {members: [alice-laptop]}",
    "x\r\nSet-Cookie: a=b",
    "*anchor",
    "!!python/object/apply:os.system [id]",
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "=cmd|' /C calc'!A0",
    "x # comment",
    "null",
    "true",
    "2031-01-01",
    "",
    "a\0b",
    "\x1b[31mred",
    "\u202etxt",
    "\ufeffx",
    "\ud7ff\U0001f4a9",
    "../../../etc/passwd",
    "##[add-mask]x",
    "x" * 5000,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every text in a value, keys of mappings too."""
    if isinstance(value, str):
        yield path
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for position, inner in enumerate(value):
            yield from places(inner, (*path, position))


def put(value: Any, path: tuple[Any, ...], text: str) -> Any:
    found = copy.deepcopy(value)
    at = found
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = text
    return found


def fields() -> list[tuple[str, tuple[Any, ...]]]:
    full = copy.deepcopy(NEW)
    full["groups"] |= {"expires": {"alice-laptop": "2031-01-01"}, "not_before": {"bob-laptop": "2030-01-01"}}
    full["policies"] |= {"expires": "2031-01-01", "not_before": "2030-01-01"}
    full["tests"] |= {"at": "2031-01-01"}
    for path in KINDS:
        full[path] |= {"file": f"{path}/more.yaml"}
    return [(path, place) for path in KINDS for place in places(full[path])]


@pytest.mark.parametrize(
    ("path", "place"), fields(), ids=[f"{path}-{'-'.join(map(str, place))}" for path, place in fields()]
)
def test_every_field_is_data(reading: Api, path: str, place: tuple[Any, ...]) -> None:
    body = copy.deepcopy(NEW[path])
    if place[0] in ("expires", "not_before") and len(place) > 1:
        body[place[0]] = {}
    head = reading.inventory.head()
    for text in HOSTILE:
        sent = put(body, place, text)
        answer = reading("POST", f"/{path}?dry_run=true", sent)
        if answer.status_code == 200:
            told = answer.json()["object"]
            at: Any = told
            for step in place:
                at = at[step]
            assert at == text
        else:
            assert answer.status_code in (409, 422), answer.text
            assert answer.json()["detail"].isprintable()
            for one in answer.json().get("diagnostics", ()):
                assert one["message"].isprintable()
                assert "<script" not in one["where"]
    assert reading.inventory.head() == head


def test_names_in_mappings_are_data(reading: Api) -> None:
    for text in HOSTILE:
        body = {**NEW["groups"], "expires": {text: "2031-01-01"}}
        answer = reading("POST", "/groups?dry_run=true", body)
        assert answer.status_code in (409, 422), answer.text
        assert answer.json()["detail"].isprintable()


def test_what_is_written_is_yaml_that_says_exactly_it(api: Api) -> None:
    for path in KINDS:
        answer = api("POST", f"/{path}", NEW[path])
        one = answer.json()["object"]
        document = YAML(typ="safe").load(api.file(one["file"]))
        wanted = {key: value for key, value in NEW[path].items() if key not in ("name", "file")}
        written = document[-1] if path == "tests" else document[one["name"]]
        assert {
            key: value if not hasattr(value, "isoformat") else str(value) for key, value in written.items()
        } == wanted
    files = {path: api.file(path).encode() for path in controlkit.example()}
    assert validate_files(files).inventory is not None


def test_a_commit_says_nothing_that_a_caller_can_forge(api: Api) -> None:
    message = "%0A%0Aauthor%20root%20%3Croot%3E%0ASigned-off-by:%20x%00"
    assert api("POST", f"/groups?message={message}", NEW["groups"]).status_code in (201, 400)
    raw = controlkit.git(api.repository, "cat-file", "commit", "main")
    assert sum(line.startswith("author ") for line in raw.splitlines()) == 1


TRICKS = (
    "%2e%2e%2fgroups%2fcontractors",
    "..%2f..%2foverlay",
    "%2e%2e",
    "..",
    "alice-laptop%00",
    "alice-laptop%0a",
    "alice-laptop%20",
    "alice-laptop%2f",
    "alice-laptop/",
    "alice-laptop;x=1",
    "Alice-Laptop",
    "%EF%BC%A1lice-laptop",
    "alice-laptop%ff",
    "%D9%A1",
    "alice%E2%80%8B-laptop",
    "a%5cb",
    "%252e%252e%252f",
    "clients",
    "",
)


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_in_names_find_nothing_and_write_nothing(reading: Api, trick: str) -> None:
    head = reading.inventory.head()
    for method, body in (("GET", None), ("PUT", NEW["clients"]), ("PATCH", {}), ("DELETE", None)):
        answer = reading(method, f"/clients/{trick}", body, match="*")
        assert answer.status_code in (400, 404, 405), (method, answer.text)
    assert reading.inventory.head() == head
