"""Forged requests: a page of somebody else's must not write through the cookie of whoever looks at it.

A request that changes something and rests on a cookie needs two things: a browser that says that it comes from a page
of ours (Origin, Sec-Fetch-Site), and the session's own token, in the form or in a header. A request with a bearer
token needs neither: no browser adds one by itself. Logging in needs the first, so that nobody is logged in as
somebody else.
"""

from __future__ import annotations

import hmac
from urllib.parse import parse_qs, urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate_control.access.onward import LOGIN
from tidegate_control.problems import Problem

FIELD = "csrf_token"
"""The field of every form that changes something; scripts send the header instead."""
HEADER = "x-csrf-token"
_SAFE = ("GET", "HEAD", "OPTIONS")  # RFC 9110, section 9.2.1; no route does more for TRACE
_FIELDS_MOST = 1000
FORM = "application/x-www-form-urlencoded"


def csrf_token(request: HTTPConnection) -> str:
    """Return what a form of this session carries in FIELD; "" without a session."""
    return str(getattr(request.state, "csrf_token", ""))


class Forgery:
    """Refuses forged requests. `origin` is the server's own, None where each request's Host says it."""

    def __init__(self, app: ASGIApp, *, origin: str | None) -> None:
        self._app, self._origin = app, origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application; Problem 403."""
        if scope["type"] == "http" and scope["method"] not in _SAFE:
            request = Request(scope, receive)
            is_by_cookie = getattr(request.state, "session", None) is not None
            if is_by_cookie or scope["path"] == LOGIN:
                self._check_origin(request)
            if is_by_cookie and scope["path"] != LOGIN:
                receive = await _check_token(request)
        await self._app(scope, receive, send)

    def _check_origin(self, request: Request) -> None:
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        is_ours = site in (None, "same-origin") and (origin is None or origin.lower() == self._own(request))
        if not is_ours or (site is None and origin is None):
            raise _forged("this did not come from a page of this server")

    def _own(self, request: Request) -> str:
        """Return the origin of our pages: that of the setting where it names this host, so that http:// is another."""
        host = request.headers["host"].lower()
        if self._origin is not None and urlsplit(self._origin).hostname == urlsplit(f"//{host}").hostname:
            return self._origin
        return f"{request.scope['scheme']}://{host}"


async def _check_token(request: Request) -> Receive:
    """Compare the token that came with the session's; returns how the room receives the body that was read."""
    given = request.headers.get(HEADER)
    receive = request.receive
    if given is None:
        body = await request.body()
        receive = _again(body, request.receive)
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
            given = _field(body)
    if given is None or not hmac.compare_digest(given.encode(), csrf_token(request).encode()):
        raise _forged("the form is not one of this session; load the page again")
    return receive


def _field(body: bytes) -> str | None:
    try:
        found = parse_qs(body.decode("ascii"), max_num_fields=_FIELDS_MOST).get(FIELD, [])
    except ValueError:
        return None
    return found[0] if len(found) == 1 else None


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a receive that gives a body that was read already, then goes on with the connection."""
    told = False

    async def once_more() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return once_more


def _forged(detail: str) -> Problem:
    return Problem(403, "Not from here", detail)
