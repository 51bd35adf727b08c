"""Bodies are read one after the other, and nobody waits long for one that takes long.

    its gateway reads nothing else ──► the turn ──► read, in a thread ──► the next one's turn
                                                     └── after SECONDS the next one's turn, and this one goes on beside

One interpreter reads no faster in more threads, and bodies that are read together would all end together, so that
nothing is read while the store is at work. But a body may be made to be slow, by who has taken a gateway over: it must
not keep the others from bringing theirs. Of a gateway no more than one is ever read.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import weakref
from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter, to_thread

SECONDS = 0.25
"""So long a body has the turn: several times what the bodies take that gateways send."""
T = TypeVar("T")


class Readers:
    """Who reads when. One for an event loop."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self._seconds = seconds
        self._turn = asyncio.Semaphore(1)
        self._of: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        # No bound but the one by gateway: where others were waited for here, they would have the turn for ever.
        self._threads = CapacityLimiter(math.inf)

    async def read(self, gateway: str, work: Callable[[], T]) -> T:
        """Return what `work` returns in a thread, when it is the gateway's turn."""
        mine = self._of.setdefault(gateway, asyncio.Lock())
        async with mine:
            await self._turn.acquire()
            turn = contextlib.ExitStack()
            turn.callback(self._turn.release)
            timer = asyncio.get_running_loop().call_later(self._seconds, turn.close)
            try:
                return await to_thread.run_sync(work, limiter=self._threads)
            finally:
                timer.cancel()
                turn.close()
