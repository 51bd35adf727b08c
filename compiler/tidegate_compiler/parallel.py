"""Work on large inputs by two processes: the work is plain Python, and one interpreter uses one core.

The second one is a fork, so it has the input already; what it finds comes back through a pipe as plain values.
It never outlives the call, and whatever it fails to deliver is done here.
"""

from __future__ import annotations

import marshal
import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")

WORTH_IT = (
    4 << 20
)  # a fork and the way back of the values cost some 10 ms; 4 MiB of YAML take ten times as long


def each(work: Callable[[T], Any], items: Sequence[T], weight: Callable[[T], int]) -> list[Any]:
    """Return what `work` makes of each item, in order. It must return plain values: no classes.

    `weight` is an item's size in bytes; what the second process saves is worth it from `WORTH_IT` on.
    """
    weights = [weight(item) for item in items]
    if sum(weights) < WORTH_IT or not _may_fork():
        return [work(item) for item in items]
    middle = _middle(weights)
    child = _Child(lambda: [work(item) for item in items[middle:]])
    try:
        mine = [work(item) for item in items[:middle]]
        theirs = child.result()
    finally:
        child.end()
    if theirs is None:
        theirs = [work(item) for item in items[middle:]]
    return mine + theirs


def _may_fork() -> bool:
    # A lock that another thread holds would stay locked in the child for good.
    return threading.active_count() == 1 and len(os.sched_getaffinity(0)) > 1


def _middle(weights: list[int]) -> int:
    """Return the index at which the items fall into two parts of about the same weight."""
    total, below = sum(weights), 0
    for index, weight in enumerate(weights):
        below += weight
        if 2 * below >= total:
            return index + 1
    return len(weights)


class _Child:
    """A fork that does one thing, writes what it found into a pipe and ends."""

    def __init__(self, work: Callable[[], list[Any]]) -> None:
        self._pipe, write = os.pipe()
        self._process = os.fork()
        if self._process == 0:
            status = 1
            try:
                os.close(self._pipe)
                with os.fdopen(write, "wb") as pipe:
                    marshal.dump(work(), pipe)
                status = 0
            finally:
                os._exit(status)  # nothing of the parent's is flushed, closed or reported twice
        os.close(write)

    def result(self) -> list[Any] | None:
        """Return what it found, or None when it failed."""
        with os.fdopen(self._pipe, "rb") as pipe:
            data = pipe.read()
        self._pipe = -1
        _, status = os.waitpid(self._process, 0)
        self._process = -1
        return list(marshal.loads(data)) if status == 0 else None  # noqa: S302 - our own fork wrote it

    def end(self) -> None:
        """Leave nothing behind, also when the parent's part of the work ended in an exception."""
        if self._pipe != -1:
            os.close(self._pipe)
        if self._process != -1:
            os.kill(self._process, 9)
            os.waitpid(self._process, 0)
