"""The waker wakes for a file, a signal, a descriptor, or because it is time."""

from __future__ import annotations

import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate_agents.watch import Waker


@pytest.fixture(autouse=True)
def _signals() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def quiet(waker: Waker) -> None:
    """Wait until nothing is reported any more."""
    while elapsed(waker, 0.4) < 0.35:
        pass


def elapsed(waker: Waker, timeout: float) -> float:
    began = time.monotonic()
    waker.wait(timeout)
    return time.monotonic() - began


def test_it_waits_no_longer_than_told(tmp_path: Path) -> None:
    with Waker([tmp_path]) as waker:
        quiet(waker)
        assert 0.2 < elapsed(waker, 0.25) < 1
        assert elapsed(waker, 0) < 0.1


@pytest.mark.parametrize("how", ["write", "replace", "link", "below"])
def test_a_changed_file_wakes(tmp_path: Path, how: str) -> None:
    (tmp_path / "sub").mkdir()
    with Waker([tmp_path]) as waker:
        quiet(waker)
        if how == "write":
            (tmp_path / "f").write_text("x")
        elif how == "replace":
            (tmp_path.parent / "aside").write_text("x")
            (tmp_path.parent / "aside").replace(tmp_path / "f")
        elif how == "link":
            (tmp_path / "current").symlink_to("nowhere")
        else:
            (tmp_path / "sub" / "f").write_text("x")
        assert elapsed(waker, 2) < 1.5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_wakes_and_asks_to_stop(tmp_path: Path, number: int) -> None:
    with Waker([tmp_path]) as waker:
        quiet(waker)
        assert not waker.stopping
        timer = threading.Timer(0.1, os.kill, (os.getpid(), number))
        timer.start()
        assert elapsed(waker, 2) < 1.5
        assert waker.stopping
        timer.join()


def test_a_signal_before_the_wait_is_not_missed(tmp_path: Path) -> None:
    with Waker([tmp_path]) as waker:
        quiet(waker)
        os.kill(os.getpid(), signal.SIGTERM)
        assert elapsed(waker, 2) < 1.5
        assert waker.stopping


def test_a_descriptor_wakes_until_it_is_discarded(tmp_path: Path) -> None:
    readable, writable = os.pipe()
    with Waker([tmp_path]) as waker:
        quiet(waker)
        waker.add(readable)
        assert elapsed(waker, 0.2) > 0.15
        os.write(writable, b"x")
        assert elapsed(waker, 2) < 0.5
        waker.discard(readable)
        waker.discard(readable)
        assert elapsed(waker, 0.2) > 0.15
    os.close(readable)
    os.close(writable)


def test_a_directory_that_goes_and_comes_back_is_watched_again(tmp_path: Path) -> None:
    place = tmp_path / "bundles"
    place.mkdir()
    with Waker([place]) as waker:
        quiet(waker)
        shutil.rmtree(place)
        quiet(waker)
        place.mkdir()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            (place / "f").write_text(str(time.monotonic()))
            if elapsed(waker, 1) < 0.8:
                return
        raise AssertionError("no longer watched")


def test_a_directory_that_is_not_there_does_no_harm(tmp_path: Path) -> None:
    with Waker([tmp_path / "nowhere"]) as waker:
        assert elapsed(waker, 0.2) < 1
