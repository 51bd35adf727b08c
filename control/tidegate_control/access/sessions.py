"""Sessions of browsers: a random ID in a cookie, its hash on the server, both ends by the server's clock.

A session holds no right of its own: it names the token it began with, and ends with it. STATE/sessions.json keeps the
hashes over a restart; when a session was last used is written at most once a minute.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from tidegate_control.access import privatefiles
from tidegate_control.access.privatefiles import StateError
from tidegate_schema import jsonfile

log = logging.getLogger("tidegate.control.access")

FORMAT = 1
MOST = 1000
PER_TOKEN = 20
"""Sessions of one token; with one more the oldest ends, so that one holder pushes out no other."""
_ID = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_BYTES = 1 << 20
_WRITE_SECONDS = 60


@dataclass(frozen=True)
class Session:
    """`token` is the ID of the token it began with; times are seconds of the epoch."""

    sha256: str
    token: str
    created: int
    used: int


def csrf_of(identifier: str) -> str:
    """Return the token that forms of a session carry: made from the ID, so that nothing of it is kept."""
    made = hmac.digest(identifier.encode(), b"tidegate csrf 1", "sha256")
    return base64.urlsafe_b64encode(made).rstrip(b"=").decode("ascii")


class Sessions:
    """The sessions of a state directory, for one process."""

    def __init__(self, state: Path, *, idle: int, end: int, clock: Callable[[], float] = time.time) -> None:
        """`idle` and `end` are seconds: since the last use, and since the beginning."""
        self._path = state / "sessions.json"
        self._idle, self._end, self._clock = idle, end, clock
        self._mutex = threading.Lock()
        self._written = 0.0
        self._open = self._read()

    def begin(self, token: str) -> str:
        """Begin a session for a token's ID; returns the session's ID, for the cookie alone."""
        identifier = secrets.token_urlsafe(32)
        now = int(self._clock())
        with self._mutex:
            self._drop(now)
            of_token = [one for one in self._open.values() if one.token == token]
            for one in of_token[: max(0, len(of_token) - PER_TOKEN + 1)]:
                del self._open[one.sha256]
            while len(self._open) >= MOST:
                del self._open[next(iter(self._open))]
            session = Session(_hash(identifier), token, now, now)
            self._open[session.sha256] = session
            self._try_to_write()
        return identifier

    def find(self, identifier: str) -> Session | None:
        """Return the session of a cookie and note that it was used; None when there is none, or it has ended."""
        if not _ID.fullmatch(identifier):
            return None
        now = int(self._clock())
        with self._mutex:
            session = self._open.get(_hash(identifier))
            if session is None or not self._is_open(session, now):
                return None
            if session.used != now:
                self._open[session.sha256] = replace(session, used=now)
                if now - self._written >= _WRITE_SECONDS:
                    self._try_to_write()
        return session

    def finish(self, identifier: str) -> None:
        """End a session; one that is not there has ended already."""
        with self._mutex:
            if self._open.pop(_hash(identifier), None) is not None:
                self._try_to_write()

    def close(self) -> None:
        """Write down when each was last used."""
        with self._mutex:
            self._try_to_write()

    def _is_open(self, session: Session, now: int) -> bool:
        # A clock that was set back must not make a session longer than its end.
        return session.created - 60 <= now < session.created + self._end and now < session.used + self._idle

    def _drop(self, now: int) -> None:
        self._open = {key: one for key, one in self._open.items() if self._is_open(one, now)}

    def _read(self) -> dict[str, Session]:
        try:
            data = privatefiles.read_private(self._path, _MAX_BYTES)
            document: Any = jsonfile.parse(data) if data is not None else {"format": FORMAT, "sessions": []}
            if document["format"] != FORMAT:
                raise ValueError
            found = [Session(**one) for one in document["sessions"]]
            if not all(type(one.created) is int and type(one.used) is int for one in found):
                raise ValueError
            return {one.sha256: one for one in found}
        except StateError as error:
            log.error("every session has ended: %s", error)
        except (ValueError, TypeError, KeyError, AttributeError):
            log.error("every session has ended: %s: not a list of sessions", self._path)
        return {}

    def _try_to_write(self) -> None:
        try:
            self._write()
        except OSError as error:  # the disk is full: nobody is logged out for it, or kept from logging out
            self._written = 0.0  # tried again soon, so that what has ended does not come back with a restart
            log.error("%s: %s", self._path, error.strerror)

    def _write(self) -> None:
        self._written = self._clock()
        document = {"format": FORMAT, "sessions": [asdict(one) for one in self._open.values()]}
        privatefiles.write_private(self._path, jsonfile.canonical(document))


def _hash(identifier: str) -> str:
    return hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()
