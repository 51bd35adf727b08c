"""What happens to a host, apart from packets: releases, drift, keys, failovers; as a journal, log lines and counts.

STATE/<kind>-events.ndjson        one JSON object a line, oldest first: number, time, event, and what the event tells
STATE/<kind>-events.ndjson.old    the one before, once a journal is full (JOURNAL_MAX_BYTES); there is no older one

The journal is for a person who asks what happened here, so it is not synced line by line: a power cut may lose its
last lines. Nor does it hold an agent up: what cannot be written is still logged and counted. Numbers grow from line to
line, also over a start and a full journal, so that who passes entries on (`gateway.hostnews`) knows how far it came.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

from tidegate_agents.files import FileRefused, make_private_directory, read_bounded
from tidegate_agents.host import Places
from tidegate_schema import hostevent, jsonfile
from tidegate_schema.event import timestamp
from tidegate_schema.hostevent import Entry, HostEvent

__all__ = ["HostEvent", "HostEvents", "Tell", "entries", "journal", "read"]

log = logging.getLogger("tidegate.events")

JOURNAL_MAX_BYTES = 1 << 20
_LINE_MAX_BYTES = 4096
_APPEND = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TEXT_MOST = (
    500  # characters of one field: a reason is one line, and a hostile file may have written part of it
)
# The same event of the same name may come as often as a hostile directory changes; the journal is for others, too.
_BURST, _SECONDS_EACH = 20, 60.0


class Tell(Protocol):
    """Takes an event and what it tells: `HostEvents.tell`, as whoever only tells sees it."""

    def __call__(self, event: HostEvent | str, /, **fields: Any) -> None:
        """Note that something happened."""


def journal(places: Places) -> Path:
    """Return the journal's file."""
    return places.state_directory / f"{places.kind}-events.ndjson"


def _older(file: Path) -> Path:
    return file.with_name(f"{file.name}.old")


class HostEvents:
    """Takes in what happens. One per agent; the counts are of this run."""

    def __init__(self, places: Places, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._places, self._file = places, journal(places)
        self._monotonic = monotonic
        self._buckets: dict[tuple[str, str], tuple[float, float]] = {}
        self.number = max((one.number for one in _last_entries(places)), default=0)
        """Of the last entry."""
        self.pass_on: Callable[[Entry], object] | None = None
        """Takes every entry, whether it could be written or not."""
        self.counts: Counter[tuple[str, str]] = Counter()
        """How often each (event, name) has happened since the start; the name is "" where an event has none."""

    def tell(self, event: HostEvent | str, /, **fields: Any) -> None:
        """Note that something happened; `name`, if there is one, is from a closed list too. Never raises.

        ValueError for an event that is not in the list, which is a mistake in the program.
        """
        event = HostEvent(event)
        name = str(fields.get("name", ""))
        self.counts[event, name] += 1
        told = {key: _short(value) for key, value in fields.items() if value is not None}
        if not self._may_write(event, name):
            return
        said = " ".join(f"{key}={value}" for key, value in told.items())
        log.log(logging.WARNING if event in hostevent.GRAVE else logging.INFO, "%s %s", event.value, said)
        self.number += 1
        made = Entry(self.number, time.time_ns(), {"event": event.value, **told})
        try:
            line = {"number": made.number, "time": timestamp(made.wall_ns), **made.told}
            self._write(jsonfile.canonical(line))
        except (OSError, FileRefused, ValueError, TypeError) as error:
            log.error("%s: not written: %s", self._file, error)
        if self.pass_on is not None:
            self.pass_on(made)

    def number_after(self, number: int) -> None:
        """Have later entries numbered above this, as where a power cut took the journal's last lines away."""
        self.number = max(self.number, number)

    def remembered(self) -> list[dict[str, Any]]:
        """Return what the journals hold, oldest first; nothing where they cannot be read."""
        with contextlib.suppress(OSError, FileRefused):
            return list(read(self._places))
        return []

    def counted(self) -> dict[str, dict[str, int]]:
        """Return the counts by event and name."""
        found: dict[str, dict[str, int]] = {}
        for (event, name), count in self.counts.items():
            found.setdefault(str(event), {})[name] = count
        return found

    def _may_write(self, event: str, name: str) -> bool:
        now = self._monotonic()
        left, then = self._buckets.get((event, name), (float(_BURST), now))
        left = min(float(_BURST), left + (now - then) / _SECONDS_EACH)
        may = left >= 1
        self._buckets[event, name] = (left - may, now)
        return may

    def _write(self, line: bytes) -> None:
        if len(line) > _LINE_MAX_BYTES:
            raise ValueError("too long a line")
        make_private_directory(self._file.parent)
        try:
            if self._file.lstat().st_size + len(line) > JOURNAL_MAX_BYTES:
                self._file.replace(_older(self._file))
        except FileNotFoundError:
            pass
        fd = os.open(self._file, _APPEND, 0o600)
        try:
            os.write(fd, line)
        finally:
            os.close(fd)


def _short(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    text = "".join(one if one.isprintable() else "?" for one in str(value))
    return text if len(text) <= _TEXT_MOST else text[:_TEXT_MOST] + "…"


def read(places: Places) -> Iterator[dict[str, Any]]:
    """Yield what the journals hold, oldest first; a line that a crash has cut is left out. FileRefused."""
    file = journal(places)
    for path in (_older(file), file):
        yield from _lines(path)


def entries(places: Places, behind: int) -> Iterator[Entry]:
    """Yield the journals' entries of a higher number, oldest first. FileRefused or OSError."""
    for line in read(places):
        one = hostevent.entry(line)
        if one is not None and one.number > behind:
            yield one


def _last_entries(places: Places) -> Iterator[Entry]:
    """Yield the last entry of each journal, as far as they can be read."""
    file = journal(places)
    for path in (_older(file), file):
        with contextlib.suppress(OSError, FileRefused):
            numbered = (hostevent.entry(line) for line in _lines(path, newest_first=True))
            yield from itertools.islice((one for one in numbered if one is not None), 1)


def _lines(path: Path, *, newest_first: bool = False) -> Iterator[dict[str, Any]]:
    try:
        lines = read_bounded(path, JOURNAL_MAX_BYTES).splitlines()
    except FileNotFoundError:
        return
    for line in reversed(lines) if newest_first else lines:
        try:
            one = jsonfile.parse(line)
        except jsonfile.JsonError:
            continue
        if isinstance(one, dict) and isinstance(one.get("event"), str) and isinstance(one.get("time"), str):
            yield one
