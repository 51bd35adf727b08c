"""Group commit: batches that arrive while one commit is under way share the next one.

    request ─► queue, bounded ─► one thread ─► store.add(all that waits) ─► each request's answer

A commit waits for the disk; so one for each batch would bound the rate, whatever the processor can do. What finds the
queue full is told so at once: the gateway has better places to keep it.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Sequence
from concurrent.futures import Future

from tidegate_control.intake.store import Added, Batch, EventStore, StoreError, Unavailable

WAITING_MOST = 64
"""Requests in the queue."""
TOGETHER_BYTES = 32 << 20
"""Of lines in one commit, from when on no more batches are added to it."""
_LOG = logging.getLogger(__name__)
_Job = tuple[Sequence[Batch], "Future[list[Added]]"]


class Full(Exception):  # noqa: N818 - it names the state
    """More waits than may."""


class Committer:
    """The one thread that writes to a store; it starts with the first batch."""

    def __init__(self, store: EventStore, waiting_most: int = WAITING_MOST) -> None:
        self._store = store
        self._waiting: queue.Queue[_Job | None] = queue.Queue(waiting_most)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def submit(self, batches: Sequence[Batch]) -> Future[list[Added]]:
        """Have these batches stored together; Full.

        The future ends with what `store.add` says of them, or with StoreError.
        """
        promise: Future[list[Added]] = Future()
        with self._lock:
            if self._is_closed:
                raise Full("closed")
            try:
                self._waiting.put_nowait((batches, promise))
            except queue.Full:
                raise Full("too many batches wait for the disk") from None
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
                self._thread.start()
        return promise

    def close(self) -> None:
        """Store what waits, and end the thread."""
        with self._lock:
            self._is_closed = True
            thread = self._thread
        if thread is not None:
            self._waiting.put(None)
            thread.join()

    def _run(self) -> None:
        while (job := self._waiting.get()) is not None:
            jobs = [job]
            size = _size(job)
            is_last = False
            while size < TOGETHER_BYTES:
                try:
                    another = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if another is None:
                    is_last = True
                    break
                jobs.append(another)
                size += _size(another)
            self._store_all(jobs)
            if is_last:
                return

    def _store_all(self, jobs: Sequence[_Job]) -> None:
        """Store, and tell; a request that has gone is not told, but what it brought is stored all the same."""
        try:
            added = self._store.add([batch for batches, _ in jobs for batch in batches])
        except Exception as error:
            if len(jobs) > 1 and not isinstance(error, Unavailable):
                for job in jobs:  # one that the store cannot take must not take others with it
                    self._store_all([job])
                return
            _LOG.error("events are not stored: %s", error, exc_info=not isinstance(error, StoreError))
            told = error if isinstance(error, StoreError) else StoreError("events: a mistake of the server's")
            for _, promise in jobs:
                if _is_awaited(promise):
                    promise.set_exception(told)
            return
        at = 0
        for batches, promise in jobs:
            if _is_awaited(promise):
                promise.set_result(added[at : at + len(batches)])
            at += len(batches)


def _is_awaited(promise: Future[list[Added]]) -> bool:
    return promise.set_running_or_notify_cancel()


def _size(job: _Job) -> int:
    return sum(len(batch.text) for batch in job[0])
