"""One body at a time; but nobody waits for one that takes long, and no gateway has two read."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from tidegate_control.intake.readers import Readers

_PATIENCE_S = 10


class _Slow:
    """Something to read that ends when it is told to."""

    def __init__(self) -> None:
        self.begun, self.end = threading.Event(), threading.Event()

    def __call__(self) -> str:
        self.begun.set()
        assert self.end.wait(_PATIENCE_S)
        return "slow"


async def _begun(slow: _Slow) -> None:
    assert await asyncio.to_thread(slow.begun.wait, _PATIENCE_S)


async def _soon(readers: Readers, gateway: str, work: Callable[[], str]) -> str:
    return await asyncio.wait_for(readers.read(gateway, work), _PATIENCE_S)


def test_others_do_not_wait_for_a_body_that_takes_long() -> None:
    async def run() -> None:
        readers, slow = Readers(0.01), _Slow()
        hostile = asyncio.create_task(readers.read("ams1", slow))
        await _begun(slow)
        assert await _soon(readers, "fra1", lambda: "quick") == "quick"
        assert not hostile.done()
        slow.end.set()
        assert await hostile == "slow"

    asyncio.run(run())


def test_of_two_gateways_one_body_is_read_after_the_other() -> None:
    async def run() -> None:
        readers, first, second = Readers(_PATIENCE_S), _Slow(), _Slow()
        second.end.set()
        tasks = [asyncio.create_task(readers.read(*one)) for one in (("ams1", first), ("fra1", second))]
        await _begun(first)
        await asyncio.sleep(0.05)
        assert not second.begun.is_set()
        first.end.set()
        assert await asyncio.gather(*tasks) == ["slow", "slow"]

    asyncio.run(run())


def test_a_gateway_has_one_body_read_whatever_it_sends() -> None:
    async def run() -> None:
        readers, first, second = Readers(0.01), _Slow(), _Slow()
        tasks = [asyncio.create_task(readers.read("ams1", one)) for one in (first, second)]
        await _begun(first)
        assert await _soon(readers, "fra1", lambda: "quick") == "quick"
        assert not second.begun.is_set()
        for one in (first, second):
            one.end.set()
        assert await asyncio.gather(*tasks) == ["slow", "slow"]

    asyncio.run(run())


def test_what_fails_or_is_given_up_gives_the_turn_back_once() -> None:
    def fails() -> str:
        raise ValueError("no event")

    async def run() -> None:
        readers, slow = Readers(0.01), _Slow()
        assert [str(one) for one in await asyncio.gather(readers.read("ams1", fails), return_exceptions=True)]
        hostile = asyncio.create_task(readers.read("ams1", slow))
        await _begun(slow)
        given_up = asyncio.create_task(readers.read("ams1", lambda: "never"))
        await asyncio.sleep(0)
        given_up.cancel()
        assert await _soon(readers, "fra1", lambda: "quick") == "quick"
        slow.end.set()
        await hostile
        # Were the turn given back twice, two would have it now.
        readers._seconds = _PATIENCE_S
        first, second = _Slow(), _Slow()
        tasks = [asyncio.create_task(readers.read(*one)) for one in (("ams1", first), ("fra1", second))]
        await _begun(first)
        await asyncio.sleep(0.05)
        assert not second.begun.is_set()
        first.end.set()
        second.end.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())
