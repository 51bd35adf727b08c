"""The style, the scripts and the icon: files that are read once, and known by what is in them."""

from __future__ import annotations

import hashlib
import importlib.resources
from collections.abc import Mapping
from functools import cache

from starlette.requests import Request
from starlette.responses import Response

from tidegate_control.problems import Problem

TYPES = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}


@cache
def files() -> Mapping[str, tuple[bytes, str]]:
    """Return the files and their ETags."""
    folder = importlib.resources.files("tidegate_control.ui") / "static"
    contents = {name: (folder / name).read_bytes() for name in TYPES}
    return {name: (data, f'"{hashlib.sha256(data).hexdigest()[:32]}"') for name, data in contents.items()}


async def static(request: Request) -> Response:
    """Send one of the files; nothing else is ever looked for on the disk."""
    name = request.path_params["file"]
    if name not in files():
        raise Problem(404, "Not found")
    data, etag = files()[name]
    headers = {"etag": etag, "cache-control": "no-cache"}
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers=headers)
    return Response(data, headers=headers, media_type=TYPES[name])
