"""Events are kept for so many days, since they are about people: a thread deletes older ones, now and every hour."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from tidegate_control.intake.store import EventStore, StoreError

log = logging.getLogger("tidegate.control")
_EVERY_SECONDS = 3600.0
_DAY_SECONDS = 86400


class Retention:
    """Runs between `with` and its end."""

    def __init__(self, events: EventStore, days: int) -> None:
        self._events, self._days = events, days
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def __enter__(self) -> Retention:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self.expire(time.time())
            if self._end.wait(_EVERY_SECONDS):
                return

    def expire(self, now: float) -> None:
        """Delete what was received more than the days ago; a store that fails is asked again in an hour."""
        try:
            count = self._events.expire(int(now) - self._days * _DAY_SECONDS)
        except StoreError as error:
            log.error("events older than %d days are still there: %s", self._days, error)
        else:
            if count:
                log.info("deleted %d events older than %d days", count, self._days)
