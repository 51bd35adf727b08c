"""Wake up when watched files may have changed.

A wake-up is a hint: whoever is woken reads the files again and compares. So a missed one costs a poll interval (on
file systems without inotify, such as a network mount) and a spurious one costs a read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import awatch

POLL_SECONDS = 2.0


async def changes(paths: list[Path], stop: asyncio.Event, poll: float = POLL_SECONDS) -> AsyncIterator[None]:
    """Yield at once, then whenever something below `paths` may have changed, at least every `poll` seconds."""
    yield
    while not stop.is_set():
        present = [path for path in paths if path.is_dir()]
        if len(present) < len(paths):  # a directory that is not there yet cannot be watched
            await _sleep(stop, poll)
            yield
            continue
        async for _ in awatch(
            *present,
            stop_event=stop,
            rust_timeout=int(poll * 1000),
            yield_on_timeout=True,
            step=20,
            debounce=200,
            watch_filter=None,
        ):
            yield
            if not all(path.is_dir() for path in paths):
                break


async def _sleep(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
