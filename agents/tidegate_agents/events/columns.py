"""Columns of numbers, times and kept texts, written into a matrix of bytes that has a row for each line.

Between tokens JSON lets blanks stand. So every row of a column has the same width, and with that every line:

    … ,"source.port":    22,"destination.address":"10.0.0.1"  ,"destination.port": 443, …
    … ,"source.port": 51820,"destination.address":"10.0.11.12","destination.port":8080, …

Then a column is filled by a few operations on whole arrays, where a line by itself would take some statements of
Python. A width is that of the longest value there is, so there are few blanks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

os.environ.setdefault(
    "OPENBLAS_NUM_THREADS", "1"
)  # numpy's linear algebra, of no use here, starts one a core
import numpy as np
import numpy.typing as npt

from tidegate_schema import event

Octets: TypeAlias = npt.NDArray[np.uint8]
Places: TypeAlias = npt.NDArray[np.intp]
_U1, _U4, _U8 = np.dtype("u1"), np.dtype("<u4"), np.dtype("<u8")
_GROUP_DIGITS, _GROUP = 4, 10_000
_SECOND_NS, _DAY_S = 1_000_000_000, 86_400
_BLANK, _ZERO = ord(" "), ord("0")


def _digits(numbers: npt.NDArray[Any], count: int) -> Octets:
    """Return so many last digits of each number, as text."""
    places = 10 ** np.arange(count - 1, -1, -1)
    return (numbers[:, None] // places % 10 + _ZERO).astype(_U1)


def _groups() -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint32], npt.NDArray[np.uint32]]:
    """Return the texts of four digits: behind others, as all of a number, and in front of others."""
    numbers = np.arange(_GROUP)
    behind = _digits(numbers, _GROUP_DIGITS)
    alone = np.where(numbers[:, None] < (1000, 100, 10, 0), _BLANK, behind).astype(_U1)
    before = alone.copy()
    before[0] = _BLANK
    first, second, third = (np.ascontiguousarray(text).view(_U4)[:, 0] for text in (behind, alone, before))
    return first, second, third


def _clock() -> npt.NDArray[np.uint64]:
    """Return HH:MM:SS of each second of a day."""
    seconds = np.arange(_DAY_S)
    text = np.full((_DAY_S, 8), ord(":"), _U1)
    for at, of in ((0, seconds // 3600), (3, seconds // 60 % 60), (6, seconds % 60)):
        text[:, at : at + 2] = _digits(of, 2)
    return text.view(_U8)[:, 0]


_BEHIND, _ALONE, _BEFORE = _groups()
# Of a group that has another one in front of it: as that is nothing but blanks (then at + _GROUP), or is not.
_LAST, _MIDDLE = np.concatenate((_BEHIND, _ALONE)), np.concatenate((_BEHIND, _BEFORE))
_CLOCK = _clock()


class Column(Protocol):
    """Values of as many rows as a matrix has, at least one."""

    width: int
    """Bytes that it takes."""

    def put(self, cells: Octets) -> None:
        """Write the values into cells, a matrix of (rows, width)."""
        ...


def matrix(columns: Sequence[tuple[bytes, Column]], end: bytes, rows: int) -> Octets:
    """Return a matrix of (rows, bytes): in each row the columns, with what stands before each and at the end."""
    row = b"".join(before + bytes(column.width) for before, column in columns) + end
    found = np.empty((rows, len(row)), _U1)
    found[:] = np.frombuffer(row, _U1)
    at = 0
    for before, column in columns:
        at += len(before)
        column.put(found[:, at : at + column.width])
        at += column.width
    return found


class Number:
    """Numbers in decimal, at the right."""

    def __init__(self, numbers: npt.NDArray[Any]) -> None:
        """Take integers without sign."""
        self._numbers = numbers
        least, most = int(numbers.min()), int(numbers.max())
        self._groups = 0
        while least != most:
            least, most = least // _GROUP, most // _GROUP
            self._groups += 1
        # What is left of them is the same in all. A nought is left of a number only where there is no other digit.
        self._same = b"%d" % least if least or not self._groups else b""
        self.width = len(self._same) + _GROUP_DIGITS * self._groups

    def put(self, cells: Octets) -> None:
        """Write them, from the last group of digits on."""
        same, rest = len(self._same), self._numbers
        cells[:, :same] = np.frombuffer(self._same, _U1)
        for at in range(self.width - _GROUP_DIGITS, same - 1, -_GROUP_DIGITS):
            is_last = at + _GROUP_DIGITS == self.width
            if at == 0:
                which, texts = rest, _ALONE if is_last else _BEFORE
            else:
                rest, whole = rest // _GROUP, rest
                which, texts = whole - rest * _GROUP, _BEHIND
                if not same:
                    which = which + (rest == 0) * which.dtype.type(_GROUP)
                    texts = _LAST if is_last else _MIDDLE
            _put(cells, at, texts[which.astype(np.intp)])


class Time:
    """Times as RFC 3339 has them, in UTC, between quotes."""

    width = 32

    def __init__(self, times: npt.NDArray[Any]) -> None:
        """Take nanoseconds since the Unix epoch."""
        self._times = times

    def put(self, cells: Octets) -> None:
        """Write them; as `event.timestamp` does, which writes all that is the same in many."""
        seconds = self._times // _SECOND_NS
        nanoseconds = (self._times - seconds * _SECOND_NS).astype(np.intp)
        days = seconds // _DAY_S
        if days.min() == days.max():
            cells[:] = np.frombuffer(_midnight(int(days[0])), _U1)
        else:
            every, which = np.unique(days, return_inverse=True)
            texts = np.frombuffer(b"".join(map(_midnight, every.tolist())), _U1)
            cells[:] = texts.reshape(-1, self.width)[which]
        _put(cells, 12, _CLOCK[(seconds - days * _DAY_S).astype(np.intp)])
        tens = nanoseconds // _GROUP
        hundreds = tens // _GROUP
        cells[:, 21] = hundreds + _ZERO
        _put(cells, 22, _BEHIND[tens - hundreds * _GROUP])
        _put(cells, 26, _BEHIND[nanoseconds - tens * _GROUP])


def _midnight(day: int) -> bytes:
    return b'"%b"' % event.timestamp(day * _DAY_S * _SECOND_NS).encode("ascii")


def _put(cells: Octets, at: int, texts: npt.NDArray[Any]) -> None:
    """Write texts of equal width, each as one number of as many bytes, from byte `at` of the cells on."""
    cells[:, at : at + texts.itemsize].view(texts.dtype)[:, 0] = texts


class Texts(dict[bytes, int]):
    """Texts that are kept, by key: a key's value is the place of its text, a row of a matrix."""

    def __init__(self, made: Callable[[bytes], tuple[bytes, int]], most: int) -> None:
        """`made` gives a key's text and a number to go with it; of more than `most` texts all are forgotten."""
        self._made, self._most = made, most
        self.clear()

    def clear(self) -> None:
        """Forget all."""
        super().clear()
        self._texts: Octets = np.empty((0, 0), _U1)
        self._lengths = self._numbers = np.empty(0, np.intp)

    def places(self, keys: Sequence[bytes]) -> Places:
        """Return where the texts of these keys are, until it is called again."""
        if len(self) > self._most:
            self.clear()
        return np.array([*map(self.__getitem__, keys)], np.intp)

    def numbers(self, places: Places) -> Places:
        """Return the number that goes with each text."""
        return self._numbers[places]

    def column(self, places: Places) -> Column:
        """Return the texts as a column, each at the left."""
        return _Kept(self._texts, places, int(self._lengths[places].max()))

    def __missing__(self, key: bytes) -> int:
        text, number = self._made(key)
        place = len(self)
        self._make_room(place + 1, len(text))
        self._texts[place] = np.frombuffer(text.ljust(self._texts.shape[1]), _U1)
        self._lengths[place], self._numbers[place] = len(text), number
        self[key] = place
        return place

    def _make_room(self, count: int, width: int) -> None:
        old, old_width = self._texts.shape
        if count > old or width > old_width:
            rows = max(count, 2 * old) if count > old else old
            self._texts = _grown(self._texts, (rows, max(width, old_width)), _BLANK)
            self._lengths, self._numbers = (_grown(one, (rows,), 0) for one in (self._lengths, self._numbers))


def _grown(old: npt.NDArray[Any], shape: tuple[int, ...], filled: int) -> npt.NDArray[Any]:
    new = np.full(shape, filled, old.dtype)
    new[tuple(map(slice, old.shape))] = old
    return new


class _Kept:
    def __init__(self, texts: Octets, places: Places, width: int) -> None:
        self._texts, self._places, self.width = texts, places, width

    def put(self, cells: Octets) -> None:
        cells[:] = self._texts.take(self._places, axis=0)[:, : self.width]


def in_order(parts: Sequence[tuple[Places, Octets]], rows: int) -> Octets:
    """Return the lines of some matrices as one text, each where its place among `rows` says; a place may be empty."""
    if len(parts) == 1:
        return parts[0][1].reshape(-1)
    sizes = np.zeros(rows, np.intp)
    for places, lines in parts:
        sizes[places] = lines.shape[1]
    starts = np.cumsum(sizes) - sizes
    text = np.empty(int(sizes.sum()), _U1)
    for places, lines in parts:
        # Each place where a line of that length may begin, as a row: they overlap, those that are written do not.
        windows = np.lib.stride_tricks.sliding_window_view(text, lines.shape[1], writeable=True)
        windows[starts[places]] = lines
    return text
