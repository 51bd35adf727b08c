"""A release's trial: in force on approval, confirmed when it works here, else taken back. The pure part and its record.

    offered ─► applying ─► confirmed: it is the good one now, what to go back to
                  │
                  └► failed: never tried again; what runs is what the good one and it have in common

STATE/<kind>-trial.json    {"format": 1, "good": {"serial", "digest"} | null, "trial": … | null, "failed": … | null,
                            "was_well": …, "crashes": …, "ended": …}

The record is the one truth after a kill -9 or a power cut, and is replaced in one step. Only the newest failed release
has to be known: whatever is older is refused as replayed.
"""

from __future__ import annotations

import errno
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from tidegate_agents.files import FileRefused, make_private_directory, read_bounded, write_atomic
from tidegate_agents.host import HostError, Places
from tidegate_schema import jsonfile
from tidegate_schema.release import DIGEST_PATTERN

FORMAT = 1
# Of the host, and of no release: neither speaks for one nor against it.
_HOST_TROUBLES = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_MAX_BYTES = 4096
CRASHES_MOST = 1
"""So many times a release may be tried again after its trial was cut off by a crash."""


class Name(NamedTuple):
    """A release by its serial and its digest."""

    serial: int
    digest: str


@dataclass(frozen=True)
class Record:
    """Which release is the good one, which is on trial, and which has failed."""

    good: Name | None = None
    trial: Name | None = None
    failed: Name | None = None
    was_well: bool = False
    """Whether what ran before the trial did its work; where it did not, silence is not held against a release."""
    crashes: int = 0
    """How often the trial was cut off by a crash."""
    ended: bool = False
    """Whether the agent has ended in order since."""

    def offered(self, name: Name, *, was_well: bool) -> Record:
        """Return the record when a newer release goes on trial; an older trial is given up for it."""
        return replace(self, trial=name, was_well=was_well, crashes=0, ended=False)

    def confirmed(self) -> Record:
        """Return the record when the release on trial has done its work."""
        return Record(good=self.trial)

    def lost(self) -> Record:
        """Return the record when it has not."""
        return Record(good=self.good, failed=self.trial)

    def started(self) -> Record:
        """Return the record when an agent starts: with a trial in it, the last one may have crashed meanwhile."""
        if self.trial is None or self.ended:
            return replace(self, ended=False)
        return replace(self, crashes=self.crashes + 1)

    def stopped(self) -> Record:
        """Return the record when the agent ends in order."""
        return replace(self, ended=True)

    @property
    def is_crash_loop(self) -> bool:
        """Whether the trial was cut off too often; without a good release to go back to it goes on all the same."""
        return self.crashes > CRASHES_MOST and self.good is not None


class Deadline:
    """Judges a trial while it runs; time is an argument, in seconds that only go on."""

    def __init__(self) -> None:
        self._since: float | None = None
        self._well_since: float | None = None

    def judge(
        self, now: float, *, ok: bool, counts: bool, seconds: float, settle: float = 0.0
    ) -> bool | None:
        """Return True when the release has been `ok` for `settle` seconds, False when it has not been so in time.

        Only time in which silence `counts` is held against it: the deadline begins anew where it did not. None while
        it is open.
        """
        self._since = now if counts and self._since is None else self._since if counts else None
        if ok:
            self._well_since = now if self._well_since is None else self._well_since
            return True if now - self._well_since >= settle else None
        self._well_since = None
        return False if self._since is not None and now - self._since >= seconds else None


def is_host_s(trouble: Exception) -> bool:
    """Tell whether what could not be done is held against no release, as the host itself has no room, for instance."""
    return isinstance(trouble, FileRefused) or (
        isinstance(trouble, OSError) and trouble.errno in _HOST_TROUBLES
    )


def file(places: Places) -> Path:
    """Return where the record is."""
    return places.state_directory / f"{places.kind}-trial.json"


def load(places: Places) -> Record:
    """Read the record; HostError when it is there but unreadable, since what has failed would be tried again."""
    path = file(places)
    try:
        found = jsonfile.parse(read_bounded(path, _MAX_BYTES))
        if found["format"] != FORMAT:
            raise ValueError("of another version")
        names = {key: _name(found[key]) for key in ("good", "trial", "failed")}
        return Record(
            **names,
            was_well=bool(found["was_well"]),
            crashes=int(found["crashes"]),
            ended=bool(found["ended"]),
        )
    except FileNotFoundError:
        return Record()
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise HostError(f"{path}: unreadable ({error}); restore it, or remove it to start anew") from None


def _name(value: Any) -> Name | None:
    if value is None:
        return None
    name = Name(value["serial"], value["digest"])
    if not isinstance(name.serial, int) or not DIGEST_PATTERN.fullmatch(name.digest):
        raise ValueError("a release that cannot be")
    return name


def save(places: Places, record: Record) -> None:
    """Write the record durably."""
    make_private_directory(places.state_directory)
    document = asdict(record) | {
        key: name._asdict() if name else None
        for key, name in (("good", record.good), ("trial", record.trial), ("failed", record.failed))
    }
    write_atomic(file(places), jsonfile.canonical({"format": FORMAT, **document}))
