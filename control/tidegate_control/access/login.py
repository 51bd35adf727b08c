"""Logging in and out: a token becomes a session, in a cookie that no script reads and no other site sends.

SameSite=Strict, not Lax: nothing here is reached from another site, and whoever follows a link from a mail is asked to
log in, or just reloads the page.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from urllib.parse import parse_qs

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route

from tidegate_control.access import pages
from tidegate_control.access.authentication import Access, cookie_of
from tidegate_control.access.caller import READER
from tidegate_control.access.csrf import FORM
from tidegate_control.access.onward import LOGIN, LOGOUT, local
from tidegate_control.problems import Problem

_FIELDS_MOST = 10
Page = Callable[[Request, int, str, str], Awaitable[Response]]
"""Renders the form: request, status, what was wrong ("" at first), and the path to go to afterwards."""


def routes(access: Access, page: Page = pages.login) -> list[BaseRoute]:
    """Return GET and POST /login and POST /logout."""

    async def show(request: Request) -> Response:
        onward = local(request.query_params.get("next", "/"))
        if getattr(request.state, "session", None) is not None:
            return RedirectResponse(onward, 303)
        return await page(request, 200, "", onward)

    async def begin(request: Request) -> Response:
        token, onward = await _form(request)
        try:
            identifier = await begin_session(access, request, token)
        except Problem as problem:
            answer = await page(request, problem.status, problem.detail, onward)
            answer.headers.update(problem.headers)
            return answer
        answer = RedirectResponse(onward, 303)
        _set_cookie(access, answer, identifier)
        return answer

    async def finish(request: Request) -> Response:
        identifier = getattr(request.state, "session", None)
        if identifier is not None:  # else nothing was checked, and there is nothing to end
            await run_in_threadpool(access.sessions.finish, identifier)
        answer = RedirectResponse(LOGIN, 303)
        answer.delete_cookie(
            access.cookie, path="/", secure=access.is_secure, httponly=True, samesite="strict"
        )
        return answer

    return [
        Route(LOGIN, show, methods=["GET"]),
        Route(LOGIN, begin, methods=["POST"]),
        Route(LOGOUT, finish, methods=["POST"]),
    ]


async def begin_session(access: Access, request: Request, text: str) -> str:
    """Return a new session's ID; the one that the browser had before ends. Problem 401, 403 and 429."""
    token = access.token(request, text)
    if READER not in token.caller().scopes:
        detail = f"the token {token.name} is a gateway's: it brings events, and shows nobody anything"
        raise Problem(403, "Not allowed", detail)
    before = cookie_of(request, access.cookie)
    if before:
        await run_in_threadpool(access.sessions.finish, before)
    return await run_in_threadpool(access.sessions.begin, token.id)


async def _form(request: Request) -> tuple[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM:
        raise Problem(415, "Not a form", f"send {FORM}")
    try:
        found = parse_qs((await request.body()).decode("ascii"), max_num_fields=_FIELDS_MOST)
    except ValueError:
        raise Problem(400, "Not a form", "the form cannot be read") from None
    return found.get("token", [""])[0].strip(), local(found.get("next", ["/"])[0])


def _set_cookie(access: Access, answer: Response, identifier: str) -> None:
    # No Max-Age: the browser forgets it at its end, and the server ends it by its own clock.
    answer.set_cookie(
        access.cookie, identifier, path="/", secure=access.is_secure, httponly=True, samesite="strict"
    )
