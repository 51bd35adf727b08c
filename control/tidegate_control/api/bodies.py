"""A request's body as a value: one media type, bounded in size and depth, strictly JSON.

Two readers must never see two meanings in one body: duplicate keys, NaN, an integer past a double's precision, bytes
that are no UTF-8 and lone surrogates are refused, not mended.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import ClientDisconnect, Request

from tidegate_compiler.diagnostics import show
from tidegate_control.problems import Problem, named
from tidegate_schema import jsonfile

JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
MOST_BYTES = 4 << 20
"""As large as a file of the inventory may be: no object is larger."""
DEEPEST = 32
_LARGEST = 2**53  # RFC 8259, section 6: past it, readers disagree about which number is meant


async def read(request: Request, media_type: str) -> Any:
    """Return the JSON value of the body. Problem 400, 413, 415."""
    _check_type(request, media_type)
    try:
        value = jsonfile.parse(await _bytes(request))
    except jsonfile.JsonError as error:
        raise named(400, "not-json", "Not JSON", f"body: {error}") from None
    _check_value(value, DEEPEST)
    return value


async def refuse(request: Request) -> None:
    """See to it that there is no body, where an operation has none: what would be passed over is refused."""
    async for chunk in _stream(request):
        if chunk:
            raise Problem(400, detail="this operation takes no body; leave it out")


def _check_type(request: Request, media_type: str) -> None:
    fields = request.headers.getlist("content-type")
    parts = [part.strip().lower() for part in fields[0].split(";")] if len(fields) == 1 else []
    if parts[:1] != [media_type] or any(
        part not in ("charset=utf-8", 'charset="utf-8"') for part in parts[1:]
    ):
        sent = f", not {show(fields[0])}" if fields else ""
        raise Problem(415, detail=f"send Content-Type: {media_type}{sent}", headers={"Accept": media_type})
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Problem(415, detail="send the body as it is, without Content-Encoding")


async def _bytes(request: Request) -> bytes:
    data = bytearray()
    async for chunk in _stream(request):
        data += chunk
        if len(data) > MOST_BYTES:
            raise Problem(413, detail=f"a body has at most {MOST_BYTES} bytes")
    return bytes(data)


async def _stream(request: Request) -> Any:
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise Problem(400, detail="the connection ended before the body did") from None


def _check_value(value: Any, depth: int) -> None:
    if depth == 0:
        raise named(400, "not-json", "Not JSON", f"body: nested deeper than {DEEPEST} levels")
    if isinstance(value, str):
        _check_text(value)
    elif isinstance(value, int | float) and not isinstance(value, bool) and abs(value) > _LARGEST:
        raise named(400, "not-json", "Not JSON", "body: a number too large to mean the same everywhere")
    elif isinstance(value, dict):
        for key, inner in value.items():
            _check_text(key)
            _check_value(inner, depth - 1)
    elif isinstance(value, list):
        for inner in value:
            _check_value(inner, depth - 1)


def _check_text(text: str) -> None:
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise named(400, "not-json", "Not JSON", "body: half a surrogate pair, which is no character")
