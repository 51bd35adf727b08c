"""Questions that compute much: so many at once, and the same one about the same revision only once.

    in memory? ──► answer
        │ no
    places: of the asker (429), of all askers (503) ──► is somebody computing it? wait ──► compute ──► keep

Who waits for somebody else's answer has a place, too: each holds a thread. What is kept is bounded in bytes.
"""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tidegate_control.problems import Problem

EACH, EVERY = 2, 6
"""Such questions at once, of one token and of all."""
MEMORY = 64 << 20
"""Bytes of answers that are kept."""
AGAIN = 2
"""After so many seconds it may be tried again."""
_BESIDES = 1024  # what an answer takes beside its bytes, more or less

T = TypeVar("T")


@dataclass
class _Flight:
    """A question that is being answered, and how many are there for it."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    askers: int = 0


class Costly:
    """Answers that take long to compute. One for the process; may be used by several threads."""

    def __init__(self, each: int = EACH, every: int = EVERY, memory: int = MEMORY) -> None:
        self._each, self._every, self._memory = each, every, memory
        self._lock = threading.Lock()
        self._asking: Counter[str] = Counter()
        self._flights: dict[Hashable, _Flight] = {}
        self._known: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0

    def answer(
        self, asker: str, question: Hashable, compute: Callable[[], T], size: Callable[[T], int | None]
    ) -> T:
        """Return the answer, from memory or by `compute`. Problem 429, 503; what `compute` raises is not kept.

        `question` names all that the answer depends on, the revision too; `size` tells bytes, None: not to be kept.
        """
        with self._lock:
            found: list[T] = self._remembered(question)
        if found:
            return found[0]
        with self._place(asker, question) as flight, flight.lock:
            with self._lock:
                found = self._remembered(question)
            if found:
                return found[0]
            made = compute()
            taken = size(made)
            if taken is not None:
                self._keep(question, made, taken + _BESIDES)
            return made

    def once(self, asker: str, compute: Callable[[], T]) -> T:
        """Return what `compute` returns, which is like nothing that anybody else asks for. Problem 429, 503."""
        return self.answer(asker, object(), compute, lambda _: None)

    def _remembered(self, question: Hashable) -> list[Any]:
        if question not in self._known:
            return []
        self._known.move_to_end(question)
        return [self._known[question][0]]

    @contextmanager
    def _place(self, asker: str, question: Hashable) -> Iterator[_Flight]:
        with self._lock:
            if self._asking[asker] >= self._each:
                raise _later(429, f"a token may ask {self._each} questions at once that compute much")
            if self._asking.total() >= self._every:
                raise _later(503, f"{self._every} questions that compute much are being answered")
            self._asking[asker] += 1
            flight = self._flights.setdefault(question, _Flight())
            flight.askers += 1
        try:
            yield flight
        finally:
            with self._lock:
                self._asking[asker] -= 1
                if not self._asking[asker]:
                    del self._asking[asker]
                flight.askers -= 1
                if not flight.askers:
                    del self._flights[question]

    def _keep(self, question: Hashable, made: Any, taken: int) -> None:
        """Keep an answer, and forget those that nobody has asked for longest."""
        if taken > self._memory:
            return
        with self._lock:
            self._known[question] = made, taken
            self._bytes += taken
            while self._bytes > self._memory:
                self._bytes -= self._known.popitem(last=False)[1][1]


def _later(status: int, why: str) -> Problem:
    detail = f"{why}; try again in {AGAIN} s"
    return Problem(status, "Not now", detail, headers={"Retry-After": str(AGAIN)})
