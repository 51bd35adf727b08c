"""Bodies are read with limits, each and all together."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
from collections.abc import AsyncIterator, Callable

import pytest
import zstandard

from tidegate_control.intake.bodies import Crowded, Refused, Room, received, unpacked

LIMIT = 1 << 20
TEXT = b"".join(b"%d\n" % n for n in range(50_000))


def _streamed(data: bytes) -> bytes:
    """Return zstd as a stream writes it, which does not say how much comes."""
    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


PACK: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "zstd": ("zstd", zstandard.compress),
    "zstd-streamed": ("zstd", _streamed),
}
packings = pytest.mark.parametrize(("encoding", "pack"), list(PACK.values()), ids=list(PACK))


def nothing(_octets: int) -> None:
    pass


@packings
def test_what_was_packed_is_there_again(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    assert unpacked(encoding, pack(TEXT), LIMIT, nothing) == TEXT
    assert unpacked(encoding, pack(TEXT), len(TEXT), nothing) == TEXT
    assert unpacked("identity", TEXT, LIMIT, nothing) == TEXT


@packings
def test_one_byte_past_the_limit_is_refused(encoding: str, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(Refused, match="unpacked it is more than") as refused:
        unpacked(encoding, pack(TEXT), len(TEXT) - 1, nothing)
    assert refused.value.status == 413


@packings
@pytest.mark.parametrize("spoil", ["cut", "followed", "other", "empty"])
def test_what_is_not_whole_is_refused(encoding: str, pack: Callable[[bytes], bytes], spoil: str) -> None:
    packed = pack(TEXT)
    body = {"cut": packed[:-9], "followed": packed + pack(b"more"), "other": b"not packed", "empty": b""}[
        spoil
    ]
    with pytest.raises(Refused) as refused:
        unpacked(encoding, body, LIMIT, nothing)
    assert refused.value.status == 400


@packings
def test_a_bomb_takes_no_more_memory_than_the_limit_and_a_piece(
    encoding: str, pack: Callable[[bytes], bytes]
) -> None:
    bomb = pack(bytes(64 << 20))
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match="unpacked it is more than"):
            unpacked(encoding, bomb, LIMIT, nothing)
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


def test_a_window_that_no_decoder_has_to_have_is_refused() -> None:
    long = zstandard.ZstdCompressionParameters.from_level(3, window_log=27, write_content_size=0)
    packer = zstandard.ZstdCompressor(compression_params=long).compressobj()
    packed = packer.compress(TEXT) + packer.flush()
    with pytest.raises(Refused, match="not zstd"):
        unpacked("zstd", packed, LIMIT, nothing)


def test_a_body_is_read_up_to_its_limit() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 10

    assert asyncio.run(received(pieces(), 100, nothing)) == b"x" * 100
    with pytest.raises(Refused, match="more than 99 bytes"):
        asyncio.run(received(pieces(), 99, nothing))


def test_a_gateway_has_half_of_the_room_and_gives_it_back() -> None:
    room = Room(100)
    with room.of("fra1") as take:
        take(50)
        with room.of("fra1") as more, pytest.raises(Crowded):
            more(1)
        with room.of("ams1") as other:
            other(50)
            with room.of("par1") as third, pytest.raises(Crowded):
                third(1)
    with room.of("fra1") as take:
        take(50)
