"""What is done now and then beside answering, each in a thread of its own that ends with the server."""

from __future__ import annotations

import abc
import logging
import threading
from types import TracebackType
from typing import TypeVar

log = logging.getLogger("tidegate.control")
AGAIN_SECONDS = 60.0
_Self = TypeVar("_Self", bound="Chore")


class Chore(abc.ABC):
    """Takes its turns between `with` and its end, the first one at once."""

    name: str

    def __init__(self) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)

    @abc.abstractmethod
    def turn(self) -> float:
        """Do it once; return the seconds until the next turn."""

    def __enter__(self: _Self) -> _Self:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _where: TracebackType | None
    ) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(self._turn()):
            pass

    def _turn(self) -> float:
        try:
            return self.turn()
        except Exception:  # a mistake in one turn must not be the last of all of them
            log.exception("%s failed; it is tried again", self.name)
            return AGAIN_SECONDS
