"""What comes to a host from outside: its local settings and its releases, read again whenever they may have changed.

Whatever is invalid changes nothing: the settings and the release that run go on, and the problem is named.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tidegate_agents import bundles, host, settings
from tidegate_agents.clock import Clock
from tidegate_agents.files import FileRefused
from tidegate_agents.hostevents import HostEvent, HostEvents
from tidegate_agents.process import unhurried
from tidegate_agents.succession import Succession
from tidegate_schema.release import ReleaseError

log = logging.getLogger("tidegate.inbox")

Content = TypeVar("Content")
_REMEMBER_SECONDS = 60.0
_CLOCK_DOUBT_SECONDS = 3600.0


@dataclass(frozen=True)
class Refusal:
    """A release that is not applied: the refusal's stable name, one line, and when (Unix seconds)."""

    name: str
    reason: str
    time: float


class Inbox(Generic[Content]):
    """The inputs of one agent. `read` turns an accepted release into what the agent applies, or raises ReleaseError.

    `common` returns what two such have in common, None where nothing could run; `was_well` tells whether what is in
    force does its work, and is asked before a newer release takes its place.
    """

    def __init__(
        self,
        places: host.Places,
        bundle_directory: Path,
        read: Callable[[bundles.Accepted], Content],
        common: Callable[[Content, Content], Content | None],
        was_well: Callable[[], bool] = lambda: False,
    ) -> None:
        """Read the host's papers; HostError when they are not in order."""
        self._places = places
        self._read, self._was_well = read, was_well
        self.trust = host.load_trust(places)
        """The newest key set, by which releases are judged."""
        given = host.load_identity(places)
        self.identity = given.trusting(self.trust)
        host.public_key(places)
        self.directory = bundles.host_directory(bundle_directory, self.identity)
        self.memory = host.load_memory(places)
        self.events = HostEvents(places)
        self.succession = Succession(places, given, lambda: self.trust, self.events, read, common)
        self.refusal: Refusal | None = None
        self.settings_problem: str | None = None
        self._seen: tuple[object, ...] | None = None
        self._waits = False
        self._stale_told = 0
        self._clock = Clock(self.memory.time)

    @property
    def content(self) -> Content | None:
        """What the release in force says; None before the first."""
        return self.succession.content

    @property
    def release(self) -> Mapping[str, str | int] | None:
        """What a status says of it."""
        return self.succession.release

    def is_stale(self) -> bool:
        """Tell whether the release in force is past its end, and tell of it once."""
        release = self.release
        if release is None or self.now() < int(release["not_after"]):
            return False
        if self._stale_told != release["serial"]:
            self._stale_told = int(release["serial"])
            self.events.tell(
                HostEvent.RELEASE_STALE, serial=release["serial"], not_after=release["not_after"]
            )
        return True

    def now(self) -> float:
        """Return Unix seconds, never before the highest time remembered: a clock set back revives nothing."""
        return self._clock.now()

    def settings(self, running: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Return the settings to follow: the file's; while it is invalid, those that run, and at start the defaults."""
        try:
            current = settings.load(self._places.kind, self._places.settings)
        except settings.SettingsError as error:
            if self.settings_problem != str(error):
                log.error("settings not applied: %s", error)
            self.settings_problem = str(error)
            return dict(running) if running is not None else settings.defaults(self._places.kind)
        self.settings_problem = None
        return current

    def trusts(self) -> dict[str, int]:
        """Return what a status says of whose signatures count: the key set's version, and how many of its keys sign."""
        return {
            "key_set": self.trust.version,
            "threshold": self.trust.threshold,
            "keys": len(self.trust.trusted),
        }

    def look(self) -> None:
        """Take in what the bundle directory offers, if it is new. OSError when the memory of it cannot be written."""
        self.succession.begin()
        offered = bundles.fingerprint(self.directory)
        if offered is None and self.content is None and not self._waits:
            log.info("no release yet: waiting for one in %s", self.directory)
        self._waits = offered is None
        if offered is not None and offered != self._seen:
            try:
                with unhurried():
                    self._take_keys()
                    self._take_in(offered)
            except ReleaseError as error:
                self._refuse(error, offered)
        self.succession.recover()

    def _take_in(self, offered: tuple[object, ...]) -> None:
        memory = self.memory
        accepted = bundles.read_current(
            self.directory, self.identity, memory.serial, self.now(), memory.digest
        )
        self.succession.admit(accepted)
        content = self._read(accepted)
        if (accepted.release.serial, accepted.digest) != (memory.serial, memory.digest):
            # Remembered before it is applied: what could be forgotten could be replayed.
            self._remember(accepted.release.serial, accepted.digest)
        else:
            with suppress(
                OSError
            ):  # only the time is new, and a host without room is to come up all the same
                self._remember(0)
        self.succession.take(accepted, content, was_well=self._was_well())
        self._seen, self.refusal = offered, None

    def _take_keys(self) -> None:
        newest = bundles.read_keys(self.directory, self.trust)
        if newest != self.trust:
            # Written down whatever becomes of the release beside it: a key that was taken away stays away.
            host.save_trust(self._places, newest)
            self.trust, self.identity = newest, self.identity.trusting(newest)
            self.events.tell(
                HostEvent.KEY_SET_CHANGED,
                version=newest.version,
                threshold=newest.threshold,
                keys=len(newest.keys),
            )

    def _refuse(self, error: ReleaseError, offered: tuple[object, ...]) -> None:
        reason = str(error)
        if error.name == "expired" and self.now() > time.time() + _CLOCK_DOUBT_SECONDS:
            reason += (
                f" (the clock has been later than it is now; if that was wrong, remove {self._places.memory})"
            )
        if error.name == "failed-trial":
            self._seen = offered  # which nothing but another release changes
        if self.refusal is None or self.refusal.reason != reason:
            self.refusal = Refusal(error.name, reason, self.now())
            self.events.tell(HostEvent.RELEASE_REFUSED, name=error.name, reason=reason)

    def status(self) -> dict[str, Any]:
        """Return what a status says of releases, but for the one in force."""
        name = self.succession.on_trial
        return {
            "settings_problem": self.settings_problem,
            "refusal": asdict(self.refusal) if self.refusal else None,
            "trust": self.trusts(),
            "trial": name._asdict() if name else None,
            "rolled_back": self.succession.rolled_back,
            "stale": self.is_stale(),
            "happened": self.events.counted(),
        }

    def remember_time(self, *, at_once: bool = False) -> None:
        """Write down the time now and then, or at once."""
        if at_once or time.time() - self.memory.time >= _REMEMBER_SECONDS:
            self._remember(0)

    def end(self) -> None:
        """Take note of an end in order, and of the time; never raises, as what is left at work does not end with it."""
        for note in (self.succession.end, lambda: self.remember_time(at_once=True)):
            try:
                note()
            except (OSError, FileRefused) as error:
                log.error("the end is not written down: %s", error)

    def _remember(self, serial: int, digest: str = "") -> None:
        later = self.memory.later(serial, time.time(), digest)
        host.save_memory(self._places, later)
        self.memory = later
