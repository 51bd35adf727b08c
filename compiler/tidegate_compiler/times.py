"""Points in time and windows of time: Unix seconds, UTC, the end exclusive."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from typing import NamedTuple

_FORM = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2})(?:T([0-9]{2}:[0-9]{2}(?::[0-9]{2})?)Z)?")


def parse_instant(text: str) -> int:
    """Return the Unix second of `2027-06-30` (00:00Z) or `2027-06-30T18:00[:00]Z`; ValueError says why not."""
    match = _FORM.fullmatch(text)
    if match is None:
        raise ValueError("write a date (2027-06-30, which means 00:00Z) or a UTC time (2027-06-30T18:00Z)")
    try:
        moment = datetime.datetime.fromisoformat(f"{match[1]}T{match[2] or '00:00'}+00:00")
    except ValueError:
        raise ValueError("no such day or time in the calendar") from None
    if moment.year < 1970:
        raise ValueError("years start with 1970")
    return int(moment.timestamp())


def format_instant(second: int) -> str:
    """Return the UTC time as `2027-06-30T00:00:00Z`."""
    return datetime.datetime.fromtimestamp(second, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Window(NamedTuple):
    """From `not_before` on, until just before `expires`; None is without limit on that side."""

    not_before: int | None = None
    expires: int | None = None

    @property
    def is_empty(self) -> bool:
        """Tell whether no instant lies inside."""
        return self.not_before is not None and self.expires is not None and self.not_before >= self.expires

    def intersect(self, other: Window) -> Window | None:
        """Return the time inside both, or None when there is none."""
        starts = [w.not_before for w in (self, other) if w.not_before is not None]
        ends = [w.expires for w in (self, other) if w.expires is not None]
        both = Window(max(starts, default=None), min(ends, default=None))
        return None if both.is_empty else both

    def covers(self, other: Window) -> bool:
        """Tell whether every instant of `other` lies inside."""
        return self.intersect(other) == other

    def sort_key(self) -> tuple[float, float]:
        """Order by begin, then by end."""
        return (
            float("-inf") if self.not_before is None else self.not_before,
            float("inf") if self.expires is None else self.expires,
        )


ALWAYS = Window()


def union(windows: Iterable[Window]) -> tuple[Window, ...]:
    """Return the fewest windows that hold the same instants, in order; windows that touch become one."""
    merged: list[Window] = []
    for window in sorted((w for w in windows if not w.is_empty), key=Window.sort_key):
        last = merged[-1] if merged else None
        if last is None or (last.expires is not None and window.sort_key()[0] > last.expires):
            merged.append(window)
            continue
        ends = (last.expires, window.expires)
        merged[-1] = Window(last.not_before, None if None in ends else max(e for e in ends if e is not None))
    return tuple(merged)


def intersect_all(windows: Iterable[Window], limit: Window) -> tuple[Window, ...]:
    """Return what each window shares with `limit`, empty ones left out."""
    return tuple(both for window in windows if (both := window.intersect(limit)) is not None)
