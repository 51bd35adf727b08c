"""Servers that are none, or lie: a link ends in one line, bounded in time and memory, and shows nothing of itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import natskit
from tidegate_schema.jetstream.link import Address, Link, LinkError, Papers, parse_address

INFO = b'INFO {"server_id":"x","version":"2.9.10","headers":true,"max_payload":1048576}\r\n'
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def meet(serve: Serve, *, tls: bool = False, papers: Papers | None = None) -> tuple[str, bytes]:
    """Return why the link ended, and all that the server was sent."""
    sent = bytearray()
    serving: list[asyncio.Task[None] | None] = []

    async def on_connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.append(asyncio.current_task())

        async def collect() -> None:
            while data := await reader.read(65536):
                sent.extend(data)

        collecting = asyncio.ensure_future(collect())
        try:
            await serve(reader, writer)
            await asyncio.wait([collecting], timeout=1)
        except ConnectionError:
            pass
        finally:
            collecting.cancel()
            writer.close()
            with contextlib.suppress(ConnectionError, TimeoutError):
                await asyncio.wait_for(writer.wait_closed(), 3)

    async def work() -> str:
        server = await asyncio.start_server(on_connect, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with Link(
                Address((f"127.0.0.1:{port}",), tls), papers or Papers(), "_INBOX.a", "test"
            ) as one:
                await one.request("x", seconds=1)
        except LinkError as error:
            return str(error)
        finally:
            server.close()
            await asyncio.gather(*(task for task in serving if task))
        return ""

    return asyncio.run(work()), bytes(sent)


def says(*parts: bytes, pause: float = 0.0) -> Serve:
    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)

    return serve


def pours(first: bytes, piece: bytes, most: int) -> tuple[Serve, list[int]]:
    taken = [0]

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while taken[0] < most:
            writer.write(piece)
            await writer.drain()
            taken[0] += len(piece)

    return serve, taken


@pytest.mark.parametrize(
    "first",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"INFO []\r\n",
        b"INFO {\r\n",
        b"INFO " + b"[" * 20000 + b"\r\n",
        b'INFO {"tls_required":1,"max_payload":"much","nonce":7,"connect_urls":[1,{}]}\r\n',
        b"INFO " + b"a" * 200_000,
        b"\x00" * 100,
        b"-ERR 'Authorization Violation'\r\n",
        b"",
    ],
    ids=["http", "list", "cut", "deep", "types", "long", "zeros", "error", "nothing"],
)
def test_who_is_no_nats_server_is_left_in_one_line(first: bytes, caplog: pytest.LogCaptureFixture) -> None:
    said, _ = meet(says(first))
    assert said
    assert "\n" not in said
    assert not caplog.records


def test_tls_is_not_left_out_because_a_server_offers_none(tmp_path: Path) -> None:
    authority = natskit.Authority(tmp_path)
    said, sent = meet(says(INFO), tls=True, papers=authority.papers("alice.client.my-fleet"))
    assert "offers no TLS" in said
    assert sent == b""


def test_a_certificate_means_tls_whatever_the_address_says(tmp_path: Path) -> None:
    said, sent = meet(says(INFO), papers=natskit.Authority(tmp_path).papers("alice.client.my-fleet"))
    assert "offers no TLS" in said
    assert sent == b""


@pytest.mark.parametrize(
    "first",
    [b"MSG _INBOX.a.b 1 99999999999\r\n", b"HMSG _INBOX.a.b 1 12 4000000000\r\n", b"+OK", b"MSG "],
    ids=["message", "headers", "line", "half-a-line"],
)
def test_what_has_no_end_is_not_collected(first: bytes) -> None:
    serve, taken = pours(INFO + b"PONG\r\n" + first, b"x" * 65536, 1 << 28)
    said, _ = meet(serve)
    assert said
    assert taken[0] < 16 << 20  # what the sockets hold, and no more than two messages


def test_addresses_that_a_server_names_are_not_connected_to() -> None:
    urls = b'INFO {"headers":true,"connect_urls":["127.0.0.1:1","127.0.0.1:2"]}\r\n'
    kept: list[object] = []

    async def work() -> None:
        async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(urls + b"PONG\r\n" + urls * 100 + b"PING\r\n")
            await asyncio.sleep(0.4)
            writer.close()
            await writer.wait_closed()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        address = Address((f"127.0.0.1:{server.sockets[0].getsockname()[1]}",), False)
        async with Link(address, Papers(), "_INBOX.a", "test") as one:
            assert one._client is not None
            await asyncio.sleep(0.2)
            kept.extend(one._client.servers)
        await asyncio.sleep(0.4)
        server.close()

    asyncio.run(work())
    assert len(kept) == 1


@pytest.mark.parametrize(
    "later",
    [b"-ERR 'Slow Consumer'\r\n", b"INFO []\r\n", b"INFO {\r\n", b"INFO " + b"[" * 3000 + b"]" * 3000 + b"\r\n",
     b"MSG a b c d e f\r\n", b"MSG x 1 -5\r\n", b"HMSG _INBOX.a.b 1 99 3\r\nabc\r\n", b"-ERR nothing\r\n",
     b"GARBAGE\r\n"],
    ids=["error", "list", "cut", "deep", "words", "negative", "header", "unquoted", "garbage"],
)  # fmt: skip
def test_nonsense_later_on_ends_a_request_in_one_line(later: bytes, caplog: pytest.LogCaptureFixture) -> None:
    said, _ = meet(says(INFO + b"PONG\r\n", later, pause=0.2))
    assert said
    assert "\n" not in said
    assert not caplog.records


@pytest.mark.parametrize(
    "text",
    ["nats://", "http://a", "nats://a:0", "nats://a:99999", "nats://u:p@a", "nats://a b", "tls://a/b", "nats://-x",
     "nats://a,,b", "nats://[::1", "nats://a?tls=no", "tls://" + ",".join(["a"] * 17), "nats://a\nb"],
)  # fmt: skip
def test_what_is_no_address_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(write|a server|at most)") as refused:
        parse_address(text)
    assert "\n" not in str(refused.value)


def test_addresses() -> None:
    assert (
        str(parse_address("tls://a.example,[2001:db8::1]:4333/")) == "tls://a.example:4222,[2001:db8::1]:4333"
    )
    assert parse_address("nats://127.0.0.1") == Address(("127.0.0.1:4222",), False)


def test_papers_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    authority = natskit.Authority(tmp_path)
    cert, key = authority.issue("x.client.my-fleet")
    junk = tmp_path / "junk"
    junk.write_text("junk")
    absent = tmp_path / "absent"
    halves = (Papers(None, cert), Papers(None, None, key))
    for papers in (
        *(Papers(junk), Papers(absent), *halves),
        *(Papers(None, junk, key), Papers(None, cert, junk), Papers(None, cert, absent)),
    ):
        with pytest.raises(LinkError) as refused:
            papers.context()
        assert "\n" not in str(refused.value)
    key.chmod(0o644)
    with pytest.raises(LinkError, match="others may read"):
        Papers(None, cert, key).context()
