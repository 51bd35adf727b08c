"""Is the clock one by which grants can begin and end?"""

from __future__ import annotations

import time
from collections.abc import Iterator

from tidegate_agents.doctor.facts import Facts
from tidegate_agents.doctor.finding import Finding, fail, ok, warn

_EARLIEST = 1764547200.0  # 2025-12-01, before the first release of Tidegate
_LATEST = 4102444800.0  # 2100
_BEHIND_SECONDS = 60.0
_DAEMON = "timedatectl set-ntp true, or apt install chrony"


def clock(facts: Facts) -> Iterator[Finding]:
    """Look whether the time can be right."""
    now, seen = _told(facts.now), _told(facts.remembered)
    if facts.memory_problem:
        yield fail(
            "memory", facts.memory_problem, f"restore {facts.places.memory}, or remove it to start anew"
        )
    if not _EARLIEST <= facts.now < _LATEST:
        yield fail("clock", f"it says {now}, which cannot be", f"set the clock: {_DAEMON}")
    elif facts.now < facts.remembered - _BEHIND_SECONDS:
        mend = f"set the clock; if that time was wrong, stop the agent and remove {facts.places.memory}"
        yield fail("clock", f"it says {now}, and this host has seen {seen}", mend)
    else:
        yield ok("clock", f"it says {now}")


def synchronisation(facts: Facts) -> Iterator[Finding]:
    """Look whether anything keeps it right."""
    if facts.synchronised is None:
        return
    if facts.synchronised:
        yield ok("synchronisation", "the kernel takes its clock for synchronised")
    else:
        what = "nothing has told the kernel that its clock is synchronised; access begins and ends by it"
        yield warn("synchronisation", what, _DAEMON)


def _told(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(min(max(seconds, 0), 253402300799)))
