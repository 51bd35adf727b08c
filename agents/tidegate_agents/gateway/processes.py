"""The gateway's children: forwarders that hand the TUN over to each other, and other processes kept alive."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_agents.datapath.forwarder import ACTIVE, LOADED
from tidegate_agents.gateway import ruleset
from tidegate_agents.host import HostError
from tidegate_agents.process import BULK, hurry

_LOAD_SECONDS = 60.0
_HANDOVER_SECONDS = 10.0
_MEANWHILE_SECONDS = 0.1
_BACKOFF_FIRST, _BACKOFF_LAST = 0.1, 5.0
_QUIET_SECONDS = 10.0  # a child that lived this long starts its back-off anew
_FLOCK = struct.Struct("hhqqi")  # struct flock: type, whence, start, length, process ID (fcntl(2))
_PIDFD_GETFD = 438  # the system call, of one number on every architecture (asm-generic/unistd.h)


class ProcessError(HostError):
    """A child did not do what it was started for; the message is one line."""


class Process:
    """A process, known by a descriptor that becomes readable when it ends."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.started = time.monotonic()
        self.status: int | None = None
        """What it ended with, where that can be known."""
        self.pidfd = os.pidfd_open(pid)

    def ended(self) -> bool:
        """Tell whether it has ended."""
        return self._ends_within(0)

    def stop(self, seconds: float = 5.0) -> None:
        """Ask it to end, and insist after `seconds`."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGTERM)
        if not self._ends_within(seconds):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
            self._ends_within(None)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.pidfd)

    def _ends_within(self, seconds: float | None) -> bool:
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return bool(poller.poll(None if seconds is None else seconds * 1000))


class Child(Process):
    """A process that was started here, and is reaped here."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        # A session of its own: Ctrl-C reaches the supervisor alone, which then stops things in order.
        self._popen = subprocess.Popen(
            command,
            pass_fds=pass_fds,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            super().__init__(self._popen.pid)
        except OSError:  # out of descriptors: a child that nobody could end must not stay
            self._popen.kill()
            self._popen.wait()
            raise

    def _ends_within(self, seconds: float | None) -> bool:
        ended = super()._ends_within(seconds)
        if ended:
            self.status = self._popen.wait()
        return ended


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


@dataclass(frozen=True)
class Station:
    """What one forwarder takes over from another, and what a restarted supervisor finds its forwarder by.

    The forwarder in charge holds the lock; it alone reads the TUN, counts, and writes to the ring.
    """

    tun: int
    denied: int
    """The TUN that denied packets are written to."""
    directory: Path
    user: int
    """The user that forwarders become."""

    @property
    def counters(self) -> Path:
        """The counter page."""
        return self.directory / "counters"

    @property
    def lock(self) -> Path:
        """The file whose lock is the charge."""
        return lock_file(self.directory)


@dataclass(frozen=True)
class Log:
    """Where a forwarder's events go, and what they are of."""

    ring: Path
    silence: float | None
    """None: of packets. Else of flows, and one that was silent for so many seconds is told of again."""


def log_of(ring: Path, settings: Mapping[str, Any]) -> Log:
    """Return what a forwarder with these settings logs."""
    # A flow that the kernel remembers comes to the forwarder once a timeout; what was away for two was away.
    return Log(ring, None if ruleset.is_packet_logged(settings) else 2.0 * settings["flow_timeout"])


def lock_file(directory: Path) -> Path:
    """Return the file whose lock the forwarder in charge holds."""
    return directory / "forwarder.lock"


class Forwarder:
    """A forwarder process that is started here."""

    def __init__(self, station: Station, tables: Path, log: Log | None, *, tell_denied: bool) -> None:
        self._report, report = os.pipe2(os.O_CLOEXEC)
        command = [sys.executable, "-m", "tidegate_agents.datapath.forwarder"]
        command += ["--tun", str(station.tun), "--report", str(report), "--parent", str(os.getpid())]
        command += ["--tables", str(tables), "--counters", str(station.counters)]
        command += ["--lock", str(station.lock), "--user", str(station.user)]
        if log is not None:
            command += ["--ring", str(log.ring)]
            command += ["--flows", str(log.silence)] if log.silence is not None else []
        command += ["--denied", str(station.denied)] if tell_denied else []
        try:
            self.child: Process = Child(command, pass_fds=[station.tun, station.denied, report])
        except OSError:
            os.close(self._report)
            raise
        finally:
            os.close(report)

    def expect(self, report: bytes, seconds: float, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Wait for a report of the process; ProcessError when it ends or stays silent instead.

        `meanwhile` is called now and then until it comes.
        """
        poller = select.poll()
        poller.register(self._report, select.POLLIN)
        deadline = time.monotonic() + seconds
        while not (told := poller.poll(_MEANWHILE_SECONDS * 1000)) and time.monotonic() < deadline:
            meanwhile()
        if not told or os.read(self._report, 1) != report:
            raise ProcessError(f"forwarder {self.child.pid} did not get as far as {report.decode()}")

    def close(self) -> None:
        """Give the descriptors back; the process must have ended."""
        os.close(self._report)
        self.child.close()


class Survivor:
    """A forwarder whose supervisor was killed: it goes on until another takes over from it."""

    def __init__(self, child: Process) -> None:
        self.child = child

    def tun(self, name: str) -> int:
        """Return a descriptor of the TUN of this name that it has; -1 when it has none."""
        folder = Path(f"/proc/{self.child.pid}/fdinfo")
        with contextlib.suppress(OSError):
            for file in folder.iterdir():
                if f"iff:\t{name}\n" in file.read_text():  # drivers/net/tun.c, tun_chr_show_fdinfo
                    taken: int = ctypes.CDLL(None).syscall(_PIDFD_GETFD, self.child.pidfd, int(file.name), 0)
                    return taken
        return -1

    def close(self) -> None:
        """Give the descriptor back."""
        self.child.close()


def survivor(directory: Path) -> Survivor | None:
    """Return the forwarder that is in charge though nobody here has started it, None when there is none."""
    holder = _lock_holder(lock_file(directory))
    if holder is None:
        return None
    if holder <= 0:  # a lock of another kind, or from another PID namespace: a new file leaves it behind
        lock_file(directory).unlink()
        return None
    with contextlib.suppress(ProcessLookupError):
        found = Process(holder)
        if _lock_holder(lock_file(directory)) == holder:  # so it is no other process with a number used again
            return Survivor(found)
        found.close()
    return None


def _lock_holder(file: Path) -> int | None:
    with contextlib.suppress(FileNotFoundError), file.open("rb") as lock:
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 0, 0, 0)
        kind, *_, pid = _FLOCK.unpack(fcntl.fcntl(lock, fcntl.F_GETLK, asked))
        return pid if kind != fcntl.F_UNLCK else None
    return None


def replace_forwarder(
    old: Forwarder | Survivor | None,
    station: Station,
    tables: Path,
    log: Log | None,
    *,
    tell_denied: bool = False,
    meanwhile: Callable[[], None] = lambda: None,
) -> Forwarder:
    """Start a forwarder and let it take the TUN over from `old`; returns when it is in charge.

    With `tell_denied` it writes what it denies to the TUN for that. `meanwhile` is called now and then while it loads.
    ProcessError when the new one cannot load its tables: `old` then goes on as if nothing had been tried. ProcessError,
    too, when it does not come into charge though `old` is gone: then there is no forwarder.
    """
    new = Forwarder(station, tables, log, tell_denied=tell_denied)
    try:
        hurry(new.child.pid, BULK)
        new.expect(LOADED, _LOAD_SECONDS, meanwhile)
    except ProcessError:
        new.child.stop(0)
        new.close()
        raise
    hurry(new.child.pid, 0)
    if old is not None:
        old.child.stop(_HANDOVER_SECONDS)
    try:
        new.expect(ACTIVE, _HANDOVER_SECONDS)
    except ProcessError:
        _end_holder(station.lock, new.child.pid)
        new.child.stop(0)
        new.close()
        raise
    if old is not None:
        old.close()
    return new


def _end_holder(lock: Path, waiting: int) -> None:
    """Kill whoever keeps the charge from the one that waits for it."""
    holder = _lock_holder(lock)
    if holder is not None and holder != waiting:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder, signal.SIGKILL)
