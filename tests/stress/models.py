"""Every order in which processes can take their steps in shared memory, as two kinds of machines allow it.

A process is a function that runs real code against a `Run`. Each load, store and fence of shared memory is a step. The
function is run from its beginning for every step: what it was answered so far is answered again, and it is stopped at
the first step that has no answer yet. So where it stands is known by its answers alone, states can be compared, and no
order is looked at twice.

The two machines are values that never change; each says what a step may be answered with, and what the memory is then.

`Tso` is x86-64 (Sewell et al., x86-TSO, CACM 2010): each process has a queue of stores that the others do not see yet,
and it may reach memory at any time. It has no fence, since the real code makes none there.

`Views` is C11 as far as relaxed accesses and acquire-release fences go (the view machine of Kang et al., A promising
semantics for relaxed-memory concurrency, POPL 2017, without its promises). An index has a history of values; a process
may read any that is not older than what it has seen. Bytes of records are no atomics: two processes that touch the
same ones, one of them writing, without the one happening before the other, are a race and end the search. That is also
how a store that overtakes an earlier load is found, which without promises no process sees. Promises of an index would
add nothing: between one that a process reads and the next that it stores stands a fence, but for `head` in `free`, of
which what is stored there does not depend unless it is nonsense.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeAlias

Place: TypeAlias = Any
"""An index of a word, or (slot, which end) of a record."""
Step: TypeAlias = tuple[Any, ...]
"""("load", place), ("store", place, value) or ("fence",)."""


class Broken(AssertionError):  # noqa: N818 - it names what happened to the promise
    """Some order breaks the protocol's promise."""


class _Unanswered(BaseException):
    """The process would take a step; nothing in the code under test may catch it."""


class Run:
    """One run of a process up to its next step."""

    def __init__(self, answers: Sequence[Any]) -> None:
        self._answers = iter(answers)
        self.log: list[Any] = []

    def step(self, *step: Any) -> Any:
        for answer in self._answers:
            return answer
        raise _Unanswered(*step)


Process: TypeAlias = Callable[[Run], None]


class Stand:
    """Where a process stands: its next step, None at its end, and what it has logged."""

    def __init__(self, process: Process, answers: tuple[Any, ...] = ()) -> None:
        self._process, self._answers = process, answers
        self._next: dict[Any, Stand] = {}
        self.step: Step | None = None
        run = Run(answers)
        try:
            process(run)
        except _Unanswered as stopped:
            self.step = stopped.args
        self.log = tuple(run.log)

    def after(self, answer: Any) -> Stand:
        """Return where it stands once its step is answered: the same object for the same answer."""
        if answer not in self._next:
            self._next[answer] = Stand(self._process, (*self._answers, answer))
        return self._next[answer]


class Memory(Protocol):
    def answers(self, process: int, step: Step) -> Iterator[tuple[Any, Memory]]:
        """Yield each answer that a process may get to a step, with the memory after it."""

    def alone(self) -> Iterator[Memory]:
        """Yield what the memory may become without anybody's step."""

    def killed(self, process: int) -> Memory:
        """Return the memory as a process's successor finds it, which sees all that its predecessor has done."""

    def latest(self, place: Place) -> Any:
        """Return what everybody will see in the end."""


# x86-64 -------------------------------------------------------------------------------------------------------


class Tso(NamedTuple):
    values: tuple[tuple[Place, Any], ...]
    queues: tuple[tuple[tuple[Place, Any], ...], ...]

    @classmethod
    def of(cls, processes: int) -> Tso:
        return cls((), ((),) * processes)

    def answers(self, process: int, step: Step) -> Iterator[tuple[Any, Memory]]:
        kind, place, *value = step
        queue = self.queues[process]
        if kind == "load":
            yield dict((*self.values, *queue)).get(place, 0), self
        else:
            yield None, self._with(process, (*queue, (place, *value)))

    def alone(self) -> Iterator[Memory]:
        for process, queue in enumerate(self.queues):
            if queue:
                yield self._stored(queue[:1])._with(process, queue[1:])

    def killed(self, process: int) -> Memory:
        return self  # what it has stored is still on its way; no more than that is needed here

    def latest(self, place: Place) -> Any:
        return dict(self.values).get(place, 0)

    def _stored(self, stores: Sequence[tuple[Place, Any]]) -> Tso:
        return self._replace(values=tuple(sorted({**dict(self.values), **dict(stores)}.items(), key=repr)))

    def _with(self, process: int, queue: tuple[tuple[Place, Any], ...]) -> Tso:
        return self._replace(queues=(*self.queues[:process], queue, *self.queues[process + 1 :]))


# C11 ----------------------------------------------------------------------------------------------------------

View: TypeAlias = tuple[int, ...]
"""How far something has been seen: for each index the number of its value, for each process its clock."""


class Atomic(NamedTuple):
    """An index: all values that it had, and what whoever reads one acquires with it."""

    values: tuple[tuple[Any, View], ...]


class Plain(NamedTuple):
    """Bytes of a record, who wrote them when, and when each process last read them."""

    value: Any
    writer: int
    written: int
    read: View


class Seen(NamedTuple):
    """What a process has seen; what it will have at its next fence; what it had at its last one."""

    now: View
    acquired: View
    released: View


class Places:
    """Which number a place has in a view and among the contents; compared as itself."""

    def __init__(self, places: Sequence[Place]) -> None:
        self.names = places
        self.numbers = {place: number for number, place in enumerate(places)}


class Views(NamedTuple):
    places: Places
    contents: tuple[Atomic | Plain, ...]
    seen: tuple[Seen, ...]

    @classmethod
    def of(cls, processes: int, atomics: Sequence[Place], plains: Sequence[Place]) -> Views:
        nothing = (0,) * len(atomics) + (1,) * processes
        atomic = [Atomic(((0, nothing),))] * len(atomics)
        plain = [Plain(0, 0, 0, (0,) * processes)] * len(plains)
        return cls(
            Places([*atomics, *plains]), (*atomic, *plain), (Seen(nothing, nothing, nothing),) * processes
        )

    def answers(self, process: int, step: Step) -> Iterator[tuple[Any, Memory]]:
        kind, *rest = step
        if kind == "fence":
            yield None, self._fence(process)
            return
        at = self.places.numbers[rest[0]]
        content = self.contents[at]
        if isinstance(content, Plain):
            yield self._plain(process, at, content, *rest[1:])
        elif kind == "load":
            now, acquired, released = self.seen[process]
            for number in range(now[at], len(content.values)):
                value, view = content.values[number]
                seen = Seen(_put(now, at, number), _join(acquired, view), released)
                yield value, Views(self.places, self.contents, _put(self.seen, process, seen))
        else:
            now, acquired, released = self.seen[process]
            number = len(content.values)
            view = _put(released, at, number)
            stored = _put(self.contents, at, Atomic((*content.values, (rest[1], view))))
            seen = Seen(_put(now, at, number), acquired, released)
            yield None, Views(self.places, stored, _put(self.seen, process, seen))

    def alone(self) -> Iterator[Memory]:
        return iter(())

    def killed(self, process: int) -> Memory:
        return self._fence(process)

    def latest(self, place: Place) -> Any:
        content = self.contents[self.places.numbers[place]]
        return content.value if isinstance(content, Plain) else content.values[-1][0]

    def _fence(self, process: int) -> Views:
        now = _join(self.seen[process].now, self.seen[process].acquired)
        mine = self._clock(process)
        # What it does from here on comes after what it has released.
        seen = Seen(_put(now, mine, now[mine] + 1), now, now)
        return Views(self.places, self.contents, _put(self.seen, process, seen))

    def _plain(self, process: int, at: int, content: Plain, *value: Any) -> tuple[Any, Views]:
        now = self.seen[process].now
        clocks = now[self._clock(0) :]
        if content.writer != process and content.written > clocks[content.writer]:
            raise Broken(f"race: {self.places.names[at]} is touched while it is written")
        if not value:
            read = content._replace(read=_put(content.read, process, clocks[process]))
            return content.value, self._replace(contents=_put(self.contents, at, read))
        for other, when in enumerate(content.read):
            if other != process and when > clocks[other]:
                raise Broken(f"race: {self.places.names[at]} is written while it is read")
        written = Plain(*value, process, clocks[process], (0,) * len(clocks))
        return None, self._replace(contents=_put(self.contents, at, written))

    def _clock(self, process: int) -> int:
        return len(self.seen[0].now) - len(self.seen) + process


def _put(values: tuple[Any, ...], at: int, value: Any) -> tuple[Any, ...]:
    return (*values[:at], value, *values[at + 1 :])


def _join(one: View, other: View) -> View:
    return tuple(map(max, one, other))


# The search ---------------------------------------------------------------------------------------------------


class State(NamedTuple):
    memory: Any
    stands: tuple[tuple[Stand, ...], ...]
    """For each side, where its processes were when they were killed, and where the one stands that runs."""


class End(NamedTuple):
    """A state in which nobody has a step left; for each side, the logs of its processes, the killed ones first."""

    memory: Memory
    logs: tuple[tuple[tuple[Any, ...], ...], ...]


class Count(NamedTuple):
    states: int
    ends: int


def explore(memory: Memory, sides: Sequence[Sequence[Process]], judge: Callable[[End], None]) -> Count:
    """Run sides against each other in every order, judge every end, and count what was looked at.

    A side is a process and those that come after it: it may be killed before any of its steps, and behind its last,
    once for each of them.
    """
    starts = [[Stand(process) for process in processes] for processes in sides]
    stack = [State(memory, tuple((processes[0],) for processes in starts))]
    found = set(stack)
    ends = 0
    while stack:
        memory, stands = stack.pop()
        following = [State(after, stands) for after in memory.alone()]
        at_end = not following
        for side, (*killed, stand) in enumerate(stands):
            if stand.step is not None:
                at_end = False
                for answer, after in memory.answers(side, stand.step):
                    following.append(State(after, _put(stands, side, (*killed, stand.after(answer)))))
            if len(stands[side]) < len(starts[side]):
                successor = starts[side][len(stands[side])]
                following.append(State(memory.killed(side), _put(stands, side, (*stands[side], successor))))
        if at_end:
            ends += 1
            judge(End(memory, tuple(tuple(stand.log for stand in side) for side in stands)))
        new = [state for state in following if state not in found]
        found.update(new)
        stack += new
    return Count(len(found), ends)
