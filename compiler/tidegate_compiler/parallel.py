"""Work on large inputs by two processes: the work is plain Python, and one interpreter uses one core.

The second one is a fork, so it has the input already; what it finds comes back through a pipe as plain values.
It never outlives the call, and whatever it fails to deliver is done here.
"""

from __future__ import annotations

import marshal
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain, takewhile
from typing import Any, TypeVar

from tidegate_compiler.progress import track

T = TypeVar("T")

# A fork and the way back of what it found cost some 10 ms; a MiB of YAML takes five times as long.
WORTH_IT = 1 << 20


def each(work: Callable[[T], Any], items: Sequence[T], weight: Callable[[T], int], name: str) -> list[Any]:
    """Return what `work` makes of each item, in order. It must return plain values: no classes.

    `weight` is an item's size in bytes; what the second process saves is worth it from `WORTH_IT` on.
    `name` is what is being done, for people who watch; of two processes they see what this one does.
    """
    theirs: Sequence[int] = ()
    child = None
    if sum(map(weight, items)) >= WORTH_IT and _may_fork():
        # Spread evenly, since neighbours are of one kind and cost alike; the child has to send what it found, too.
        theirs = [index for index in range(len(items)) if index % 9 in (1, 3, 5, 7)]
        with suppress(OSError):  # no process or no pipe to be had here
            child = _Child(work(items[index]) for index in theirs)
    if child is None:
        return [work(item) for item in track(name, items)]
    try:
        ours = sorted(set(range(len(items))).difference(theirs))
        found = {index: work(items[index]) for index in track(name, ours)}
        sent = child.result()
    finally:
        child.end()
    found.update(zip(theirs, [work(items[index]) for index in theirs] if sent is None else sent, strict=True))
    return [found[index] for index in range(len(items))]


def by_count(_: object) -> int:
    """Return what stands for the work of looking at one host's files, as bytes to parse: a weight for `each`."""
    return 1 << 10


@contextmanager
def beside(work: Callable[[], Any], is_large: bool) -> Iterator[Callable[[], Any]]:
    """Let some work be done by another process meanwhile, if it is large; call what comes for what it returned.

    That must be a plain value. Without another process, or when that fails, the work is done in the call.
    """
    child = None
    if is_large and _may_fork():
        with suppress(OSError):  # no process or no pipe to be had here
            child = _Child(do() for do in (work,))
    if child is None:
        yield work
        return

    def found() -> Any:
        sent = child.result()
        return work() if sent is None else sent[0]

    try:
        yield found
    finally:
        child.end()


@contextmanager
def shared(work: Callable[[T], Any], items: Sequence[T], is_large: bool) -> Iterator[Callable[[], list[Any]]]:
    """Let another process begin to do some work on items, if it is large; call what comes to have the end of it.

    The call does what the other process has not come to, and returns what `work` made of each item, in no order.
    That must be plain values. Without another process, or when that fails, the work is done in the call.
    """
    piles = [items[first::_MOST_PILES] for first in range(min(len(items), _MOST_PILES))]
    with ExitStack() as stack:
        drawn: Iterable[int] = range(len(piles))
        child = None
        if is_large and _may_fork():
            with suppress(OSError):  # no process or no pipe to be had here
                drawn = stack.enter_context(_tickets(len(piles)))
                child = _Child([number, list(map(work, piles[number]))] for number in drawn)
                stack.callback(child.end)

        def found() -> list[Any]:
            made = {number: list(map(work, piles[number])) for number in drawn}
            made.update((child and child.result()) or ())
            made |= {n: list(map(work, pile)) for n, pile in enumerate(piles) if n not in made}
            return list(chain.from_iterable(made.values()))

        yield found


_MOST_PILES = 256  # a ticket is a byte, and all of them are fewer than any pipe holds


@contextmanager
def _tickets(count: int) -> Iterator[Iterator[int]]:
    """Yield the numbers below `count`, each of which one of the processes draws that draw from them."""
    pipe, write = os.pipe()
    try:
        with os.fdopen(write, "wb") as full:
            full.write(bytes(range(count)))
        yield (number for (number,) in iter(lambda: os.read(pipe, 1), b""))
    finally:
        os.close(pipe)


def _may_fork() -> bool:
    # A lock that another thread holds would stay locked in the child for good. More processes than cores only copy
    # each other's memory.
    return threading.active_count() == 1 and _Child.at_work + 1 < len(os.sched_getaffinity(0))


class _Child:
    """A fork that does one thing, writes what it found into a pipe and ends."""

    at_work = 0
    """How many there are beside this process, or beside the ones that it is a child of."""

    def __init__(self, work: Iterable[Any]) -> None:
        """Fork; the child makes the items of `work`. Raises OSError when the system refuses."""
        self._pipe, write = os.pipe()
        parent = os.getpid()
        try:
            self._process = os.fork()
        except OSError:
            os.close(self._pipe)
            os.close(write)
            raise
        _Child.at_work += 1
        if self._process == 0:
            status = 1
            try:
                os.close(self._pipe)
                found = list(takewhile(lambda _: os.getppid() == parent, work))  # nobody is left to work for
                with os.fdopen(write, "wb") as pipe:
                    marshal.dump(found, pipe)
                status = 0
            finally:
                os._exit(status)  # nothing of the parent's is flushed, closed or reported twice
        os.close(write)

    def result(self) -> list[Any] | None:
        """Return what it found, or None when it failed."""
        with os.fdopen(self._pipe, "rb", closefd=False) as pipe:
            data = pipe.read()
        return list(marshal.loads(data)) if self._status() == 0 else None  # noqa: S302 - our own fork wrote it

    def end(self) -> None:
        """Leave nothing behind, also when the parent's part of the work ended in an exception."""
        _Child.at_work -= 1
        os.close(self._pipe)
        if self._process != -1:
            with suppress(ProcessLookupError):
                os.kill(self._process, 9)
            self._status()

    def _status(self) -> int | None:
        """Wait for the end; None when nobody can tell how it was: whoever ignores SIGCHLD leaves that to the system."""
        try:
            _, status = os.waitpid(self._process, 0)
        except ChildProcessError:
            return None
        finally:
            self._process = -1
        return status
