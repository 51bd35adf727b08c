"""Where the form to log in is, and the way back from it: a path of this server, and nothing else."""

from __future__ import annotations

from urllib.parse import urlencode, urlsplit

from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response

LOGIN = "/login"
LOGOUT = "/logout"
VARY = {"vary": "HX-Request"}
"""Of answers that differ for htmx, the script of the pages."""


def local(path: str) -> str:
    """Return a path of this server; "/" for anything that a browser might take for another one, or for a form."""
    is_local = path.startswith("/") and not path.startswith(("//", LOGIN, LOGOUT))
    # Browsers read a backslash as a slash, and leave out tabs and newlines.
    return path if is_local and path.isprintable() and "\\" not in path else "/"


def address(onward: str) -> str:
    """Return where to log in, to go to `onward` afterwards."""
    return LOGIN if onward == "/" else f"{LOGIN}?{urlencode({'next': onward})}"


def is_part(request: HTTPConnection) -> bool:
    """Tell whether the pages' script asks, for a part of a page."""
    return request.headers.get("hx-request") == "true"


def page_of(request: HTTPConnection) -> str:
    """Return the path of the page that somebody looks at: the one asked for, or of a script's POST the one it is on."""
    if is_part(request) and request.scope["method"] != "GET":
        try:
            shown = urlsplit(request.headers.get("hx-current-url", ""))
        except ValueError:  # a host that is none; no browser says that
            return "/"
        return local(shown.path + (f"?{shown.query}" if shown.query else ""))
    query = f"?{request.url.query}" if request.url.query else ""
    return local(request.url.path + query)


def redirection(request: HTTPConnection, path: str, status: int = 204) -> Response:
    """Return a redirection for the browser: 303, or with `status` what makes htmx load another page as a whole.

    A script's request would follow 303 by itself, and put the other page into a part of this one.
    """
    if is_part(request):
        return Response(status_code=status, headers={**VARY, "hx-redirect": path})
    return RedirectResponse(path, 303, VARY)
