"""What the kernel says of many files, so that one that nobody has touched need not be read again.

statx(2) fills a structure of 256 bytes for each path, the same on every machine (linux/stat.h). What counts
is cut out of all of them at once, in columns:

    byte 32, 8 bytes    inode     byte  96, 4 bytes each, 8 apart    ctime: its seconds, modulo 2^32, and nanoseconds
    byte 40, 8 bytes    size      byte 112                           mtime

A user can set a file's mtime, and never its ctime. Of a hundred thousand files os.stat would take twice as
long, to make objects that are taken apart at once.
"""

from __future__ import annotations

import ctypes
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import ClassVar

_AT_SYMLINK_NOFOLLOW = 0x100
_MTIME, _CTIME, _INO, _SIZE = 0x40, 0x80, 0x100, 0x200
_STRUCTURE = 256
_COLUMNS = (("Q", 32), ("Q", 40), ("I", 96), ("I", 104), ("I", 112), ("I", 120))
_AT_ONCE = 256
GRANULARITY = 50_000_000
"""How late a time may be in which the kernel has seen a change, ns: a tick of its clock, and much more."""
_COARSE_GRANULARITY = 2_500_000_000  # where a file system keeps seconds


def _find_statx() -> Callable[..., int] | None:
    # PyDLL: giving up the interpreter's lock for each of many calls of 1 us would cost as much as the calls.
    # Without the types of its arguments: bytes, small numbers and references pass as they are, where each
    # conversion would make an object.
    return getattr(ctypes.PyDLL(None), "statx", None)


def is_settled(changed: int, now: int) -> bool:
    """Tell whether what was changed last at `changed` could not be changed again and bear the same times, both in
    nanoseconds of Unix time.
    """
    return changed < now - (GRANULARITY if changed % 1_000_000_000 else _COARSE_GRANULARITY)


class Stamps:
    """The stamps of paths, in the order in which these were given; all zero for one where nothing is."""

    NOTHING: ClassVar[Stamps]
    """Those of one path where nothing is."""

    def __init__(self, columns: Sequence[array[int]] | None = None) -> None:
        self._columns = [array(code) for code, _ in _COLUMNS] if columns is None else list(columns)

    @classmethod
    def take(cls, directory: int, paths: Sequence[bytes]) -> Stamps:
        """Return what is said of paths below an open directory, links not followed."""
        taken = cls()
        statx = _find_statx()
        buffer = ctypes.create_string_buffer(_STRUCTURE * min(len(paths), _AT_ONCE))
        places = [ctypes.byref(buffer, place) for place in range(0, len(buffer), _STRUCTURE)]
        for first in range(0, len(paths), _AT_ONCE):
            some = paths[first : first + _AT_ONCE]
            ctypes.memset(buffer, 0, len(buffer))  # where nothing is, nothing is written
            if statx is not None:
                every = (repeat(_AT_SYMLINK_NOFOLLOW), repeat(_MTIME | _CTIME | _INO | _SIZE))
                deque(map(statx, repeat(directory), some, *every, places), maxlen=0)
            cells = {code: array(code, buffer.raw[: _STRUCTURE * len(some)]) for code in ("Q", "I")}
            for column, (code, offset) in zip(taken._columns, _COLUMNS, strict=True):
                width = column.itemsize
                column.extend(cells[code][offset // width :: _STRUCTURE // width])
        return taken

    @classmethod
    def nothing(cls, count: int) -> Stamps:
        """Return the stamps of so many paths where nothing is."""
        return cls([array(code, [0]) * count for code, _ in _COLUMNS])

    @classmethod
    def read(cls, data: bytes) -> Stamps:
        """Return what `data` made bytes of; ValueError for another number of bytes."""
        taken = cls()
        widths = [column.itemsize for column in taken._columns]
        count, rest = divmod(len(data), sum(widths))
        if rest:
            raise ValueError("no stamps")
        first = 0
        for column, width in zip(taken._columns, widths, strict=True):
            column.frombytes(data[first : first + count * width])
            first += count * width
        return taken

    def data(self) -> bytes:
        """Return them as bytes."""
        return b"".join(column.tobytes() for column in self._columns)

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._columns[0])

    def differing(self, other: Stamps) -> set[int]:
        """Return the positions at which two of the same length differ, or nothing is."""
        inodes = self._columns[0]
        found = {position for position, inode in enumerate(inodes) if not inode} if 0 in inodes else set()
        for mine, theirs in zip(self._columns, other._columns, strict=True):
            if mine != theirs:
                pairs = enumerate(zip(mine, theirs, strict=True))
                found.update(position for position, (one, another) in pairs if one != another)
        return found

    def unsettled(self, now: int) -> set[int]:
        """Return the positions of what is not there, or was changed so shortly before `now`, in nanoseconds
        of Unix time, that another change of it could leave the same times.
        """
        inodes, _, *times = self._columns
        latest = max((max(times[0]), max(times[2]))) + 1 if inodes else 0
        if 0 not in inodes and latest * 1_000_000_000 < now - _COARSE_GRANULARITY:
            return set()  # the good case of a hundred thousand
        found = set()
        for position, (inode, *own) in enumerate(zip(inodes, *times, strict=True)):
            changed = max(own[0] * 1_000_000_000 + own[1], own[2] * 1_000_000_000 + own[3])
            if not inode or not is_settled(changed, now):
                found.add(position)
        return found

    def replace(self, position: int, other: Stamps, of: int) -> None:
        """Take the stamps at a position of another; at the position behind the last one, add them."""
        for mine, theirs in zip(self._columns, other._columns, strict=True):
            mine[position : position + 1] = theirs[of : of + 1]

    def remove(self, position: int) -> None:
        """Leave out those at a position."""
        for column in self._columns:
            del column[position]


Stamps.NOTHING = Stamps.nothing(1)
