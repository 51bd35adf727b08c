"""Events are kept for so many days, since they are about people: older ones are deleted, now and every hour."""

from __future__ import annotations

import logging
import time

from tidegate_control.chores import Chore
from tidegate_control.intake.store import EventStore, StoreError

log = logging.getLogger("tidegate.control")
_EVERY_SECONDS = 3600.0
_DAY_SECONDS = 86400


class Retention(Chore):
    """Deletes events that are older than `days`."""

    name = "retention"

    def __init__(self, events: EventStore, days: int) -> None:
        super().__init__()
        self._events, self._days = events, days

    def turn(self) -> float:
        """Delete what is too old by now."""
        self.expire(time.time())
        return _EVERY_SECONDS

    def expire(self, now: float) -> None:
        """Delete what was received more than the days ago; a store that fails is asked again in an hour."""
        try:
            count = self._events.expire(int(now) - self._days * _DAY_SECONDS)
        except StoreError as error:
            log.error("events older than %d days are still there: %s", self._days, error)
        else:
            if count:
                log.info("deleted %d events older than %d days", count, self._days)
