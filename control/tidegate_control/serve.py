"""`tidegate control serve`: opens everything or says in one line what is missing, then serves until it is told to end.

settings ─► state directory ─► TLS ─► socket ─► inventory, events ─► application ─► uvicorn
"""

from __future__ import annotations

import contextlib
import errno
import logging
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from tidegate_control import notify, rooms
from tidegate_control.access import privatefiles
from tidegate_control.access.privatefiles import StateError
from tidegate_control.access.protocol import patient
from tidegate_control.app import Services, make_access, make_app
from tidegate_control.rooms import RoomError
from tidegate_control.settings import Settings
from tidegate_control.tls import Tls, TlsError

log = logging.getLogger("tidegate.control")

HEAD_BYTES = 16 * 1024
DRAIN_SECONDS = 20
_KEEP_ALIVE_SECONDS = 10
_LOOK_SECONDS = 2  # between two looks at the certificate's files, and two signs of life
_BACKLOG = 512


class ServeError(ValueError):
    """The server cannot start; the message is one line."""


@contextlib.contextmanager
def prepared(settings: Settings) -> Iterator[tuple[Tls | None, Services]]:
    """Open all that serving needs, and close it in the end; ServeError names what is missing."""
    with contextlib.ExitStack() as undo:
        try:
            state = privatefiles.state_directory(settings.state)
            undo.enter_context(privatefiles.locked(state / "lock", wait=False))
            tls = Tls(settings.tls_cert, settings.tls_key) if settings.tls_cert and settings.tls_key else None
        except BlockingIOError:
            raise ServeError(f"{settings.state}: another server runs on this state") from None
        except (StateError, TlsError) as error:
            raise ServeError(str(error)) from None
        except OSError as error:
            raise ServeError(f"{settings.state}: {error.strerror}") from None
        access = make_access(settings)
        undo.callback(access.sessions.close)
        try:
            inventory = rooms.open_inventory(settings, undo)
            events = rooms.open_events(settings, undo)
        except RoomError as error:
            raise ServeError(str(error)) from None
        yield tls, Services(settings, inventory, events, access)


def bound(settings: Settings) -> socket.socket:
    """Return the listening socket; ServeError when the address is not to be had."""
    host, port = settings.address
    host = "127.0.0.1" if host == "localhost" else host
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named, since asyncio sets TCP_NODELAY only where it reads it here: else each answer waits 40 ms for an ACK.
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(_BACKLOG)
    except OSError as error:
        made.close()
        why = {
            errno.EADDRINUSE: "another program listens there; choose another port (listen)",
            errno.EACCES: "not allowed: a port below 1024 needs CAP_NET_BIND_SERVICE",
            errno.EADDRNOTAVAIL: "this machine has no such address",
        }.get(error.errno or 0, error.strerror)
        raise ServeError(f"{settings.listen}: {why}") from None
    return made


def configuration(
    app: ASGIApp, settings: Settings, tls: Tls | None, alive: Callable[[], Awaitable[None]]
) -> uvicorn.Config:
    """Return how uvicorn is to serve; it calls `alive` every few seconds."""
    config = uvicorn.Config(
        app,
        http=patient(settings.connections),
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        access_log=False,  # RequestLog writes one without queries
        proxy_headers=False,  # Peers reads them, from trusted proxies only
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_notify=_LOOK_SECONDS,
        callback_notify=alive,
        h11_max_incomplete_event_size=HEAD_BYTES,
    )
    config.load()
    config.ssl = tls.context if tls is not None else None
    return config


def serve(settings: Settings, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then let those go on who have asked; `say` takes lines for a person."""
    _log_to_stderr()
    manager = notify.manager()
    with prepared(settings) as (tls, services), bound(settings) as listening:
        host, port = listening.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        if settings.is_open and tls is None:
            say(f"warning: {settings.listen} is open without TLS; everybody on the way reads the tokens")

        async def alive() -> None:
            if tls is not None:
                tls.follow()
            manager.say("READY=1", "WATCHDOG=1")

        config = configuration(make_app(services, rooms.ROOMS), settings, tls, alive)
        say(f"listening on {'https' if tls else 'http'}://{shown}:{port}")
        server = uvicorn.Server(config)
        with _ended_by_signals(server):
            server.run(sockets=[listening])


@contextlib.contextmanager
def _ended_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """End the server by SIGTERM and SIGINT also before it listens to them, and live on after it.

    uvicorn raises a signal that it ended by once more when it is done, and what is to be closed then would not be.
    """

    def end(_signal: int, _frame: object) -> None:
        server.should_exit = True

    before = {name: signal.signal(name, end) for name in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def _log_to_stderr() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s"
    )
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)  # "Started", "Finished", "Waiting"
