"""The account of a ring, against a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_control.intake import received
from tidegate_control.intake.received import Ring

some = st.lists(st.integers(0, 60), max_size=30) | st.builds(
    lambda first, count: list(range(first, first + count)), st.integers(0, 60), st.integers(0, 20)
)


@given(st.lists(some, max_size=12))
@settings(max_examples=300, deadline=None)
def test_an_account_says_what_a_set_of_all_numbers_says(many: list[list[int]]) -> None:
    ring, seen, duplicates = Ring("fra1", "e"), set[int](), 0
    for numbers in many:
        taken = ring.take(numbers)
        fresh = range(len(numbers)) if taken.fresh is None else taken.fresh
        expected = set(numbers) - seen
        assert sorted(numbers[place] for place in fresh) == sorted(expected)
        assert (taken.duplicates, taken.late) == (len(numbers) - len(expected), 0)
        seen |= expected
        duplicates += taken.duplicates
        ring = taken.ring
        assert ring == Ring.load("fra1", "e", ring.dump())
    assert (ring.received, ring.duplicates) == (len(seen), duplicates)
    missing = set(range(min(seen, default=0), max(seen, default=-1) + 1)) - seen
    assert ring.missing == len(missing)
    assert {n for first, last in ring.gaps for n in range(first, last + 1)} == missing


def test_of_more_gaps_than_are_kept_the_oldest_are_closed_and_still_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "RANGES_MOST", 3)
    ring = Ring("fra1", "e").take(range(0, 20, 2)).ring
    assert ring.ranges == ((0, 14), (16, 16), (18, 18))
    assert (ring.floor, ring.received, ring.missing) == (14, 10, 9)


def test_what_comes_into_a_closed_gap_is_late_and_neither_new_nor_a_duplicate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(received, "RANGES_MOST", 3)
    ring = Ring("fra1", "e").take(range(0, 20, 2)).ring
    taken = ring.take([1, 2, 15, 16, 20])
    assert (taken.fresh, taken.duplicates, taken.late) == ([2, 4], 1, 2)
    assert taken.ring.received == ring.received + 2


def test_a_gateway_that_leaves_out_every_other_number_costs_a_bounded_account() -> None:
    ring = Ring("fra1", "e")
    for first in range(0, 40_000, 8000):
        ring = ring.take(range(first, first + 8000, 2)).ring
    assert len(ring.ranges) == received.RANGES_MOST
    assert (ring.received, ring.missing) == (20_000, 19_999)
