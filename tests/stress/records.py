"""Records that say in each of their words which one they are, and a producer of them by the hundred million.

    python -m stress.records RING COUNT

Batches are as a forwarder makes them: as much as waits, at most 64. A forwarder never waits for room. This producer
does for a while, so that the stress is in what goes through the ring and not in what it refuses.
"""

from __future__ import annotations

import array
import itertools
import operator
import os
import random
import sys
from pathlib import Path

from tidegate_agents.events.ring import Ring
from tidegate_schema.event import RECORD_BYTES, STAMPED, TIMES

BATCH = 64  # of tidegate_agents.datapath.forwarder
WORDS = RECORD_BYTES // 8
PERIOD = 61  # a prime: two records that stood in one slot, one after the other, differ in all words
_NUMBERED, _MARKED, _TAIL, _ZERO = (0, 1, 2, 12, 13), range(3, 11), 11, range(14, 18)
_MARKS = [random.Random(n).randbytes(8) for n in range(PERIOD)]
_TAILS = [mark[:4] + bytes(4) for mark in _MARKS]
_PATIENCE = 20_000  # times that others may run first; some ten milliseconds


def produce(ring: Ring, count: int) -> None:
    """Make so many events; those for which there is no room for too long are dropped."""
    templates = [(mark * 8 + mark[:1], mark[1], mark[2:4]) for mark in _MARKS]
    pack, sizes = STAMPED.pack, itertools.cycle(random.Random(0).choices(range(1, BATCH + 1), k=997))
    waited = done = made = 0
    while done < count:
        made = min(made or next(sizes), count - done)
        _, _, room, _, seq = ring.claim()
        if room < made and waited < _PATIENCE:
            waited += 1
            os.sched_yield()
            continue
        waited = 0 if made <= room else waited
        records = []
        for number in range(seq, seq + made):
            same, flags, known = templates[number % PERIOD]
            records.append(pack(number, TIMES.pack(number, number), same, flags, known, number, number))
        ring.write(memoryview(b"".join(records)))
        ring.publish(made)
        done, made = done + made, 0


def check(records: bytes, after: int) -> list[int]:
    """Return the numbers of records that stand one after the other; AssertionError unless each is whole and in order.

    `after` is the number of the last one before them.
    """
    words = memoryview(records).cast("Q")
    column = [words[word::WORDS].tobytes() for word in range(WORDS)]
    numbers = array.array("Q", column[0]).tolist()
    which = [number % PERIOD for number in numbers]
    marks = b"".join([_MARKS[n] for n in which])
    tails = b"".join([_TAILS[n] for n in which])
    assert all(column[word] == column[0] for word in _NUMBERED), "a torn record"
    assert all(column[word] == marks for word in _MARKED), "a torn record"
    assert column[_TAIL] == tails, "a torn record"
    assert all(column[word] == bytes(8 * len(numbers)) for word in _ZERO), "a torn record"
    assert numbers[0] > after, "a record twice, or out of order"
    assert all(map(operator.lt, numbers, numbers[1:])), "a record twice, or out of order"
    return numbers


if __name__ == "__main__":
    produce(Ring(Path(sys.argv[1])), int(sys.argv[2]))
