"""Requests that change something through a cookie: from a page of ours, with the session's token, or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tidegate_control.access.caller import EDITOR
from tidegate_control.access.csrf import FIELD
from unit.control.door.doorkit import BASE, Browser, Door, bearer, ours

PAGE = "/pages/editor"
API = "/api/v1/editor"


@pytest.fixture
def browser(door: Door) -> Browser:
    return door.browser(EDITOR)


@pytest.mark.parametrize("path", [PAGE, API])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_form_of_this_session_is_taken_and_read_by_the_room_whole(
    browser: Browser, path: str, method: str
) -> None:
    form = {FIELD: browser.csrf(), "name": "x" * 1000}
    answer = browser.client.request(method, path, data=form, headers=ours())
    assert answer.status_code == 200
    assert answer.json()["bytes"] > 1000
    by_header = browser.client.request(
        method, path, content=b"abc", headers={**ours(), "x-csrf-token": browser.csrf()}
    )
    assert by_header.json()["bytes"] == 3


@pytest.mark.parametrize("path", [PAGE, API])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_without_the_token_nothing_is_changed(browser: Browser, path: str, method: str) -> None:
    assert browser.client.request(method, path, data={"name": "x"}, headers=ours()).status_code == 403
    assert browser.client.request(method, path, json={"name": "x"}, headers=ours()).status_code == 403
    assert browser.client.request(method, path, headers=ours()).status_code == 403


def test_the_token_of_another_session_is_not_this_one_s(door: Door, browser: Browser) -> None:
    other = Browser(door)
    other.log_in(door.token("mallory", EDITOR))
    form = {FIELD: other.csrf()}
    assert browser.client.post(PAGE, data=form, headers=ours()).status_code == 403


@pytest.mark.parametrize("field", ["", "x", "é", "None", "\x00"])
def test_a_forged_token_is_refused(browser: Browser, field: str) -> None:
    assert browser.client.post(PAGE, data={FIELD: field}, headers=ours()).status_code == 403
    fields = {**ours(), "x-csrf-token": field.encode("latin-1")}
    assert browser.client.post(PAGE, headers=fields).status_code == 403


def test_a_token_that_stands_twice_or_in_the_query_counts_for_nothing(browser: Browser) -> None:
    token = browser.csrf()
    twice = {FIELD: [token, token]}
    assert browser.client.post(PAGE, data=twice, headers=ours()).status_code == 403
    assert browser.client.post(f"{PAGE}?{FIELD}={token}", headers=ours()).status_code == 403


def test_the_token_is_read_from_the_one_encoding_of_forms(browser: Browser) -> None:
    body = f"{FIELD}={browser.csrf()}".encode()
    for kind in ("text/plain", "application/json", "multipart/form-data; boundary=x"):
        fields = {**ours(), "content-type": kind}
        assert browser.client.post(PAGE, content=body, headers=fields).status_code == 403


FOREIGN: list[dict[str, str]] = [
    {},
    {"origin": "null"},
    {"origin": "https://evil.example"},
    {"origin": f"{BASE}.evil.example"},
    {"origin": "http://127.0.0.1:8081"},
    {"origin": "https://127.0.0.1:8080"},
    {"origin": ""},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"origin": BASE, "sec-fetch-site": "cross-site"},
    {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    {"referer": f"{BASE}/pages/editor"},
]


@pytest.mark.parametrize("fields", FOREIGN, ids=repr)
def test_a_page_of_another_origin_changes_nothing_even_with_the_token(
    browser: Browser, fields: dict[str, str]
) -> None:
    form = {FIELD: browser.csrf()}
    assert browser.client.post(PAGE, data=form, headers=fields).status_code == 403


@pytest.mark.parametrize("fields", FOREIGN, ids=repr)
def test_nobody_is_logged_in_as_somebody_else(door: Door, fields: dict[str, str]) -> None:
    answer = door.client().post("/login", data={"token": door.token()}, headers=fields)
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("fields", [{"origin": BASE}, {"sec-fetch-site": "same-origin"}, ours()], ids=repr)
def test_a_browser_may_send_either_of_the_two(browser: Browser, fields: dict[str, str]) -> None:
    assert browser.client.post(PAGE, data={FIELD: browser.csrf()}, headers=fields).status_code == 200


def test_behind_a_proxy_the_origin_is_that_of_the_setting(tmp_path: Path) -> None:
    url = "https://control.example.net"
    door = Door(tmp_path / "state", {"url": url})
    browser = Browser(door, url)
    browser.log_in(door.token("alice", EDITOR))
    token = browser.csrf()
    foreign = ("http://control.example.net", "https://control.example.net:81", "https://example.net")
    for origin, status in ((url, 200), *((one, 403) for one in foreign)):
        answer = browser.client.post(PAGE, data={FIELD: token}, headers={"origin": origin})
        assert answer.status_code == status, origin


def test_a_bearer_token_needs_neither(door: Door, browser: Browser) -> None:
    fields: dict[str, Any] = {**bearer(door.token("script", EDITOR)), "origin": "https://evil.example"}
    assert browser.client.post(API, content=b"x", headers=fields).status_code == 200


def test_reading_needs_neither_and_changes_nothing(browser: Browser) -> None:
    assert browser.client.get(PAGE, headers={"sec-fetch-site": "cross-site"}).status_code == 200
    assert browser.client.request("HEAD", PAGE).status_code == 200


def test_a_page_says_so_to_a_browser(browser: Browser) -> None:
    fields = {**ours(), "accept": "text/html"}
    answer = browser.client.post(PAGE, data={}, headers=fields)
    assert answer.headers["content-type"].startswith("text/html")
    assert "load the page again" in answer.text
