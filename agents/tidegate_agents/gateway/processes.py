"""The gateway's children: forwarders that hand the TUN over to each other, and other processes kept alive."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tidegate_agents.datapath.forwarder import ACTIVE, LOADED
from tidegate_agents.host import HostError

_LOAD_SECONDS = 60.0
_HANDOVER_SECONDS = 10.0
_BACKOFF_FIRST, _BACKOFF_LAST = 0.1, 5.0
_QUIET_SECONDS = 10.0  # a child that lived this long starts its back-off anew


class ProcessError(HostError):
    """A child did not do what it was started for; the message is one line."""


class Child:
    """A running process with a descriptor that becomes readable when it ends."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # A session of its own: Ctrl-C reaches the supervisor alone, which then stops things in order.
        self.popen = subprocess.Popen(
            command,
            pass_fds=pass_fds,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.started = time.monotonic()
        self.pidfd = os.pidfd_open(self.popen.pid)

    @property
    def pid(self) -> int:
        """Process ID."""
        return self.popen.pid

    def ended(self) -> bool:
        """Tell whether it has ended, and reap it if so."""
        return self.popen.poll() is not None

    def stop(self, seconds: float = 5.0) -> None:
        """Ask it to end, insist after `seconds`, and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self.popen.terminate()
        try:
            self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()

    def close(self) -> None:
        """Give the descriptor back; the process must have been reaped."""
        os.close(self.pidfd)


class Backoff:
    """How long to wait before a child that keeps ending is started again: 0 s first, doubling to 5 s."""

    def __init__(self) -> None:
        self._next = 0.0
        self.not_before = 0.0

    def after_death(self, lived: float) -> None:
        """Note that the child ended after `lived` seconds."""
        if lived >= _QUIET_SECONDS:
            self._next = 0.0
        self.not_before = time.monotonic() + self._next
        self._next = min(max(self._next * 2, _BACKOFF_FIRST), _BACKOFF_LAST)


class Forwarder:
    """A forwarder process, and the read end of the token pipe whose write end only that process holds."""

    def __init__(
        self, tun: int, tables: Path, counters: Path, ring: Path | None, predecessor: Forwarder | None
    ) -> None:
        self.token, held = os.pipe2(os.O_CLOEXEC)
        self._report, report = os.pipe2(os.O_CLOEXEC)
        command = [sys.executable, "-m", "tidegate_agents.datapath.forwarder"]
        command += ["--tun", str(tun), "--report", str(report), "--parent", str(os.getpid())]
        command += ["--tables", str(tables), "--counters", str(counters)]
        command += ["--ring", str(ring)] if ring else []
        command += ["--predecessor", str(predecessor.token)] if predecessor else []
        inherited = [tun, report, held, *([predecessor.token] if predecessor else [])]
        try:
            self.child = Child(command, pass_fds=inherited)
        finally:
            os.close(held)
            os.close(report)

    def expect(self, report: bytes, seconds: float) -> None:
        """Wait for a report of the process; ProcessError when it ends or stays silent instead."""
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        if not poller.poll(seconds * 1000) or os.read(self._report, 1) != report:
            raise ProcessError(f"forwarder {self.child.pid} did not get as far as {report.decode()}")

    def close(self) -> None:
        """Give the descriptors back; the process must have been reaped."""
        os.close(self.token)
        os.close(self._report)
        self.child.close()


def replace_forwarder(
    old: Forwarder | None, tun: int, tables: Path, counters: Path, ring: Path | None
) -> Forwarder:
    """Start a forwarder and let it take the TUN over from `old`; returns when it is in charge.

    ProcessError when the new one cannot load its tables: `old` then goes on as if nothing had been tried.
    """
    new = Forwarder(tun, tables, counters, ring, old)
    try:
        new.expect(LOADED, _LOAD_SECONDS)
    except ProcessError:
        new.child.stop(0)
        new.close()
        raise
    if old is not None:
        old.child.stop(_HANDOVER_SECONDS)
        old.close()
    with contextlib.suppress(ProcessError):  # its end is then noticed as any forwarder's end is
        new.expect(ACTIVE, _HANDOVER_SECONDS)
    return new
