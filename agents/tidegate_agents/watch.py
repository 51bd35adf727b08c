"""Wake up when watched files may have changed, when a child has ended, or when it is time to stop.

A wake-up is a hint: whoever is woken reads the files again and compares. So a missed one costs a poll interval (on
file systems without inotify, such as a network mount) and a spurious one costs a read.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import threading
from pathlib import Path
from types import TracebackType

from watchfiles import watch

POLL_SECONDS = 2.0
_DEBOUNCE_MS = 100  # a publish is a burst of writes; one look after it is enough


class Waker:
    """One thing to wait on. Use as a context manager, in the main thread.

    SIGTERM, SIGINT and SIGHUP set `stopping`. With `may_leave`, SIGUSR1 sets it too, and `leaving`.
    """

    def __init__(self, paths: list[Path], *, may_leave: bool = False) -> None:
        self.stopping = self.leaving = False
        self._signals = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
        self._signals += [signal.SIGUSR1] if may_leave else []
        self._paths = paths
        self._selector = selectors.DefaultSelector()
        self._readable, self._writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._readable, selectors.EVENT_READ)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)

    def __enter__(self) -> Waker:
        signal.set_wakeup_fd(self._writable, warn_on_full_buffer=False)
        for number in self._signals:
            signal.signal(number, self._on_signal)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()
        signal.set_wakeup_fd(-1)
        self._selector.close()
        os.close(self._readable)
        os.close(self._writable)

    def add(self, fd: int) -> None:
        """Also wake when this descriptor becomes readable, as a pidfd does when its process ends."""
        self._selector.register(fd, selectors.EVENT_READ)

    def discard(self, fd: int) -> None:
        """Forget a descriptor."""
        with contextlib.suppress(KeyError):
            self._selector.unregister(fd)

    def wait(self, timeout: float) -> None:
        """Return when something may have happened, at the latest after `timeout` seconds."""
        self._selector.select(min(timeout, POLL_SECONDS))
        with contextlib.suppress(BlockingIOError):
            os.read(self._readable, 4096)

    def _on_signal(self, number: int, _frame: object) -> None:
        self.stopping = True
        self.leaving = number == signal.SIGUSR1  # of two signals the later one counts

    def _watch(self) -> None:
        while not self._end.is_set():
            present = [path for path in self._paths if path.is_dir()]
            if not present:  # what is not there yet is polled by `wait`
                self._end.wait(POLL_SECONDS)
                continue
            with contextlib.suppress(FileNotFoundError):  # it went between the look and the watch
                self._follow(present)

    def _follow(self, present: list[Path]) -> None:
        for _ in watch(
            *present,
            stop_event=self._end,
            watch_filter=None,
            debounce=_DEBOUNCE_MS,
            step=20,
            rust_timeout=int(POLL_SECONDS * 1000),
            yield_on_timeout=True,
            raise_interrupt=False,
        ):
            with contextlib.suppress(BlockingIOError):
                os.write(self._writable, b"f")
            if [path for path in self._paths if path.is_dir()] != present:
                return
