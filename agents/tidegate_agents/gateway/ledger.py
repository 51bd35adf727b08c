"""What has been told of each flow, so that the next record of it tells the rest. Pure.

The kernel counts a connection from its begin; a record of a flow tells what came since its record before it. Only
flows that were told of, or that are older than the ledger, are remembered; the close of another one tells all. So over
all records of a flow, packets and bytes are what the kernel counted since the ledger began.

Which ones are older, their begin tells only until a whole look has come across them. From then on whatever is not
remembered is younger, also where the clock is set back, or where the kernel notes no begin.

A look goes through the live connections a piece at a time, while news of ended ones arrives: one that has ended
meanwhile may still be in a later piece. And what was remembered of one that a whole look has not found is forgotten.
"""

from __future__ import annotations

from typing import NamedTuple

from tidegate_agents.gateway.connections import Connection, counted

REMEMBERED_MOST = 262144
"""Flows; some 100 MB."""


class Amount(NamedTuple):
    """Packets and bytes both ways, in the order of a record."""

    packets: int
    length: int
    reply_packets: int
    reply_length: int


_Counters = tuple[bytes, bytes]
NOTHING = Amount(0, 0, 0, 0)


class Ledger:
    """Remembers; each connection is known by its key."""

    def __init__(self, began_ns: int, most: int = REMEMBERED_MOST) -> None:
        """Begin at a moment, CLOCK_REALTIME: of what is older, only what comes after the first look is told."""
        self._began_ns, self._most = began_ns, most
        self._told: dict[bytes, _Counters] = {}
        self._unseen: dict[bytes, _Counters] = {}  # while looking: told of, and not come across so far
        self._ended: set[bytes] | None = None  # while looking: ended since the look began
        self._lacks_room = False  # while looking: for one that is older
        self.knows_older = False
        """Whether every connection that is older, and lives, is remembered."""

    def __len__(self) -> int:
        return len(self._told) + len(self._unseen)

    def close(self, connection: Connection) -> Amount | None:
        """Return what is still to be told of a connection that has ended; None when that cannot be known.

        It cannot of one that may be older than the ledger and was not come across. Malformed, and then nothing is
        changed.
        """
        key = connection.key
        amount = _since(connection, self._told.get(key) or self._unseen.get(key))
        is_known = self._told.pop(key, None) or self._unseen.pop(key, None)
        if self._ended is not None:
            self._ended.add(key)
        return None if not is_known and self._may_be_older(connection) else amount

    def look(self) -> None:
        """Begin to look."""
        self._unseen, self._told = self._told | self._unseen, {}
        self._ended, self._lacks_room = set(), False

    def see(self, connection: Connection, *, tell: bool) -> Amount | None:
        """Take in a live connection of a look; returns what is to be told of it, None for nothing. Malformed.

        Nothing is told where nothing has moved, or without `tell`, or where there is no room to remember what was.
        """
        assert self._ended is not None
        key = connection.key
        if key in self._ended:
            return None
        now = connection.sent, connection.answered
        before = self._unseen.get(key) or self._told.get(key)
        is_old = before is None and self._may_be_older(connection)
        if before is None and len(self) >= self._most:
            self._lacks_room |= is_old
            return None
        tell = tell and not is_old and now != before
        amount = _since(connection, before) if tell else NOTHING
        self._unseen.pop(key, None)
        if is_old or amount != NOTHING:
            self._told[key] = now
        elif before is not None:
            self._told[key] = before
        return amount if amount != NOTHING else None

    def found_all(self) -> None:
        """End a look that has come across every connection there was: the others have ended without news."""
        self.knows_older |= not self._lacks_room
        self._unseen, self._ended = {}, None

    def gave_up(self) -> None:
        """End a look half-way."""
        self._told |= self._unseen
        self._unseen, self._ended = {}, None

    @property
    def is_strained(self) -> bool:
        """Whether a look has lasted for too many ends."""
        return self._ended is not None and len(self._ended) >= self._most

    def _may_be_older(self, connection: Connection) -> bool:
        return not self.knows_older and connection.start_ns <= self._began_ns


def _since(connection: Connection, before: _Counters | None) -> Amount:
    now = _amount(connection.sent, connection.answered)
    if before is None:
        return now
    then = _amount(*before)
    if any(after < earlier for after, earlier in zip(now, then, strict=True)):
        return now  # somebody set the kernel's counters to zero
    return Amount(*(after - earlier for after, earlier in zip(now, then, strict=True)))


def _amount(sent: bytes, answered: bytes) -> Amount:
    return Amount(*counted(sent), *counted(answered))
