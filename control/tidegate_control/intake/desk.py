"""`POST /v1/events` and `POST /v1/logs`: what a gateway posts is read, stored, and only then answered with 2xx.

| answer | when | of the batch is stored |
|---|---|---|
| 200 | every event is durable, now or since before | all |
| 200 with partial_success (OTLP) | some log records are no events | all others |
| 400 | some lines are no events: the first ones are named | all others |
| 400, 408, 411, 413, 415 | the body cannot be read, or takes too long or too much | nothing |
| 401, 403 | no token, not one of a gateway, or events of another one | nothing |
| 409 | some are so old that nobody knows whether they are duplicates | all others |
| 503 with Retry-After | too much waits, or the store does not answer | nothing that is told |

A gateway counts what was not answered with 2xx as dropped, by status; so it never counts too little.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import Scope

from tidegate_control.access.caller import GATEWAY_INTAKE
from tidegate_control.access.guard import require
from tidegate_control.intake import bodies, lines, otlp
from tidegate_control.intake.bodies import Room
from tidegate_control.intake.commit import Committer, Full
from tidegate_control.intake.lines import TOLD_MOST, Reading
from tidegate_control.intake.readers import Readers
from tidegate_control.intake.store import Added, StoreError
from tidegate_control.problems import Problem

if TYPE_CHECKING:
    from tidegate_control.app import Services

NDJSON = "application/x-ndjson"
PAUSE_S, LONG_PAUSE_S = 1, 5
"""Seconds that a gateway is asked to wait: where too much waits, and where the store does not answer."""
READ_S = 60.0
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_Read = Callable[[bytes], Reading]


def routes(services: Services) -> Sequence[BaseRoute]:
    """Return the routes of the intake."""
    desk = Desk(Committer(services.events), services.settings.intake_body_limit)
    return [
        _Whole("/v1/events", desk.events, methods=["POST"]),
        _Whole("/v1/logs", desk.logs, methods=["POST"]),
    ]


class _Whole(Route):
    """Answers other methods with 405 itself: the pages, whose paths have any shape, would take them for theirs."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        match, child = super().matches(scope)
        return (Match.NONE if match is Match.NONE else Match.FULL), child


class Desk:
    """Takes batches in."""

    def __init__(self, committer: Committer, limit: int) -> None:
        """`limit` bounds a body's bytes, as it comes and unpacked."""
        self._committer, self._limit, self._room = committer, limit, Room()
        self._readers = Readers()

    async def events(self, request: Request) -> Response:
        """Take NDJSON."""
        gateway = _gateway(request)
        _content_type(request, (NDJSON,))
        dropped = _dropped(request)
        reading, added = await self._take(
            request, gateway, lambda body: lines.read(body, gateway, dropped=dropped)
        )
        told = _counts(reading, added)
        if reading.refused:
            raise _refused(reading, told)
        return Response(json.dumps(told), media_type="application/json")

    async def logs(self, request: Request) -> Response:
        """Take OTLP."""
        gateway = _gateway(request)
        kind = _content_type(request, (otlp.PROTOBUF, otlp.JSON))
        dropped = _dropped(request)
        reading, _ = await self._take(
            request, gateway, lambda body: otlp.read(kind, body, gateway, dropped=dropped)
        )
        why = f"{_first(reading)}" if reading.refused else ""
        return Response(otlp.answer(kind, len(reading.refused), why), media_type=kind)

    async def _take(self, request: Request, gateway: str, read: _Read) -> tuple[Reading, list[Added]]:
        encoding = request.headers.get("content-encoding", "identity").lower()
        if encoding not in bodies.ENCODINGS:
            raise Problem(415, "Unknown encoding", f"Content-Encoding: one of {', '.join(bodies.ENCODINGS)}")
        try:
            with self._room.of(gateway) as take:
                async with asyncio.timeout(READ_S):
                    body = await bodies.received(request.stream(), self._limit, take)
                reading = await self._readers.read(
                    gateway, lambda: read(bodies.unpacked(encoding, body, self._limit, take))
                )
                added = (
                    await asyncio.wrap_future(self._committer.submit(reading.batches))
                    if reading.batches
                    else []
                )
        except bodies.Refused as error:
            raise Problem(error.status, "Unreadable batch", str(error)) from None
        except lines.TooMany as error:
            raise Problem(413, "Too many events", str(error)) from None
        except lines.Foreign as error:
            raise Problem(403, "Another gateway's events", str(error)) from None
        except TimeoutError:
            raise Problem(408, "Too slow", f"a body has to be here within {READ_S:.0f} s") from None
        except ClientDisconnect:
            raise Problem(400, "Unreadable batch", "it ends too early") from None
        except ValueError as error:
            raise Problem(400, "Unreadable batch", str(error)) from None
        except (bodies.Crowded, Full) as error:
            raise _pause(PAUSE_S, str(error)) from None
        except StoreError:
            # What the store says is for its own log: a gateway has no use for paths and tables.
            raise _pause(LONG_PAUSE_S, "the events cannot be stored at the moment") from None
        late = sum(one.late for one in added)
        if late:
            raise Problem(
                409,
                "Too late",
                f"{late} events are too old to tell them from duplicates",
                extra=_counts(reading, added),
            )
        return reading, added


def _gateway(request: Request) -> str:
    caller = require(request, GATEWAY_INTAKE)
    if caller.gateway is None:
        raise Problem(403, "Not allowed", f"the token {caller.name} is no gateway's")
    return caller.gateway


def _content_type(request: Request, known: tuple[str, ...]) -> str:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given not in known:
        raise Problem(415, "Unknown media type", f"send Content-Type: {' or '.join(known)}")
    return given


def _dropped(request: Request) -> int:
    """Return what the gateway says that its ring has dropped; what is no number says nothing."""
    given = request.headers.get("tidegate-dropped", "")
    return min(int(given), lines.COUNT_MOST) if _NUMBER.fullmatch(given) else 0


def _counts(reading: Reading, added: list[Added]) -> dict[str, int]:
    return {
        "stored": sum(one.new for one in added),
        "duplicates": sum(one.duplicate for one in added),
        "refused": len(reading.refused),
    }


def _first(reading: Reading) -> str:
    first = reading.refused[0]
    return f"{first.line}: {first.why}"


def _refused(reading: Reading, told: dict[str, int]) -> Problem:
    named = [{"line": one.line, "why": one.why} for one in reading.refused[:TOLD_MOST]]
    detail = f"line {_first(reading)}"
    return Problem(400, "Lines that are no events", detail, extra={**told, "lines": named})


def _pause(seconds: int, why: str) -> Problem:
    return Problem(503, "Not now", why, headers={"Retry-After": str(seconds)})
