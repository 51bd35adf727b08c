"""What stands on every answer, and what stands in the log."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from tidegate_control.access.headers import ALWAYS, CONTENT_SECURITY_POLICY
from unit.control.door.doorkit import Door, bearer


def test_every_answer_has_the_fields_whatever_it_is(door: Door) -> None:
    token = door.token("alice", "editor")
    client = door.client()
    answers = {
        status: client.request(method, path, headers=fields)
        for status, method, path, fields in (
            (200, "GET", "/api/v1/reader", bearer(token)),
            (303, "GET", "/pages/reader", {"accept": "text/html"}),
            (400, "GET", "/a%00b", {}),
            (401, "GET", "/api/v1/reader", {}),
            (403, "GET", "/api/v1/publisher", bearer(token)),
            (404, "GET", "/nowhere", {}),
            (405, "POST", "/weak", {}),
            (413, "POST", "/api/v1/editor", {**bearer(token), "content-length": "9999999999"}),
            (421, "GET", "/", {"host": "evil.example"}),
            (500, "GET", "/broken", {}),
        )
    }
    assert {status: answer.status_code for status, answer in answers.items()} == {s: s for s in answers}
    for status, answer in answers.items():
        assert {name: answer.headers.get_list(name) for name in ALWAYS} == {
            name: [value] for name, value in ALWAYS.items()
        }, status
        assert answer.headers["cache-control"] == "no-store", status
        assert "server" not in answer.headers
        assert "strict-transport-security" not in answer.headers  # there is no TLS here


def test_the_policy_allows_nothing_that_is_inline_or_elsewhere() -> None:
    policy = dict(part.split(" ", 1) for part in CONTENT_SECURITY_POLICY.split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert {
        policy[name] for name in ("script-src", "style-src", "img-src", "connect-src", "form-action")
    } == {"'self'"}
    assert not {"unsafe", "http", "*", "data:"} & {
        word for word in ("unsafe", "http", "*", "data:") if word in CONTENT_SECURITY_POLICY
    }


def test_a_room_can_make_none_of_them_weaker(door: Door) -> None:
    answer = door.client().get("/weak", headers=bearer(door.token()))
    assert answer.headers.get_list("content-security-policy") == [CONTENT_SECURITY_POLICY]
    assert answer.headers.get_list("x-frame-options") == ["DENY"]
    assert answer.headers["cache-control"] == "no-store"


def test_only_what_is_the_same_for_everybody_is_kept_by_caches(door: Door) -> None:
    assert door.client().get("/static/app.css").headers["cache-control"] == "max-age=60"
    assert door.client().get("/static/none.css").headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "settings",
    [{"url": "https://control.example.net"}, {"tls_cert": Path("c"), "tls_key": Path("k")}],
    ids=["proxy", "own"],
)
def test_with_tls_browsers_are_told_to_stay_with_it(tmp_path: Path, settings: dict[str, object]) -> None:
    door = Door(tmp_path / "state", settings)
    assert door.client().get("/").headers["strict-transport-security"] == "max-age=31536000"


def test_a_fault_tells_its_id_and_nothing_of_the_inside(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    for accept in ("application/json", "text/html"):
        caplog.clear()
        answer = door.client().get("/broken", headers={"accept": accept})
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "Traceback" not in answer.text
        (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
        assert line.split()[-1] in answer.text


def test_the_log_has_who_and_what_and_no_secret(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = door.token("alice")
    wrong = "tgc_00000000_" + "B" * 43
    client = door.client(address="192.0.2.1")
    client.get("/api/v1/reader?token=query-secret", headers=bearer(token))
    client.get("/api/v1/reader", headers={**bearer(wrong), "cookie": "tidegate=cookie-secret"})
    client.get("/a%20b%1b[2J%0aforged", headers=bearer(token))
    browser = door.browser()
    text = "\n".join(record.getMessage() for record in caplog.records if record.name.startswith("tidegate"))
    assert "192.0.2.1 alice GET /api/v1/reader 200 " in text
    assert "192.0.2.1 - GET /a%20b\\x1b[2J\\nforged 400 " in text
    cookies = "".join(browser.client.http.cookies.values())
    for secret in ("query-secret", "cookie-secret", token, token[13:], wrong[13:], cookies):
        assert secret
        assert secret not in text
    assert "\x1b" not in text
