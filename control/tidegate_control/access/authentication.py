"""Finds out who asks, by a bearer token or by a session's cookie, and notes it for the rooms.

A request with Authorization is judged by that alone: its cookie counts for nothing. A cookie counts for nothing at
the intake. Whoever says nothing is a stranger, which is for each route to refuse (`guard.require`).
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from tidegate_control.access.attempts import Attempts
from tidegate_control.access.caller import READER
from tidegate_control.access.guard import REALM
from tidegate_control.access.limits import INTAKE
from tidegate_control.access.peer import Peers
from tidegate_control.access.sessions import Sessions, csrf_of
from tidegate_control.access.tokens import Token, Tokens, digest
from tidegate_control.problems import Problem

log = logging.getLogger("tidegate.control.access")


@dataclass(frozen=True)
class Access:
    """What decides who is let in; one for the process."""

    tokens: Tokens
    sessions: Sessions
    attempts: Attempts
    peers: Peers
    is_secure: bool
    """Whether browsers reach the server by TLS."""

    @property
    def cookie(self) -> str:
        """The session cookie's name; with __Host- a browser takes it from this very host alone (RFC 6265bis)."""
        return "__Host-tidegate" if self.is_secure else "tidegate"

    def token(self, connection: HTTPConnection, text: str) -> Token:
        """Return the live token of a text; Problem 429 when its address has to wait, 401 when it is wrong."""
        address = self.peers.address(connection)
        seconds = self.attempts.wait(address)
        if seconds:
            fields = {"retry-after": str(math.ceil(seconds))}
            raise Problem(429, "Too many failures", "too many wrong tokens from here; wait", headers=fields)
        found = self.tokens.find(text)
        if found is None:
            self.attempts.failed(address, digest(text))
            log.warning("a wrong token from %s", address)
            challenge = f'{REALM}, error="invalid_token"'
            detail = "this token is wrong, has expired, or was revoked"
            raise Problem(401, "Who are you?", detail, headers={"WWW-Authenticate": challenge})
        return found

    async def session(self, connection: HTTPConnection) -> tuple[str, Token] | None:
        """Return a session's ID and the token it stands for; None without a session that is open."""
        identifier = cookie_of(connection, self.cookie)
        session = self.sessions.find(identifier) if identifier else None
        if identifier is None or session is None:
            return None
        token = self.tokens.live(session.token)
        if token is None or READER not in token.caller().scopes:
            await run_in_threadpool(self.sessions.finish, identifier)
            return None
        return identifier, token


def cookie_of(connection: HTTPConnection, name: str) -> str | None:
    """Return a cookie's value; None when it is not there, or there twice: then somebody has slipped one in."""
    found = [
        pair.strip().partition("=")[2]
        for field in connection.headers.getlist("cookie")
        for pair in field.split(";")
        if pair.strip().partition("=")[0] == name
    ]
    return found[0] if len(found) == 1 else None


class Authentication:
    """Sets `request.state.caller`, a Caller or None, and `request.state.csrf_token` where a session is open."""

    def __init__(self, app: ASGIApp, *, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application; Problem 400, 401 and 429 for an Authorization that is not right."""
        if scope["type"] == "http":
            connection = HTTPConnection(scope)
            state = connection.state
            state.caller, state.csrf_token, state.session = None, "", None
            given = connection.headers.getlist("authorization")
            if given:
                state.caller = self._access.token(connection, _bearer(given)).caller()
            elif not scope["path"].startswith(INTAKE) and (found := await self._access.session(connection)):
                identifier, token = found
                state.caller, state.csrf_token, state.session = (
                    token.caller(),
                    csrf_of(identifier),
                    identifier,
                )
        await self._app(scope, receive, send)


def _bearer(given: list[str]) -> str:
    scheme, _, text = given[0].partition(" ")
    if len(given) != 1 or scheme.lower() != "bearer" or not text.strip():
        challenge = f'{REALM}, error="invalid_request"'
        detail = "send one token: Authorization: Bearer tgc_…"
        raise Problem(401, "Who are you?", detail, headers={"WWW-Authenticate": challenge})
    return text.strip()
