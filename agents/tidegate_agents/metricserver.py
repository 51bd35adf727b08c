"""Serves metrics on a socket of this host, in a thread that nothing waits for.

It answers `GET /metrics` and nothing else, reads no body, keeps no connection, and gives nobody more than 5 s to ask
and 5 s to read. Where more than a few are connected, whoever has been there longest without asking goes first, so that
clients who only hold on keep nobody out. A page is made again only after four times as long as it took, so that even
a flood of requests costs a fifth of a processor at most.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import stat
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from tidegate_agents.files import FileRefused
from tidegate_agents.host import HostError, Places
from tidegate_agents.metricpage import CONTENT_TYPE

log = logging.getLogger("tidegate.metrics")

SOCKET, OFF = "socket", "off"
"""Values of the setting `metrics_listen`; every other one is an address."""
_MODE = 0o660
_SECONDS = 5.0
_HEAD_MAX_BYTES = 8192
_CONNECTIONS_MOST = 16
_BACKLOG = 128  # they wait in the kernel, and are judged one by one
_PAGE_REST = 4
_JOIN_SECONDS = 1.0
FAILURES = (OSError, HostError, FileRefused, ValueError, KeyError, TypeError, subprocess.SubprocessError)
"""What a source of metrics may raise where it has no answer."""
Answer = TypeVar("Answer")


class Sparing(Generic[Answer]):
    """Asks, and for `rest` times as long as asking took gives the same answer again, also when that was a failure."""

    def __init__(self, ask: Callable[[], Answer], rest: float) -> None:
        self._ask, self._rest = ask, rest
        self._not_before = 0.0
        self._outcome: Answer | Exception

    def __call__(self) -> Answer:
        """Return the answer."""
        if time.monotonic() >= self._not_before:
            start = time.monotonic()
            try:
                self._outcome = self._ask()
            except FAILURES as error:
                self._outcome = error
            end = time.monotonic()
            self._not_before = end + self._rest * (end - start)
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def socket_file(places: Places) -> Path:
    """Return where the socket is: not in RUN/gateway, which is root's alone."""
    return places.run.with_name(f"{places.kind}-metrics.sock")


class MetricServer:
    """Keeps what the setting `metrics_listen` asks for."""

    def __init__(self, places: Places, page: Callable[[], bytes]) -> None:
        self._file = socket_file(places)
        self._page = page
        self._listen = OFF
        self._server: _Server | None = None
        self._problem = ""

    def follow(self, listen: str) -> None:
        """Serve where `listen` says; what cannot be is logged and tried again."""
        if listen == self._listen and (listen == OFF or (self._server is not None and self._server.alive)):
            return
        self.stop()
        self._listen = listen
        if listen == OFF:
            return
        try:
            self._server = _Server(self._bind(listen), Sparing(self._page, _PAGE_REST))
            self._problem = ""
        except (OSError, HostError, RuntimeError) as error:  # RuntimeError: no thread can be started
            if self._problem != str(error):
                log.error("no metrics at %s: %s", self._file if listen == SOCKET else listen, error)
            self._problem = str(error)

    def stop(self) -> None:
        """Serve no more, and take the socket away."""
        if self._server is not None:
            self._server.stop()
            self._server = None
            if self._listen == SOCKET:
                self._file.unlink(missing_ok=True)

    def _bind(self, listen: str) -> socket.socket:
        return _bind_file(self._file) if listen == SOCKET else _bind_port(listen)


def _bind_file(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise HostError("something that is no socket is in its place")
        path.unlink()  # an agent's that was killed: the host's lock says that no other one runs
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        bound.bind(str(path))
        # Before it listens, so that nobody whom these keep out is let in.
        group = path.parent.stat().st_gid
        if group != os.getegid():
            os.chown(path, -1, group)
        path.chmod(_MODE)
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


def _bind_port(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    bound = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((host.strip("[]"), int(port)))
        bound.listen(_BACKLOG)
    except OSError:
        bound.close()
        raise
    return bound


class _Server:
    """A thread that answers on a listening socket."""

    def __init__(self, bound: socket.socket, page: Callable[[], bytes]) -> None:
        self._bound, self._page = bound, page
        self._waiting: dict[asyncio.StreamWriter, None] = {}  # those who have not asked yet, oldest first
        self._answering = 0
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        with contextlib.ExitStack() as undo:
            undo.callback(bound.close)
            self._loop = asyncio.new_event_loop()
            undo.callback(self._loop.close)
            self._thread.start()
            undo.pop_all()

    @property
    def alive(self) -> bool:
        """Whether somebody answers."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """Have it end; does not wait for a page that is being made."""
        with contextlib.suppress(RuntimeError):  # it has ended
            self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(_JOIN_SECONDS)

    def _run(self) -> None:
        self._loop.set_exception_handler(lambda _loop, about: log.error("metrics: %s", about["message"]))
        try:
            with self._bound, asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._serve())
        except OSError as error:
            log.error("metrics: %s", error)

    async def _serve(self) -> None:
        server = await asyncio.start_server(
            self._answer, sock=self._bound, limit=_HEAD_MAX_BYTES, backlog=_BACKLOG
        )
        await self._stopping.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._waiting) + self._answering >= _CONNECTIONS_MOST and not self._send_one_away():
            writer.transport.abort()
            return
        self._waiting[writer] = None
        try:
            async with asyncio.timeout(_SECONDS):
                head = await reader.readuntil(b"\r\n\r\n")
            if self._waiting.pop(writer, self) is not self:
                await self._respond(writer, head)
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass  # too slow, too long, or gone
        finally:
            self._waiting.pop(writer, None)
            writer.transport.abort()

    def _send_one_away(self) -> bool:
        for oldest in self._waiting:
            del self._waiting[oldest]
            oldest.transport.abort()
            return True
        return False

    async def _respond(self, writer: asyncio.StreamWriter, head: bytes) -> None:
        self._answering += 1
        try:
            answer = self._response(head)
            async with asyncio.timeout(_SECONDS):
                writer.write(answer)
                writer.close()
                await writer.wait_closed()
        finally:
            self._answering -= 1

    def _response(self, head: bytes) -> bytes:
        method, target = (*head.split(b"\r\n", 1)[0].split(b" "), b"", b"")[:2]
        if target.partition(b"?")[0] != b"/metrics":
            return _http("404 Not Found", b"only /metrics is here\n")
        if method != b"GET":
            return _http("405 Method Not Allowed", b"only GET is answered\n", "allow: GET\r\n")
        try:
            return _http("200 OK", self._page(), f"content-type: {CONTENT_TYPE}\r\n")
        except Exception as error:  # whatever it is, the next scrape is to find somebody here
            log.error("metrics: no page: %s: %s", type(error).__name__, error)
            return _http("500 Internal Server Error", b"no page could be made\n")


def _http(status: str, body: bytes, fields: str = "content-type: text/plain\r\n") -> bytes:
    head = f"HTTP/1.1 {status}\r\n{fields}content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    return head.encode("ascii") + body
