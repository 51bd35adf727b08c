"""What somebody else has changed on the interface: noticed and told once; whether it is mended, the settings say.

`ip`'s half is read again when the kernel has told of a change (`linknews`), and every half minute in any case. It
tells nothing of WireGuard's peers, which are read at every look.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tidegate_agents.client.reconcile import Action
from tidegate_agents.hostevents import Tell


@dataclass(frozen=True)
class Found:
    """Drift as a status tells it: when (Unix seconds), what would mend it, and whether that was done."""

    time: float
    actions: tuple[str, ...]
    repaired: bool


class Drift:
    """What was found last. One and the same drift is told once."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self.last: Found | None = None
        self.count = 0

    def found(self, actions: Sequence[Action]) -> None:
        """Take in what differs, which may be nothing."""
        texts = tuple(action.text for action in actions)
        if not texts:
            if self.last is not None and not self.last.repaired:
                self._tell("drift-repaired", found="; ".join(self.last.actions))
                self.last = replace(self.last, repaired=True)
        elif self.last is None or self.last.repaired or self.last.actions != texts:
            self.count += 1
            self.last = Found(time.time(), texts, False)
            self._tell("drift-found", found="; ".join(texts))
