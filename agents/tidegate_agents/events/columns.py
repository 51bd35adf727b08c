"""Columns of numbers, times and kept texts, written into a matrix of bytes that has a row for each line.

Between tokens JSON lets blanks stand. So every row of a column has the same width, and with that every line:

    … ,"source.port":      22,"destination.address":"10.0.0.1"  ,"destination.port": 443, …
    … ,"source.port":   51820,"destination.address":"10.0.11.12","destination.port":8080, …

Then a column is filled by a few operations on whole arrays, where a line by itself would take some statements of
Python. A text's width is that of the longest there is, and a number's grows by four digits, so there are few blanks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

# numpy's linear algebra, of no use here, would start a thread a core when it is loaded.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np
import numpy.typing as npt

from tidegate_schema import event

Octets: TypeAlias = npt.NDArray[np.uint8]
Places: TypeAlias = npt.NDArray[np.intp]
_U1, _U4, _U8 = np.dtype("u1"), np.dtype("<u4"), np.dtype("<u8")
_GROUP_DIGITS, _GROUP = 4, 10_000
_SECOND_NS, _DAY_S = 1_000_000_000, 86_400
_BLANK, _ZERO = ord(" "), ord("0")
_SLOT_BITS = 16


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

    same: bytes
    """What all rows have in common; as wide as they are, with anything in the places of what differs."""

    def put(self, cells: Octets) -> None:
        """Write what differs into cells, a matrix of (rows, width), where what is the same stands."""
        ...


class Lines:
    """Lines of equal length: in each the columns, with what stands before each and at the end."""

    def __init__(self, columns: Sequence[tuple[bytes, Column]], end: bytes) -> None:
        self._columns = columns
        self._same = b"".join(before + column.same for before, column in columns) + end
        self.width = len(self._same)

    def put(self, lines: Octets) -> None:
        """Write them into a matrix of (lines, width)."""
        lines[:] = np.frombuffer(self._same, _U1)
        at = 0
        for before, column in self._columns:
            at += len(before)
            column.put(lines[:, at : at + len(column.same)])
            at += len(column.same)


class Paper:
    """Memory that is used again: fresh memory of some megabytes costs as much as what is written into it."""

    def __init__(self) -> None:
        self._octets: Octets = np.empty(0, _U1)

    def of(self, size: int) -> Octets:
        """Return so many bytes, with anything in them, which are no longer what was returned before."""
        if size > len(self._octets):
            self._octets = np.empty(size, _U1)
        return self._octets[:size]


class Number:
    """Numbers in decimal, at the right."""

    def __init__(self, numbers: npt.NDArray[Any]) -> None:
        """Take integers without sign."""
        self._numbers = numbers
        least, most = int(numbers.min()), int(numbers.max())
        groups = 0
        while least != most:
            least, most = least // _GROUP, most // _GROUP
            groups += 1
        # What is left of them is the same in all. A nought is left of a number only where there is no other digit.
        first = b"%d" % least if least or not groups else b""
        self._first = len(first)
        self.same = first + bytes(_GROUP_DIGITS * groups)

    def put(self, cells: Octets) -> None:
        """Write the groups of digits in which they differ, from the last one on."""
        first, width, rest = self._first, len(self.same), self._numbers
        for at in range(width - _GROUP_DIGITS, first - 1, -_GROUP_DIGITS):
            is_last = at + _GROUP_DIGITS == width
            if at == 0:
                which, texts = rest, _ALONE if is_last else _BEFORE
            else:
                rest, whole = rest // _GROUP, rest
                which, texts = whole - rest * _GROUP, _BEHIND
                if not first:
                    which = which + (rest == 0) * which.dtype.type(_GROUP)
                    texts = _LAST if is_last else _MIDDLE
            _put(cells, at, texts[which.astype(np.intp)])


class Time:
    """Times as RFC 3339 has them, in UTC, between quotes."""

    def __init__(self, times: npt.NDArray[Any]) -> None:
        """Take nanoseconds since the Unix epoch."""
        self._seconds = times // _SECOND_NS
        self._nanoseconds = (times - self._seconds * _SECOND_NS).astype(np.intp)
        self._first, self._last = int(self._seconds.min()), int(self._seconds.max())
        self.same = _text(self._first)

    def put(self, cells: Octets) -> None:
        """Write the day and the second where there are several, and the fractions."""
        if self._first != self._last:
            self._put_seconds(cells)
        tens = self._nanoseconds // _GROUP
        hundreds = tens // _GROUP
        cells[:, 21] = hundreds + _ZERO
        _put(cells, 22, _BEHIND[tens - hundreds * _GROUP])
        _put(cells, 26, _BEHIND[self._nanoseconds - tens * _GROUP])

    def _put_seconds(self, cells: Octets) -> None:
        days = self._seconds // _DAY_S
        if self._first // _DAY_S != self._last // _DAY_S:
            every, which = np.unique(days, return_inverse=True)
            texts = b"".join(_text(day * _DAY_S) for day in every.tolist())
            cells[:] = np.frombuffer(texts, _U1).reshape(len(every), -1)[which]
        _put(cells, 12, _CLOCK[(self._seconds - days * _DAY_S).astype(np.intp)])


def _text(second: int) -> bytes:
    return b'"%b"' % event.timestamp(second * _SECOND_NS).encode("ascii")


def _put(cells: Octets, at: int, texts: npt.NDArray[Any]) -> None:
    """Write texts of equal width, each as one number of as many bytes, from byte `at` of the cells on."""
    cells[:, at : at + texts.itemsize].view(texts.dtype)[:, 0] = texts


class Texts:
    """Texts that are kept, each as a row of a matrix, by key.

        key ─► slot, by a hash ─► place of the key that stood there last ─► is it this one?  no: ─► a dict

    So most keys of a batch are found by a few operations on all of them.
    """

    def __init__(self, made: Callable[[bytes], tuple[bytes, int]], key_bytes: int, most: int) -> None:
        """`made` gives a key's text and a number to go with it; of more than `most` texts all are forgotten.

        A key has `key_bytes` bytes, a multiple of eight.
        """
        self._made, self._words, self._most = made, key_bytes // 8, most
        # For each four bytes one, drawn, so that nobody who chooses addresses can make keys meet: the highest bits of
        # the sum of products are a universal hash (Dietzfelbinger and others 1997, A Reliable Randomized Algorithm
        # for the Closest-Pair Problem).
        self._factors = np.frombuffer(os.urandom(2 * key_bytes), _U8) | np.uint64(1)
        self._forget()

    def _forget(self) -> None:
        self._places: dict[bytes, int] = {}
        self._slots = np.zeros(1 << _SLOT_BITS, np.intp)
        self._keys = np.empty((0, self._words), _U8)
        self._texts: Octets = np.empty((0, 0), _U1)
        self._lengths = self._numbers = np.empty(0, np.intp)

    def places(self, keys: npt.NDArray[np.void]) -> Places:
        """Return where the texts of these keys, one at least, are, until it is called again."""
        if len(self._places) > self._most:
            self._forget()
        words = np.ascontiguousarray(keys).view(_U8).reshape(len(keys), self._words)
        self._place(words[0].tobytes())  # there is one at least, for slots that are empty
        slots = ((words.view(_U4) @ self._factors) >> np.uint64(64 - _SLOT_BITS)).astype(np.intp)
        places: Places = self._slots[slots]
        seen = self._keys.take(places, axis=0)
        if not np.array_equal(seen, words):
            for row in np.flatnonzero((seen != words).any(axis=1)).tolist():
                places[row] = self._slots[slots[row]] = self._place(words[row].tobytes())
        return places

    def numbers(self, places: Places) -> Places:
        """Return the number that goes with each text."""
        return self._numbers[places]

    def column(self, places: Places) -> Column:
        """Return the texts as a column, each at the left."""
        return _Kept(self._texts, places, int(self._lengths[places].max()))

    def _place(self, key: bytes) -> int:
        place = self._places.get(key)
        if place is not None:
            return place
        text, number = self._made(key)
        place = self._places[key] = len(self._places)
        self._make_room(place + 1, len(text))
        self._texts[place] = np.frombuffer(text.ljust(self._texts.shape[1]), _U1)
        self._keys[place] = np.frombuffer(key, _U8)
        self._lengths[place], self._numbers[place] = len(text), number
        return place

    def _make_room(self, count: int, width: int) -> None:
        old, old_width = self._texts.shape
        if count > old or width > old_width:
            rows = max(count, 2 * old) if count > old else old
            self._texts = _grown(self._texts, (rows, max(width, old_width)), _BLANK)
            self._keys = _grown(self._keys, (rows, self._words), 0)
            self._lengths, self._numbers = (_grown(one, (rows,), 0) for one in (self._lengths, self._numbers))


def _grown(old: npt.NDArray[Any], shape: tuple[int, ...], filled: int) -> npt.NDArray[Any]:
    new = np.full(shape, filled, old.dtype)
    new[tuple(map(slice, old.shape))] = old
    return new


class _Kept:
    def __init__(self, texts: Octets, places: Places, width: int) -> None:
        self._texts, self._places, self.same = texts, places, bytes(width)

    def put(self, cells: Octets) -> None:
        cells[:] = self._texts.take(self._places, axis=0)[:, : len(self.same)]


class Text:
    """Lines of several lengths as one text."""

    def __init__(self) -> None:
        self._text, self._lines = Paper(), Paper()

    def of(self, parts: Sequence[tuple[Places, Lines]], rows: int) -> Octets:
        """Return each line where its place among `rows` says, until it is called again; a place may be empty."""
        if len(parts) == 1:
            ((places, lines),) = parts
            text = self._text.of(len(places) * lines.width)
            lines.put(text.reshape(-1, lines.width))
            return text
        sizes = np.zeros(rows, np.intp)
        for places, lines in parts:
            sizes[places] = lines.width
        starts = np.cumsum(sizes) - sizes
        text = self._text.of(int(sizes.sum()))
        for places, lines in parts:
            matrix = self._lines.of(len(places) * lines.width).reshape(-1, lines.width)
            lines.put(matrix)
            # Each place where such a line may begin, as a row: they overlap, those that are written do not.
            windows = np.lib.stride_tricks.sliding_window_view(text, lines.width, writeable=True)
            windows[starts[places]] = matrix
        return text
