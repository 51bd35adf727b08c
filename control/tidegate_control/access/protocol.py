"""HTTP/1.1 by uvicorn and h11, with an end to its patience.

uvicorn waits for ever for a connection's first request, for the rest of a head, and for a body that nobody wants. Here
each connection has REQUEST_SECONDS to ask, counted from when it could; where there are too many, whoever has waited
longest without asking goes first; and a peer that takes nothing off the wire is given up by the kernel.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

REQUEST_SECONDS = 15.0
UNTAKEN_SECONDS = 60
"""So long may data that was sent wait to be taken (TCP_USER_TIMEOUT, tcp(7))."""


def patient(connections: int) -> type[H11Protocol]:
    """Return a protocol whose instances are at most `connections` at a time."""

    class Bounded(_Patient):
        most = connections
        waiting: dict[_Patient, None] = {}  # noqa: RUF012 - shared on purpose: those who have not asked, oldest first

    return Bounded


class _Patient(H11Protocol):
    most: int
    waiting: dict[_Patient, None]
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for a request; one connection too many ends the oldest that waits, or itself."""
        super().connection_made(transport)
        raw = transport.get_extra_info("socket")
        if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNTAKEN_SECONDS * 1000)
        self._wait()
        if len(self.connections) > self.most:
            next(iter(self.waiting)).give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait no more."""
        self._has_asked()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        """Read what came; a request that has begun is no longer waited for."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._has_asked()

    def on_response_complete(self) -> None:
        """Wait for the next request of this connection, and for what is left of a body."""
        self._wait()
        super().on_response_complete()

    def give_up(self) -> None:
        """End the connection at once; what was sent on it and not taken is lost."""
        self._has_asked()
        self.connections.discard(self)  # its end is told later, and there may be no room until then
        self.transport.abort()

    def _wait(self) -> None:
        self._has_asked()
        self.waiting[self] = None
        self._deadline = self.loop.call_later(REQUEST_SECONDS, self.give_up)

    def _has_asked(self) -> None:
        self.waiting.pop(self, None)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
