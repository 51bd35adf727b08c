"""Events as gateways write them, and an application that has the intake alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.requests import Request
from starlette.responses import Response

from tidegate_agents.events.ndjson import Ndjson
from tidegate_agents.events.otlp import Otlp
from tidegate_control import intake
from tidegate_control.access.caller import GATEWAY_INTAKE, READER, Caller
from tidegate_control.app import Services, make_app
from tidegate_control.intake import lines
from tidegate_control.intake.store import NS, Batch, EventStore, Window, open_store
from tidegate_control.settings import Settings
from tidegate_schema import event
from tidegate_schema.event import Event, Kind
from unit.agents.kit import fields
from unit.agents.test_flusher_codecs import Named

EPOCH, OTHER_EPOCH = "0123456789abcdef", "fedcba9876543210"
POLICIES = ["eng-reads-prod-db", "nobody-reads-payroll"]
NOW_S = 1_796_000_000
EVER = Window(0, (1 << 63) - 1)
TOKENS = {
    "tgc_fra1": Caller("fra1", "", frozenset([GATEWAY_INTAKE]), "fra1"),
    "tgc_ams1": Caller("ams1", "", frozenset([GATEWAY_INTAKE]), "ams1"),
    "tgc_loose": Caller("loose", "", frozenset([GATEWAY_INTAKE]), None),
    "tgc_reader": Caller("eve", "eve@example.net", frozenset([READER])),
}


class Clock:
    """The time that a store is told."""

    def __init__(self, now: float = NOW_S) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def record(seq: int = 0, **changes: Any) -> Event:
    """Return a packet's record, as `unit.agents.kit.fields` makes it, received at NOW_S and allowed by POLICIES[0]."""
    made = {"wall_ns": NOW_S * NS + seq, "generation": 3, "rule": 0, **changes}
    return Event(seq, *fields(100, **made))


def flow(seq: int, kind: Kind, **changes: Any) -> Event:
    return record(seq, kind=kind, start_ns=NOW_S * NS if kind != Kind.FLOW_OPEN else 0, **changes)


def ndjson(records: Iterable[Event], gateway: str = "fra1", epoch: str = EPOCH) -> bytes:
    """Return records as a gateway posts them."""
    codec = Ndjson(gateway, epoch, Named(POLICIES))
    text, unreadable = codec.encode(b"".join(event.LAYOUT.pack(*one) for one in records))
    assert not unreadable
    return text


def otlp(records: Iterable[Event], gateway: str = "fra1", epoch: str = EPOCH) -> bytes:
    codec = Otlp(gateway, epoch, Named(POLICIES))
    part, unreadable = codec.encode(b"".join(event.LAYOUT.pack(*one) for one in records))
    assert not unreadable
    return b"".join(codec.wrap([part]))


def batches(
    records: Iterable[Event], gateway: str = "fra1", epoch: str = EPOCH, dropped: int = 0
) -> Sequence[Batch]:
    reading = lines.read(ndjson(records, gateway, epoch), gateway, dropped=dropped)
    assert not reading.refused
    return reading.batches


def numbers(store: EventStore) -> int:
    """Return how many events the store shows, each as often as it does."""
    return sum(group.count for group in store.aggregated(EVER))


class _Who(BaseHTTPMiddleware):
    """What stands for the door: the caller of a token that a test knows."""

    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        request.state.caller = TOKENS.get(token)
        return await call_next(request)


def application(store: EventStore, **settings: Any) -> Starlette:
    services = Services(Settings(Path("/nowhere"), **settings), None, store)
    app = make_app(services, [intake.routes])
    app.add_middleware(_Who)
    return app


class Client:
    """Asks an application in this process."""

    def __init__(self, app: Starlette) -> None:
        self._runner = asyncio.Runner()
        transport = httpx.ASGITransport(app)
        self._client = httpx.AsyncClient(transport=transport, base_url="http://control.example.net")

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._runner.run(self._client.request(method, path, **options))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


def serving() -> Starlette:
    """Return the application of a server that a test starts as a process: uvicorn's factory."""
    return application(open_store(os.environ["TEST_EVENTS"], os.environ.get("TEST_PASSWORD", "")))
