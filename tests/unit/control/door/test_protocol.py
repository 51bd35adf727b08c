"""Raw bytes at the real server: slow ones, too many, malformed ones, and what stands between two requests."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn

from tidegate_control.access import protocol
from tidegate_control.access.csrf import FIELD
from tidegate_control.serve import HEAD_BYTES, configuration
from tidegate_control.tls import Tls
from unit.control.door.doorkit import Door

ASK = b"GET /static/app.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
NEVER = 1000.0


@dataclass
class Connect:
    """A server, and a way to connect to it, which ends with the test."""

    server: uvicorn.Server
    address: tuple[str, int]
    undo: ExitStack

    def __call__(self) -> socket.socket:
        made = socket.create_connection(self.address, timeout=30)
        self.undo.callback(made.close)
        return made


async def alive() -> None:
    pass


@contextmanager
def served(door: Door, tls: Tls | None = None) -> Iterator[Connect]:
    """Serve as `tidegate control serve` does, on a free port, in a thread; gives a way to connect."""
    with ExitStack() as undo:
        listening = undo.enter_context(closing(socket.create_server(("127.0.0.1", 0), backlog=64)))
        server = uvicorn.Server(configuration(door.app, door.started, tls, alive))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()

        def stop() -> None:
            server.should_exit = True
            thread.join(30)

        undo.callback(stop)

        yield Connect(server, listening.getsockname(), undo)


def rest(connection: socket.socket) -> bytes:
    """Return all that comes until the other side ends it; b"" also when it was cut off."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except ConnectionResetError:
        pass
    return found


def answer(connection: socket.socket) -> tuple[int, bytes]:
    """Read one answer with a Content-Length; returns status and body."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        assert byte, head
        head += byte
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body = b""
    while len(body) < length:
        body += connection.recv(length - len(body))
    return int(head.split(b" ")[1]), body


@pytest.fixture
def connect(door: Door) -> Iterator[Connect]:
    with served(door) as found:
        yield found


@pytest.fixture
def impatient(door: Door, monkeypatch: pytest.MonkeyPatch) -> Iterator[Connect]:
    """A server that waits a moment only."""
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", 0.2)
    with served(door) as found:
        yield found


@pytest.mark.parametrize(
    "sent",
    [b"", ASK[:5], ASK[:-2], ASK + ASK[:-2]],
    ids=["nothing", "a-word", "most-of-a-head", "half-of-a-second-one"],
)
def test_who_does_not_ask_is_not_waited_for(impatient: Connect, sent: bytes) -> None:
    connection = impatient()
    connection.sendall(sent)
    assert rest(connection).count(b"HTTP/1.1 200") == sent.count(ASK)


def test_who_drips_a_head_is_not_waited_for(impatient: Connect) -> None:
    connection = impatient()
    connection.setblocking(False)

    def has_ended() -> bool:
        try:
            return connection.recv(1) == b""
        except BlockingIOError:
            return False
        except ConnectionResetError:
            return True

    with suppress(BrokenPipeError, ConnectionResetError):
        while not has_ended():  # pytest's own timeout ends a test for which this never comes
            connection.send(b"G")
            threading.Event().wait(0.01)


def test_a_body_that_nobody_wants_is_not_waited_for(impatient: Connect) -> None:
    connection = impatient()
    connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000\r\n\r\nx")
    assert answer(connection)[0] == 404
    assert rest(connection) == b""


def test_the_kernel_gives_up_who_takes_nothing_off_the_wire(connect: Connect) -> None:
    connection = connect()
    connection.sendall(ASK)
    answer(connection)
    (ours,) = connect.server.server_state.connections
    found = ours.transport.get_extra_info("socket")
    assert found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 1000 * protocol.UNTAKEN_SECONDS


def test_a_connection_is_used_again(connect: Connect) -> None:
    connection = connect()
    for _ in range(3):
        connection.sendall(ASK)
        assert answer(connection) == (200, b"public")


def test_pipelined_requests_are_answered_in_turn(connect: Connect) -> None:
    connection = connect()
    connection.sendall(ASK * 3)
    assert [answer(connection)[0] for _ in range(3)] == [200, 200, 200]


def test_one_connection_too_many_ends_the_one_that_waits_longest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "REQUEST_SECONDS", NEVER)
    door = Door(tmp_path / "state", {"connections": 8})
    token = door.token("alice", "editor")
    asking = (
        f"POST /api/v1/editor HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\nContent-Length: 2\r\n\r\n"
    ).encode()
    with served(door) as connect:
        busy = connect()
        busy.sendall(asking + b"x")
        while door.busy() < 1:
            threading.Event().wait(0.01)
        idle = [connect() for _ in range(20)]
        last = idle.pop()
        last.sendall(ASK)
        assert answer(last)[0] == 200  # whoever comes and asks is served
        assert rest(idle[0]) == b""  # whoever came first and said nothing made room
        busy.sendall(b"y")
        assert answer(busy)[0] == 200  # and whoever was at work was left alone


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: a\r\n b\x00c\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: localhost\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: 127.0.0.1\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
        b"GET http://127.0.0.1/static/app.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /static/app.css?a=\xff HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * HEAD_BYTES + b"\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ],
    ids=lambda head: ascii(head[:60]),
)
def test_malformed_requests_are_refused(connect: Connect, head: bytes) -> None:
    connection = connect()
    connection.sendall(head)
    connection.shutdown(socket.SHUT_WR)
    found = rest(connection)
    assert found[9:12] in (b"400", b"431", b"501", b"505"), found
    assert b"Traceback" not in found


def test_a_field_of_an_answer_cannot_be_made_by_the_asker(door: Door, connect: Connect) -> None:
    """What is asked for comes back in Location, as text."""
    token = door.token()
    body = f"token={token}&next=%2Fa%0d%0aSet-Cookie:%20a=b".encode()
    connection = connect()
    connection.sendall(
        b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nConnection: close\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    )
    found = rest(connection)
    assert found.startswith(b"HTTP/1.1 303 ")
    assert b"a=b" not in found
    assert found.lower().count(b"set-cookie:") == 1


def test_a_body_in_pieces_has_its_limit_on_the_wire_too(tmp_path: Path) -> None:
    door = Door(tmp_path / "state", {"body_limit": 1024})
    token = door.token("alice", "editor")
    head = f"POST /api/v1/editor HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    chunk = b"200\r\n" + b"x" * 512 + b"\r\n"
    with served(door) as connect:
        connection = connect()
        connection.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 3)
        assert rest(connection).startswith(b"HTTP/1.1 413 ")
        declared = connect()
        declared.sendall(head.encode() + b"Content-Length: 1025\r\n\r\n")
        assert rest(declared).startswith(b"HTTP/1.1 413 ")


def test_an_oversized_body_is_not_asked_for(tmp_path: Path) -> None:
    """With Expect, the client keeps the body until it is told to go on."""
    door = Door(tmp_path / "state", {"body_limit": 1024})
    with served(door) as connect:
        connection = connect()
        connection.sendall(
            b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nExpect: 100-continue\r\nContent-Length: 9999\r\n\r\n"
        )
        found = rest(connection)
    assert found.startswith(b"HTTP/1.1 413 ")
    assert b"100 Continue" not in found


def test_a_form_works_over_the_wire(door: Door, connect: Connect) -> None:
    """The body that the check of forgery has read is given to the room, and the connection goes on."""
    browser = door.browser("editor")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.client.http.cookies.items())
    body = f"{FIELD}={browser.csrf()}&name=x".encode()
    head = (
        f"POST /pages/editor HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: http://127.0.0.1\r\nCookie: {cookie}\r\n"
        f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = connect()
    for _ in range(2):
        connection.sendall(head.encode() + body)
        status, told = answer(connection)
        assert status == 200
        assert f'"bytes":{len(body)}'.encode() in told
