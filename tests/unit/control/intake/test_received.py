"""The account of a ring, against a set of numbers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_control.intake import books, received
from tidegate_control.intake.books import Books
from tidegate_control.intake.received import Ring
from tidegate_control.intake.store import Batch

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


def test_a_gateway_that_leaves_gaps_on_purpose_takes_no_more_than_its_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(books, "RANGES_OF_GATEWAY", 1000)
    kept = Books(())

    def send(gateway: str, epoch: int) -> Ring:
        posting = kept.post([Batch(gateway, f"{epoch:016x}", range(0, 1000, 2), b"")], 1)
        assert posting.added[0].new == 500
        kept.keep(posting.rings.values())
        return posting.rings[gateway, f"{epoch:016x}"]

    sizes = [len(send("bad", epoch).ranges) for epoch in range(20)]
    assert sizes == [500, 500, *[books.FEW] * 18]
    assert len(send("fra1", 0).ranges) == 500  # another one is not held up by it
    account = kept.accounts()[0]
    assert (account.gateway, account.received, account.missing) == ("bad", 20 * 500, 20 * 499)
    kept.forget([("bad", f"{epoch:016x}") for epoch in range(20)])
    assert len(send("bad", 0).ranges) == 500
