"""Turns whatever was raised into an answer, and writes a line for every request.

A fault of ours is told by an ID that the log has too: no answer shows what went on inside.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate_control import problems
from tidegate_control.access.peer import Peers
from tidegate_control.problems import Problem

requests = logging.getLogger("tidegate.control.requests")
_PATH_MOST = 200
Answer = Callable[[Request, Problem], Awaitable[Response]]


class Refusals:
    """Answers Problems and faults of everything inside it."""

    def __init__(self, app: ASGIApp, *, answer: Answer) -> None:
        self._app, self._answer = app, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application; raises only when an answer broke off in the middle."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_begun = False

        async def noting(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception as error:
            if has_begun:
                raise
            answer = await self._answer(Request(scope), problems.of(error))
            await answer(scope, receive, send)


class RequestLog:
    """Logs each request in one line: who, what, status, time. No query, no header: they may hold secrets."""

    def __init__(self, app: ASGIApp, *, peers: Peers) -> None:
        self._app, self._peers = app, peers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.monotonic()
        scope.setdefault("state", {})  # where Authentication notes the caller
        status = 0

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            connection = HTTPConnection(scope)
            caller = getattr(connection.state, "caller", None)
            requests.info(
                "%s %s %s %s %d %.0fms",
                self._peers.address(connection),
                caller.name if caller else "-",
                _printable(scope["method"]),
                _printable(scope["path"]),
                status,
                1000 * (time.monotonic() - began),
            )


def _printable(text: str) -> str:
    shown = text[:_PATH_MOST].replace(" ", "%20")
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in shown)
