"""A connection to NATS, as both ends of a publish use it: bounded in time and memory, and every failure one line.

nats-py speaks the protocol. What it lacks towards a hostile server is added here, and held by tests with such servers:
TLS is never left out because the server does not ask for it, a message or line is bounded before it is collected, and
no address that a server names is ever connected to. It does not reconnect by itself: a link that breaks is broken, and
its owner makes another.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import ssl
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from nats import errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.errors import NotFoundError
from nats.protocol.parser import Parser

from tidegate_schema.jetstream.layout import PART_BYTES, POINTER_MAX_BYTES

CONNECT_SECONDS = 5.0
REQUEST_SECONDS = 5.0
_PORT = 4222
_ANSWER_MAX_BYTES = 2 * (PART_BYTES + POINTER_MAX_BYTES)
_SERVERS_MAX = 16
_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")

# It logs every trouble with a traceback; here a trouble ends the link, which says so in a line.
logging.getLogger("nats").setLevel(logging.CRITICAL + 1)
# It warns at every end of a TLS connection of nats-py's, which says nothing to anybody.
logging.getLogger("asyncio").addFilter(lambda record: "eof_received()" not in record.msg)


class LinkError(Exception):
    """The connection cannot be made, broke, or was refused something; one line."""


class Forbidden(LinkError):  # noqa: N818 - it names what happened
    """The server does not permit what was asked for."""


class Nobody(LinkError):  # noqa: N818 - it names what happened
    """Nobody serves this request: no such stream, no JetStream, or no server of the stream is there."""


class Unanswered(LinkError):  # noqa: N818 - it names what happened
    """No answer came in time; the link may be fine."""


class Missing(LinkError):  # noqa: N818 - it names what happened
    """The stream holds no message of this subject."""


@dataclass(frozen=True)
class Address:
    """Servers of one cluster, and whether TLS is a must."""

    servers: tuple[str, ...]
    """HOST:PORT each."""
    tls: bool

    def __str__(self) -> str:
        return f"{'tls' if self.tls else 'nats'}://{','.join(self.servers)}"


def parse_address(text: str) -> Address:
    """Read nats://HOST[:PORT][,HOST[:PORT]…] or tls://…; ValueError with one line."""
    match = re.fullmatch(r"(nats|tls)://([^/?#@\s]+)/?", text)
    if match is None:
        wrong = "no user or password in it: name a certificate" if "@" in text else "it is none"
        raise ValueError(f"write nats://HOST:PORT or tls://HOST:PORT,HOST2:PORT ({wrong})")
    servers = []
    for server in match[2].split(","):
        found = re.fullmatch(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{1,5}))?", server)
        if found is None or not _HOST.fullmatch(found[1]) or not 0 < int(found[2] or _PORT) < 65536:
            raise ValueError("a server is HOST or HOST:PORT, or [IPv6]:PORT")
        servers.append(f"{found[1]}:{int(found[2] or _PORT)}")
    if len(servers) > _SERVERS_MAX:
        raise ValueError(f"at most {_SERVERS_MAX} servers")
    return Address(tuple(servers), match[1] == "tls")


@dataclass(frozen=True)
class Papers:
    """What is shown to a server and asked of it: files in PEM. Without `ca` it is the system's certificates."""

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    @property
    def any(self) -> bool:
        """Whether TLS is meant, whatever the address says."""
        return self != Papers()

    def context(self) -> ssl.SSLContext:
        """Read the files; LinkError says which of them is wrong."""
        if (self.cert is None) != (self.key is None):
            raise LinkError("a certificate and its key go together: name both, --cert and --key")
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except (OSError, ssl.SSLError):
            raise LinkError(f"{self.ca}: no certificates in PEM that can be read") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.cert is not None and self.key is not None:
            _refuse_open_key(self.key)
            try:
                context.load_cert_chain(self.cert, self.key, password=_no_password)
            except (OSError, ssl.SSLError, ValueError):
                raise LinkError(
                    f"{self.cert}, {self.key}: no certificate and its unencrypted key in PEM that can be read"
                ) from None
        return context


def _no_password() -> bytes:
    raise ValueError("encrypted")


def _refuse_open_key(key: Path) -> None:
    try:
        info = key.stat()
    except OSError as error:
        raise LinkError(f"{key}: {error.strerror}") from None
    if not stat.S_ISREG(info.st_mode):
        raise LinkError(f"{key}: not a regular file")
    if info.st_mode & stat.S_IRWXO:
        raise LinkError(f"{key}: others may read the private key; chmod 600 it, and consider a new one")


@dataclass(frozen=True)
class Reply:
    """An answer: its bytes, and its headers (NATS ADR-4), by name."""

    data: bytes
    headers: Mapping[str, str]


class Link:
    """One connection to one of the servers. Use as a context manager; LinkError when none of them can be used."""

    def __init__(
        self,
        address: Address,
        papers: Papers,
        inbox: str,
        name: str,
        *,
        answer_max_bytes: int = _ANSWER_MAX_BYTES,
    ) -> None:
        """`inbox` is the prefix of the subjects that answers come to; `name` is told to the server.

        A server that sends a message or a line of more than `answer_max_bytes` is left.
        """
        self._address, self._inbox, self._name = address, inbox, name
        self._most = answer_max_bytes
        self._tls = papers.context() if address.tls or papers.any else None
        self._client: Client | None = None
        self._broken: asyncio.Future[LinkError]
        self.server = ""
        """HOST:PORT of the server that it is connected to."""

    async def __aenter__(self) -> Link:
        self._broken = asyncio.get_running_loop().create_future()
        troubles = []
        for server in _shuffled(self._address.servers):
            try:
                await self._connect(server)
            except LinkError as error:
                troubles.append(f"{server}: {error}")
            else:
                self.server = server
                return self
        raise LinkError("; ".join(troubles))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await _closed(self._client)

    async def _connect(self, server: str) -> None:
        heard: list[Exception] = []

        async def on_error(error: Exception) -> None:
            heard.append(error) if len(heard) < 8 else None
            if "permissions violation" in str(error):
                self._break(Forbidden(f"the server does not permit this: {_line(error)}"))

        async def on_closed() -> None:
            self._break(LinkError("the connection was lost"))

        client = _Client(self._most, tls=self._tls is not None)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await client.connect(
                    f"nats://{server}",
                    name=self._name,
                    tls=self._tls,
                    inbox_prefix=self._inbox,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,  # one more than none, which would mean for ever
                    reconnect_time_wait=0,
                    ping_interval=20,
                    max_outstanding_pings=2,
                    error_cb=on_error,
                    closed_cb=on_closed,
                )
        except TimeoutError:
            await _closed(client)
            raise LinkError(f"no answer within {CONNECT_SECONDS:.0f} s") from None
        except Exception as error:  # whatever a server's first lines lead to: no part of them is trusted
            await _closed(client)
            raise LinkError(_reason(heard[-1] if heard else error)) from None
        self._client = client

    def _break(self, error: LinkError) -> None:
        if not self._broken.done():
            self._broken.set_result(error)

    @property
    def is_broken(self) -> bool:
        """Tell whether nothing more can be asked of it."""
        return self._broken.done()

    async def lost(self) -> LinkError:
        """Wait until the connection is broken and return why."""
        return await asyncio.shield(self._broken)

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        headers: Mapping[str, str] | None = None,
        seconds: float = REQUEST_SECONDS,
    ) -> Reply:
        """Send a request and return the answer. Raises LinkError, of it Forbidden, Nobody, Unanswered, or Missing."""
        client = self._client
        assert client is not None, "a link is used inside its context"
        if self._broken.done():
            raise self._broken.result()
        asked = asyncio.ensure_future(
            client.request(subject, data, timeout=seconds, headers=dict(headers) if headers else None)
        )
        try:
            either: set[asyncio.Future[Any]] = {asked, self._broken}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                raise self._broken.result()
            return _reply(asked.result())
        except errors.NoRespondersError:
            raise Nobody("nobody answers there") from None
        except (errors.TimeoutError, TimeoutError):
            raise Unanswered(f"no answer within {seconds:.0f} s") from None
        except errors.MaxPayloadError:
            raise LinkError("the server takes smaller messages only; set its max_payload to 1MB") from None
        except (errors.Error, NotFoundError, OSError, ValueError, TypeError) as error:
            raise LinkError(_reason(error)) from None
        finally:
            asked.cancel()
            with contextlib.suppress(BaseException):
                asked.exception()  # it is told above, or came too late for anybody

    async def subscribe(self, subject: str, heard: Callable[[bytes], None]) -> None:
        """Call `heard` with each message of a subject from now on."""
        assert self._client is not None, "a link is used inside its context"

        async def on_message(message: Msg) -> None:
            heard(message.data)

        try:
            # What comes faster than it is looked at is dropped: a message is a hint, and one is enough.
            await self._client.subscribe(subject, cb=on_message, pending_msgs_limit=16)
        except (errors.Error, OSError) as error:
            raise LinkError(_reason(error)) from None


class _Client(Client):
    """nats-py's client, without trust in the server."""

    def __init__(self, most: int, *, tls: bool) -> None:
        super().__init__()
        self._must_be_tls = tls
        self._ps = _Parser(self, most)

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if not isinstance(info, dict):
            raise errors.ProtocolError
        # Before CONNECT, which shows who we are.
        if initial_connection and self._must_be_tls and info.get("tls_required") is not True:
            raise errors.Error("nats: the server offers no TLS; set it up there, nothing is sent without it")
        known = {name: value for name, value in info.items() if name != "connect_urls"}
        await super()._process_info(known, initial_connection)


class _Parser(Parser):
    """nats-py's parser, which would collect whatever a server announces."""

    def __init__(self, client: Client, most: int) -> None:
        super().__init__(client)
        self._most = most

    async def parse(self, data: bytes = b"") -> None:
        if len(self.buf) + len(data) > self._most:
            raise errors.ProtocolError
        await super().parse(data)


async def _closed(client: Client | None) -> None:
    if client is not None:
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1.0):
                await client.close()


def _shuffled(servers: tuple[str, ...]) -> list[str]:
    """Return them in another order each time, so that hosts spread over a cluster."""
    return sorted(servers, key=lambda _: os.urandom(8))


def _reply(message: Msg) -> Reply:
    headers = {str(name): str(value) for name, value in (message.headers or {}).items()}
    status = headers.get("Status")
    if status == "404":
        raise Missing("the stream holds nothing of this subject")
    if status is not None:
        raise LinkError(f"refused: {_line(status)} {_line(headers.get('Description', ''))}".rstrip())
    return Reply(message.data, headers)


def _reason(error: BaseException) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {_line(error.verify_message)}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {_line(error.reason or error)}"
    if isinstance(error, errors.AuthorizationError) or "authorization violation" in str(error).lower():
        return "it does not know this user (Authorization Violation)"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, (errors.UnexpectedEOF, asyncio.IncompleteReadError)):
        return "the server closed the connection"
    if isinstance(error, OSError):
        return _line(error.strerror or error)
    if isinstance(error, errors.Error) and str(error):
        return _line(str(error).removeprefix("nats: "))
    return "no answer of a NATS server"


def _line(value: object) -> str:
    """Return what a server has said as one short line that a terminal shows harmlessly."""
    return ascii(str(value).strip().strip("'"))[1:-1][:200]
