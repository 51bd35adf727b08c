"""Who may do what, by the OpenAPI document itself: a new operation is in these tables the moment it is there."""

from __future__ import annotations

from typing import Any

import pytest

from apikit import BASE, SCOPES, Api
from tidegate_control.access.caller import EDITOR, GATEWAY_INTAKE, PUBLISHER, READER, closure
from tidegate_control.api import openapi
from tidegate_control.api.table import operations

DOCUMENT = openapi.document(operations())
EVERY = [
    (method.upper(), path, one)
    for path, methods in DOCUMENT["paths"].items()
    for method, one in methods.items()
]
IDS = [one["operationId"] for _, _, one in EVERY]
EDITORS = {f"{verb}{kind}" for verb in ("create", "replace", "change", "delete") for kind in (
    "Client", "Gateway", "Group", "Resource", "Policy", "AccessTest"
)} | {"replaceOverlay", "changeOverlay", "revertCommit"}  # fmt: skip
FILLED = {"{name}": "alice-laptop", "{commit}": "0" * 40, "{kind}": "client"}


def ask(api: Api, method: str, path: str, scope: str) -> Any:
    for part, value in FILLED.items():
        path = path.replace(part, value)
    return api(method, path, scope=scope)


@pytest.mark.parametrize(("method", "path", "one"), EVERY, ids=IDS)
def test_a_stranger_and_a_scope_too_little_get_nowhere(
    reading: Api, method: str, path: str, one: dict[str, Any]
) -> None:
    answer = ask(reading, method, path, "")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")
    for scope in SCOPES:
        answer = ask(reading, method, path, scope)
        if one["x-scope"] in closure([scope]):
            assert answer.status_code not in (401, 403), scope
        else:
            assert answer.status_code == 403, scope
            assert one["x-scope"] in answer.json()["detail"]


def test_what_changes_something_needs_more_than_reading() -> None:
    for method, path, one in EVERY:
        name = one["operationId"]
        wanted = PUBLISHER if name == "publish" else EDITOR if name in EDITORS else READER
        assert one["x-scope"] == wanted, name
        assert one["security"] == [{openapi.BEARER: [wanted]}]
        if method != "GET" and wanted == READER:
            assert path in ("/plan", "/validate", "/replay")  # questions with a body; they write nothing


def test_a_gateway_may_do_nothing_here() -> None:
    assert closure([GATEWAY_INTAKE]) == {GATEWAY_INTAKE}
    assert GATEWAY_INTAKE not in {one["x-scope"] for _, _, one in EVERY}


def test_there_is_no_other_address(reading: Api) -> None:
    for path in (
        "",
        "/",
        "/nope",
        "/clients/",
        "/Clients",
        "/clients/alice-laptop/x",
        "//clients",
        "/v1/events",
    ):
        answer = reading("GET", (path and f"{BASE}{path}") or BASE)
        assert answer.status_code in (400, 404), path
        assert "location" not in answer.headers


@pytest.mark.parametrize("path", DOCUMENT["paths"])
def test_another_method_is_refused_and_told_which_there_are(reading: Api, path: str) -> None:
    there = {method.upper() for method in DOCUMENT["paths"][path]}
    for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"):
        if method not in there:
            answer = ask(reading, method, path, READER)
            assert answer.status_code == 405
            assert set(answer.headers["allow"].split(", ")) == there | ({"HEAD"} if "GET" in there else set())
    if "GET" in there:
        assert ask(reading, "HEAD", path, READER).status_code == ask(reading, "GET", path, READER).status_code
