"""Errors as HTTP tells them: RFC 9457 problem details, one line a person can act on, never a traceback.

    Problem            raised by a room                          its own status
    InventoryError     raised by the inventory service           404, 409, 412, 422, 503 (`of_inventory`)
    HTTPException      raised by the router                      404, 405 (`of_http`)
    anything else      a mistake of ours                         500 with an ID that the server's log has (`of_crash`)

What a client sent is quoted as `show` quotes it, so a page, a terminal or a log that prints a problem is safe.
"""

from __future__ import annotations

import http
import json
import logging
import secrets
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from tidegate_compiler.codes import CODES
from tidegate_compiler.diagnostics import Diagnostic, show_path
from tidegate_compiler.edit.remove import Loss
from tidegate_compiler.formats.sarif import texts
from tidegate_control.inventory import errors
from tidegate_control.inventory.errors import InventoryError

MEDIA_TYPE = "application/problem+json"
TYPES = "https://tidegate.example/problems/"
"""Where the types of problems are named, as the schemas are below /schema/: identifiers, not addresses."""
MOST = 100
"""Diagnostics that one answer or page tells; one mistake in an overlay may make a hundred thousand."""
_LOG = logging.getLogger(__name__)
_OF_INVENTORY: tuple[tuple[type[InventoryError], int, str, str], ...] = (
    (errors.NotFound, 404, "not-found", "No such thing"),
    (errors.Exists, 409, "exists", "The name is taken"),
    (errors.Stale, 412, "stale", "The inventory has changed"),
    (errors.Invalid, 422, "invalid", "The inventory would have errors"),
    (errors.Refused, 409, "refused", "Cannot be done like this"),
    (errors.Unavailable, 503, "unavailable", "The repository does not answer"),
)


class Problem(Exception):  # noqa: N818 - the RFC's word
    """What went wrong with a request; raised anywhere below the routes, answered by `answer`."""

    def __init__(
        self,
        status: int,
        title: str = "",
        detail: str = "",
        *,
        type: str = "about:blank",
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`extra` are further members of the document, `headers` further fields of the answer."""
        title = title or http.HTTPStatus(status).phrase
        super().__init__(detail or title)
        self.status, self.title, self.detail, self.type = status, title, detail, type
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """Return the members of the JSON object (RFC 9457, section 3.1)."""
        told = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return {**self.extra, **{key: value for key, value in told.items() if value != ""}}


def named(status: int, name: str, title: str, detail: str, **extra: Any) -> Problem:
    """Return a problem of a type of its own, for programs to tell from others of the same status."""
    return Problem(status, title, detail, type=TYPES + name, extra=extra)


def response(problem: Problem) -> Response:
    """Return the answer that tells a problem. Nobody keeps it: the next try may go well."""
    body = json.dumps(problem.document(), allow_nan=False).encode()
    return Response(body, problem.status, {"Cache-Control": "no-store", **problem.headers}, MEDIA_TYPE)


def of_inventory(error: InventoryError) -> Problem:
    """Return the problem that stands for what the inventory service raised."""
    known = next((one for one in _OF_INVENTORY if isinstance(error, one[0])), None)
    if known is None:
        return of_crash(error)
    _, status, name, title = known
    extra: dict[str, Any] = diagnostics(error.diagnostics)
    if error.losses:
        extra["losses"] = losses(error.losses)
    headers = {"Retry-After": "5"} if status == 503 else {}
    return Problem(status, title, str(error), type=TYPES + name, extra=extra, headers=headers)


def of_http(error: HTTPException) -> Problem:
    """Return the problem that stands for what the router, or a parser of Starlette's, raised."""
    headers = {**(error.headers or {})}
    phrase = http.HTTPStatus(error.status_code).phrase
    if error.status_code == 404:
        return Problem(404, detail="there is nothing at this address", headers=headers)
    if error.status_code == 405:
        allowed = f"; allowed: {headers['Allow']}" if "Allow" in headers else ""
        return Problem(405, detail=f"not with this method{allowed}", headers=headers)
    return Problem(error.status_code, detail="" if error.detail == phrase else error.detail, headers=headers)


def of_crash(error: BaseException) -> Problem:
    """Return a problem with an ID, and put the ID with the traceback into the server's log: nowhere else."""
    ident = secrets.token_hex(8)
    _LOG.error("request failed, id %s", ident, exc_info=error)
    detail = f"a mistake of the server's; its log has more under the ID {ident}"
    return Problem(500, detail=detail, type=TYPES + "mistake", extra={"id": ident})


def of(error: Exception) -> Problem:
    """Return the problem that stands for any exception."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InventoryError):
        return of_inventory(error)
    return of_http(error) if isinstance(error, HTTPException) else of_crash(error)


async def answer(_request: Request, error: Exception) -> Response:
    """Answer with a problem: Starlette's exception handler for each of HANDLERS."""
    return response(of(error))


HANDLERS = dict.fromkeys((Problem, InventoryError, HTTPException, Exception), answer)
"""What an application is given as `exception_handlers`."""


def losses(found: Iterable[Loss]) -> list[dict[str, Any]]:
    """Return what a delete takes out beside the object; `widens`: access may be gained by it."""
    return [{"where": str(one.where), "message": one.text, "widens": one.widens} for one in found]


def told(found: Sequence[Diagnostic]) -> Sequence[Diagnostic]:
    """Return the diagnostics that an answer or a page has room for; where some are left out, errors go first."""
    return found if len(found) <= MOST else sorted(found, key=lambda one: not one.is_error)[:MOST]


def diagnostics(found: Sequence[Diagnostic], member: str = "diagnostics") -> dict[str, Any]:
    """Return the two members of an answer that tell of diagnostics: those that are told, and how many there are."""
    return {member: list(map(_diagnostic, told(found))), f"{member}_total": len(found)}


def _diagnostic(one: Diagnostic) -> dict[str, Any]:
    """Return a diagnostic in the words of `validate --format json` and of its page."""
    return {
        "code": one.code,
        "name": CODES[one.code].slug,
        "severity": one.severity,
        "where": str(one.where),
        "file": show_path(one.where.file),
        "line": one.where.line,
        "column": one.where.column,
        "message": one.message,
        "hint": " ".join(texts()[one.code].split()),
    }
