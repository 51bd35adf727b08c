"""What a route asks first: is there a caller, and may that one do this."""

from __future__ import annotations

from starlette.requests import HTTPConnection

from tidegate_control.access.caller import SCOPES, Caller
from tidegate_control.problems import Problem

REALM = 'Bearer realm="tidegate"'


def caller_of(request: HTTPConnection) -> Caller | None:
    """Return who asks; None for a stranger, and where nothing has looked."""
    found = getattr(request.state, "caller", None)
    return found if isinstance(found, Caller) else None


def require(request: HTTPConnection, scope: str) -> Caller:
    """Return the caller when it has the scope; Problem 401 for a stranger, 403 for one without it."""
    assert scope in SCOPES, scope
    caller = caller_of(request)
    if caller is None:
        detail = "send a token: Authorization: Bearer tgc_…"
        raise Problem(401, "Who are you?", detail, headers={"WWW-Authenticate": REALM})
    if scope not in caller.scopes:
        has = ", ".join(sorted(caller.scopes)) or "no scope"
        challenge = f'{REALM}, error="insufficient_scope", scope="{scope}"'
        detail = f"this needs the scope {scope}; the token {caller.name} has {has}"
        raise Problem(403, "Not allowed", detail, headers={"WWW-Authenticate": challenge})
    return caller
