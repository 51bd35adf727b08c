"""Retention is a job that goes on."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from tidegate_control import retention
from tidegate_control.intake.store import DAY_S, EventStore, Unavailable
from tidegate_control.retention import Retention
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
    job = Retention(store, 30)
    clock.now = clock.now // DAY_S * DAY_S
    store.add(batches([record(1)]))
    job.expire(clock.now + 31 * DAY_S - 1)
    assert numbers(store) == 1
    job.expire(clock.now + 31 * DAY_S)
    assert numbers(store) == 0


def test_it_goes_on_after_a_store_that_did_not_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(retention, "_EVERY_SECONDS", 0.001)
    store: Any = Counting()
    with caplog.at_level(logging.ERROR), Retention(store, 30):
        assert store.twice.wait(20)
    assert "still there: events: down" in caplog.text
