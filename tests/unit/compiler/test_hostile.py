"""Hostile strings through every string of an inventory: refused, and told in one printable line, or harmless."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compilerkit import client, everything, gateway, inventory
from tidegate_compiler import fields
from tidegate_compiler.pipeline import Compiled, compile_files
from tidegate_schema import validation

RAW = everything() | {"gateways": gateway("gw"), "clients": client("alice", 11) | client("bob", 12)}
HOSTILE = [
    "\n", "\r", "\n\n[Peer]\nPublicKey = x", "\nPostUp = touch /tmp/x", "%i", " # comment", "[Peer]", "`id`", "$(id)",
    "\x00", "{{ 7*7 }}", "{% x %}",
    "\x1b[2J", "\u202e", "\u2028", "\x85", "\u0661", "\uff11", "\u0430", "\ufeff", "/../../x", "..",
    "<script>", "@team", "é", "A" * 5_000, "\ud7ff", "\U0001f600", ", 0.0.0.0/0", "\t", "%eth0", "",
]  # fmt: skip
Path = tuple[Any, ...]


def strings(value: Any, path: Path = ()) -> Iterator[tuple[Path, bool]]:
    """Yield the path of every string, and whether it is a key."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield (*path, key), True
            yield from strings(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from strings(inner, (*path, index))
    elif isinstance(value, str):
        yield path, False


def changed(path: Path, is_key: bool, text: str) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    holder: Any = raw
    for step in path[:-1]:
        holder = holder[step]
    if is_key:
        holder[text] = holder.pop(path[-1])
    else:
        holder[path[-1]] = text
    return raw


PLACES = [(path, is_key) for path, is_key in strings(RAW) if len(path) > 1]
PLACE_IDS = [".".join(map(str, path)) + ("(key)" if is_key else "") for path, is_key in PLACES]


def wg_quick_lines(data: bytes) -> set[str]:
    return {line.strip() for line in data.decode("ascii").split("\n")}


EXPECTED = compile_files(inventory(**RAW))


def judge(raw: dict[str, Any]) -> bool:
    """Compile; whatever comes out must be harmless. Return whether bundles came out."""
    assert isinstance(EXPECTED, Compiled)
    result = compile_files(inventory(**raw))
    for diagnostic in result.diagnostics:
        assert diagnostic.message.isprintable()
        assert diagnostic.message.isascii() or "…" in diagnostic.message
        assert len(diagnostic.message) < 500
        assert str(diagnostic.where).isprintable()
    if not isinstance(result, Compiled):
        return False
    for path, data in result.files.items():
        assert data.isascii()
        if path.endswith("wg0.conf"):
            for line in wg_quick_lines(data):
                key = line.partition(" = ")[0]
                assert key in (
                    "",
                    "[Interface]",
                    "[Peer]",
                    "Address",
                    "PostUp",
                    "PublicKey",
                    "Endpoint",
                    "AllowedIPs",
                )
            assert data.count(b"PostUp") == 1
            assert data.count(b"[Peer]") == 1
        assert path.replace("/", "").replace(".", "").replace("-", "").isalnum()
        assert ".." not in path
    return True


@pytest.mark.parametrize(("path", "is_key"), PLACES, ids=PLACE_IDS)
def test_hostile_strings_are_refused_at_their_place(path: Path, is_key: bool) -> None:
    for hostile in HOSTILE:
        for text in {hostile, str(path[-1] if is_key else _value(path)) + hostile}:
            raw = changed(path, is_key, text)
            if raw == RAW:
                continue
            assert not judge(raw), (path, text[:80])


@pytest.mark.parametrize("kind", list(RAW))
def test_a_megabyte_is_refused(kind: str) -> None:
    path = next(path for path, is_key in PLACES if path[0] == kind and not is_key)
    assert not judge(changed(path, False, "A" * 1_000_000))


def _value(path: Path) -> Any:
    value: Any = RAW
    for step in path:
        value = value[step]
    return value


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PLACES), st.text(max_size=30), st.booleans())
def test_any_text_anywhere_never_reaches_a_bundle(place: tuple[Path, bool], text: str, append: bool) -> None:
    path, is_key = place
    original = str(path[-1] if is_key else _value(path))
    judge(changed(path, is_key, original + text if append else text))


READERS = {
    ("clients", "public_key"): fields.public_key,
    ("clients", "addresses"): fields.host,
    ("clients", "gateways"): fields.name,
    ("gateways", "endpoint"): fields.endpoint,
    ("gateways", "networks"): fields.network,
    ("resources", "ports"): fields.ports,
    ("policies", "from"): fields.source,
    ("policies", "to"): fields.destination,
    ("policies", "expires"): fields.instant,
}


@pytest.mark.parametrize("place", READERS, ids=".".join)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_readers_are_at_least_as_strict_as_the_schema(place: tuple[str, str], data: st.DataObject) -> None:
    """What a reader takes, the schema takes: neither lets something through on the strength of the other."""
    kind, field = place
    schema = validation.schema(kind)["additionalProperties"]["properties"][field]
    is_list = schema["type"] == "array"
    pattern = (schema["items"] if is_list else schema)["pattern"].removesuffix(r"(?![\s\S])") + r"\Z"
    text = data.draw(st.one_of(st.from_regex(pattern), st.text(max_size=60)))
    try:
        READERS[place](text)
    except fields.FieldError:
        return
    value = {"x": {field: [text] if is_list else text}}
    assert [p for p in validation.errors(kind, value) if p.keyword not in ("required",)] == []


@pytest.mark.parametrize("kind", list(RAW))
def test_schema_patterns_refuse_a_trailing_newline_and_foreign_digits(kind: str) -> None:
    text = json.dumps(validation.schema(kind))
    assert '$"' not in text
    assert "\\\\d" not in text
    for path, is_key in PLACES:
        if path[0] == kind and not is_key and path[-1] not in ("expect", "action"):
            for suffix in ("\n", "\u0661"):
                raw = changed(path, is_key, f"{_value(path)}{suffix}")
                assert validation.errors(kind, raw[kind]), path


def test_what_only_the_schema_refuses_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither check alone decides: a reader gone lenient does not let a value through."""
    monkeypatch.setattr(fields, "name", lambda text: text.strip())
    raw = changed(("clients", "alice", "gateways", 0), False, "gw\n")
    assert [d.code for d in compile_files(inventory(**raw)).diagnostics] == ["TG014"]
