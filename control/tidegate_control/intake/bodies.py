"""The body of a POST, as it came, and what it is when it is unpacked: both with a limit, and all of them together, too.

A bomb is met while it is unpacked: no more is ever made of it than the limit and one piece.
"""

from __future__ import annotations

import collections
import contextlib
import threading
import zlib
from collections.abc import AsyncIterator, Callable, Iterator

import zstandard

ENCODINGS = ("identity", "gzip", "zstd")
PIECE_BYTES = 1 << 18
_ZSTD_BYTES = 128
"""Bytes fed at once: four may stand for 128 KiB (RFC 8878, section 3.1.1.2.3), so 4 MiB at most come of it."""
TOGETHER_BYTES = 256 << 20
_WINDOW_BYTES = 8 << 20  # RFC 8878, section 3.1.1.1.2: what every decoder supports, and no sender should pass
_GZIP = 31  # zlib: gzip alone, the largest window


class Refused(Exception):  # noqa: N818 - it names what becomes of the body
    """A body that is not read to its end."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Crowded(Exception):  # noqa: N818 - it names the state
    """There is no room for another body now."""


class Room:
    """The bytes that all bodies together may take, half of them those of one gateway."""

    def __init__(self, octets: int = TOGETHER_BYTES) -> None:
        self._octets = octets
        self._lock = threading.Lock()
        self._held: collections.Counter[str] = collections.Counter()

    @contextlib.contextmanager
    def of(self, gateway: str) -> Iterator[Callable[[int], None]]:
        """Give a function that takes more room, or raises Crowded; at the end all of it is given back."""
        mine = 0

        def take(octets: int) -> None:
            nonlocal mine
            with self._lock:
                if (
                    self._held.total() + octets > self._octets
                    or self._held[gateway] + octets > self._octets // 2
                ):
                    raise Crowded("too many batches at once")
                self._held[gateway] += octets
                mine += octets

        try:
            yield take
        finally:
            with self._lock:
                self._held[gateway] -= mine
                if not self._held[gateway]:
                    del self._held[gateway]


async def received(pieces: AsyncIterator[bytes], limit: int, take: Callable[[int], None]) -> bytes:
    """Return a body as it came; Refused past `limit` bytes, Crowded."""
    body = bytearray()
    async for piece in pieces:
        take(len(piece))
        body += piece
        if len(body) > limit:
            raise Refused(413, f"a body of more than {limit} bytes")
    return bytes(body)


def unpacked(encoding: str, body: bytes, limit: int, take: Callable[[int], None]) -> bytes:
    """Return what a body is without its Content-Encoding; Refused past `limit` bytes and when it is broken, Crowded."""
    if encoding == "gzip":
        return _gunzip(body, limit, take)
    return _unzstd(body, limit, take) if encoding == "zstd" else body


def _gunzip(body: bytes, limit: int, take: Callable[[int], None]) -> bytes:
    made = zlib.decompressobj(_GZIP)
    whole, rest = bytearray(), body
    try:
        while not made.eof:
            piece = made.decompress(rest, PIECE_BYTES)
            rest = made.unconsumed_tail
            if not (piece or rest or made.eof):
                raise Refused(400, "not whole gzip: it ends too early")
            take(len(piece))
            whole += piece
            if len(whole) > limit:
                raise _too_long(limit)
    except zlib.error as error:
        raise Refused(400, f"not gzip: {error}") from None
    if made.unused_data:
        raise Refused(400, "something follows what is gzip")
    return bytes(whole)


def _unzstd(body: bytes, limit: int, take: Callable[[int], None]) -> bytes:
    made = zstandard.ZstdDecompressor(max_window_size=_WINDOW_BYTES).decompressobj()
    whole, view = bytearray(), memoryview(body)
    try:
        if zstandard.frame_content_size(body) > limit:
            raise _too_long(limit)
        for at in range(0, len(body), _ZSTD_BYTES):
            if made.eof:
                break
            piece = made.decompress(view[at : at + _ZSTD_BYTES])
            take(len(piece))
            whole += piece
            if len(whole) > limit:
                raise _too_long(limit)
    except zstandard.ZstdError as error:
        raise Refused(400, f"not zstd: {error}") from None
    if not made.eof:
        raise Refused(400, "not whole zstd: it ends too early")
    if made.unused_data or at + _ZSTD_BYTES < len(body):
        raise Refused(400, "something follows what is zstd")
    return bytes(whole)


def _too_long(limit: int) -> Refused:
    return Refused(413, f"unpacked it is more than {limit} bytes: set batch_bytes on the gateway")
