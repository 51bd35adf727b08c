"""Errors as HTTP tells them: RFC 9457 problem details, one line a person can act on, never a traceback."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"


class Problem(Exception):  # noqa: N818 - the RFC's word
    """What went wrong with a request; raised anywhere below the routes, answered by `answer`."""

    def __init__(
        self,
        status: int,
        title: str,
        detail: str = "",
        *,
        type: str = "about:blank",
        extra: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """`extra` are further members of the document, `headers` further fields of the answer."""
        super().__init__(detail or title)
        self.status, self.title, self.detail, self.type = status, title, detail, type
        self.extra = dict(extra or {})
        self.headers = dict(headers or {})

    def document(self) -> dict[str, Any]:
        """Return the members of the JSON object (RFC 9457, section 3.1)."""
        told = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return {**self.extra, **{key: value for key, value in told.items() if value != ""}}


async def answer(_request: Request, problem: Exception) -> Response:
    """Answer with a problem: Starlette's exception handler for `Problem`."""
    assert isinstance(problem, Problem)
    body = json.dumps(problem.document(), allow_nan=False).encode()
    return Response(body, problem.status, problem.headers, MEDIA_TYPE)
