"""An application that has the intake alone, and one who asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from tidegate_control import intake, problems
from tidegate_control.access.caller import GATEWAY_INTAKE, READER, Caller
from tidegate_control.intake.store import EventStore
from tidegate_control.problems import Problem
from tidegate_control.settings import Settings

TOKENS = {
    "tgc_fra1": Caller("fra1", "", frozenset([GATEWAY_INTAKE]), "fra1"),
    "tgc_ams1": Caller("ams1", "", frozenset([GATEWAY_INTAKE]), "ams1"),
    "tgc_loose": Caller("loose", "", frozenset([GATEWAY_INTAKE]), None),
    "tgc_reader": Caller("eve", "eve@example.net", frozenset([READER])),
}


class _Who(BaseHTTPMiddleware):
    """What stands for the door: the caller of a token that a test knows."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        request.state.caller = TOKENS.get(token)
        return await call_next(request)


def application(store: EventStore, **settings: Any) -> Starlette:
    services: Any = SimpleNamespace(settings=Settings(Path("/nowhere"), **settings), events=store)
    return Starlette(
        routes=intake.routes(services),
        middleware=[Middleware(_Who)],
        exception_handlers={Problem: problems.answer},
    )


class Client:
    """Asks an application in this process."""

    def __init__(self, app: Starlette) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://control.example.net")

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()
