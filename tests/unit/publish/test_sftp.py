"""SFTP with OpenSSH's server, and with one that answers whatever it likes: bounded, and refused in one line."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from publishkit import SFTP_SERVER, sftp
from tidegate_compiler.targets import Lost, TargetError
from tidegate_compiler.targets import sftp as module
from tidegate_compiler.targets.sftp import Remote, Session

needs_server = pytest.mark.skipif(not os.access(SFTP_SERVER, os.X_OK), reason="needs openssh-sftp-server")


def string(text: bytes) -> bytes:
    return struct.pack(">I", len(text)) + text


def packet(kind: int, fields: bytes) -> bytes:
    return struct.pack(">IB", len(fields) + 1, kind) + fields


HELLO = packet(
    2,
    struct.pack(">I", 3)
    + string(b"posix-rename@openssh.com")
    + string(b"1")
    + string(b"fsync@openssh.com")
    + string(b"1"),
)


@needs_server
def test_files_go_and_come_back_whole(tmp_path: Path) -> None:
    with sftp() as session:
        root = Remote(session, str(tmp_path), "root")
        for size in (0, 1, 32 << 10, (32 << 10) + 1, 5 << 20):
            data = os.urandom(size)
            root.write("file", data)
            assert root.read("file", size) == data == (tmp_path / "file").read_bytes()
            if size:
                assert root.read("file", size - 1) is None
        root.symlink("link", "file")
        assert root.link("link") == "file"
        assert root.read("link", 100) is None  # not followed
        root.symlink("link", "elsewhere")
        assert str((tmp_path / "link").readlink()) == "elsewhere"
        inner = root.folder("made", make=True)
        assert inner is not None
        inner.write("a", b"x")
        inner.replace("a", "b")
        assert inner.names() == ["b"]
        root.remove("made")
        root.remove("made")
        assert sorted(root.names()) == ["file", "link"]
        with pytest.raises(TargetError, match="root/link: a symbolic link or no directory, and not followed"):
            root.folder("link", make=True)
        assert root.folder("none") is None
        assert root.info("none") is None


@needs_server
def test_a_refusal_names_the_place(tmp_path: Path) -> None:
    with sftp() as session:
        root = Remote(session, str(tmp_path), "root")
        (tmp_path / "there").mkdir()
        with pytest.raises(OSError, match="No such file") as refused:
            root.replace("none", "other")
        assert refused.value.filename == "root/other"
        with pytest.raises(OSError, match="the server says Failure") as refused:
            session.rmdir(str(tmp_path))
        deep = tmp_path / "a/b/c/d/e/f/g"
        deep.mkdir(parents=True)
        with pytest.raises(TargetError, match="directories inside directories"):
            root.remove("a")


@contextmanager
def answering(answers: Callable[[int], bytes]) -> Iterator[tuple[int, int]]:
    """A server that reads requests and sends for the nth whatever `answers` returns; b"" ends it."""
    to_server, from_client = os.pipe()[0:2]
    to_client, from_server = os.pipe()[0:2]

    def serve() -> None:
        with os.fdopen(to_server, "rb", 0) as reads, os.fdopen(from_server, "wb", 0) as writes:
            number = 0
            try:
                while len(head := reads.read(4) or b"") == 4:
                    left = int.from_bytes(head)
                    while left and (part := reads.read(left)):
                        left -= len(part)
                    said = answers(number)
                    if not said:
                        return
                    while said:
                        said = said[writes.write(said) or 0 :]
                    number += 1
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield to_client, from_client
    finally:
        os.close(to_client)
        os.close(from_client)
        thread.join(10)
        assert not thread.is_alive()


def hostile(*after_hello: bytes, last: bytes = b"") -> Callable[[int], bytes]:
    said = [HELLO, *after_hello]
    return lambda number: said[number] if number < len(said) else last


@pytest.mark.parametrize(
    "hello",
    [
        b"",
        b"\xff\xff\xff\xff",
        packet(2, struct.pack(">I", 2)),
        packet(101, struct.pack(">I", 3)),
        packet(2, b""),
        struct.pack(">I", 0),
        b"Welcome to our server, please type your name\n",
        packet(2, struct.pack(">I", 3) + string(b"posix-rename@openssh.com") + string(b"1")),
    ],
    ids=["silence", "endless", "old", "other", "short", "nothing", "banner", "no fsync"],
)
def test_a_greeting_that_is_none(hello: bytes) -> None:
    with answering(lambda _: hello) as (reads, writes), pytest.raises(TargetError) as refused:
        Session(reads, writes, "server")
    assert "\n" not in str(refused.value)


def attrs(number: int, mode: int = 0o100644, size: int = 10) -> bytes:
    return packet(105, struct.pack(">IIQI", number, 0x05, size, mode))


def names(number: int, *entries: bytes, count: int | None = None) -> bytes:
    listed = b"".join(string(name) + string(b"") + struct.pack(">I", 0) for name in entries)
    return packet(104, struct.pack(">II", number, len(entries) if count is None else count) + listed)


def handle(number: int, text: bytes = b"h") -> bytes:
    return packet(102, struct.pack(">I", number) + string(text))


def status(number: int, code: int, text: bytes = b"") -> bytes:
    return packet(101, struct.pack(">II", number, code) + string(text) + string(b""))


@pytest.mark.parametrize(
    "answer",
    [
        attrs(2),
        attrs(1) + b"",
        packet(105, struct.pack(">II", 1, 0x80000000) + struct.pack(">I", 1 << 31)),
        packet(105, struct.pack(">II", 1, 0x05)),
        packet(105, struct.pack(">IIQI", 1, 0x05, 1, 1) + b"more"),
        names(1, b"x"),
        handle(1),
        packet(101, b""),
        packet(101, struct.pack(">I", 1)),
        struct.pack(">I", 1 << 30),
        b"\0",
    ],
    ids=["other id", "file", "extended", "short", "long", "names", "handle", "empty", "bare", "huge", "cut"],
)
def test_an_answer_that_is_none_ends_the_session_in_one_line(
    answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SILENCE_MAX", 0.2)
    with answering(hostile(answer)) as (reads, writes):
        session = Session(reads, writes, "server")
        if answer == attrs(1):
            assert session.lstat("x") == (0o100644, 10, 0)
            return
        with pytest.raises(Lost, match=r"^server: (what answers there does not keep to SFTP|no answer for)"):
            session.lstat("x")


def test_a_listing_without_end_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NAMES_MAX", 1000)
    entries = [b"name"] * 100

    def answers(number: int) -> bytes:
        return (
            HELLO
            if number == 0
            else handle(1)
            if number == 1
            else status(13, 0)
            if number == 13
            else names(number, *entries)
        )

    with answering(answers) as (reads, writes):
        session = Session(reads, writes, "server")
        with pytest.raises(TargetError, match="more than 1000 entries"):
            session.names("x")


def test_a_listing_that_goes_on_without_a_name_is_not_read() -> None:
    with answering(lambda number: [HELLO, handle(1), names(2), status(3, 0)][number]) as (reads, writes):
        session = Session(reads, writes, "server")
        with pytest.raises(Lost, match="does not keep to SFTP"):
            session.names("x")


@pytest.mark.parametrize("told", [(), (b"releases/a", b"releases/b")], ids=["none", "two"])
def test_a_link_says_one_thing(told: tuple[bytes, ...]) -> None:
    with answering(hostile(names(1, *told))) as (reads, writes):
        session = Session(reads, writes, "server")
        with pytest.raises(Lost, match="does not keep to SFTP"):
            Remote(session, "x", "x").link("current")


def test_a_count_that_lies_makes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(hostile(handle(1), names(2, b"x", count=1 << 31), status(3, 0))) as (reads, writes):
        session = Session(reads, writes, "server")
        with pytest.raises(Lost, match="does not keep to SFTP"):
            session.names("x")


def test_names_that_lead_elsewhere_are_none() -> None:
    listed = names(2, b"..", b".", b"../x", b"/etc", b"a/b", b"fine", b"\xff")
    with answering(hostile(handle(1), listed, status(3, 1), status(4, 0))) as (reads, writes):
        assert Remote(Session(reads, writes, "server"), "x", "x").names() == ["fine", "\udcff"]


def test_a_file_that_grows_while_it_is_read_is_none() -> None:
    """lstat says ten bytes, and then they never end."""

    def answers(number: int) -> bytes:
        said = {0: HELLO, 1: attrs(1), 2: handle(2)}
        data = packet(103, struct.pack(">I", number) + string(b"x" * 100))
        return said.get(number) or (status(number, 0) if number == 5 else data)

    with answering(answers) as (reads, writes):
        assert Remote(Session(reads, writes, "server"), "x", "x").read("f", 150) is None


def test_what_the_server_says_is_shown_harmlessly() -> None:
    with answering(hostile(status(1, 4, b"\x1b[2J\nno\xff room " + b"x" * 1000))) as (reads, writes):
        session = Session(reads, writes, "server")
        with pytest.raises(OSError, match=r"the server says \?\[2J\?no\? room x{1,120}$"):
            session.mkdir("x")


def test_a_server_that_falls_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = threading.Event()

    def answers(number: int) -> bytes:
        if number:
            silent.wait(30)
        return HELLO

    with answering(answers) as (reads, writes):
        session = Session(reads, writes, "server")
        monkeypatch.setattr(module, "SILENCE_MAX", 0.05)
        with pytest.raises(Lost, match="no answer for"):
            session.lstat("x")
        silent.set()


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.binary(min_size=1, max_size=60), max_size=4), st.integers(0, 3))
def test_any_bytes_are_an_answer_or_a_refusal(said: list[bytes], action: int) -> None:
    with answering(hostile(*said)) as (reads, writes), pytest.MonkeyPatch.context() as patched:
        session = Session(reads, writes, "server")
        patched.setattr(module, "SILENCE_MAX", 0.01)
        root = Remote(session, "x", "x")
        try:
            [lambda: root.info("f"), lambda: root.read("f", 100), root.names, lambda: root.write("f", b"12")][
                action
            ]()
        except (TargetError, OSError) as error:
            told = str(error)
        else:
            told = ""
        assert "\n" not in told
