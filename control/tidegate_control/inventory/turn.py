"""Writers take turns in the order in which they came: a lock of Python's lets some wait while others pass by."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from tidegate_control.inventory.errors import Unavailable


class Turns:
    """A fair lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[threading.Event] = deque()
        self._is_taken = False

    @contextmanager
    def taken(self, seconds: float) -> Iterator[None]:
        """Wait for the turn and have it; Unavailable when it does not come in time."""
        mine = threading.Event()
        with self._lock:
            if self._is_taken:
                self._waiting.append(mine)
            else:
                self._is_taken = True
                mine.set()
        if not mine.wait(seconds):
            with self._lock:
                if not mine.is_set():
                    self._waiting.remove(mine)
                    raise Unavailable("too many others write at once; nothing is written, try again")
        try:
            yield
        finally:
            with self._lock:
                if self._waiting:
                    self._waiting.popleft().set()
                else:
                    self._is_taken = False
