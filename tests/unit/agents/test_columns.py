"""Columns of a matrix say of any values what Python's own formatting says of each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate_agents.events import columns as columns_module
from tidegate_agents.events.columns import Column, Lines, Number, Octets, Text, Texts, Time
from tidegate_schema import event

U64 = (1 << 64) - 1
# Near each power of ten, where digits are carried; and few values, so that all of a column may begin alike.
numbers = st.one_of(
    st.integers(0, U64),
    st.builds(lambda power, by: min(max(10**power + by, 0), U64), st.integers(0, 19), st.integers(-2, 2)),
)
columns = st.lists(numbers, min_size=1, max_size=20)


def cells(column: Column, rows: int) -> list[bytes]:
    """Return a column's cells, and see that nothing beside them was written."""
    lines = Lines([(b"<", column)], b">")
    matrix = np.empty((rows, lines.width), "u1")
    lines.put(matrix)
    found = [row.tobytes() for row in matrix]
    assert {(row[:1], row[-1:]) for row in found} == {(b"<", b">")}
    return [row[1:-1] for row in found]


@given(columns)
def test_any_number_is_written_in_decimal_at_the_right(values: list[int]) -> None:
    found = cells(Number(np.array(values, "<u8")), len(values))
    assert [cell.lstrip(b" ") for cell in found] == [b"%d" % value for value in values]


@given(st.integers(0, U64), columns, st.integers(0, 4))
def test_of_numbers_that_begin_alike_there_is_no_blank(first: int, values: list[int], digits: int) -> None:
    begin = first // 10**8 * 10**8
    near = [min(begin + value % 10**digits, U64) for value in values]
    found = cells(Number(np.array(near, "<u8")), len(near))
    assert [cell.lstrip(b" ") for cell in found] == [b"%d" % value for value in near]
    if begin:
        assert all(b" " not in cell for cell in found)


@pytest.mark.parametrize("kind", ["<u2", "<u8"])
@pytest.mark.parametrize("values", [[0], [0, 0], [7, 7], [0, 65535], [9999, 10000], [10000, 19999]])
def test_numbers_of_any_size_in_a_record(kind: str, values: list[int]) -> None:
    found = cells(Number(np.array(values, kind)), len(values))
    assert [int(cell) for cell in found] == values
    assert {len(cell) for cell in found} <= {*range(1, 9)}


@given(columns)
def test_any_time_is_what_timestamp_writes(values: list[int]) -> None:
    found = cells(Time(np.array(values, "<u8")), len(values))
    assert [cell.decode() for cell in found] == [f'"{event.timestamp(value)}"' for value in values]


@given(
    numbers,
    st.lists(st.integers(0, 10**15), min_size=1, max_size=20),
    st.sampled_from([10**9, 10**12, 10**15]),
)
def test_so_are_times_of_one_second_of_one_day_and_of_some(begin: int, after: list[int], span: int) -> None:
    values = [min(begin + one % span, U64) for one in after]
    found = cells(Time(np.array(values, "<u8")), len(values))
    assert [cell.decode() for cell in found] == [f'"{event.timestamp(value)}"' for value in values]


def made(key: bytes) -> tuple[bytes, int]:
    text = key.rstrip(b"\0")
    return b"<%b>" % text, len(text)


few = st.binary(max_size=1) | st.binary(max_size=16)


@pytest.mark.parametrize("bits", [1, 16])
@given(st.lists(st.lists(few, min_size=1, max_size=20), min_size=1, max_size=4))
def test_texts_are_kept_by_key_and_forgotten_when_there_are_too_many(
    bits: int, batches: list[list[bytes]]
) -> None:
    """Also where keys meet in a slot, as all of them do in one of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns_module, "_SLOT_BITS", bits)
        texts = Texts(made, 16, 10)
        for batch in batches:
            keys = [key.ljust(16, b"\0") for key in batch]
            places = texts.places(np.array(keys, "V16"))
            found = cells(texts.column(places), len(keys))
            width = max(map(len, found))
            assert found == [made(key)[0].ljust(width) for key in keys]
            assert width == max(made(key)[1] for key in keys) + 2
            assert texts.numbers(places).tolist() == [made(key)[1] for key in keys]
            assert len(texts._places) <= 10 + len(keys)
            assert texts._texts.shape[0] <= 2 * (10 + len(keys))


class Marked:
    """A column of as many bytes as it is told, which are all the line's number."""

    def __init__(self, numbers: np.ndarray[tuple[int], np.dtype[np.intp]], width: int) -> None:
        self._numbers, self.same = numbers, bytes(width)

    def put(self, cells: Octets) -> None:
        cells[:] = self._numbers[:, None]


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=30), min_size=1, max_size=3))
def test_lines_of_several_lengths_come_in_their_order(batches: list[list[int]]) -> None:
    """A length 0 stands for what has no line."""
    text = Text()
    for widths in batches:
        parts = []
        for width in sorted(set(widths) - {0}):
            places = np.flatnonzero(np.array(widths) == width)
            parts.append((places, Lines([(b"", Marked(places, width))], b"")))
        expected = b"".join(bytes([place]) * width for place, width in enumerate(widths))
        assert text.of(parts, len(widths)).tobytes() == expected
