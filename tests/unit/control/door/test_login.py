"""Logging in, and the cookie that comes of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_control.access.caller import EDITOR, GATEWAY_INTAKE, READER
from tidegate_control.access.onward import address, local
from unit.control.door.doorkit import BASE, Browser, Door, bearer, ours

SECURE = "https://control.example.net"


def cookie(browser: Browser) -> tuple[str, str, set[str]]:
    """Return name, value and attributes of the cookie that the last answer set."""
    (field,) = browser.answer.headers.get_list("set-cookie")
    (name, _, value), *rest = (part.strip().partition("=") for part in field.split(";"))
    return name, value, {f"{a}={b}".rstrip("=").lower() for a, _, b in rest}


def test_a_token_becomes_a_session_in_a_cookie_that_no_script_reads(door: Door) -> None:
    browser = Browser(door)
    token = door.token("alice", EDITOR)
    assert browser.log_in(token) == 303
    assert browser.answer.headers["location"] == "/"
    name, value, attributes = cookie(browser)
    assert (name, attributes) == ("tidegate", {"httponly", "samesite=strict", "path=/"})
    assert token not in browser.answer.headers["set-cookie"]
    assert len(value) == 43
    assert browser.client.get("/pages/editor").json()["caller"] == "alice"
    assert browser.client.get("/api/v1/reader").status_code == 200


def test_with_tls_the_cookie_is_bound_to_this_very_host(tmp_path: Path) -> None:
    door = Door(tmp_path / "state", {"url": SECURE})
    browser = Browser(door, SECURE)
    assert browser.log_in(door.token()) == 303
    name, _, attributes = cookie(browser)
    assert name == "__Host-tidegate"
    assert attributes == {"secure", "httponly", "samesite=strict", "path=/"}  # and no Domain
    assert browser.client.get("/pages/reader").status_code == 200


@pytest.mark.parametrize("token", ["", "xyzzy", "tgc_00000000_" + "A" * 43, "<script>alert(1)</script>"])
def test_a_wrong_token_begins_nothing_and_is_not_shown(door: Door, token: str) -> None:
    browser = Browser(door)
    assert browser.log_in(token) == 401
    assert "set-cookie" not in browser.answer.headers
    assert 'role="alert"' in browser.answer.text
    assert not token or token not in browser.answer.text


def test_a_gateway_s_token_shows_nobody_a_page(door: Door) -> None:
    browser = Browser(door)
    assert browser.log_in(door.token("gw1", GATEWAY_INTAKE, gateway="gw1")) == 403
    assert "set-cookie" not in browser.answer.headers


def test_logging_in_gives_a_new_id_and_ends_the_old_one(door: Door) -> None:
    token = door.token()
    browser = Browser(door)
    browser.log_in(token)
    _, first, _ = cookie(browser)
    browser.log_in(token)
    _, second, _ = cookie(browser)
    assert first != second
    assert door.access.sessions.find(first) is None
    assert door.access.sessions.find(second) is not None


def test_an_id_that_somebody_else_chose_is_not_taken_up(door: Door) -> None:
    browser = Browser(door)
    browser.client.http.cookies.set("tidegate", "A" * 43)
    browser.log_in(door.token())
    assert cookie(browser)[1] != "A" * 43


def test_logging_out_ends_the_session_on_the_server(door: Door) -> None:
    browser = door.browser()
    _, value, _ = cookie(browser)
    fields = {**ours(), "x-csrf-token": browser.csrf()}
    answer = browser.client.post("/logout", headers=fields)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login")
    assert 'tidegate=""' in answer.headers["set-cookie"]
    browser.client.http.cookies.set("tidegate", value)
    assert browser.client.get("/pages/reader").status_code == 401


def test_nobody_is_logged_out_by_a_forged_request(door: Door) -> None:
    browser = door.browser()
    assert browser.client.post("/logout", headers=ours()).status_code == 403
    assert browser.client.get("/logout").status_code == 405
    assert browser.client.get("/pages/reader").status_code == 200


def test_a_session_ends_with_its_token(door: Door) -> None:
    browser = door.browser()
    door.access.tokens.revoke("browser")
    assert browser.client.get("/pages/reader").status_code == 401
    assert len(door.access.sessions._open) == 0


def test_a_session_ends_by_disuse_and_by_age(tmp_path: Path) -> None:
    door = Door(tmp_path / "state", {"session_idle": 100, "session_end": 150})
    browser = door.browser()
    door.clock.now += 99
    assert browser.client.get("/pages/reader").status_code == 200
    door.clock.now += 51
    assert browser.client.get("/pages/reader").status_code == 401
    again = Browser(door)
    again.log_in(door.token("again"))
    door.clock.now += 100
    assert again.client.get("/pages/reader").status_code == 401


def test_a_cookie_that_is_there_twice_counts_for_nothing(door: Door) -> None:
    browser = door.browser()
    _, value, _ = cookie(browser)
    stranger = door.client()
    fields = {"cookie": f"tidegate={value}; tidegate={value}"}
    assert stranger.get("/pages/reader", headers=fields).status_code == 401
    assert stranger.get("/pages/reader", headers={"cookie": f"a=b; tidegate={value}"}).status_code == 200


def test_a_cookie_counts_for_nothing_at_the_intake_or_beside_a_token(door: Door) -> None:
    browser = door.browser(EDITOR)
    assert browser.client.get("/v1/events").status_code == 401
    assert browser.client.get("/pages/editor", headers=bearer("tgc_x")).status_code == 401
    reader = door.token("reader", READER)
    assert browser.client.get("/pages/editor", headers=bearer(reader)).status_code == 403


@pytest.mark.parametrize(
    ("asked", "path"),
    [
        ("/clients/alice?tab=plan", "/clients/alice?tab=plan"),
        *(
            (asked, "/")
            for asked in (
                *("", "//evil.example", "/\\evil.example", "https://evil.example", "javascript:alert(1)"),
                *(
                    "/\t/evil.example",
                    "/a\r\nset-cookie: a=b",
                    "/login",
                    "/login?next=/login",
                    "/logout",
                    "evil",
                ),
            )
        ),
    ],
)
def test_the_way_onward_is_a_path_of_this_server(door: Door, asked: str, path: str) -> None:
    assert local(asked) == path
    browser = Browser(door)
    assert browser.log_in(door.token(), asked) == 303
    assert browser.answer.headers["location"] == path
    assert browser.answer.headers.get_list("set-cookie")[0].startswith("tidegate=")


@given(st.text(st.sampled_from("/\\.:@?#%;a1\t\n\r \0\x7f\u2028\uff0f"), max_size=12))
def test_no_text_leads_to_another_server(text: str) -> None:
    """As browsers read it (https://url.spec.whatwg.org): backslashes are slashes, tabs and newlines are not there."""
    path = local(text)
    read = re.sub(r"[\t\n\r]", "", path).replace("\\", "/")
    assert read.startswith("/")
    assert not read.startswith("//")
    assert path.isprintable()


def test_a_browser_without_a_session_is_shown_the_form_and_led_back(door: Door) -> None:
    client = door.client()
    answer = client.get("/pages/reader?a=b", headers={"accept": "text/html"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?next=%2Fpages%2Freader%3Fa%3Db")
    form = client.get(answer.headers["location"])
    assert 'name="next" value="/pages/reader?a=b"' in form.text
    assert address("/") == "/login"
    assert client.get("/api/v1/reader", headers={"accept": "text/html"}).status_code == 401


def test_a_script_of_ours_without_a_session_makes_the_browser_load_the_form_as_a_page(door: Door) -> None:
    client = door.client()
    asks = {"hx-request": "true", "accept": "*/*"}
    answer = client.get("/pages/reader?a=b", headers=asks)
    assert answer.status_code == 401, (
        "a redirection would be followed, and the form put into a part of the page"
    )
    assert answer.headers["hx-redirect"] == "/login?next=%2Fpages%2Freader%3Fa%3Db"
    assert answer.text == ""
    shown = asks | ours() | {"hx-current-url": f"{BASE}/pages/editor?c=d"}
    answer = client.post("/pages/editor", headers=shown)
    assert answer.headers["hx-redirect"] == "/login?next=%2Fpages%2Feditor%3Fc%3Dd"
    for url in (
        "",
        "http://[",
        "//evil.example",
        "https://evil.example//evil.example",
        "/\\evil.example",
        "x" * 4000,
    ):
        answer = client.post("/pages/editor", headers=shown | {"hx-current-url": url})
        assert (answer.status_code, answer.headers["hx-redirect"]) == (401, "/login"), url
    assert "hx-redirect" not in client.get("/api/v1/reader", headers=asks).headers


def test_answers_that_differ_for_a_script_of_ours_say_so(door: Door) -> None:
    client = door.client()
    for fields in ({"accept": "text/html"}, {"hx-request": "true"}):
        answer = client.get("/pages/reader", headers=fields)
        assert (answer.headers["vary"], answer.headers["cache-control"]) == ("HX-Request", "no-store")
    refused = door.browser().client.get("/pages/editor", headers={"hx-request": "true"})
    assert (refused.status_code, refused.headers["vary"]) == (403, "HX-Request")
    assert refused.headers["content-type"].startswith("text/html")


def test_the_form_shows_what_it_is_given_as_text(door: Door) -> None:
    answer = door.client().get('/login?next=/"><script>alert(1)</script>')
    assert "<script>" not in answer.text
    assert "&lt;script&gt;" in answer.text


def test_whoever_is_logged_in_is_not_asked_again(door: Door) -> None:
    answer = door.browser().client.get("/login?next=/pages/reader")
    assert (answer.status_code, answer.headers["location"]) == (303, "/pages/reader")


@pytest.mark.parametrize("kind", ["application/json", "multipart/form-data; boundary=x", "text/plain", ""])
def test_the_form_is_read_in_one_encoding(door: Door, kind: str) -> None:
    fields = {**ours(), "content-type": kind}
    assert door.client().post("/login", content=b"token=x", headers=fields).status_code == 415


@pytest.mark.parametrize("body", [b"\xff", "&".join(["a=b"] * 50).encode()])
def test_a_form_that_cannot_be_read_is_refused(door: Door, body: bytes) -> None:
    fields = {**ours(), "content-type": "application/x-www-form-urlencoded"}
    assert door.client().post("/login", content=body, headers=fields).status_code == 400
