"""What comes to a host from outside: its local settings and its releases, read again whenever they may have changed.

Whatever is invalid changes nothing: the settings and the release that run go on, and the problem is named.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from tidegate_agents import bundles, host, settings
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
    """The inputs of one agent. `read` turns an accepted release into what the agent applies, or raises ReleaseError."""

    def __init__(
        self, places: host.Places, bundle_directory: Path, read: Callable[[bundles.Accepted], Content]
    ) -> None:
        """Read the host's papers; HostError when they are not in order."""
        self._places = places
        self._read = read
        self.identity = host.load_identity(places)
        host.public_key(places)
        self.directory = bundles.host_directory(bundle_directory, self.identity)
        self.memory = host.load_memory(places)
        self.content: Content | None = None
        """The newest accepted release, read; None before the first."""
        self.release: Mapping[str, str | int] | None = None
        """What a status says of it."""
        self.refusal: Refusal | None = None
        self.settings_problem: str | None = None
        self._seen: tuple[object, ...] | None = None
        self._waits = False
        self._latest = 0.0

    def now(self) -> float:
        """Return Unix seconds, never before the highest time remembered: a clock set back revives nothing."""
        self._latest = max(time.time(), self.memory.time, self._latest)
        return self._latest

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

    def look(self) -> None:
        """Take in what the bundle directory offers, if it is new. OSError when the memory of it cannot be written."""
        offered = bundles.fingerprint(self.directory)
        if offered is None and self.content is None and not self._waits:
            log.info("no release yet: waiting for one in %s", self.directory)
        self._waits = offered is None
        if offered is None or offered == self._seen:
            return
        try:
            accepted = bundles.read_current(self.directory, self.identity, self.memory.serial, self.now())
            content = self._read(accepted)
        except ReleaseError as error:
            reason = str(error)
            if error.name == "expired" and self.now() > time.time() + _CLOCK_DOUBT_SECONDS:
                reason += f" (the clock has been later than it is now; if that was wrong, remove {self._places.memory})"
            if self.refusal is None or self.refusal.reason != reason:
                log.error("release refused: %s", reason)
                self.refusal = Refusal(error.name, reason, self.now())
            return
        # Remembered before it is applied: what could be forgotten could be replayed.
        self._remember(accepted.release.serial)
        self.content, self.release = content, bundles.summary(accepted)
        self._seen, self.refusal = offered, None

    def remember_time(self, *, at_once: bool = False) -> None:
        """Write down the time now and then, or at once."""
        if at_once or time.time() - self.memory.time >= _REMEMBER_SECONDS:
            self._remember(0)

    def _remember(self, serial: int) -> None:
        later = self.memory.later(serial, time.time())
        host.save_memory(self._places, later)
        self.memory = later
