"""The two pages of the door, in the frame of the others' style sheet: the form to log in, and a refusal."""

from __future__ import annotations

from functools import cache

import jinja2
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from tidegate_control import problems
from tidegate_control.access.csrf import csrf_token
from tidegate_control.access.onward import VARY, address, is_part, page_of, redirection

_MACHINES = ("/api/", "/v1/")


@cache
def _templates() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("tidegate_control.access"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


async def login(_request: Request, status: int, wrong: str, onward: str) -> Response:
    """Return the form to log in; `wrong` is what was wrong with the last try."""
    text = _templates().get_template("login.html").render(wrong=wrong, onward=onward)
    return HTMLResponse(text, status)


async def refuse(request: Request, error: Exception) -> Response:
    """Answer whatever was raised: a page to a browser, or the way to the form to log in; JSON to everybody else."""
    problem = problems.of(error)
    if not _wants_page(request):
        return problems.response(problem)
    if problem.status == 401 and (request.method in ("GET", "HEAD") or is_part(request)):
        return redirection(request, address(page_of(request)), 401)
    text = (
        _templates().get_template("refused.html").render(problem=problem, session=bool(csrf_token(request)))
    )
    return HTMLResponse(text, problem.status, {**problem.headers, **VARY})


def _wants_page(request: Request) -> bool:
    if request.url.path.startswith(_MACHINES):
        return False
    return is_part(request) or "text/html" in request.headers.get("accept", "")
