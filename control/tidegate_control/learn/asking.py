"""Questions that are put to a server at work: one at a time, about a bounded window, for a bounded time.

    window (refused when too long) ──► the turn (one for the process) ──► readers whose rows and seconds are counted

A server also takes events in and shows pages. So whoever comes while a question is being answered is told to come
again, and one that is larger than its bounds is refused while it is read, not when memory is gone.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tidegate_compiler.learn.flows import DAY, Window
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.learn.records import END
from tidegate_control.intake import store as intake
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.learn import answers, sources, stores
from tidegate_control.learn.sources import Asked, Reader, SourceError

if TYPE_CHECKING:  # which has the turn
    from tidegate_control.app import Services

DAYS_MOST = 92
"""The longest window, in days: a store is asked about each of them."""
AGAIN = 5
"""After so many seconds another question may be tried."""
TITLE = "the intake's store"


class BusyError(Exception):
    """Another question is being answered; one line."""


class TooMuchError(SourceError):
    """The question is larger than the server answers; one line."""


@dataclass(frozen=True)
class Bounds:
    """What a question may cost: seconds, and rows of the store (what differs, by day)."""

    seconds: float
    rows: int


CHANGES_MOST = 100_000
"""Of a replay: some 100 MB. One client that scans, under observe, makes a change of each address and port."""
WHOLE = Bounds(60, 2_000_000)
"""Of a question that somebody asks; of its rows only what changes is kept."""
SUGGESTION = Bounds(60, 300_000)
"""Of a suggestion, which keeps every row and then works on all of them."""
GLANCE = Bounds(1, 20_000)
"""Of what is looked up unasked, while somebody waits for something else."""


@dataclass
class Turn:
    """One for the process."""

    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold it, or raise BusyError at once."""
        if not self._lock.acquire(blocking=False):
            raise BusyError(
                "another question about recorded flows is being answered; they are answered one by one"
            )
        try:
            yield
        finally:
            self._lock.release()


@dataclass
class Metered:
    """A store of which one question may take so much; TooMuchError past it."""

    store: stores.Aggregates
    bounds: Bounds
    until: float
    clock: Callable[[], float]
    rows: int = 0

    def aggregated(self, window: intake.Window) -> Iterator[intake.FlowGroup]:
        """Return every group of the window, while the bounds last."""
        self._check()
        for one in self.store.aggregated(window):
            self.rows += 1
            self._check()
            yield one

    def _check(self) -> None:
        if self.rows > self.bounds.rows:
            raise TooMuchError(
                f"more than {self.bounds.rows:,} different flows; ask about fewer days at once"
            )
        if self.clock() > self.until:
            raise TooMuchError(
                f"it takes longer than {self.bounds.seconds:g} s; ask about fewer days at once"
            )


def window(asked: Asked, now: int) -> Window:
    """Return the window that is asked about, the last seven days without a word; SourceError."""
    if asked.begin is None and asked.end is not None:
        raise SourceError("say from when, too")
    found = asked.window(now, sources.DEFAULT_LAST)
    begin, end = found.begin or 0, now + 1 if found.end is None else found.end
    if begin >= end:
        raise SourceError("the window begins in the future")
    if end >= END:
        raise SourceError("the window ends later than any event")
    if end - begin > DAYS_MOST * DAY + 1:
        raise SourceError(f"at most {DAYS_MOST} days at once")
    return Window(begin, end)


@contextmanager
def asking(
    services: Services, span: Window, bounds: Bounds, clock: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], Reader]]:
    """Hold the turn; yield what makes a reader of a window with both ends, each time it is to be read. BusyError.

    All readings of one question share its bounds.
    """
    with services.learning.taken():
        store = Metered(services.events, bounds, clock() + bounds.seconds, clock)
        yield lambda: stores.of(store, TITLE, span, 0)


def subject(services: Services, snapshot: Snapshot, title: str) -> answers.Subject | None:
    """Return an inventory to judge by, with the names that git knows; None when it has errors."""
    root = services.settings.inventory or "."
    return answers.of_snapshot(snapshot, services.inventory, title, root, snapshot.commit)


def unasked(snapshot: Snapshot, base: Snapshot, root: str, title: str) -> answers.Subject | None:
    """Return an inventory to judge by whose past is that of `base` alone: git is not asked. None when it has errors.

    So a key that the change rotates is followed, one that was rotated earlier is not.
    """
    if snapshot.compiled is None or base.compiled is None:
        return None
    past = Timeline()
    past.step(0, {"": base.compiled.fleet.ids})
    return answers.Subject(title, root or ".", snapshot.compiled, past)
