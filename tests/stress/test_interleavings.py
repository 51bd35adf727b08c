"""The ring's protocol in every order of its loads and stores, and with a kill -9 at every point between them.

The real code runs, in a ring of two records, on a model of x86-64 and on one of C11 (`stress.models`). That the models
can tell right from wrong is shown by the same code with one line of it changed.
"""

from __future__ import annotations

import inspect
import os
import types
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from stress import models
from stress.models import Broken, End, Memory, Process, Run, Tso, Views
from tidegate_agents.events import spsc
from tidegate_schema.event import RECORD_BYTES

CAPACITY = 2
INDICES = (spsc.HEAD, spsc.DROPPED, spsc.TAIL)
WORDS = [(slot, end) for slot in range(CAPACITY) for end in ("first", "last")]
MARK = 8  # bytes; a record is modelled by its first and its last word
IS_LONG = "TIDEGATE_STRESS" in os.environ


class Words:
    """The indices, as the code under test has them."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, place: int) -> Any:
        return self._run.step("load", place)

    def __setitem__(self, place: int, value: int) -> None:
        if not 0 <= value < 1 << 64:
            raise Broken(f"{value} is stored in an index")
        self._run.step("store", place, value)


class Octets:
    """The records, as the code under test has them."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def __getitem__(self, part: slice) -> bytes:
        first, past = (self._slot(at) for at in (part.start, part.stop))
        return b"".join(self._record(slot) for slot in range(first, past))

    def _record(self, slot: int) -> bytes:
        return b"".join(half(self._run.step("load", (slot, end))) for end in ("first", "last"))

    def __setitem__(self, part: slice, records: memoryview) -> None:
        first, past = (self._slot(at) for at in (part.start, part.stop))
        if past > CAPACITY:
            raise Broken("written past the end of the memory")
        for slot, mark in zip(range(first, past), marks(bytes(records)), strict=True):
            for end in ("first", "last"):
                self._run.step("store", (slot, end), mark)

    @staticmethod
    def _slot(at: int) -> int:
        slot, rest = divmod(at - spsc.HEADER_BYTES, RECORD_BYTES)
        assert rest == 0
        return slot


class Machine:
    """Makes the processes: they differ in the code they run, and in whether its fences are anything."""

    def __init__(self, code: Any, *, fences: bool) -> None:
        self._code, self._fences = code, fences

    def queue(self, run: Run) -> Any:
        fence = (lambda: run.step("fence")) if self._fences else (lambda: None)
        return self._code.Queue(Octets(run), Words(run), CAPACITY, fence)

    def producer(self, *batches: int, mark: int = 1) -> Process:
        """Make batches of so many events each. An event is its sequence number and the mark of who made it."""

        def process(run: Run) -> None:
            queue = self.queue(run)
            for made in batches:
                _, _, room, _, seq = queue.claim()
                records = b"".join(half(number << MARK | mark) * 2 for number in range(seq, seq + made))
                queue.write(memoryview(records))
                run.log.append(("publishing", min(made, room), made, seq))
                queue.publish(made)
                run.log.append(("published", made))

        return process

    def consumer(self, rounds: int, limit: int = CAPACITY) -> Process:
        def process(run: Run) -> None:
            queue = self.queue(run)
            index = run.step("load", spsc.TAIL)
            for _ in range(rounds):
                events = marks(queue.peek(limit))
                if events and (events[-1] >> MARK) - (index + len(events) - 1) > queue.dropped():
                    raise Broken("a gap in the sequence is not counted yet")
                run.log.extend(events)
                queue.free(len(events))
                index += len(events)

        return process

    def onlooker(self, looks: int) -> Process:
        def process(run: Run) -> None:
            queue = self.queue(run)
            behind = seen = missed = 0
            for _ in range(looks):
                records, behind, gone = queue.look(behind)
                events = marks(records)
                seen, missed = seen + len(events), missed + gone
                run.log.extend(events)
            if seen + missed != behind or run.log != sorted(set(run.log)):
                raise Broken(f"{run.log} and {missed} more are not {behind} records")

        return process

    def visitor(self) -> Process:
        """Open it, as a supervisor does that asks whether the ring is usable."""

        def process(run: Run) -> None:
            try:
                self.queue(run)
            except ValueError as error:
                raise Broken(f"to a third party, {error}") from None

        return process


def half(mark: int) -> bytes:
    return mark.to_bytes(RECORD_BYTES // 2, "little")


def marks(records: bytes) -> list[int]:
    """Return the marks of records that are whole."""
    size = RECORD_BYTES // 2
    halves = [int.from_bytes(records[at : at + size], "little") for at in range(0, len(records), size)]
    if halves[::2] != halves[1::2]:
        raise Broken(f"torn: {halves}")
    return halves[::2]


def judge(end: End) -> None:
    """Hold the protocol to its promise: produced = delivered + dropped."""
    produced, consumed = end.logs[:2]
    head, dropped, tail = (end.memory.latest(place) for place in INDICES)
    waiting = [end.memory.latest((n % CAPACITY, "first")) for n in range(tail, head)]
    for log in (*consumed[:-1], (*consumed[-1], *waiting)):
        if list(log) != sorted({mark >> MARK: mark for mark in log}.values()):
            raise Broken(f"twice or out of order: {log}")
    delivered = {mark for log in consumed for mark in log} | set(waiting)
    numbers = {mark >> MARK for mark in delivered}
    if not len(delivered) == len(numbers) == head:
        raise Broken(f"{head} were published, {len(delivered)} have come, under {len(numbers)} numbers")
    for n, log in enumerate(produced):
        before = totals(produced[:n])
        for _, _, made, seq in (entry for entry in log if entry[0] == "publishing"):
            if seq not in before:
                raise Broken(f"number {seq} stands for the event after {before}")
            before = {seq + made}
    if head + dropped not in totals(produced):
        raise Broken(f"{head} published and {dropped} dropped, but made were {totals(produced)}")
    if max(numbers, default=-1) >= head + dropped:
        raise Broken("a number stands for an event that nobody made")


def totals(produced: Sequence[Sequence[Any]]) -> set[int]:
    """Return how many events there may be: a killed producer's last batch counts, or what fitted of it, or nothing."""
    found = {0}
    for log in produced:
        done = sum(entry[1] for entry in log if entry[0] == "published")
        last = log[-1][1:3] if log and log[-1][0] == "publishing" else ()
        found = {total + done + more for total in found for more in (0, *last)}
    return found


def tso(code: Any, sides: int) -> tuple[Machine, Memory]:
    return Machine(code, fences=False), Tso.of(sides)


def c11(code: Any, sides: int) -> tuple[Machine, Memory]:
    return Machine(code, fences=True), Views.of(sides, INDICES, WORDS)


Build = Callable[[Any, int], tuple[Machine, Memory]]
Scenario = Callable[[Machine], list[list[Process]]]


def undisturbed(machine: Machine) -> list[list[Process]]:
    return [
        [machine.producer(*(2, 1, 2, 1) if IS_LONG else (1, 2, 1))],
        [machine.consumer(3 if IS_LONG else 2)],
    ]


def producer_killed(machine: Machine) -> list[list[Process]]:
    return [[machine.producer(1, 3), machine.producer(1 + IS_LONG, mark=2)], [machine.consumer(1 + IS_LONG)]]


def consumer_killed(machine: Machine) -> list[list[Process]]:
    return [[machine.producer(1, 2)], [machine.consumer(1 + IS_LONG), machine.consumer(1)]]


def both_killed(machine: Machine) -> list[list[Process]]:
    return [
        [machine.producer(1, 2), machine.producer(2, mark=2)],
        [machine.consumer(1), machine.consumer(1)],
    ]


def visited(machine: Machine) -> list[list[Process]]:
    return [[machine.producer(2, 1 + IS_LONG)], [machine.consumer(1 + IS_LONG)], [machine.visitor()]]


def onlooked(machine: Machine) -> list[list[Process]]:
    return [[machine.producer(1, 1, 2)], [machine.consumer(1)], [machine.onlooker(1 + IS_LONG)]]


SMALL_BATCHES = "BATCH_MOST = 1024", "BATCH_MOST = 1"  # since a ring of two records is what is explored
SCENARIOS = (undisturbed, producer_killed, consumer_killed, *[both_killed] * IS_LONG, visited)


def explore(build: Build, scenario: Scenario, code: Any = spsc) -> None:
    machine, memory = build(code, len(scenario(Machine(code, fences=False))))
    count = models.explore(memory, scenario(machine), judge)
    if IS_LONG and code is spsc:
        print(f"{scenario.__name__} on {build.__name__}: {count.states} states, {count.ends} ends")


@pytest.mark.parametrize("build", [tso, c11])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_order_keeps_the_promise(build: Build, scenario: Scenario) -> None:
    explore(build, scenario)


def test_an_onlooker_sees_whole_records_and_knows_what_it_has_missed() -> None:
    """On x86-64: of C11's plain bytes the model allows none that may be written to while they are read."""
    explore(tso, onlooked, changed(SMALL_BATCHES))


# The same with one thing changed ------------------------------------------------------------------------------

FENCE = "self._fence()"
TAIL_READ = "used = self._head - self._words[TAIL]"
SEES_ALL = """        self._head += written
        self._words[HEAD] = self._head
        self._dropped += made - written
        self._words[DROPPED] = self._dropped
"""
DROPPED_FIRST = """        self._head += written
        self._dropped += made - written
        self._words[DROPPED] = self._dropped
        self._words[HEAD] = self._head
"""
MUTANTS: dict[str, tuple[str, str, Scenario, tuple[Build, ...]]] = {
    "no acquire in claim": (f"{TAIL_READ}\n        {FENCE}", TAIL_READ, undisturbed, (c11,)),
    "no release in publish": (f"{FENCE}\n        self._head += written", "self._head += written", undisturbed, (c11,)),
    "no acquire in peek": (
        f"{FENCE}\n            before, tail =", "before, tail =", undisturbed, (c11,)
    ),
    "no release in free": (f"{FENCE}\n        self._words[TAIL] =", "self._words[TAIL] =", undisturbed, (c11,)),
    "no acquire between the indices": (f"{FENCE}\n            head: int", "head: int", visited, (c11,)),
    "indices of different moments": ("if tail == before:", "if True:", visited, (tso, c11)),
    "published before it is written": (
        TAIL_READ,
        f"{TAIL_READ}; self._words[HEAD] = self._head + (used < self.capacity)",
        undisturbed,
        (tso, c11),
    ),
    "freed before it is copied": (
        "start = first & self._mask",
        "start = first & self._mask; self._words[TAIL] = first + count",
        undisturbed,
        (tso, c11),
    ),
    "drops counted before the head": (SEES_ALL, DROPPED_FIRST, producer_killed, (tso, c11)),
    "drops forgotten by a successor": (
        "self._dropped: int = words[DROPPED]", "self._dropped = 0", producer_killed, (tso, c11)
    ),
    "one record too many": ("_room = min(self.capacity -", "_room = min(self.capacity + 1 -", undisturbed, (tso, c11)),
    "one written beyond what is free": (
        "min(len(records), self._room * size)", "len(records)", undisturbed, (tso, c11)
    ),
    "written past the end": (
        "min(fits, (self.capacity - start) * size)", "fits", undisturbed, (tso, c11)
    ),
    "a number used twice": ("self._head + self._dropped", "self._head", undisturbed, (tso, c11)),
}  # fmt: skip


@pytest.mark.parametrize(("name", "build"), [(name, build) for name in MUTANTS for build in MUTANTS[name][3]])
def test_a_change_of_the_protocol_is_noticed(name: str, build: Build) -> None:
    old, new, scenario, _ = MUTANTS[name]
    with pytest.raises(Broken):
        explore(build, scenario, changed((old, new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("min(tail, now + BATCH_MOST - self.capacity)", "0"),
        ("now + BATCH_MOST - self.capacity", "now - self.capacity"),
        ("now + BATCH_MOST - self.capacity", "head + BATCH_MOST - self.capacity"),
        ("min(self.capacity - used, BATCH_MOST)", "self.capacity - used"),
        ("whole - min(since, whole)", "0"),
    ],
)
def test_a_change_of_what_an_onlooker_does_is_noticed(old: str, new: str) -> None:
    with pytest.raises(Broken):
        explore(tso, onlooked, changed(SMALL_BATCHES, (old, new)))


def changed(*changes: tuple[str, str]) -> types.ModuleType:
    """Return the code with some things changed."""
    source = inspect.getsource(spsc)
    for old, new in changes:
        assert source.count(old) == 1
        source = source.replace(old, new)
    module = types.ModuleType("changed")
    exec(source, module.__dict__)
    return module
