"""The time by which grants begin and end: it never goes back, whatever happens to the clock."""

from __future__ import annotations

import time


class Clock:
    """Unix seconds, never before a moment seen earlier, nor behind what has passed since then."""

    def __init__(self, not_earlier_than: float = 0.0) -> None:
        self._ahead = not_earlier_than - time.monotonic()
        self.now()

    def now(self) -> float:
        """Return the time; a clock set back revives no grant, also when nobody has asked for a while."""
        monotonic = time.monotonic()
        self._ahead = max(self._ahead, time.time() - monotonic)
        return monotonic + self._ahead
