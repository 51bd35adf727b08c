"""The application with routes of the tests' own behind the door, a clock that the tests set, and raw HTTP."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from tidegate_control.access.attempts import Attempts
from tidegate_control.access.authentication import Access
from tidegate_control.access.caller import EDITOR, GATEWAY_INTAKE, PUBLISHER, READER
from tidegate_control.access.csrf import csrf_token
from tidegate_control.access.guard import require
from tidegate_control.access.limits import Limits
from tidegate_control.access.peer import Peers
from tidegate_control.access.sessions import Sessions
from tidegate_control.access.tokens import Tokens
from tidegate_control.app import Services, make_app
from tidegate_control.settings import Settings

DAY = 86400
BASE = "http://127.0.0.1:8080"


@dataclass
class Clock:
    """A clock that goes when it is told to."""

    now: float = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def rooms(_services: Services) -> Sequence[BaseRoute]:
    """Routes that say what got through, one for each scope, as the real ones ask for it."""

    def of(scope: str) -> Any:
        async def serve(request: Request) -> Response:
            caller = require(request, scope)
            body = await request.body()
            return JSONResponse({"caller": caller.name, "bytes": len(body), "csrf": csrf_token(request)})

        return serve

    async def public(request: Request) -> Response:
        return PlainTextResponse("public", headers={"cache-control": "max-age=60"})

    async def weak(request: Request) -> Response:
        require(request, READER)
        fields = {
            "content-security-policy": "default-src *",
            "x-frame-options": "ALLOWALL",
            "cache-control": "public",
        }
        return PlainTextResponse("weak", headers=fields)

    async def broken(request: Request) -> Response:
        raise RuntimeError("a secret of the inside")

    methods = ["GET", "POST", "PUT", "DELETE", "PATCH"]
    scopes = (READER, EDITOR, PUBLISHER)
    return [
        *(Route(f"/api/v1/{scope}", of(scope), methods=methods) for scope in scopes),
        *(Route(f"/pages/{scope}", of(scope), methods=methods) for scope in scopes),
        Route("/v1/events", of(GATEWAY_INTAKE), methods=["GET", "POST"]),
        Route("/static/app.css", public),
        Route("/weak", weak),
        Route("/broken", broken),
    ]


@dataclass
class Door:
    """The application on a state directory of its own."""

    state: Path
    settings: dict[str, Any] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.state.mkdir(mode=0o700, exist_ok=True)
        self.started = Settings(repository=Path(os.devnull), state=self.state, **self.settings)
        self.access = Access(
            tokens=Tokens(self.state, self.clock),
            sessions=Sessions(
                self.state, idle=self.started.session_idle, end=self.started.session_end, clock=self.clock
            ),
            attempts=Attempts(self.clock),
            peers=Peers(self.started.trusted_proxies),
            is_secure=self.started.is_secure,
        )
        self.app: Starlette = make_app(Services(self.started, None, None, self.access), [rooms])

    def token(self, name: str = "alice", *scopes: str, **more: Any) -> str:
        """Make a token, as another process would: by the file."""
        made = Tokens(self.state, self.clock).add(name, scopes or (READER,), seconds=90 * DAY, **more)
        return made[1]

    def busy(self) -> int:
        """Return how many requests are being answered."""
        at: Any = self.app.middleware_stack
        while at is not None and not isinstance(at, Limits):
            at = getattr(at, "app", None) or getattr(at, "_app", None)
        return at._now.total() if at is not None else 0

    def client(self, *, base: str = BASE, address: str = "127.0.0.1") -> Client:
        return Client(self.app, base, address)

    def browser(self, *scopes: str, base: str = BASE) -> Browser:
        """Return a browser that has logged in."""
        browser = Browser(self, base)
        assert browser.log_in(self.token("browser", *scopes)) == 303
        return browser


class Client:
    """An HTTP client in this process, without an event loop of its own; it keeps cookies and follows nothing."""

    def __init__(self, app: Starlette, base: str, address: str) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=(address, 1234))
        self.http = httpx.AsyncClient(transport=transport, base_url=base)

    def request(self, method: str, path: str, **more: Any) -> httpx.Response:
        return asyncio.run(self.http.request(method, path, **more))

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.request("GET", path, **more)

    def post(self, path: str, **more: Any) -> httpx.Response:
        return self.request("POST", path, **more)


class Browser:
    """A client that keeps cookies and says where its forms come from, as browsers do."""

    def __init__(self, door: Door, base: str = BASE) -> None:
        self.base = base
        self.client = door.client(base=base)

    def log_in(self, token: str, onward: str = "/") -> int:
        form = {"token": token, "next": onward}
        self.answer = self.client.post("/login", data=form, headers=ours(self.base))
        return int(self.answer.status_code)

    def csrf(self) -> str:
        return str(self.client.get("/pages/reader").json()["csrf"])


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def ours(base: str = BASE) -> dict[str, str]:
    """Return what a browser says of a form on a page of the server's own."""
    return {"origin": base, "sec-fetch-site": "same-origin"}
