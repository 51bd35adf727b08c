"""A queue in shared memory, between one producer and one consumer, without a lock: the protocol, apart from any file.

    producer   claim:    tail ─► fence ─► … write records …
               publish:  fence ─► head ─► dropped
    consumer   peek:     tail, fence, head, fence, tail again, until it is the same ─► copy records
               free:     fence ─► tail
    onlooker   look:     head ─► fence ─► copy records ─► fence ─► tail, head: what may be others now is left out

`head`, `dropped` and `tail` only grow, and each has one writer. A producer writes records, then shows them all with one
store to `head`; killed before that store, it leaves nothing visible. What did not fit is counted by one more store, to
`dropped`. Each store by itself leaves a state that stands for whole events: `head` + `dropped` of them have been made,
the next one's sequence number is that sum, and record n has the number n + what was dropped before it. So a producer
killed between the two has made fewer events, and nothing is lost or counted twice. A consumer frees with one store to
`tail`; killed before it, its successor sees the records again.

Whoever reads an index of the other side acquires, whoever stores one releases: what the other had done before its
store is then seen, and the place that it has let go is free. In C11's words (7.17.4), all accesses to an index are
relaxed, and a fence stands between each index and the records: behind its load, before its store.

An onlooker has no say: it copies first, and asks then what may have been overwritten meanwhile. A place that is not
freed is not written to. And of those that are, a producer writes to no more than BATCH_MOST at once, behind the `head`
that was there before.

Each side holds the other for hostile. An index that cannot be makes a full ring for the producer and an empty one for
the consumer; it leads neither out of the memory, and stops neither.
"""

from __future__ import annotations

from collections.abc import Callable

from tidegate_schema.event import RECORD_BYTES

HEADER_BYTES = 4096
HEAD, DROPPED, TAIL = 64 // 8, 72 // 8, 128 // 8  # as indices of 8-byte words
BATCH_MOST = 1024
"""Records in a batch; what is claimed at once has no room for more."""
_END = 1 << 62  # no queue lives to see so many events
_GLANCES = 100


class Queue:
    """Take one side only: a producer claims and publishes, a consumer peeks and frees, an onlooker looks."""

    def __init__(
        self,
        octets: memoryview,
        words: memoryview,
        capacity: int,
        fence: Callable[[], None],
        record_bytes: int = RECORD_BYTES,
    ) -> None:
        """Go on where the last one on this side was.

        `octets` and `words` are the same memory, as bytes and as 8-byte words: HEADER_BYTES, then `capacity` records, a
        power of two, of `record_bytes` each, which begin with their sequence number. `fence` is an acquire and a
        release fence. ValueError when the indices contradict each other.
        """
        self.capacity, self.record_bytes = capacity, record_bytes
        self._octets, self._words, self._fence = octets, words, fence
        self._mask = capacity - 1
        self._room = 0
        self._head, tail = self._indices()
        self._dropped: int = words[DROPPED]
        if not self._can_be(self._head, tail) or max(self._head, self._dropped) >= _END:
            raise ValueError("the indices of the ring contradict each other")

    # Producer -----------------------------------------------------------------------------------------------

    def claim(self) -> tuple[memoryview, int, int, int, int]:
        """Return where a batch goes: the memory, the first record's number, how many fit, a mask, and a sequence.

        Record `n` of the batch, below the number that fit, is at byte HEADER_BYTES + (first + n & mask) * record_bytes,
        and has the sequence number sequence + n. Written there, or by `write`, they are shown by `publish`.
        """
        used = self._head - self._words[TAIL]
        self._fence()
        self._room = min(self.capacity - used, BATCH_MOST) if 0 <= used <= self.capacity else 0
        return self._octets, self._head, self._room, self._mask, self._head + self._dropped

    def write(self, records: memoryview) -> None:
        """Write the records of the batch that was claimed, one after the other, as many as fit."""
        size, start = self.record_bytes, self._head & self._mask
        fits = min(len(records), self._room * size)
        before_end = min(fits, (self.capacity - start) * size)
        at = HEADER_BYTES + start * size
        self._octets[at : at + before_end] = records[:before_end]
        if before_end < fits:
            self._octets[HEADER_BYTES : HEADER_BYTES + fits - before_end] = records[before_end:fits]

    def publish(self, made: int) -> None:
        """Make the batch of so many events visible, with one store; those that did not fit are counted."""
        written = min(made, self._room)
        self._room -= written
        self._fence()
        self._head += written
        self._words[HEAD] = self._head
        self._dropped += made - written
        self._words[DROPPED] = self._dropped

    def last(self) -> bytes:
        """Return a copy of the record that was published last, b"" where none ever was; it stays until another one."""
        return self._copy(self._head - 1, 1) if self._head else b""

    # Consumer -----------------------------------------------------------------------------------------------

    def pending(self) -> int:
        """Return how many published records wait."""
        head, tail = self._indices()
        return head - tail if self._can_be(head, tail) else 0

    def dropped(self) -> int:
        """Return how many events a full ring has dropped; no fewer than were dropped before any record seen so far."""
        dropped: int = self._words[DROPPED]
        return dropped

    def peek(self, limit: int, skip: int = 0) -> bytes:
        """Return a copy of at most `limit` waiting records behind the `skip` oldest, one after the other.

        They stay in the ring. Each is `record_bytes` long.
        """
        head, tail = self._indices()
        if not self._can_be(head, tail):
            return b""
        first = tail + skip
        return self._copy(first, max(min(head - first, limit), 0))

    def _copy(self, first: int, count: int) -> bytes:
        start = first & self._mask
        before_end = min(count, self.capacity - start)
        return self._slice(start, before_end) + self._slice(0, count - before_end)

    def _slice(self, start: int, count: int) -> bytes:
        at = HEADER_BYTES + start * self.record_bytes
        return bytes(self._octets[at : at + count * self.record_bytes])

    def free(self, count: int) -> None:
        """Give the oldest `count` records' places back to the producer."""
        self._fence()
        self._words[TAIL] = min(self._words[TAIL] + count, self._words[HEAD])

    # Onlooker -----------------------------------------------------------------------------------------------

    def published(self) -> int:
        """Return the number of the next record: how many have been published."""
        head: int = self._words[HEAD]
        return head

    def look(self, since: int) -> tuple[bytes, int, int]:
        """Return a copy of the records from number `since` on, the number of the next one, and how many are gone."""
        head: int = self._words[HEAD]
        self._fence()
        first = max(min(since, head), head - self.capacity, 0)
        records = self._copy(first, head - first)
        self._fence()
        tail: int = self._words[TAIL]
        now: int = self._words[HEAD]
        whole = min(max(first, min(tail, now + BATCH_MOST - self.capacity)), head)
        return records[(whole - first) * self.record_bytes :], head, whole - min(since, whole)

    # All ----------------------------------------------------------------------------------------------------

    def _indices(self) -> tuple[int, int]:
        """Return head and tail as they stood at one moment, also to a third party, while both sides move on."""
        tail: int = self._words[TAIL]
        for _ in range(_GLANCES):
            self._fence()
            head: int = self._words[HEAD]
            self._fence()
            before, tail = tail, self._words[TAIL]
            if tail == before:
                break
        return head, tail

    def _can_be(self, head: int, tail: int) -> bool:
        return 0 <= head - tail <= self.capacity
