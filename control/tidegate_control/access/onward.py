"""Where the form to log in is, and the way back from it: a path of this server, and nothing else."""

from __future__ import annotations

from urllib.parse import urlencode

LOGIN = "/login"
LOGOUT = "/logout"


def local(path: str) -> str:
    """Return a path of this server; "/" for anything that a browser might take for another one, or for a form."""
    is_local = path.startswith("/") and not path.startswith(("//", LOGIN, LOGOUT))
    # Browsers read a backslash as a slash, and leave out tabs and newlines.
    return path if is_local and path.isprintable() and "\\" not in path else "/"


def address(onward: str) -> str:
    """Return where to log in, to go to `onward` afterwards."""
    return LOGIN if onward == "/" else f"{LOGIN}?{urlencode({'next': onward})}"
