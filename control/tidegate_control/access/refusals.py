"""Turns whatever was raised into an answer, and writes a line for every request.

A fault of ours is told by an ID that the log has too: no answer shows what went on inside.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate_control.access.peer import Peers
from tidegate_control.problems import Problem

log = logging.getLogger("tidegate.control")
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
            problem = error if isinstance(error, Problem) else fault(error)
            if has_begun:
                raise
            answer = await self._answer(Request(scope), problem)
            await answer(scope, receive, send)


def fault(error: Exception) -> Problem:
    """Log a fault of ours; returns the problem that tells its ID."""
    identifier = secrets.token_hex(6)
    log.error("fault %s: %s", identifier, type(error).__name__, exc_info=error)
    return Problem(
        500, "A fault of the server", f"the log tells more under {identifier}", extra={"id": identifier}
    )


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
