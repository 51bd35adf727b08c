"""Forged requests: a page of somebody else's must not write through the cookie of whoever looks at it."""

from __future__ import annotations

from starlette.requests import HTTPConnection

FIELD = "csrf_token"
"""The field of every form that changes something; scripts send the header instead."""
HEADER = "x-csrf-token"


def csrf_token(request: HTTPConnection) -> str:
    """Return what a form of this session carries in FIELD; "" without a session."""
    return str(getattr(request.state, "csrf_token", ""))
