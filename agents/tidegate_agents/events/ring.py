"""The ring: a queue of event records in a mapped file (`events.spsc` has the protocol).

    byte    0  "TGRING" 00 02            magic and format
    byte    8  u32 record size, u32 zero 144 (`event`), or 1024 (`hostevent`)
    byte   16  u64 capacity              records, a power of two
    byte   24  8 bytes epoch             random, new with every new file
    byte   64  u64 head                  producer's: records published since the file was made
    byte   72  u64 dropped               producer's: events not recorded because the ring was full
    byte  128  u64 tail                  consumer's: records freed
    byte 4096  records                   record n stands in slot n mod capacity

Producer's and consumer's indices are on cache lines of their own. On x86-64 aligned 8-byte loads and stores are atomic,
and a load passes no other load and a store nothing before it (Intel SDM 3A, 8.2.2): that is all the order the protocol
wants, and its fences are nothing. Elsewhere they are C11's atomic_thread_fence, from libatomic.

Who has mapped a ring could truncate it under the other by a descriptor, which would then die of SIGBUS. So no
descriptor of the file stays open: a mapping by itself cannot make a file smaller.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import platform
import stat
import struct
from collections.abc import Callable, Container
from pathlib import Path

from tidegate_agents.events.spsc import HEADER_BYTES, Queue
from tidegate_schema import hostevent
from tidegate_schema.event import RECORD_BYTES

__all__ = ["ANY", "HEADER_BYTES", "MAGIC", "NoFenceError", "Ring", "RingError", "create", "open_or_replace"]

ANY = (RECORD_BYTES, hostevent.RECORD_BYTES)
"""Sizes of records that there are, for who reads any ring."""
MAGIC = b"TGRING\x00\x02"
_FIXED = struct.Struct("<8sIIQ8s")
_ACQ_REL = 4  # memory_order_acq_rel of C11
_NO_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO)  # a link, a directory, a socket
_MAP_FIXED = 0x10  # asm-generic/mman-common.h


class RingError(Exception):
    """The file is not a ring this version can use; the message is one line."""


class NoFenceError(RingError):
    """No ring can be used on this machine as it is."""


def _fence() -> Callable[[], None]:
    if platform.machine() in ("x86_64", "AMD64"):
        return lambda: None
    try:
        fence = ctypes.CDLL("libatomic.so.1").atomic_thread_fence
    except OSError:
        problem = f"{platform.machine()} needs libatomic for the event ring: apt install libatomic1"
        raise NoFenceError(problem) from None
    return lambda: fence(_ACQ_REL)


def _capacity(records: int) -> int:
    return 1 << max(records - 1, 1).bit_length()


def create(path: Path, records: int, record_bytes: int = RECORD_BYTES) -> None:
    """Make an empty ring of at least `records` records at `path`, mode 0600, appearing there at once and whole."""
    capacity = _capacity(records)
    aside = path.with_name(path.name + ".new")
    with contextlib.suppress(FileNotFoundError):
        aside.unlink()
    fd = os.open(aside, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        # Allocated as a whole: a full /run is told now, not by SIGBUS.
        os.posix_fallocate(fd, 0, HEADER_BYTES + capacity * record_bytes)
        os.write(fd, _FIXED.pack(MAGIC, record_bytes, 0, capacity, os.urandom(8)))
    finally:
        os.close(fd)
    aside.replace(path)


class Ring(Queue):
    """A mapped ring."""

    def __init__(self, path: Path, sizes: Container[int] = (RECORD_BYTES,)) -> None:
        """Map the ring at `path`, whose records are of one of these sizes.

        RingError when the file is no such ring, OSError when it cannot be opened.
        """
        fence = _fence()
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            info = os.fstat(fd)
            header = os.pread(fd, _FIXED.size, 0) if stat.S_ISREG(info.st_mode) else b""
            if len(header) < _FIXED.size:
                raise RingError(f"{path}: not an event ring")
            magic, size, _, capacity, epoch = _FIXED.unpack(header)
            if magic != MAGIC or size not in sizes or capacity < 2 or capacity & (capacity - 1):
                raise RingError(f"{path}: not an event ring of this version")
            if info.st_size != HEADER_BYTES + capacity * size:
                raise RingError(f"{path}: an event ring of a wrong size")
            self._map = _mapped(fd, info.st_size)
        finally:
            os.close(fd)
        self.epoch: str = epoch.hex()
        octets = memoryview(self._map)
        try:
            super().__init__(octets, octets.cast("Q"), capacity, fence, size)
        except ValueError as error:
            self.close()
            raise RingError(f"{path}: {error}") from None

    def close(self) -> None:
        """Unmap the file."""
        self._words.release()
        self._octets.release()
        self._map.close()


def _mapped(fd: int, size: int) -> mmap.mmap:
    """Map a file to be read and written, by itself alone.

    mmap.mmap would keep a duplicate of the descriptor (until Python 3.13 and its `trackfd`). So it gets memory of no
    file, which has the right size and an owner, and the file is mapped over that.
    """
    area = mmap.mmap(-1, size)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
    place = ctypes.addressof(ctypes.c_char.from_buffer(area))
    flags = mmap.MAP_SHARED | _MAP_FIXED
    if libc.mmap(place, size, mmap.PROT_READ | mmap.PROT_WRITE, flags, fd, 0) != place:
        raise OSError(ctypes.get_errno(), "the event ring cannot be mapped")
    return area


def open_or_replace(path: Path, records: int, record_bytes: int = RECORD_BYTES) -> str | None:
    """Make sure that a usable ring is at `path`; a file that is none is set aside. Returns what was wrong, or None.

    OSError when that cannot be told, as for want of descriptors: what waits in a ring is not given up for that.
    """
    try:
        Ring(path, (record_bytes,)).close()
        return None
    except FileNotFoundError:
        create(path, records, record_bytes)
        return None
    except NoFenceError as error:
        return str(error)
    except RingError as error:
        problem = str(error)
    except OSError as error:
        if error.errno not in _NO_FILE:
            raise
        problem = str(error)
    aside = path.with_name(path.name + ".unusable")
    path.replace(aside)
    try:
        create(path, records, record_bytes)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        aside.unlink()  # events that come are worth more than what nobody can read
        create(path, records, record_bytes)
    return problem


def forget_if_resized(path: Path, records: int) -> None:
    """Remove a ring that is to have another capacity, if nothing waits in it. Nobody else may be at it."""
    with contextlib.suppress(OSError, RingError), contextlib.closing(Ring(path)) as ring:
        if ring.capacity != _capacity(records) and not ring.pending():
            path.unlink()
