"""What a request may be before anything reads it: whom it asks for, how long, how large, how slow, how many."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Collection

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tidegate_control.access.attempts import place
from tidegate_control.access.peer import Peers
from tidegate_control.problems import Problem

TARGET_MOST = 8192
HEADERS_MOST = 100
HEADERS_BYTES = 16 * 1024
_VERSIONS = ("1.0", "1.1")
BODY_SECONDS = 60.0
"""Within this a body is here, whole."""
INTAKE = "/v1/"
_SHARE = 4
"""One address has this part of the requests at most, so that it alone cannot take all of them."""
_HOST = re.compile(r"([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")
_CLOSE = {"connection": "close"}  # what is left of the body is not read


class Limits:
    """Refuses what no room should see; everything within the limits goes on."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Collection[str],
        body: int,
        intake_body: int,
        requests: int,
        peers: Peers,
    ) -> None:
        """`names` are the host names that may be asked for; `body` and `intake_body` bytes; `requests` at a time."""
        self._app, self._peers = app, peers
        self._names = frozenset(names)
        self._body, self._intake_body = body, intake_body
        self._requests = requests
        self._now: Counter[str] = Counter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer as an ASGI application; Problem 400, 408, 413, 414, 421, 431, 503, 505."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = HTTPConnection(scope)
        _check_target(scope)
        self._check_host(request)
        limit = self._intake_body if scope["path"].startswith(INTAKE) else self._body
        _check_length(request, limit)
        where = place(self._peers.address(request))
        if self._now.total() >= self._requests or self._now[where] >= max(1, self._requests // _SHARE):
            raise Problem(503, "Busy", "too many requests at a time", headers={"retry-after": "1"} | _CLOSE)
        self._now[where] += 1
        try:
            await self._app(scope, _Bounded(receive, limit), send)
        finally:
            self._now[where] -= 1
            if not self._now[where]:
                del self._now[where]

    def _check_host(self, request: HTTPConnection) -> None:
        given = request.headers.getlist("host")
        match = _HOST.fullmatch(given[0]) if len(given) == 1 else None
        if match is None:
            raise Problem(400, "Bad request", "one Host field, with a name, is needed")
        if match[1].lower() not in self._names:
            detail = f"no server of the name {match[1]} is here; an admin adds it to the setting hosts"
            raise Problem(421, "Wrong server", detail)


def _check_target(scope: Scope) -> None:
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    if len(raw) + len(scope["query_string"]) > TARGET_MOST:
        raise Problem(414, "Address too long", f"at most {TARGET_MOST} bytes are read")
    if scope["http_version"] not in _VERSIONS:
        raise Problem(505, "Another HTTP", "HTTP/1.1 is spoken here")
    headers: list[tuple[bytes, bytes]] = scope["headers"]
    # h11 bounds only what has not come whole yet.
    if len(headers) > HEADERS_MOST or sum(len(name) + len(value) for name, value in headers) > HEADERS_BYTES:
        detail = f"at most {HEADERS_MOST} fields with {HEADERS_BYTES} bytes are read"
        raise Problem(431, "Too many header fields", detail)
    path: str = scope["path"]
    # Names have none of these, and no two programs agree on what they mean. U+FFFD is what no UTF-8 becomes.
    if not path.startswith("/") or path.startswith("//") or "\\" in path or "\ufffd" in path:
        raise Problem(400, "Bad request", "the path is none that is served here")
    if not path.isprintable() or {".", ".."} & set(path.split("/")):
        raise Problem(400, "Bad request", "the path is none that is served here")


def _check_length(request: HTTPConnection, limit: int) -> None:
    """Refuse a body that says beforehand that it is too large, or says its length in two ways (request smuggling)."""
    if "transfer-encoding" in request.headers and "content-length" in request.headers:
        raise Problem(400, "Bad request", "a body has one length", headers=_CLOSE)
    told = request.headers.get("content-length", "0")
    if not re.fullmatch(r"[0-9]{1,18}", told):
        raise Problem(400, "Bad request", "Content-Length is no number", headers=_CLOSE)
    if int(told) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> Problem:
    return Problem(413, "Too large", f"a body has at most {limit} bytes here", headers=_CLOSE)


class _Bounded:
    """Receives a body of at most `limit` bytes in at most BODY_SECONDS; Problem 413 and 408."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit = receive, limit
        self._bytes = 0
        self._is_whole = False
        self._deadline = asyncio.get_running_loop().time() + BODY_SECONDS

    async def __call__(self) -> Message:
        if self._is_whole:  # then it waits for the end of the connection, for as long as the answer takes
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            detail = f"the body was not here within {BODY_SECONDS:g} seconds"
            raise Problem(408, "Too slow", detail, headers=_CLOSE) from None
        self._bytes += len(message.get("body", b""))
        if self._bytes > self._limit:
            raise _too_large(self._limit)
        self._is_whole = not message.get("more_body", False)
        return message
