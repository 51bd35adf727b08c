"""Writers have their turns in the order in which they came, and none waits for ever."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

import pytest

from tidegate_control.inventory.errors import Unavailable
from tidegate_control.inventory.turn import Turns


def test_in_order_of_coming() -> None:
    turns, order = Turns(), []

    def take(n: int) -> None:
        with turns.taken(60):
            order.append(n)

    threads = [threading.Thread(target=take, args=(n,)) for n in range(20)]
    with turns.taken(60):
        for n, thread in enumerate(threads):
            thread.start()
            while len(turns._waiting) <= n:
                time.sleep(0.001)
    for thread in threads:
        thread.join()
    assert order == list(range(20))


def test_whoever_waits_too_long_is_told_and_holds_up_nobody() -> None:
    turns = Turns()
    with turns.taken(60), pytest.raises(Unavailable), turns.taken(0.01):
        raise AssertionError
    assert not turns._waiting
    with suppress(ValueError), turns.taken(0.01):
        raise ValueError
    with turns.taken(0.01):
        pass
