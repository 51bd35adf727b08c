"""Progress of long work: a bar on a terminal, nothing anywhere else.

    with shown():                                   # a command, around what may take long
        for path in track("writing", paths): ...    # the work, however deep inside
        stage("checking")                           # what cannot be counted

Outside a `shown` block, where standard error is no terminal, and in the first half second, `track` and `stage` draw
nothing; so the core may call them and stays what it is without them. A bar says what is being done and how much of it,
never a name or a value from a file, and the block leaves the terminal as it was. Nothing else may be printed inside it.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

DELAY = 0.5  # seconds of work that show nothing
_EVERY = 0.1  # seconds between two drawings

_T = TypeVar("_T")


class Bar:
    """A bar on a terminal; a terminal that fails ends the bar and never the work.

    `counting`: whether a `track` is under way, which what is done for each of its items does not interrupt.
    """

    def __init__(self, stream: TextIO, environ: Mapping[str, str] | None = None) -> None:
        self._stream = stream
        self._environ = environ
        self._due = time.monotonic() + DELAY
        self._process = os.getpid()  # a forked worker has no business on its parent's terminal
        self._name, self._total, self._done = "", None, 0  # type: tuple[str, int | None, int]
        self._drawn: RichProgress | None = None
        self.counting = False

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin something of `total` steps, or None when nobody knows how many."""
        self._name, self._total, self._done = name, total, 0
        self._draw_if_due(always=self._drawn is not None)

    def advance(self, steps: int = 1) -> None:
        """Tell that steps are done."""
        self._done += steps
        self._draw_if_due()

    def close(self) -> None:
        """Wipe the bar away and give the cursor back."""
        if self._drawn is not None and os.getpid() == self._process:
            with contextlib.suppress(OSError):
                self._drawn.stop()
        self._drawn, self._due = None, float("inf")

    def _draw_if_due(self, always: bool = False) -> None:
        now = time.monotonic()
        if (now < self._due and not always) or os.getpid() != self._process:
            return
        self._due = now + _EVERY
        try:
            self._draw()
        except OSError:
            self.close()

    def _draw(self) -> None:
        if self._drawn is None:
            self._drawn = _rich(self._stream, self._environ)
            self._drawn.start()
            self._drawn.console.show_cursor(True)  # which a run that is killed could not give back
        for task in self._drawn.task_ids:
            self._drawn.remove_task(task)
        count = "" if self._total is None else f"{self._done}/{self._total}"
        self._drawn.add_task(self._name, completed=self._done, total=self._total, count=count)
        self._drawn.refresh()


def _rich(stream: TextIO, environ: Mapping[str, str] | None) -> RichProgress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    console = Console(file=stream, force_terminal=True, force_interactive=True, _environ=environ)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[count]}", markup=False),
    )
    # No thread draws: a bar moves when the work does, and nothing runs beside a fork.
    return Progress(
        *columns,
        console=console,
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
    )


_current: ContextVar[Bar | None] = ContextVar("progress", default=None)


@contextlib.contextmanager
def shown(stream: TextIO | None = None, environ: Mapping[str, str] = os.environ) -> Iterator[None]:
    """Let the work inside show its progress on a stream, by default standard error, if that is a terminal.

    NO_COLOR takes the colours; TERM=dumb, which cannot wipe a line, the bar.
    """
    stream = sys.stderr if stream is None else stream
    if stream is None or not _can_draw(stream, environ) or _current.get() is not None:
        yield
        return
    bar = Bar(stream, environ)
    token = _current.set(bar)
    try:
        yield
    finally:
        _current.reset(token)
        bar.close()


def _can_draw(stream: TextIO, environ: Mapping[str, str]) -> bool:
    try:
        return stream.isatty() and environ.get("TERM", "").lower() not in ("", "dumb", "unknown")
    except ValueError:  # it was closed
        return False


def stage(name: str, total: int | None = None) -> None:
    """Tell what is begun; see `Bar.stage`."""
    bar = _current.get()
    if bar is not None and not bar.counting:
        bar.stage(name, total)


def track(name: str, items: Collection[_T]) -> Iterable[_T]:
    """Return the items, each of them a step of a new stage; the very same object where nothing is shown."""
    bar = _current.get()
    return items if bar is None or bar.counting else _tracked(bar, name, items)


def _tracked(bar: Bar, name: str, items: Collection[_T]) -> Iterator[_T]:
    bar.counting = True
    try:
        bar.stage(name, len(items))
        for item in items:
            yield item
            bar.advance()
    finally:
        bar.counting = False
