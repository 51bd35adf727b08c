"""What no room is to see: other hosts' requests, strange paths, too much, too slow, too many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from tidegate_control.access import limits
from unit.control.door.doorkit import BASE, Door, bearer

READ, EDIT, INTAKE = "/api/v1/reader", "/api/v1/editor", "/v1/events"


@pytest.fixture
def small(tmp_path: Path) -> Door:
    return Door(tmp_path / "state", {"body_limit": 1024, "intake_body_limit": 4096})


async def pieces(count: int, size: int = 512) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * size


@pytest.mark.parametrize(
    ("host", "status"),
    [
        *((host, 200) for host in ("127.0.0.1:8080", "127.0.0.1", "localhost", "LOCALHOST:1", "[::1]:8080")),
        *(
            (host, 421)
            for host in ("evil.example", "127.0.0.1.evil.example", "localhost.", "10.0.0.1", "[::2]")
        ),
        *(
            (host, 400)
            for host in (
                "",
                "a b",
                "127.0.0.1:x",
                "user@127.0.0.1",
                "127.0.0.1/x",
                "127.0.0.1, localhost",
                "[::1",
            )
        ),
    ],
)
def test_another_host_s_name_is_refused(door: Door, host: str, status: int) -> None:
    """A page whose name is made to point here (DNS rebinding) comes with that name."""
    fields = {**bearer(door.token()), "host": host}
    assert door.client().get(READ, headers=fields).status_code == status


def test_two_hosts_are_refused(door: Door) -> None:
    fields = [("host", "127.0.0.1"), ("host", "127.0.0.1")]
    assert door.client().get("/static/app.css", headers=fields).status_code == 400


def test_the_settings_add_names(tmp_path: Path) -> None:
    door = Door(tmp_path / "state", {"url": "https://Control.example.net", "hosts": ("alias.example.net",)})
    for host in ("control.example.net", "alias.example.net", "127.0.0.1"):
        assert door.client().get("/static/app.css", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/static/../api/v1/reader",
            "/static/%2e%2e/api/v1/reader",
            "/static/%2E%2E%2Fapi",
            "/./static/app.css",
        ),
        *(
            "//evil.example/",
            "/%2fevil.example",
            "/static\\app.css",
            "/static%5capp.css",
            "/static/%00",
            "/a%0d%0ab",
        ),
        *("/%ff", "/%c0%ae%c0%ae/", "/a%09b", "/\u202e"),
    ],
)
def test_a_path_with_a_trick_is_refused(door: Door, path: str) -> None:
    async def raw() -> int:
        """httpx mends paths, so the application is called as the server would."""
        from urllib.parse import unquote

        told: list[int] = []

        async def send(message: dict[str, object]) -> None:
            if message["type"] == "http.response.start":
                told.append(int(str(message["status"])))

        async def receive() -> dict[str, object]:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "GET",
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "scheme": "http",
            "headers": [(b"host", b"127.0.0.1")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8080),
        }
        await door.app(scope, receive, send)  # type: ignore[arg-type]
        return told[0]

    assert asyncio.run(raw()) == 400


def test_a_path_has_one_spelling_and_leads_nowhere_else(door: Door) -> None:
    answer = door.client().get(f"{READ}/", headers=bearer(door.token()))
    assert (answer.status_code, answer.headers.get("location")) == (404, None)


def test_a_long_address_and_many_fields_are_refused(door: Door) -> None:
    client = door.client()
    assert client.get("/static/app.css?" + "a" * limits.TARGET_MOST).status_code == 414
    assert client.get("/" + "a" * limits.TARGET_MOST).status_code == 414
    large = {"x-large": "a" * limits.HEADERS_BYTES}
    assert client.get("/static/app.css", headers=large).status_code == 431
    many = [(f"x-{n}", "1") for n in range(limits.HEADERS_MOST)]
    assert client.get("/static/app.css", headers=many).status_code == 431


@pytest.mark.parametrize(("path", "limit"), [(EDIT, 1024), ("/pages/editor", 1024), (INTAKE, 4096)])
def test_a_body_has_its_limit_declared_or_not(small: Door, path: str, limit: int) -> None:
    scope, more = ("gateway-intake", {"gateway": "gw1"}) if path == INTAKE else ("editor", {})
    fields = bearer(small.token("alice", scope, **more))
    client = small.client()
    assert client.post(path, content=b"x" * limit, headers=fields).json()["bytes"] == limit
    answer = client.post(path, content=b"x" * (limit + 1), headers=fields)
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert f"at most {limit} bytes" in answer.json()["detail"]
    assert client.post(path, content=pieces(limit // 512), headers=fields).json()["bytes"] == limit
    assert client.post(path, content=pieces(limit // 512 + 1), headers=fields).status_code == 413


def test_a_body_past_the_limit_is_refused_to_a_browser_too(small: Door) -> None:
    browser = small.browser("editor")
    fields = {"origin": BASE, "content-type": "application/x-www-form-urlencoded"}
    assert browser.client.post("/pages/editor", content=pieces(3), headers=fields).status_code == 413


def test_the_form_to_log_in_has_the_limit(small: Door) -> None:
    fields = {"origin": BASE, "content-type": "application/x-www-form-urlencoded"}
    assert small.client().post("/login", content=pieces(3), headers=fields).status_code == 413


@pytest.mark.parametrize("told", ["-1", "+1", "1e3", "x", "1" * 30, "0x10", " ", "\u0661"])
def test_a_length_that_is_no_number_is_refused(door: Door, told: str) -> None:
    fields = {**bearer(door.token("alice", "editor")), "content-length": told.encode()}
    assert door.client().post(EDIT, headers=fields).status_code == 400


def test_a_slow_body_is_given_up(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS", 0.05)

    async def slow() -> AsyncIterator[bytes]:
        yield b"x"
        await asyncio.Event().wait()

    answer = door.client().post(EDIT, content=slow(), headers=bearer(door.token("alice", "editor")))
    assert (answer.status_code, answer.headers["connection"]) == (408, "close")


def test_so_many_requests_are_answered_at_a_time_and_one_address_takes_a_part(tmp_path: Path) -> None:
    door = Door(tmp_path / "state", {"requests": 8})
    token = door.token("alice", "editor")

    async def flood() -> tuple[list[int], int, int]:
        release = asyncio.Event()

        async def held() -> AsyncIterator[bytes]:
            await release.wait()
            yield b"x"

        def of(address: str) -> httpx.AsyncClient:
            return door.client(address=address).http

        async def ask(address: str) -> int:
            answer = await of(address).post(EDIT, content=held(), headers=bearer(token))
            return answer.status_code

        waiting = [asyncio.ensure_future(ask(f"192.0.2.{n // 2}")) for n in range(8)]
        while door.busy() < 8:
            await asyncio.sleep(0)
        full = await of("192.0.2.99").get(READ, headers=bearer(token))
        waiting.pop().cancel()
        while door.busy() > 7:
            await asyncio.sleep(0)
        greedy = await of("192.0.2.0").get(READ, headers=bearer(token))
        assert (await of("192.0.2.99").get(READ, headers=bearer(token))).status_code == 200
        release.set()
        assert full.headers["retry-after"] == "1"
        return await asyncio.gather(*waiting), full.status_code, greedy.status_code

    assert asyncio.run(flood()) == ([200] * 7, 503, 503)
    assert door.busy() == 0
