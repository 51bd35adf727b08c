"""The JSON Schemas: valid themselves, whole-string patterns, and no local setting where none belongs."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tidegate_schema import jsonfile, validation

KINDS = validation.kinds()
LOCAL = ("gateway-settings",)
FORBIDDEN = {"authz_mode", "logging_enabled", "private_key"}


def nodes(schema: Any) -> Iterator[dict[str, Any]]:
    """Yield every object inside a schema."""
    if isinstance(schema, dict):
        yield schema
        for value in schema.values():
            yield from nodes(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from nodes(value)


def test_there_is_a_schema_for_every_format() -> None:
    expected = (
        "access client-settings clients control-settings event gateway-settings gateways groups identity keys overlay "
        "peers plan policies policy readiness release replay resources suggest tests"
    )
    assert expected.split() == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_is_valid_2020_12_and_names_itself(kind: str) -> None:
    schema = validation.schema(kind)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"].endswith(f"/{kind}.schema.json")
    assert schema["title"]
    assert schema["description"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_object_admits_no_unknown_member(kind: str) -> None:
    for node in nodes(validation.schema(kind)):
        if node.get("type") == "object":
            assert "additionalProperties" in node
            assert node["additionalProperties"] is not True


@pytest.mark.parametrize("kind", KINDS)
def test_every_example_is_valid(kind: str) -> None:
    for node in nodes(validation.schema(kind)):
        if "type" in node and isinstance(node.get("examples"), list):
            for example in node["examples"]:
                assert list(Draft202012Validator(node).iter_errors(example)) == []


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LOCAL])
def test_local_settings_and_private_keys_are_in_no_other_schema(kind: str) -> None:
    schema = validation.schema(kind)
    properties = {name for node in nodes(schema) for name in node.get("properties", {})}
    assert properties.isdisjoint(FORBIDDEN)
    if kind != "event":  # an event tells which mode judged it
        assert not any(word in json.dumps(schema) for word in FORBIDDEN)


def test_no_schema_at_all_has_a_private_key() -> None:
    assert not any("private_key" in json.dumps(validation.schema(kind)) for kind in KINDS)
    assert FORBIDDEN & set(validation.schema("gateway-settings")["properties"]) == FORBIDDEN - {"private_key"}


PATTERNS = sorted(
    {node["pattern"] for kind in KINDS for node in nodes(validation.schema(kind)) if "pattern" in node}
)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_spans_the_whole_string_and_knows_ascii_only(pattern: str) -> None:
    assert pattern.startswith("^")
    assert pattern.endswith(r"(?![\s\S])")
    assert not any(loose in pattern for loose in ("$", r"\d", r"\w", ".*", ".+"))


KEY = "y" * 43 + "="
PEER = {"client_id": "0" * 32, "public_key": KEY, "allowed_ips": ["10.64.0.11/32"]}
RELEASE = {
    "format": 1, "fleet": "f", "kind": "client", "host": "h", "serial": 1, "not_after": 1, "source": "s",
    "files": {"wg0.conf": {"sha256": "0" * 64, "size": 1}},
}  # fmt: skip
EVENT = {
    "@timestamp": "2027-01-01T00:00:00.000000000Z", "observer.name": "g", "tidegate.epoch": "0" * 16,
    "event.sequence": 0, "tidegate.monotonic_ns": 0, "event.action": "packet", "tidegate.mode": "observe",
    "tidegate.verdict": "allow", "event.reason": "observed", "tidegate.generation": 1, "source.packets": 1,
    "source.bytes": 1, "tidegate.client.id": "0" * 32, "rule.name": "p",
}  # fmt: skip
POLICY = {
    "format": 1, "sets": [[0]], "clients": {"0" * 32: 0},
    "rules": [{"policy": "p", "action": "allow", "to": ["10.0.0.0/8"], "ports": ["any"]}],
}  # fmt: skip
IDENTITY = {"format": 1, "fleet": "f", "kind": "client", "host": "h", "trusted_keys": ["pem"]}
KEYS = {
    "format": 1, "fleet": "f", "version": 1, "threshold": 1,
    "keys": ["-----BEGIN PUBLIC KEY-----\n" + "A" * 59 + "=\n-----END PUBLIC KEY-----\n"],
}  # fmt: skip
SETTINGS = {
    "interface": "wg0",
    "tun": "t",
    "tun_address": "192.0.0.8",
    "masquerade": ["e"],
    "log_endpoint": "http://x",
}
VALID: list[tuple[str, Any]] = [
    ("peers", {"format": 1, "peers": [PEER]}),
    ("release", RELEASE),
    ("release", RELEASE | {"format": 2, "key_set": 0}),
    ("keys", KEYS),
    ("event", EVENT),
    ("policy", POLICY),
    ("identity", IDENTITY),
    ("gateway-settings", SETTINGS),
    ("client-settings", {"interface": "wg0", "mtu": 1420}),
]


def variants(value: Any, ending: str) -> Iterator[Any]:
    """Yield copies of a value in which one string, or one key, has `ending` after it."""
    if isinstance(value, str):
        yield value + ending
    elif isinstance(value, list):
        for index, item in enumerate(value):
            for changed in variants(item, ending):
                yield [*value[:index], changed, *value[index + 1 :]]
    elif isinstance(value, dict):
        for key, item in value.items():
            for changed in variants(item, ending):
                yield value | {key: changed}
            yield {(other + ending if other == key else other): kept for other, kept in value.items()}


@pytest.mark.parametrize(("kind", "value"), VALID, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(VALID)])
def test_no_string_and_no_key_may_end_in_a_newline(kind: str, value: Any) -> None:
    assert validation.errors(kind, value) == []
    for ending in ("\n", "\r\n", "\u2028", "\x00"):
        for changed in variants(value, ending):
            if kind == "identity" and changed.get("trusted_keys", []) != value["trusted_keys"]:
                continue  # PEM has newlines; what is in it is the key reader's business
            assert validation.errors(kind, changed) != [], changed


@pytest.mark.parametrize(("kind", "value"), VALID, ids=[f"{kind}-{n}" for n, (kind, _) in enumerate(VALID)])
@pytest.mark.parametrize("field", sorted(FORBIDDEN))
def test_a_file_that_carries_a_local_setting_is_refused_by_name(kind: str, value: Any, field: str) -> None:
    if kind == "gateway-settings" and field != "private_key":
        return
    (problem,) = validation.errors(kind, value | {field: "x"})
    assert field in problem.message
    if kind == "peers":
        changed = copy.deepcopy(value)
        changed["peers"][0][field] = "x"
        assert field in validation.errors(kind, changed)[0].message


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("release", {"serial": 1.0}),
        ("release", {"serial": True}),
        ("release", {"format": 1.0}),
        ("release", {"format": 1, "key_set": 1}),
        ("release", {"format": 2}),
        ("keys", {"threshold": 1.0}),
        ("keys", {"threshold": 0}),
        ("keys", {"keys": []}),
        ("keys", {"keys": ["pem"]}),
        ("release", {"serial": 0}),
        ("release", {"not_after": 1e9}),
        ("release", {"files": {"wg0.conf": {"sha256": "0" * 64, "size": 1.0}}}),
        ("policy", {"sets": [[0.0]]}),
        ("policy", {"clients": {"0" * 32: 0.0}}),
        ("policy", {"clients": {"0" * 32: True}}),
        ("gateway-settings", {"mtu": 1420.0}),
        ("gateway-settings", {"flush_usage": float("nan")}),
        ("gateway-settings", {"post_timeout": float("inf")}),
        ("gateway-settings", {"flush_usage": True}),
        ("gateway-settings", {"logging_enabled": 1}),
        ("gateway-settings", {"logging_enabled": "on"}),
    ],
)
def test_a_number_is_what_python_can_use_as_one(kind: str, change: dict[str, Any]) -> None:
    value = dict(reversed(VALID))[kind] | change
    assert len(validation.errors(kind, value)) == 1


def test_problems_come_in_a_stable_order_with_their_place() -> None:
    value = {"format": 2, "peers": [PEER, {"client_id": "x"}], "more": 1}
    found = validation.errors("peers", value)
    assert found == validation.errors("peers", dict(reversed(value.items())))
    assert [p.path for p in found] == [(), ("format",), ("peers", 1), ("peers", 1), ("peers", 1, "client_id")]


JUNK = st.one_of(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-2, 3).map(float),
    st.text(max_size=4),
    st.sampled_from(
        ["", "0" * 32, "0" * 64, KEY, "10.0.0.0/8", "client", "allow", "any", "tcp/1-65535", "\n", "\u0664"]
    ),
    st.lists(st.integers(0, 2), max_size=3)
    | st.dictionaries(st.text(max_size=2), st.integers(0, 2), max_size=2),
)


def changed(draw: st.DrawFn, value: Any) -> Any:
    """Return a value in which something is something else, longer, gone, or more than there was."""
    how = draw(st.sampled_from(["replace", "append", "remove", "add", "down", "down", "down"]))
    if how == "replace" or not isinstance(value, dict | list | str):
        return draw(JUNK)
    if isinstance(value, str):
        return value + draw(st.text(max_size=2)) if how != "remove" else value[:-1]
    if isinstance(value, list):
        if not value or how in ("append", "add"):
            return [*value, draw(JUNK) if draw(st.booleans()) or not value else value[0]]
        at = draw(st.integers(0, len(value) - 1))
        return [*value[:at], *([] if how == "remove" else [changed(draw, value[at])]), *value[at + 1 :]]
    if not value or how in ("append", "add"):
        return value | {draw(st.text(max_size=3)): draw(JUNK)}
    name = draw(st.sampled_from(sorted(value)))
    if how == "remove":
        return {other: kept for other, kept in value.items() if other != name}
    return value | {name: changed(draw, value[name])}


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a kind and the text of a document that is nearly right."""
    kind, value = draw(st.sampled_from(VALID))
    for _ in range(draw(st.integers(0, 2))):
        value = changed(draw, value)
    return kind, json.dumps(value).encode()


@given(documents())
@settings(max_examples=1500, deadline=None)
def test_what_is_judged_quickly_is_judged_alike(document: tuple[str, bytes]) -> None:
    kind, text = document
    fractions: list[str] = []
    try:
        value = jsonfile.parse(text, fractions)
    except jsonfile.JsonError:
        return
    assert validation.problems(kind, value, fractions) == validation.errors(kind, value)
