"""Keeps a flusher running while there is a ring to empty and an endpoint to post to."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_agents.files import write_atomic
from tidegate_agents.gateway.processes import Backoff, Child
from tidegate_agents.watch import Waker
from tidegate_schema import jsonfile

log = logging.getLogger("tidegate.gateway")

_SETTINGS = ("log_endpoint", "flush_usage", "flush_interval", "batch_records", "post_timeout")


class FlusherKeeper:
    """The flusher's life: started when it has work, restarted when it ends or its settings change."""

    def __init__(self, run_directory: Path, generations: Path, gateway: str) -> None:
        self.ring = run_directory / "events.ring"
        self.restarts = 0
        self._command = [sys.executable, "-m", "tidegate_agents.events.flusher"]
        self._command += ["--ring", str(self.ring), "--generations", str(generations), "--gateway", gateway]
        self._command += ["--status", str(run_directory / "flusher.json"), "--parent", str(os.getpid())]
        self._file = run_directory / "flusher-settings.json"
        self._command += ["--settings", str(self._file)]
        self._child: Child | None = None
        self._settings: dict[str, Any] = {}
        self._backoff = Backoff()

    @property
    def pid(self) -> int | None:
        """Process ID of the flusher, None when none runs."""
        return self._child.pid if self._child else None

    def keep(self, settings: Mapping[str, Any], waker: Waker) -> None:
        """Make what runs what the settings want."""
        wanted = {name: settings.get(name) for name in _SETTINGS}
        if self._child is not None and self._child.ended():
            log.error("flusher ended with status %s", self._child.popen.returncode)
            self.restarts += 1
            self._backoff.after_death(time.monotonic() - self._child.started)
            self.stop(waker)
        if self._child is not None and wanted != self._settings:
            self.stop(waker)
        due = time.monotonic() >= self._backoff.not_before
        if self._child is None and settings.get("log_endpoint") and self.ring.exists() and due:
            self._settings = wanted
            # In a file of ours, not on a command line: an endpoint's address may hold a password.
            write_atomic(self._file, jsonfile.canonical(wanted))
            self._child = Child(self._command)
            waker.add(self._child.pidfd)

    def stop(self, waker: Waker) -> None:
        """Let it post what waits, and end it."""
        if self._child is not None:
            waker.discard(self._child.pidfd)
            self._child.stop()
            self._child.close()
            self._child = None
