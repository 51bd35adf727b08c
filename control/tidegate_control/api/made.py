"""What takes long to make of a commit is made once for it: indexes of lists, tables that judge packets.

Of the newest commits that somebody asked about, and no more: each may hold a hundred thousand objects.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:  # which are made with one
    from tidegate_control.api.operation import Operation

T = TypeVar("T")
COMMITS = 2


class _Entry:
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.values: list[Any] = []


class Made:
    """Values by commit and name. Used by several threads: whoever comes while one is being made waits for it."""

    def __init__(self, operations: tuple[Operation, ...] = (), commits: int = COMMITS) -> None:
        """Hold the values of so many commits; `operations` are the API's own, for its description."""
        self.operations = operations
        self._most = commits
        self._lock = threading.Lock()
        self._of: OrderedDict[str, dict[Hashable, _Entry]] = OrderedDict()

    def newest(self, name: Hashable) -> Any:
        """Return the value of that name of the commit that was asked about last and has it, None without one."""
        with self._lock:
            entries = [of[name] for of in reversed(self._of.values()) if name in of]
        return next((entry.values[0] for entry in entries if entry.values), None)

    def get(self, commit: str, name: Hashable, make: Callable[[], T]) -> T:
        """Return the value of that name, made by `make` at the first call. What `make` raises is not kept."""
        with self._lock:
            entries = self._of.setdefault(commit, {})
            self._of.move_to_end(commit)
            while len(self._of) > self._most:
                self._of.popitem(last=False)
            entry = entries.setdefault(name, _Entry())
        with entry.lock:
            if not entry.values:
                entry.values.append(make())
            found: T = entry.values[0]
            return found
