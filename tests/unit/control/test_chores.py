"""What is done now and then goes on after a turn that fails."""

from __future__ import annotations

import logging
import threading

import pytest

from tidegate_control import chores
from tidegate_control.chores import Chore


def test_one_turn_that_fails_is_not_the_last(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chores, "AGAIN_SECONDS", 0.01)
    done = threading.Event()

    class Retention(Chore):
        name = "retention"
        turns = 0

        def turn(self) -> float:
            self.turns += 1
            if self.turns == 1:
                raise RuntimeError("the store answers nonsense")
            done.set()
            return 3600.0

    with caplog.at_level(logging.ERROR), Retention():
        assert done.wait(30)
    assert "retention failed; it is tried again" in caplog.text
