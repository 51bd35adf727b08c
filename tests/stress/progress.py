"""How far a long run is, on a terminal; nothing elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType


class Progress:
    """One line that is written over, ten times a second at most."""

    def __init__(self, what: str, total: int) -> None:
        self._what, self._total = what, total
        self._is_shown = sys.stderr.isatty()
        self._began = time.monotonic()
        self._due = 0.0

    def at(self, done: int) -> None:
        """Say how much is done."""
        now = time.monotonic()
        if self._is_shown and done and now >= self._due:
            self._due = now + 0.1
            left = (now - self._began) * (self._total - done) / done
            line = (
                f"\r{self._what}: {done} of {self._total}, {done / self._total:.0%}, {left:.0f} s left \x1b[K"
            )
            print(line, end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._is_shown:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
