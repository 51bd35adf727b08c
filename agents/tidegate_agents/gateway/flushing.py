"""Keeps a flusher running while there is a ring to empty and an endpoint to post to.

The flusher reads its settings once, and secrets are handed to it: so whatever changes, a token in its file too, it is
ended and started again. Its supervisor does not wait for that, which has more urgent things to do.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_agents.events import endpoint
from tidegate_agents.files import FileRefused
from tidegate_agents.gateway import generation
from tidegate_agents.gateway.processes import Backoff, Child
from tidegate_agents.host import Places
from tidegate_agents.process import is_mapped
from tidegate_agents.watch import Waker
from tidegate_schema import jsonfile

log = logging.getLogger("tidegate.gateway")

_SETTINGS = (
    *("log_endpoint", "log_format", "log_compression", "log_ca_file", "log_cert_file", "log_key_file"),
    *("flush_usage", "flush_interval", "batch_records", "batch_bytes", "batches_in_flight"),
    *("post_timeout", "retry_after_max"),
)
_END_SECONDS = 5.0
_Work = tuple[dict[str, Any], tuple[int | None, ...]]  # settings, and which rings


class FlusherKeeper:
    """The flusher's life: started when it has work, restarted when it ends or its settings change."""

    def __init__(self, places: Places, gateway: str, user: int) -> None:
        self.rings = places.rings
        self.restarts = 0
        self.problem: str | None = None
        """Why the settings are not followed, or no flusher can be started; one that runs goes on as it is."""
        self._home, self._user = places.flusher_status.parent, user
        self._command = [sys.executable, "-m", "tidegate_agents.events.flusher"]
        for ring in self.rings:
            self._command += ["--ring", str(ring)]
        self._command += ["--names", str(generation.names(places))]
        self._command += ["--gateway", gateway, "--status", str(places.flusher_status)]
        self._command += ["--parent", str(os.getpid()), "--user", str(user)]
        self._child: Child | None = None
        self._kill_at: float | None = None
        """When the flusher, which has been asked to end, is made to."""
        self._settings: dict[str, Any] | None = None
        """The last that could be read; None when nothing is to be sent."""
        self._followed: _Work | None = None
        """What the flusher that runs was started with."""
        self._unstarted: str | None = None
        self._backoff = Backoff()

    @property
    def pid(self) -> int | None:
        """Process ID of the flusher, None when none runs."""
        return self._child.pid if self._child else None

    def keep(self, settings: Mapping[str, Any], waker: Waker) -> None:
        """Make what runs what the settings want, a step of it at a time. Never raises: it tells a `problem`.

        While a file that the settings name is refused, they stay as they were.
        """
        if self._child is not None and self._child.ended():
            if self._kill_at is None:
                log.error("flusher ended with status %s", self._child.status)
                self.restarts += 1
                self._backoff.after_death(time.monotonic() - self._child.started)
            self.stop(waker)
        refused = None
        try:
            self._settings = _read(settings)
        except (FileRefused, OSError) as error:
            refused = str(error)
        wanted = self._work()
        if self._child is not None:
            if wanted != self._followed or self._kill_at is not None:
                self._end()
        elif wanted is None:
            self._unstarted = None
        elif time.monotonic() >= self._backoff.not_before:
            self._start(wanted, waker)
        self._note(refused or self._unstarted)

    def _work(self) -> _Work | None:
        """Return what a flusher is to do; None when that is nothing."""
        rings = tuple(_inode(ring) for ring in self.rings)
        return (self._settings, rings) if self._settings is not None and any(rings) else None

    def _note(self, problem: str | None) -> None:
        if problem is not None and problem != self.problem:
            log.error("events are not sent as the settings say: %s", problem)
        self.problem = problem

    def _start(self, wanted: _Work, waker: Waker) -> None:
        try:
            self._home.mkdir(mode=0o700, exist_ok=True)
            if is_mapped(self._user):
                os.chown(self._home, self._user, self._user)
            self._child = self._spawn(wanted[0])
            self._followed, self._unstarted = wanted, None
            waker.add(self._child.pidfd)
        except OSError as error:  # a full /run, no descriptor, no process to be had
            self._unstarted = f"the flusher cannot be started: {error}"
            self._backoff.after_death(0)

    def _spawn(self, settings: dict[str, Any]) -> Child:
        # In memory that has no name, neither on a command line nor in a file: there is a secret in it.
        with open(os.memfd_create("flusher-settings"), "wb") as handed:  # noqa: PTH123 - it is a descriptor
            handed.write(jsonfile.canonical(settings))
            handed.flush()
            fd = handed.fileno()
            return Child([*self._command, "--settings", f"/proc/self/fd/{fd}"], pass_fds=[fd])

    def _end(self) -> None:
        """Ask it to post what waits and end, and insist later."""
        assert self._child is not None
        if self._kill_at is None:
            self._kill_at = time.monotonic() + _END_SECONDS
            number = signal.SIGTERM
        elif time.monotonic() >= self._kill_at:
            number = signal.SIGKILL
        else:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._child.pidfd, number)

    def stop(self, waker: Waker) -> None:
        """Let it post what waits, end it, and wait for that."""
        if self._child is not None:
            waker.discard(self._child.pidfd)
            self._child.stop(_END_SECONDS)
            self._child.close()
            self._child = self._kill_at = None


def _read(settings: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return all that a flusher is to go by, None without an endpoint; FileRefused when a file is not to be used."""
    if not settings.get("log_endpoint"):
        return None
    chosen = {name: settings.get(name) for name in _SETTINGS}
    return chosen | {"authorization": endpoint.authorization(settings), "files": endpoint.versions(settings)}


def _inode(ring: Path) -> int | None:
    """Return what tells a ring from one that took its place; None where there is none."""
    try:
        return ring.stat().st_ino
    except OSError:
        return None
