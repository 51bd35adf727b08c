"""The trial of a release, as both kinds of agent hold it: a deadline for each release, a verdict, and what follows.

    begins ─► judge, turn by turn ─► CONFIRMED: the good one from here on
                                 ├─► TAKEN_BACK: what it shares with the good one is in force
                                 └─► OPEN

What counts as work is the agent's own: a client asks for handshakes, a gateway for facts of its host alone.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any

from tidegate_agents.succession import Succession
from tidegate_agents.trial import Deadline, Name


class Outcome(enum.Enum):
    """What a look at the release on trial led to."""

    OPEN = enum.auto()
    CONFIRMED = enum.auto()
    TAKEN_BACK = enum.auto()
    """Another release is in force for it now, which has to be applied."""


@dataclass(frozen=True)
class Evidence:
    """What an agent knows of the release on trial."""

    works: bool
    counts: bool
    """Whether it is held against the release when it does not work, and not against the host or what ran before."""
    seconds: float
    """After so many of these it has failed."""
    settle: float = 0.0
    """It has to work for so many seconds."""


class Hearing:
    """Judges one release after the other, each from when it goes on trial; time is an argument, as with `Deadline`."""

    def __init__(self, succession: Succession[Any]) -> None:
        self._succession = succession
        self._tried: Name | None = None
        self._deadline = Deadline()

    @property
    def is_on(self) -> bool:
        """Whether the release that is on trial now has begun to be judged."""
        return self._tried is not None and self._tried == self._succession.on_trial

    def begins(self) -> bool:
        """Tell whether something else is on trial than at the last call, or nothing any more; its deadline begins."""
        on_trial = self._succession.on_trial
        if on_trial == self._tried:
            return False
        self._tried, self._deadline = on_trial, Deadline()
        return True

    def judge(self, now: float, evidence: Evidence, why: str) -> Outcome:
        """Judge what is on trial at monotonic time `now`; `why` says why it failed, where it has. OSError."""
        verdict = self._deadline.judge(
            now,
            ok=evidence.works,
            counts=evidence.counts and self._succession.was_well,
            seconds=evidence.seconds,
            settle=evidence.settle,
        )
        if verdict is None:
            return Outcome.OPEN
        if verdict:
            self._succession.confirm()
            return Outcome.CONFIRMED
        # Anew: where there is nothing to go back to, that is not looked for at every turn.
        self._deadline = Deadline()
        return Outcome.TAKEN_BACK if self._succession.fail(why) else Outcome.OPEN
