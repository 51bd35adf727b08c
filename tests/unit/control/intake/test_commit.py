"""Many batches to a commit; what does not fit is told, and nobody takes another with it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import pytest

from tidegate_control.intake import commit
from tidegate_control.intake.commit import Committer, Full
from tidegate_control.intake.store import Added, Batch, StoreError, Unavailable

SECONDS = 20


class Slow:
    """A store whose commits wait until they are let go."""

    def __init__(self) -> None:
        self.may = threading.Event()
        self.entered = threading.Event()
        self.commits: list[list[str]] = []
        self.errors: dict[str, Exception] = {}

    def add(self, batches: Sequence[Batch]) -> list[Added]:
        self.entered.set()
        assert self.may.wait(SECONDS)
        self.commits.append([batch.gateway for batch in batches])
        for batch in batches:
            if batch.gateway in self.errors:
                raise self.errors[batch.gateway]
        return [Added(len(batch.gateway)) for batch in batches]

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


@pytest.fixture
def slow() -> Slow:
    return Slow()


def began(slow: Slow, committer: Committer) -> Future[list[Added]]:
    """Have a commit under way."""
    first = committer.submit([Batch("a", "e")])
    assert slow.entered.wait(SECONDS)
    return first


def test_what_waits_is_one_commit_and_each_is_told_its_own(slow: Slow) -> None:
    committer = Committer(slow)
    first = began(slow, committer)
    others = [committer.submit([Batch("bb", "e"), Batch("ccc", "e")]), committer.submit([Batch("dddd", "e")])]
    assert not first.done()
    slow.may.set()
    assert first.result(SECONDS) == [Added(1)]
    assert [one.result(SECONDS) for one in others] == [[Added(2), Added(3)], [Added(4)]]
    assert slow.commits == [["a"], ["bb", "ccc", "dddd"]]
    committer.close()


def test_one_commit_has_a_bound(slow: Slow, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commit, "TOGETHER_BYTES", 10)
    committer = Committer(slow)
    began(slow, committer)
    others = [committer.submit([Batch(name, "e", (), b"x" * 6)]) for name in "bcd"]
    slow.may.set()
    assert all(one.result(SECONDS) for one in others)
    assert slow.commits == [["a"], ["b", "c"], ["d"]]
    committer.close()


def test_a_full_queue_says_so_at_once(slow: Slow) -> None:
    committer = Committer(slow, waiting_most=2)
    began(slow, committer)
    waiting = [committer.submit([Batch("b", "e")]) for _ in range(2)]
    with pytest.raises(Full, match="too many batches wait"):
        committer.submit([Batch("c", "e")])
    slow.may.set()
    assert all(one.result(SECONDS) for one in waiting)
    committer.close()


def test_a_batch_that_the_store_cannot_take_fails_alone(slow: Slow) -> None:
    slow.errors["bad"] = StoreError("events: no")
    committer = Committer(slow)
    began(slow, committer)
    good, bad = committer.submit([Batch("good", "e")]), committer.submit([Batch("bad", "e")])
    slow.may.set()
    assert good.result(SECONDS) == [Added(4)]
    with pytest.raises(StoreError, match="events: no"):
        bad.result(SECONDS)
    committer.close()


def test_a_store_that_does_not_answer_is_not_asked_for_each(slow: Slow) -> None:
    slow.errors["bad"] = Unavailable("events: down")
    committer = Committer(slow)
    began(slow, committer)
    both = [committer.submit([Batch("good", "e")]), committer.submit([Batch("bad", "e")])]
    slow.may.set()
    for one in both:
        with pytest.raises(Unavailable):
            one.result(SECONDS)
    assert len(slow.commits) == 2
    committer.close()


def test_a_mistake_ends_no_thread_and_says_nothing_of_itself(slow: Slow) -> None:
    slow.errors["bad"] = RuntimeError("secret")
    slow.may.set()
    committer = Committer(slow)
    with pytest.raises(StoreError) as told:
        committer.submit([Batch("bad", "e")]).result(SECONDS)
    assert "secret" not in str(told.value)
    assert committer.submit([Batch("good", "e")]).result(SECONDS) == [Added(4)]
    committer.close()


def test_who_has_gone_holds_up_nobody_and_what_was_brought_is_stored(slow: Slow) -> None:
    committer = Committer(slow)
    began(slow, committer)
    gone, other = committer.submit([Batch("gone", "e")]), committer.submit([Batch("b", "e")])
    assert gone.cancel()
    slow.may.set()
    assert other.result(SECONDS) == [Added(1)]
    assert slow.commits == [["a"], ["gone", "b"]]
    committer.close()


def test_closing_stores_what_waits_and_takes_no_more(slow: Slow) -> None:
    committer = Committer(slow)
    first = began(slow, committer)
    second = committer.submit([Batch("b", "e")])
    slow.may.set()
    committer.close()
    assert first.done()
    assert second.done()
    with pytest.raises(Full):
        committer.submit([Batch("c", "e")])
