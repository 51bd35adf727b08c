"""A lock-free ring of event records in a mapped file: one producer, one consumer.

    byte    0  "TGRING" 00 01            magic and format
    byte    8  u32 record size, u32 zero
    byte   16  u64 capacity              records, a power of two
    byte   24  8 bytes epoch             random, new with every new file
    byte   64  u64 head                  producer's: records published since the file was made
    byte   72  u64 dropped               producer's: events not recorded because the ring was full
    byte  128  u64 tail                  consumer's: records freed
    byte 4096  records                   record n stands in slot n mod capacity

The two indices are on cache lines of their own. A producer writes records, then publishes them all with one
store to `head`; killed before that store, it leaves nothing visible. A consumer reads below `head`, then frees
with one store to `tail`; killed before it, it sees the records again. A sequence number counts every event made,
so a gap in the numbers is exactly what a full ring dropped.

Ordering: on x86-64 aligned 8-byte stores are atomic and are seen in program order (Intel SDM 3A, 8.2.2), which is
all that is needed here; elsewhere C11's atomic_thread_fence from libatomic stands between data and index.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from tidegate_schema.event import RECORD_BYTES

MAGIC = b"TGRING\x00\x01"
HEADER_BYTES = 4096
_FIXED = struct.Struct("<8sIIQ8s")
_HEAD, _DROPPED, _TAIL = 64 // 8, 72 // 8, 128 // 8  # as indices of 8-byte words
_ACQ_REL = 4  # memory_order_acq_rel of C11


class RingError(Exception):
    """The file is not a ring this version can use; the message is one line."""


def _fence() -> Callable[[], None]:
    if platform.machine() in ("x86_64", "AMD64"):
        return lambda: None
    try:
        fence = ctypes.CDLL("libatomic.so.1").atomic_thread_fence
    except OSError:
        raise RingError(
            f"{platform.machine()} needs libatomic for the event ring: apt install libatomic1"
        ) from None
    return lambda: fence(_ACQ_REL)


def create(path: Path, records: int) -> None:
    """Make an empty ring of at least `records` records at `path`, mode 0600, appearing there at once and whole."""
    capacity = 1 << max(records - 1, 1).bit_length()
    aside = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.posix_fallocate(
            fd, 0, HEADER_BYTES + capacity * RECORD_BYTES
        )  # a full /run is told now, not by SIGBUS
        os.write(fd, _FIXED.pack(MAGIC, RECORD_BYTES, 0, capacity, os.urandom(8)))
    finally:
        os.close(fd)
    aside.replace(path)


class Ring:
    """A mapped ring; take one role only: a producer appends and publishes, a consumer peeks and frees."""

    def __init__(self, path: Path) -> None:
        """Map the ring at `path`; RingError when the file is not one, OSError when it cannot be opened."""
        self._order = _fence()
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            header = os.pread(fd, _FIXED.size, 0)
            if not stat.S_ISREG(info.st_mode) or len(header) < _FIXED.size:
                raise RingError(f"{path}: not an event ring")
            magic, size, _, capacity, epoch = _FIXED.unpack(header)
            if magic != MAGIC or size != RECORD_BYTES or capacity < 2 or capacity & (capacity - 1):
                raise RingError(f"{path}: not an event ring of this version")
            if info.st_size != HEADER_BYTES + capacity * RECORD_BYTES:
                raise RingError(f"{path}: an event ring of a wrong size")
            self._map = mmap.mmap(fd, info.st_size)
        finally:
            os.close(fd)
        self.capacity: int = capacity
        self.epoch: str = epoch.hex()
        self._mask = capacity - 1
        self._bytes = memoryview(self._map)
        self._words = self._bytes.cast("Q")
        self._head = self._words[_HEAD]
        self._tail = self._words[_TAIL]
        self._dropped = self._words[_DROPPED]
        if not 0 <= self._head - self._tail <= capacity:
            self.close()
            raise RingError(f"{path}: the indices of the ring contradict each other")

    # Producer -----------------------------------------------------------------------------------------------

    def claim(self) -> tuple[memoryview, int, int, int, int]:
        """Return where a batch of records goes: the file, the first one's number, how many fit, a mask, and a sequence.

        Record `n` of the batch, below the number that fit, is `event.STAMPED` at byte HEADER_BYTES +
        (first + n & mask) * RECORD_BYTES, and has the sequence number sequence + n. Then comes `publish`.
        """
        head = self._head
        if head - self._tail >= self.capacity // 2:
            self._tail = self._words[_TAIL]
            self._order()
        return self._bytes, head, self.capacity - (head - self._tail), self._mask, head + self._dropped

    def publish(self, made: int) -> None:
        """Make a batch of so many events visible, with one store; those that did not fit are counted."""
        written = min(made, self.capacity - (self._head - self._tail))
        self._head += written
        self._dropped += made - written
        self._order()
        self._words[_DROPPED] = self._dropped
        self._words[_HEAD] = self._head

    # Consumer -----------------------------------------------------------------------------------------------

    def pending(self) -> int:
        """Return how many published records wait."""
        return self._words[_HEAD] - self._words[_TAIL]

    def dropped(self) -> int:
        """Return how many events a full ring has dropped since the file was made."""
        return self._words[_DROPPED]

    def peek(self, limit: int) -> list[bytes]:
        """Return copies of at most `limit` of the oldest waiting records, oldest first; they stay in the ring."""
        tail = self._words[_TAIL]
        count = min(self._words[_HEAD] - tail, limit)
        self._order()
        starts = (HEADER_BYTES + ((tail + n) & self._mask) * RECORD_BYTES for n in range(count))
        return [bytes(self._bytes[start : start + RECORD_BYTES]) for start in starts]

    def free(self, count: int) -> None:
        """Give the oldest `count` records' places back to the producer."""
        self._order()
        self._words[_TAIL] += count

    def close(self) -> None:
        """Unmap the file."""
        self._words.release()
        self._bytes.release()
        self._map.close()


def open_or_replace(path: Path, records: int) -> str | None:
    """Make sure that a usable ring is at `path`; a file that is none is set aside. Returns what was wrong, or None."""
    try:
        Ring(path).close()
    except FileNotFoundError:
        create(path, records)
    except (RingError, OSError) as error:
        path.replace(path.with_name(path.name + ".unusable"))
        create(path, records)
        return str(error)
    return None
