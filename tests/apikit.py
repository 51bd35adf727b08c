"""The API over a bare repository with the example inventory, called in this process; callers by their scopes."""

from __future__ import annotations

import asyncio
import functools
import json
import urllib.parse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

import controlkit
from tidegate_control import api, problems
from tidegate_control.access.caller import EDITOR, GATEWAY_INTAKE, PUBLISHER, READER
from tidegate_control.app import Services, make_access, make_app
from tidegate_control.intake.store import EventStore, open_store
from tidegate_control.inventory.service import Inventory
from tidegate_control.settings import Settings
from tidegate_control.ui import routes as ui

BASE = api.PREFIX
SCOPES = (READER, EDITOR, PUBLISHER, GATEWAY_INTAKE)
_DAY = 86400


class LazyStore:
    """The intake's real store, opened by the first who asks it something: few tests do."""

    def __init__(self, state: Path) -> None:
        self._url = f"duckdb://{state}/intake.duckdb"

    @functools.cached_property
    def _store(self) -> EventStore:
        return open_store(self._url)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


class Api:
    """The server's application with the API as its one room: real tokens, real limits, a real repository."""

    def __init__(self, repository: Path, inventory: Inventory | None = None, **settings: Any) -> None:
        state = repository.parent / "state"
        state.mkdir(mode=0o700, exist_ok=True)
        self.repository = repository
        self.inventory: Inventory = inventory or controlkit.service(repository)
        self.settings = replace(Settings(repository=repository, state=state), **settings)
        access = make_access(self.settings)
        self._tokens = access.tokens
        self.tokens = {scope: self.token(scope, scope) for scope in SCOPES}
        self.events: Any = LazyStore(state)
        self.services = Services(self.settings, self.inventory, self.events, access)
        self.app = make_app(self.services, [api.routes])
        self.transport = httpx.ASGITransport(self.app, raise_app_exceptions=False, client=("127.0.0.1", 1234))

    def token(self, name: str, *scopes: str) -> str:
        """Return the text of a new token."""
        gateway = "fra1" if GATEWAY_INTAKE in scopes else None
        email = f"{name}@example.net"
        return self._tokens.add(name, scopes, seconds=90 * _DAY, email=email, gateway=gateway)[1]

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
        sent = {"Authorization": f"Bearer {self.tokens[scope]}"} if scope else {}
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        if data is not None:
            sent["Content-Type"] = "application/merge-patch+json" if method == "PATCH" else "application/json"
        if match is not None:
            sent["If-Match"] = match
        address = path if path.startswith("/api") else f"{BASE}{path}"
        answer = asyncio.run(self._send(method, address, {**sent, **(headers or {})}, data, self.transport))
        told = answer.headers.get("content-type", "")
        assert answer.status_code < 400 or told == problems.MEDIA_TYPE, answer.text
        assert "Traceback" not in answer.text
        return answer

    def page(
        self, path: str, form: Mapping[str, str] | None = None, *, scope: str = "editor"
    ) -> httpx.Response:
        """Return a page, or with a form what comes of sending it; the token stands for a session."""
        sent = {"Authorization": f"Bearer {self.tokens[scope]}"}
        data = None
        if form is not None:
            sent["Content-Type"] = "application/x-www-form-urlencoded"
            data = urllib.parse.urlencode(form).encode()
        app = make_app(self.services, [ui.routes])
        transport = httpx.ASGITransport(app, raise_app_exceptions=False, client=("127.0.0.1", 1234))
        answer = asyncio.run(self._send("GET" if data is None else "POST", path, sent, data, transport))
        assert "Traceback" not in answer.text
        return answer

    async def _send(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        data: bytes | None,
        transport: httpx.ASGITransport,
    ) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
            return await client.request(method, address, headers=headers, content=data)

    def commits(self) -> int:
        """Return how many commits the branch has."""
        return int(controlkit.git(self.repository, "rev-list", "--count", "main"))

    def file(self, path: str) -> str:
        """Return a file of the inventory as the branch has it."""
        return controlkit.git(self.repository, "show", f"main:inventory/{path}") + "\n"
