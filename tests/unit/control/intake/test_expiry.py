"""Retention is a job that goes on."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from tidegate_control.intake import expiry
from tidegate_control.intake.expiry import Expiry
from tidegate_control.intake.store import DAY_S, EventStore, Unavailable
from unit.control.intake.kit import Clock, batches, numbers, record


class Counting:
    """A store that notes what it is asked to delete, and does not answer the first time."""

    def __init__(self) -> None:
        self.asked: list[int] = []
        self.twice = threading.Event()

    def expire(self, before_s: int) -> int:
        self.asked.append(before_s)
        if len(self.asked) == 1:
            raise Unavailable("events: down")
        self.twice.set()
        return 0


def test_after_the_days_of_the_setting_nothing_is_left_and_before_everything(
    store: EventStore, clock: Clock
) -> None:
    job = Expiry(store, 30, clock)
    clock.now = clock.now // DAY_S * DAY_S
    store.add(batches([record(1)]))
    clock.now += 31 * DAY_S - 1
    job.once()
    assert numbers(store) == 1
    clock.now += 1
    job.once()
    assert numbers(store) == 0


def test_it_goes_on_after_a_store_that_did_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiry, "EVERY_S", 0.001)
    store: Any = Counting()
    job = Expiry(store, 30, Clock(100 * DAY_S))
    with caplog.at_level(logging.ERROR):
        job.start()
        assert store.twice.wait(20)
        job.close()
    assert set(store.asked) == {70 * DAY_S}
    assert "not deleted: events: down" in caplog.text


def test_less_than_a_day_is_refused() -> None:
    store: Any = Counting()
    with pytest.raises(ValueError, match="a day at least"):
        Expiry(store, 0)
