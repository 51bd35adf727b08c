"""Posts batches over HTTP, and reads from an answer no more than what it may say.

An answer says: taken, or why not; how many events of a taken batch the receiver has rejected (OTLP); and for how long
to leave it alone. Nobody here follows a redirect, keeps a cookie or asks a proxy; 64 KiB are read at most, and a POST
ends at its deadline, whatever the receiver keeps dripping.

This is asyncio's connections and h11's reading of HTTP/1.1, and no more of a client: httpx took 1.4 ms of processor
time for a POST, as much as making two thousand events of its body.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread  # noqa: F401
import email.utils
import encodings.idna
import encodings.punycode  # noqa: F401 - all three are else read at a look-up, when Python's files may be out of reach
import re
import ssl
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import h11

ANSWER_MAX_BYTES = 64 * 1024
_READ_BYTES = 16 * 1024
_STATUS_MOST = 599  # RFC 9110, section 15: others are invalid; and each one is a counter
_SECONDS = re.compile(r"[0-9]+")  # RFC 9110, section 10.2.3: delay-seconds


@dataclass(frozen=True)
class Answer:
    """What came of a POST."""

    reason: str | None
    """None for an ACK, else why it was none."""
    rejected: int = 0
    """Events of an acknowledged batch that the receiver did not take."""
    pause: float = 0.0
    """Seconds for which it asks to be left alone."""


class _Endless(Exception):  # noqa: N818 - it names the answer
    pass


class Sender:
    """Connections to one endpoint, each of which serves one POST at a time and is used again."""

    def __init__(
        self,
        endpoint: str,
        timeout: float,
        *,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        rejected: Callable[[bytes], int] | None = None,
    ) -> None:
        """`headers` go with each POST; `rejected` reads the answer to a batch that was taken."""
        self._endpoint, self._timeout, self._rejected = endpoint, timeout, rejected
        self._tls = tls if tls is not None else ssl.create_default_context()
        self._headers = {"user-agent": "tidegate", "accept-encoding": "identity", **(headers or {})}
        self._idle: list[_Connection] = []

    async def post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        """Send one batch; never raises for anything the network or the receiver does."""
        try:
            async with asyncio.timeout(self._timeout):
                return await self._post(body, headers)
        except TimeoutError:
            return Answer("timeout")
        except ssl.SSLError:
            return Answer("tls")
        except _Endless:
            return Answer("endless-answer")
        # ValueError: no URL, or a host name that IDNA cannot encode.
        except (h11.ProtocolError, OSError, ValueError):
            return Answer("protocol")

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    async def _post(self, body: bytes, headers: Mapping[str, str]) -> Answer:
        url = urlsplit(self._endpoint)
        target = (url.path or "/") + (f"?{url.query}" if url.query else "")
        sent = {"host": url.netloc, **self._headers, **headers, "content-length": str(len(body))}
        request = h11.Request(method="POST", target=target, headers=list(sent.items()))
        kept = await self._kept()
        if kept is not None:
            try:
                return await self._ask(kept, request, body)
            except (OSError, h11.ProtocolError):
                if kept.has_heard:
                    raise
                # It was closed while it was idle, before that could be seen: so another one, once.
        if url.scheme not in ("http", "https") or not url.hostname:
            raise ValueError("no endpoint")
        tls = self._tls if url.scheme == "https" else None
        try:
            streams = await asyncio.open_connection(url.hostname, url.port or (443 if tls else 80), ssl=tls)
        except (ssl.SSLError, TimeoutError):
            raise
        except OSError:
            return Answer("connect")
        return await self._ask(_Connection(*streams), request, body)

    async def _ask(self, connection: _Connection, request: h11.Request, body: bytes) -> Answer:
        try:
            answer, said = await connection.exchange(request, body)
        except BaseException:  # also when the deadline passes
            connection.close()
            raise
        if connection.may_go_on():
            self._idle.append(connection)
        else:
            connection.close()
        if answer.status_code > _STATUS_MOST:
            return Answer("protocol")
        if 200 <= answer.status_code < 300:
            return Answer(None, rejected=self._rejected(said) if self._rejected else 0)
        asked = b", ".join(value for name, value in answer.headers if name == b"retry-after")
        pause = retry_after(asked.decode("latin-1"), time.time())
        return Answer(f"http-{answer.status_code}", pause=pause)

    async def _kept(self) -> _Connection | None:
        """Return a connection that is open and silent."""
        while self._idle:
            connection = self._idle.pop()
            if await connection.is_silent():
                return connection
            connection.close()
        return None


class _Connection:
    """One connection, and where it stands in HTTP/1.1."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.has_heard = False
        """Whether anything has come back since the last request."""
        self._http = h11.Connection(h11.CLIENT)

    async def exchange(self, request: h11.Request, body: bytes) -> tuple[h11.Response, bytes]:
        """Send a request and return the answer, read to its end."""
        self.has_heard = False
        for part in (request, h11.Data(data=body), h11.EndOfMessage()):
            self._writer.write(self._http.send(part) or b"")
        # Not drained: a receiver may answer before it has read everything, or without.
        answer: h11.Response | None = None
        said, read = bytearray(), 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                data = await self._reader.read(_READ_BYTES)
                read += len(data)
                self.has_heard = read > 0
                if read > ANSWER_MAX_BYTES:
                    raise _Endless
                self._http.receive_data(data)
            elif isinstance(event, h11.Response):
                answer = event
            elif isinstance(event, h11.Data):
                said += event.data
            elif isinstance(event, h11.EndOfMessage) and answer is not None:
                return answer, bytes(said)
            elif not isinstance(event, h11.InformationalResponse):
                raise h11.RemoteProtocolError("no answer")

    def may_go_on(self) -> bool:
        """Make it ready for another exchange; False when there can be none."""
        is_clean = (
            self._http.trailing_data == (b"", False) and not self._writer.transport.get_write_buffer_size()
        )
        if not is_clean or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            return False
        self._http.start_next_cycle()
        return True

    async def is_silent(self) -> bool:
        """Tell whether the other side has neither closed it meanwhile nor said what would answer the next request."""
        for _ in range(2):  # what has arrived is taken in while the first waits, so the second has it
            try:
                async with asyncio.timeout(0):
                    await self._reader.read(1)
                return False
            except TimeoutError:
                continue
            except OSError:
                return False
        return not self._writer.is_closing()

    def close(self) -> None:
        """Give it up at once."""
        self._writer.transport.abort()


def retry_after(value: str, now: float) -> float:
    """Return the seconds that a Retry-After header asks for at Unix time `now`; 0 when it cannot be read.

    Seconds or a date (RFC 9110, section 10.2.3).
    """
    if _SECONDS.fullmatch(value):
        return float(value)
    try:
        return max(email.utils.parsedate_to_datetime(value).timestamp() - now, 0.0)
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
