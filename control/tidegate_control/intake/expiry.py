"""Retention: what is older than so many days is deleted, when the server starts and every hour from then on.

Events tell who went where and when: personal data. They are kept for `events_days` full days (UTC) after the day of
their receipt, and deleted within an hour after that. A store that does not answer is asked again an hour later.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from tidegate_control.intake.store import DAY_S, EventStore, StoreError

EVERY_S = 3600.0
_LOG = logging.getLogger(__name__)


class Expiry:
    """A thread that deletes what is due, until it is closed."""

    def __init__(self, store: EventStore, days: int, clock: Callable[[], float] = time.time) -> None:
        """Refuse less than a day (ValueError)."""
        if days < 1:
            raise ValueError("events are kept for a day at least")
        self._store, self._days, self._clock = store, days, clock
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="expiry", daemon=True)

    def start(self) -> None:
        """Begin, with what is due now."""
        self._thread.start()

    def close(self) -> None:
        """End; what is under way is finished before."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def once(self) -> None:
        """Delete what is due."""
        try:
            count = self._store.expire(int(self._clock()) - self._days * DAY_S)
        except StoreError as error:
            _LOG.error("events that are due are not deleted: %s", error)
        else:
            if count:
                _LOG.info("deleted %d events that were received more than %d days ago", count, self._days)

    def _run(self) -> None:
        while True:
            self.once()
            if self._closing.wait(EVERY_S):
                return
