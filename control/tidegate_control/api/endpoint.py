"""From a request to an answer: may the caller, is it well formed, has it the answer already; then the handler.

require -> path, parameters -> body -> If-None-Match -> remembered? -> handler (in a thread) -> answer

What is raised on the way (Problem, InventoryError, a mistake of ours) the application answers, as `problems` has it.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tidegate_control.access.guard import require
from tidegate_control.api import bodies, parameters, paths, preconditions
from tidegate_control.api.made import Made
from tidegate_control.api.operation import Answer, Call, Operation
from tidegate_control.problems import Problem
from tidegate_schema import jsonfile

if TYPE_CHECKING:
    from tidegate_control.app import Services


def route(services: Services, made: Made, operations: Sequence[Operation]) -> Route:
    """Return the route of the operations on one path."""
    methods = {operation.method: operation for operation in operations}

    async def endpoint(request: Request) -> Response:
        return await _answered(services, made, methods, request)

    # Every method comes here, so that one that is not allowed is told all that are.
    found = Route(operations[0].path, endpoint)
    found.methods = None
    return found


async def _answered(
    services: Services, made: Made, methods: dict[str, Operation], request: Request
) -> Response:
    operation = methods.get("GET" if request.method == "HEAD" else request.method)
    if operation is None:
        allowed = sorted({*methods, *({"HEAD"} if "GET" in methods else ())})
        detail = f"not with this method; allowed: {', '.join(allowed)}"
        raise Problem(405, detail=detail, headers={"Allow": ", ".join(allowed)})
    caller = require(request, operation.scope)
    paths.check(request.path_params)
    query = parameters.read(operation.parameters, request.query_params.multi_items())
    if operation.body is None:
        await bodies.refuse(request)
        body = None
    else:
        body = await bodies.read(request, operation.body.media_type)
    call = Call(services, made, caller, request.path_params, query, request.headers, body)
    return _response(await run_in_threadpool(_run, operation, call))


def _run(operation: Operation, call: Call) -> Answer:
    if operation.is_conditional and "at" not in call.query and "if-none-match" in call.headers:
        head = call.services.inventory.head()
        if preconditions.is_known(call.headers["if-none-match"], head):
            return Answer(None, 304, head)
    if operation.is_costly:
        return _remembered(operation, call)
    if call.query.get("dry_run"):  # which, unlike a write, waits for no other
        return call.services.costly.once(call.caller.name, lambda: operation.handler(call))
    return operation.handler(call)


def _remembered(operation: Operation, call: Call) -> Answer:
    """Return what the handler answers, or has answered to the same question about the same revision."""
    inventory = call.services.inventory
    head = inventory.head()

    def compute() -> Answer:
        answer = operation.handler(call)
        return answer if answer.pieces is not None else replace(answer, body=_bytes(answer.body))

    def size(answer: Answer) -> int | None:
        # Pieces go once, and what was answered of a revision that came meanwhile, and may have gone again, is not that
        # of this one.
        is_of_another = inventory.head() != head or answer.commit not in (None, head)
        return None if answer.pieces is not None or is_of_another else len(answer.body)

    asked = jsonfile.canonical([dict(call.path), dict(call.query), call.body])
    question = (operation.id, head, _second(operation, call), hashlib.sha256(asked).digest())
    return call.services.costly.answer(call.caller.name, question, compute, size)


def _second(operation: Operation, call: Call) -> int | None:
    """Return the time where the answer depends on it: `at` says now, or is left out where that means now."""
    takes_at = any(parameter.name == "at" for parameter in operation.parameters)
    at = call.query.get("at", None if operation.is_conditional else "now")
    return int(time.time()) if takes_at and at == "now" else None


def _response(answer: Answer) -> Response:
    headers = dict(answer.headers)
    if answer.commit is not None:
        headers["ETag"] = preconditions.etag(answer.commit)
    if answer.status == 304:
        return Response(None, 304, headers)
    if answer.pieces is not None:
        return StreamingResponse(answer.pieces, answer.status, headers, answer.media_type)
    return Response(_bytes(answer.body), answer.status, headers, answer.media_type)


def _bytes(body: Any) -> bytes:
    if isinstance(body, bytes):
        return body
    try:
        return jsonfile.canonical(body)
    except ValueError:  # YAML has .inf and .nan, JSON has not; who mends the file wants to see them
        return jsonfile.canonical(_finite(body))


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
