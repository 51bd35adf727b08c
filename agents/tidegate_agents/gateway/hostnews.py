"""Passes what happens to the gateway on to the log endpoint: the journal's entries, through a ring of the supervisor's.

    journal ──► entries that wait ──► RUN/host.ring ──► flusher

    STATE/gateway-events.sent    {"format": 1, "number": …}: logging is on, and up to this entry all have left the ring

Each entry comes into a ring once. The last record there tells by its number how far an agent came that was killed, and
what the ring has dropped since stands beside it, so its successor goes on with the next one in the journal. A ring does
not outlive a reboot. Then the note says where to go on, and entries that had left since it was written come again, in
another ring; their numbers show it. What happens while logging is off is never sent: then there is no note.
"""

from __future__ import annotations

import collections
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_agents import hostevents
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring, RingError
from tidegate_agents.files import FileRefused, make_private_directory, read_bounded, write_atomic
from tidegate_agents.host import Places
from tidegate_schema import hostevent, jsonfile
from tidegate_schema.hostevent import Entry

log = logging.getLogger("tidegate.gateway")

RECORDS = 2048
"""In the ring, which takes 2 MiB; of no more than `spsc.BATCH_MOST` an onlooker could see nothing that was sent."""
FORMAT = 1
_NOTE_MAX_BYTES = 4096
_WAITING_MOST = 1024
_NUMBER_MOST = (1 << 63) - 1


def note(places: Places) -> Path:
    """Return where it is noted how far the journal has been sent."""
    return places.state_directory / f"{places.kind}-events.sent"


class HostNews:
    """The one producer of the ring; all of it is the supervisor's thread's."""

    def __init__(self, places: Places, events: hostevents.HostEvents) -> None:
        """Take in every entry from here on, before the first."""
        self.problem: str | None = None
        """Why what happens is not sent; the journal has it."""
        self._places, self._events = places, events
        self._ring: Ring | None = None
        self._waiting: collections.deque[Entry] = collections.deque()
        self._noted = _read_note(note(places))
        self._is_on = self._noted is not None
        events.number_after(self._noted or 0)
        self._known = events.number
        """Number of the last entry before this agent's."""
        self._passed = self._noted or 0
        """Number of the last entry that came into a ring, or was dropped there."""
        events.pass_on = self._take

    def keep(self, settings: Mapping[str, Any]) -> None:
        """Pass on what waits, where the settings want it. Raises nothing: it tells a `problem`."""
        problem = None
        for step in (self._note, self._pass) if self._begin(settings) else (self._end,):
            try:
                step()
            except (OSError, FileRefused, RingError) as error:  # no room, no descriptor
                problem = str(error)
        if problem is not None and problem != self.problem:
            log.error("what happens to this host is not sent as the settings say, trying again: %s", problem)
        self.problem = problem

    def _take(self, one: Entry) -> None:
        self._waiting.append(one)
        if len(self._waiting) > _WAITING_MOST:
            self._waiting.popleft()  # the journal has it

    def _begin(self, settings: Mapping[str, Any]) -> bool:
        """Tell whether it is to be sent; where that is new, what happened before this turn never is."""
        is_on = bool(settings["logging_enabled"])
        if is_on and not self._is_on:
            self._passed = self._waiting[0].number - 1 if self._waiting else self._events.number
        self._is_on = is_on
        return is_on

    def _end(self) -> None:
        self._waiting.clear()
        if self._ring is not None:
            self._ring.close()
            self._ring = None
        note(self._places).unlink(missing_ok=True)
        self._noted = None

    def _note(self) -> None:
        """Write the note where it is wanting, or the ring is empty: what came into it is settled then."""
        is_settled = self._ring is not None and self._ring.pending() == 0 and self._noted != self._passed
        if self._noted is None or is_settled:
            make_private_directory(self._places.state_directory)
            write_atomic(note(self._places), jsonfile.canonical({"format": FORMAT, "number": self._passed}))
            self._noted = self._passed

    def _pass(self) -> None:
        """Write each entry that waits; the store that publishes it also says how far the journal is passed on."""
        made = self._ring = self._ring or self._open()
        while self._waiting:
            one = self._waiting[0]
            if one.number > self._passed:
                octets, first, room, mask, sequence = made.claim()
                if room:
                    at = ring.HEADER_BYTES + (first & mask) * made.record_bytes
                    record = hostevent.pack(sequence, time.monotonic_ns(), one)
                    octets[at : at + made.record_bytes] = record
                made.publish(1)
                self._passed = one.number
            self._waiting.popleft()

    def _open(self) -> Ring:
        """Open the ring, and find in the journal what has not come into it."""
        path = self._places.rings.host
        problem = ring.open_or_replace(path, RECORDS, hostevent.RECORD_BYTES)
        if problem:
            log.error("ring of host events set aside: %s", problem)
        made = Ring(path, (hostevent.RECORD_BYTES,))
        self._passed = max(self._passed, min(_passed(made), self._known))
        found: dict[int, Entry] = {}
        try:
            found = {one.number: one for one in hostevents.entries(self._places, self._passed)}
        except (OSError, FileRefused) as error:
            log.error("what happened before is not sent: %s", error)
        found |= {one.number: one for one in self._waiting}
        self._waiting = collections.deque(found[number] for number in sorted(found))
        return made


def _passed(made: Ring) -> int:
    """Return the number of the last entry that came into a ring, or was dropped there; 0 where that is not known."""
    try:
        last = hostevent.unpack(made.last())
    except ValueError:
        return 0
    dropped_since = made.published() + made.dropped() - last.seq - 1
    return last.number + max(0, dropped_since)


def _read_note(path: Path) -> int | None:
    """Return the number in a note; None where there is none, as at a start with logging off."""
    try:
        found = jsonfile.parse(read_bounded(path, _NOTE_MAX_BYTES))
        if found["format"] != FORMAT or not isinstance(found["number"], int):
            raise ValueError("of another version")
        return min(max(int(found["number"]), 0), _NUMBER_MOST)
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError) as error:
        log.error("%s: unreadable (%s); what happened before this start is not sent", path, error)
        return None
