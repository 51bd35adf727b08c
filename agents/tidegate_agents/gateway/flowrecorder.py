"""Records what flows carry and when they end, from the kernel's connection table, in a thread of the supervisor.

    news of ended connections ─┐                                         ┌─► flow-close ──┐
                               ├─► ledger: the rest ─► judgements: whose ┤                ├─► RUN/flows.ring
    a look at the live ones ───┘                                         └─► flow-update ─┘

News that finds no room in the socket is lost. The kernel says so at the next read, and a gap says since when. The same
for what nobody was there to read: RUN/flows.recording is there while flows are to be recorded, and its time of change
is the last moment at which all news had been read and recorded. It goes only where nothing is missing any more: a gap
is in the ring before it is off the note.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from tidegate_agents.events import ring
from tidegate_agents.gateway.flownews import News
from tidegate_agents.gateway.flowsession import NEVER, ClockSetError, Counts, Session, Shared
from tidegate_agents.gateway.judgements import Judgement, moved_since
from tidegate_agents.gateway.processes import Backoff
from tidegate_agents.host import Places
from tidegate_schema.policy import PolicyTable

log = logging.getLogger("tidegate.gateway")

ROOM_BYTES = 128 << 20
"""For news that waits, of some 100,000 connections; the kernel takes the memory only while it is needed."""
_MOMENT_NS = 1_000_000_000
_REST_SECONDS = 1.0
_PAUSE_SECONDS = 0.02
_KEPT_NS = 5_000_000_000  # a judgement that another one has followed


def is_wanted(settings: Mapping[str, Any]) -> bool:
    """Tell whether settings want flows recorded."""
    return bool(settings["logging_enabled"] and settings["log_granularity"] == "flow")


class FlowRecorder:
    """The recorder's place in the supervisor, whose thread alone calls it."""

    def __init__(self, places: Places, room: int = ROOM_BYTES) -> None:
        """Take where the ring goes, and how many bytes of news may wait."""
        self.ring = places.rings.flows
        self.counts = Counts()
        self._note, self._room = places.run / "flows.recording", room
        self._shared = Shared()
        self._thread: _Thread | None = None
        self._problem: str | None = None
        self._backoff = Backoff()

    def judged(
        self,
        generation: int,
        enforce: bool,
        clients: Mapping[bytes, str],
        policy: PolicyTable,
        at: float,
        moved: set[bytes],
    ) -> None:
        """Take in that every connection has been judged, at the time of grants `at`, and those refused cut.

        In observe, which cuts none, `moved` are the addresses that may have connections of an earlier owner.
        """
        now = time.time_ns()
        clock = now - time.monotonic_ns()
        before = self._shared.judgements
        latest = self._shared.latest_ns()
        since = {} if enforce else moved_since(before[-1] if before else None, clients, moved, latest)
        made = Judgement(generation, enforce, clients, policy, at, now, clock, since)
        self._shared.judgements = (*before, made)
        self._forget_judgements()

    @contextlib.contextmanager
    def standing_back(self) -> Iterator[Callable[[int], None]]:
        """Leave the processor to the supervisor, which cuts connections meanwhile.

        What it gives takes the ports of the sockets that it cuts them by.
        """
        self._shared.is_cutting = True
        try:
            yield self._shared.add_port
        finally:
            self._shared.is_cutting = False

    def keep(self, settings: Mapping[str, Any]) -> None:
        """Record while the settings want it, once connections have been judged. Raises nothing: see `status`."""
        if not is_wanted(settings):
            self.stop()
            self._problem = None
        elif self._thread is None and self._shared.judgements:
            self._start(settings["ring_records"])
        self._shared.interval = settings["flow_update_interval"] or NEVER
        self._shared.latest_ns()
        self._forget_judgements()

    def _start(self, records: int) -> None:
        if time.monotonic() < self._backoff.not_before:
            return
        try:
            since_ns = self._noted_ns()
            with contextlib.suppress(OSError, ring.RingError):  # the thread tries again, and names it
                _make_ring(self.ring, records)  # now, so that whoever sends finds both rings
            thread = _Thread(self._shared, self.counts, self.ring, records, self._note, self._room, since_ns)
            thread.start()
        except (OSError, RuntimeError) as error:  # no descriptor, no thread
            if self._problem != str(error):
                log.error("flows are not recorded, trying again: %s", error)
            self._problem = str(error)
            self._backoff.after_death(0)
            with contextlib.suppress(OSError):
                _make(self._note)
        else:
            self._thread, self._problem = thread, None

    def _noted_ns(self) -> int | None:
        try:
            return self._note.stat().st_mtime_ns
        except FileNotFoundError:
            return None

    def stop(self, *, leaving: bool = False) -> None:
        """Record no more. With `leaving` somebody goes on, and will say that there was a gap."""
        if self._thread is None:
            return
        self._thread.end()
        if not leaving and not self._thread.is_missing:
            with contextlib.suppress(OSError):
                self._note.unlink(missing_ok=True)
        self._thread = None

    def status(self) -> dict[str, Any]:
        """Return what `tidegate gateway status` shows of it."""
        thread = self._thread
        is_recording, problem = (
            (False, self._problem) if thread is None else (thread.is_recording, thread.problem)
        )
        return {"recording": is_recording, "problem": problem, **vars(self.counts)}

    def _forget_judgements(self) -> None:
        """Forget those that another one has followed for a while, once all news of their time has been read."""
        read_ns = time.monotonic_ns() if self._thread is None else self._thread.read_until
        kept = self._shared.judgements
        while len(kept) > 1 and kept[1].since_ns - kept[1].clock_ns < read_ns - _KEPT_NS:
            kept = kept[1:]
        self._shared.judgements = kept


def _make_ring(path: Path, records: int) -> None:
    """Make sure that there is a ring, and name one that had to be set aside. OSError, RingError."""
    problem = ring.open_or_replace(path, records)
    if problem:
        log.error("ring of flows set aside: %s", problem)


class _Thread(threading.Thread):
    """Records from its start to its end."""

    def __init__(
        self,
        shared: Shared,
        counts: Counts,
        file: Path,
        records: int,
        note: Path,
        room: int,
        missing_since_ns: int | None,
    ) -> None:
        """Take what to share, and since when (CLOCK_REALTIME) records are missing that no gap in the ring tells of."""
        super().__init__(name="flows", daemon=True)
        self.is_recording = False
        self.problem: str | None = None
        self.read_until = time.monotonic_ns()
        """CLOCK_MONOTONIC: all news from before has been read and recorded, or is lost."""
        self._shared, self._counts, self._file, self._records = shared, counts, file, records
        self._note, self._room = note, room
        self._missing_since_ns = missing_since_ns
        self._is_ending = False

    def start(self) -> None:
        """Begin; OSError or RuntimeError."""
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            super().start()
        except RuntimeError:
            os.close(self._wake)
            raise

    def end(self) -> None:
        """Record what news there is, and end."""
        self._is_ending = True
        os.eventfd_write(self._wake, 1)
        self.join()
        os.close(self._wake)

    @property
    def is_missing(self) -> bool:
        """Whether there is something left of which a gap is to be told."""
        return self._missing_since_ns is not None

    def run(self) -> None:
        """Record, and begin anew after a trouble, whatever it is: without this thread nobody would tell of it."""
        while not self._is_ending:
            try:
                self._record()
            except Exception as error:
                self._fail(error)
                self._rest()

    def _rest(self) -> None:
        """Wait a while, but not when it is to end."""
        poller = select.poll()
        poller.register(self._wake, select.POLLIN)
        poller.poll(_REST_SECONDS * 1000)

    def _fail(self, error: Exception) -> None:
        problem = str(error) or type(error).__name__
        if self.problem != problem:
            known = isinstance(error, OSError | ring.RingError | ClockSetError)
            log.error("flows are not recorded, trying again: %s", problem, exc_info=None if known else error)
        self.is_recording, self.problem = False, problem
        if self._missing_since_ns is None:
            self._missing_since_ns = _by_clock(self.read_until)
        with contextlib.suppress(OSError):
            self._write_note(self._missing_since_ns)
        self.read_until = time.monotonic_ns()

    def _record(self) -> None:
        _make_ring(self._file, self._records)
        with contextlib.ExitStack() as undo:
            made = undo.enter_context(contextlib.closing(ring.Ring(self._file)))
            news = undo.enter_context(contextlib.closing(News(self._room)))
            session = undo.enter_context(contextlib.closing(Session(self._shared, self._counts, made, news)))
            if self._missing_since_ns is None:
                self._write_note(time.time_ns())
            while not self._is_ending:
                news.wait(session.patience(), self._wake)
                while self._shared.is_cutting:
                    time.sleep(_PAUSE_SECONDS)
                self._remember(session.step())
                if session.has_looked:
                    self._tell_missing(session)
                    self.is_recording, self.problem = True, None
            session.finish()
            self._tell_missing(session)

    def _tell_missing(self, session: Session) -> None:
        """Tell of what was missed before the session; not before its first look, which may be in trouble too."""
        if self._missing_since_ns is not None:
            session.gap(self._missing_since_ns)
            self._write_note(_by_clock(self.read_until))
            self._missing_since_ns = None

    def _remember(self, read_until: int | None) -> None:
        """Note a moment, CLOCK_MONOTONIC, until which everything is recorded."""
        if read_until is not None and read_until - self.read_until >= _MOMENT_NS:
            self.read_until = read_until
            if self._missing_since_ns is None:
                self._write_note(_by_clock(read_until))

    def _write_note(self, until_ns: int) -> None:
        with contextlib.suppress(FileExistsError):
            _make(self._note)
        os.utime(self._note, ns=(until_ns, until_ns))


def _make(note: Path) -> None:
    """Make a file without opening it: descriptors may be what there are none of. FileExistsError and other OSError."""
    os.mknod(note, 0o600)


def _by_clock(monotonic_ns: int) -> int:
    """Return by CLOCK_REALTIME, as it is set now, what CLOCK_MONOTONIC showed at a moment."""
    return monotonic_ns + time.time_ns() - time.monotonic_ns()
