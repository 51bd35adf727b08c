"""The service manager is told by real datagrams, when there is one, and nothing is said that is not so."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate_agents.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A socket as systemd has one, and its name as systemd gives it."""
    name = f"@tidegate-test-{os.getpid()}" if request.param == "abstract" else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind("\0" + name[1:] if name.startswith("@") else name)
        bound.setblocking(False)
        yield bound, name


def said(bound: socket.socket) -> list[list[str]]:
    """Return every datagram that has come, as lines."""
    every = []
    try:
        while True:
            every.append(bound.recv(4096).decode().split("\n"))
    except BlockingIOError:
        return every


def of(name: str, **more: str) -> Notifier:
    return Notifier.of({"NOTIFY_SOCKET": name, **more})


def test_ready_is_said_once_and_the_status_when_it_changes(manager: tuple[socket.socket, str]) -> None:
    bound, name = manager
    notifier = of(name)
    assert said(bound) == []  # not by itself
    for status in ("release 1", "release 1", "release 2"):
        notifier.turned(status)
    assert said(bound) == [["READY=1", "STATUS=release 1"], ["STATUS=release 2"]]
    notifier.stopping()
    assert said(bound) == [["STOPPING=1", "STATUS=stopping"]]


def test_only_a_turn_feeds_the_watchdog(manager: tuple[socket.socket, str]) -> None:
    bound, name = manager
    notifier = of(name, WATCHDOG_USEC="1", WATCHDOG_PID=str(os.getpid()))
    assert said(bound) == []
    notifier.turned()
    assert said(bound) == [["READY=1", "WATCHDOG=1"]]
    notifier.alive()
    assert said(bound) == [["WATCHDOG=1"]]
    notifier.stopping()
    assert said(bound) == [["STOPPING=1", "STATUS=stopping"]]


@pytest.mark.parametrize(
    "more",
    [{}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "x"}, {"WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}],
    ids=["none", "zero", "no-number", "another-process"],
)
def test_without_a_watchdog_of_ours_none_is_fed(
    manager: tuple[socket.socket, str], more: dict[str, str]
) -> None:
    bound, name = manager
    notifier = of(name, **more)
    notifier.turned()
    notifier.alive()
    assert said(bound) == [["READY=1"]]


def test_the_watchdog_is_not_told_at_every_turn(manager: tuple[socket.socket, str]) -> None:
    bound, name = manager
    notifier = of(name, WATCHDOG_USEC="3600000000")
    for _ in range(5):
        notifier.turned()
    assert said(bound) == [["READY=1", "WATCHDOG=1"]]


def test_a_status_is_one_line_whatever_is_in_it(manager: tuple[socket.socket, str]) -> None:
    bound, name = manager
    of(name).turned("a\nWATCHDOG=1\x1b[2J" + "b" * 1000)
    (lines,) = said(bound)
    assert lines[0] == "READY=1"
    assert lines[1].startswith("STATUS=a?WATCHDOG=1?[2Jbbb")
    assert len(lines) == 2
    assert len(lines[1]) < 250


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1234"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str], tmp_path: Path) -> None:
    notifier = Notifier.of(environment)
    notifier.turned("x")
    notifier.alive()
    notifier.stopping()


def test_a_manager_that_is_gone_or_full_holds_nothing_up(tmp_path: Path) -> None:
    of(str(tmp_path / "nobody")).turned("x")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "deaf"))
        notifier = of(str(tmp_path / "deaf"), WATCHDOG_USEC="1")
        for number in range(2000):  # more than a socket's queue holds (net.unix.max_dgram_qlen)
            notifier.turned(f"release {number}")


def test_what_did_not_arrive_is_said_again(tmp_path: Path) -> None:
    place = tmp_path / "later"
    notifier = of(str(place))
    notifier.turned("release 1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(place))
        bound.setblocking(False)
        notifier.turned("release 1")
        assert said(bound) == [["READY=1", "STATUS=release 1"]]


def test_a_child_cannot_speak_for_the_agent() -> None:
    environment = {"NOTIFY_SOCKET": "/run/x", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "2", "PATH": "/bin"}
    Notifier.of(environment)
    assert environment == {"PATH": "/bin"}


LOOP = """
import os, sys, time
from tidegate_agents.notify import Notifier
from tidegate_agents.watch import Waker
from pathlib import Path
manager = Notifier.of(os.environ)
with Waker([Path(sys.argv[1])]) as waker:
    while not waker.stopping:
        manager.turned()
        waker.wait(0.02)
        if Path(sys.argv[1], "hang").exists():
            while True:
                pass
"""


def test_a_loop_that_hangs_is_silent(tmp_path: Path) -> None:
    """As both agents use it: one word a turn, so that whoever is stuck in a turn says none."""
    (tmp_path / "watched").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "notify"))
        bound.settimeout(20)
        environment = {
            **os.environ,
            "NOTIFY_SOCKET": str(tmp_path / "notify"),
            "WATCHDOG_USEC": "100000",
        }
        with subprocess.Popen(
            [sys.executable, "-c", LOOP, str(tmp_path / "watched")], env=environment
        ) as process:
            try:
                assert bound.recv(4096).startswith(b"READY=1")
                for _ in range(3):
                    assert bound.recv(4096) == b"WATCHDOG=1"
                (tmp_path / "watched/hang").touch()
                bound.settimeout(1)  # ten times as long as the manager would wait
                said_after = 0
                with contextlib.suppress(TimeoutError):
                    while said_after < 100:
                        bound.recv(4096)
                        said_after += 1
                assert said_after < 100  # but for what was said before it hung, nothing
            finally:
                process.send_signal(signal.SIGKILL)
