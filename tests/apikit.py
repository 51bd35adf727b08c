"""The API over a bare repository with the example inventory, called in this process; callers by their scopes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

import controlkit
from tidegate_control import api, problems
from tidegate_control.access.caller import Caller, closure
from tidegate_control.app import Services
from tidegate_control.inventory.service import Inventory
from tidegate_control.settings import Settings

BASE = api.PREFIX
CALLER = "x-test-caller"
JSON = {"Content-Type": "application/json"}


class Door:
    """Stands for the tokens: whoever says a scope has it. What it sets is what the guard reads."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        said = dict(scope.get("headers", ())).get(CALLER.encode(), b"").decode()
        caller = Caller(f"{said}-of-tests", f"{said}@example.net", closure([said])) if said else None
        scope.setdefault("state", {})["caller"] = caller
        await self.app(scope, receive, send)


def application(services: Services) -> ASGIApp:
    """Return the API alone, behind a door."""
    app = Starlette(routes=api.routes(services), exception_handlers=dict(problems.HANDLERS))
    return Door(app)


class Api:
    """An API to call."""

    def __init__(self, repository: Path, **settings: Any) -> None:
        self.repository = repository
        self.inventory: Inventory = controlkit.service(repository)
        self.settings = replace(Settings(repository=repository), **settings)
        self.app = application(Services(self.settings, self.inventory, None))

    def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        scope: str = "editor",
        headers: Mapping[str, str] | None = None,
        match: str | None = None,
        raw: bytes | None = None,
    ) -> Any:
        """Return the answer; `body` goes as JSON, `raw` as it is."""
        sent = {CALLER: scope} if scope else {}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        if match is not None:
            sent["If-Match"] = match
        address = path if path.startswith("/api") else f"{BASE}{path}"
        answer = asyncio.run(self._send(method, address, {**sent, **(headers or {})}, data))
        told = answer.headers.get("content-type", "")
        assert answer.status_code < 400 or told == problems.MEDIA_TYPE, answer.text
        assert "Traceback" not in answer.text
        return answer

    async def _send(
        self, method: str, address: str, headers: Mapping[str, str], data: bytes | None
    ) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://control.test") as client:
            return await client.request(method, address, headers=headers, content=data)

    def commits(self) -> int:
        """Return how many commits the branch has."""
        return int(controlkit.git(self.repository, "rev-list", "--count", "main"))

    def file(self, path: str) -> str:
        """Return a file of the inventory as the branch has it."""
        return controlkit.git(self.repository, "show", f"main:inventory/{path}") + "\n"
