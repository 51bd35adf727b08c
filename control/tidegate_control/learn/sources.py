"""Where recorded flows come from: files of NDJSON, standard input, and the stores of the intake. The I/O edge.

    FILE, FILE.gz, -                     NDJSON, as a gateway posts it
    duckdb:///PATH?last=7d               the intake's store, of the last seven days
    clickhouse://USER@HOST:PORT/DB       the same; the password is $TIDEGATE_CLICKHOUSE_PASSWORD

Only a store needs its driver, which is imported when one is named.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from tidegate_compiler import fields
from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.learn.flows import DAY, FlowGroup, Slots, Window
from tidegate_compiler.learn.records import END, LINE_MAX_BYTES, Records

STORES = ("duckdb", "clickhouse", "clickhouses")
PASSWORD = "TIDEGATE_CLICKHOUSE_PASSWORD"  # noqa: S105, the name of a variable
DEFAULT_LAST = 7 * DAY
DAYS_MOST = 3660
"""The longest window that a store is asked about, in days: ten years, which take some seconds where nothing is."""
_ASKED = {"last": "last", "from": "begin", "to": "end"}
_SPAN = re.compile(r"([0-9]{1,5})([mhdw])")
_DUCKDB = slice(8, 12)
"""Where a DuckDB file says that it is one."""
_SECONDS = {"m": 60, "h": 3600, "d": DAY, "w": 7 * DAY}


class SourceError(Exception):
    """The flows cannot be read; one line."""


@dataclass(frozen=True)
class Asked:
    """A window as somebody says it: Unix seconds, and seconds before now; None where nothing is said."""

    begin: int | None = None
    end: int | None = None
    last: int | None = None

    def window(self, now: int, default: int | None) -> Window:
        """Return the window; without a word the last `default` seconds, or everything for None."""
        if self.last is not None and (self.begin is not None or self.end is not None):
            raise SourceError("say either how long until now (last), or from when until when")
        last = self.last if (self.begin, self.end) != (None, None) or self.last is not None else default
        if last is not None:
            return Window(max(now - last, 0), now + 1)
        if self.begin is not None and self.end is not None and self.begin >= self.end:
            raise SourceError("the window ends before it begins")
        return Window(self.begin, self.end)


def span(text: str) -> int:
    """Return the seconds of `90m`, `12h`, `7d` or `4w`; ValueError."""
    match = _SPAN.fullmatch(text)
    if match is None or not int(match[1]):
        raise ValueError("write a span of time as 90m, 12h, 7d or 4w")
    return int(match[1]) * _SECONDS[match[2]]


@dataclass
class Reader:
    """A source that is open; what could not be read is counted while it is read."""

    title: str
    window: Window
    records: Records = field(default_factory=Records)

    def read(self, slots: Slots) -> Iterator[tuple[int, FlowGroup]]:
        """Yield the groups of the window with their slots; SourceError."""
        raise NotImplementedError


@dataclass
class _Lines(Reader):
    stream: IO[bytes] = field(default_factory=io.BytesIO)

    def read(self, slots: Slots) -> Iterator[tuple[int, FlowGroup]]:
        try:
            yield from self.records.groups(_bounded(self.stream), slots)
        except (EOFError, zlib.error, gzip.BadGzipFile):
            raise SourceError(f"{show_path(self.title)}: not a whole gzip file") from None
        seen = self.records
        if (
            seen.unreadable and not seen.events + seen.others
        ):  # of no flow at all, "all as before" would be said
            raise SourceError(
                f"{show_path(self.title)}: none of its {seen.unreadable} lines is an event; flows are NDJSON, as a "
                "gateway posts it and 'tidegate gateway events --json' prints it"
            )


def _bounded(stream: IO[bytes]) -> Iterator[bytes]:
    """Yield lines; one without an end is yielded cut, so that it is no event, and its rest passed over."""
    while line := stream.readline(LINE_MAX_BYTES + 1):
        if len(line) > LINE_MAX_BYTES:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(LINE_MAX_BYTES)
        yield line


@contextmanager
def opened(spec: str, asked: Asked, now: int) -> Iterator[Reader]:
    """Open what `--flows` names; SourceError, or OSError for a file that cannot be read."""
    scheme, colon, _ = spec.partition("://")
    if colon and scheme in STORES:
        from tidegate_control.learn.stores import opened as store  # its driver is not everybody's

        url, said = _options(spec)
        window = _both(asked, said).window(now, DEFAULT_LAST)
        _check_span(window, now)
        with store(url, window, now) as reader:
            yield reader
        return
    if colon:
        raise SourceError(f"{show(spec)}: flows are in a file, or at {', '.join(f'{s}://' for s in STORES)}")
    window = asked.window(now, None)
    if spec == "-":
        yield _Lines("standard input", window, stream=sys.stdin.buffer)
        return
    path = Path(spec)
    with path.open("rb") as file:
        if file.peek(_DUCKDB.stop)[_DUCKDB] == b"DUCK":
            raise SourceError(
                f"{show_path(spec)}: a DuckDB file; name it {show_path(f'duckdb://{path.absolute()}')}"
            )
        if path.suffix != ".gz":
            yield _Lines(spec, window, stream=file)
            return
        with gzip.open(file) as unpacked:
            yield _Lines(spec, window, stream=cast("IO[bytes]", unpacked))


def _check_span(window: Window, now: int) -> None:
    """Raise SourceError for a window that a store, which is asked day by day, would be asked about for hours."""
    begin, end = window.begin or 0, now + 1 if window.end is None else window.end
    if begin >= end:
        raise SourceError("no event is in that window: it begins in the future, or ends with 1970")
    if end - begin > DAYS_MOST * DAY:
        raise SourceError(
            f"a store is asked about at most {DAYS_MOST} days at once; say from when until when"
        )
    if end >= END:
        raise SourceError("the window ends later than any event")


def _options(spec: str) -> tuple[str, Asked]:
    """Return a store's URL without the window, and the window that its query says."""
    try:
        parts = urlsplit(spec)
    except ValueError:
        raise SourceError(f"{show(spec)}: a URL that cannot be read") from None
    said: dict[str, int] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _ASKED:
            raise SourceError(f"{show(name)}: a store is asked with {', '.join(_ASKED)}")
        try:
            said[_ASKED[name]] = span(value) if name == "last" else fields.instant(value)
        except ValueError as error:
            raise SourceError(f"{name}={show(value)}: {error}") from None
    # urlunsplit would leave out the empty host of duckdb:///PATH
    bare = spec.partition("?")[0] if not parts.netloc else urlunsplit(parts._replace(query=""))
    return bare, Asked(**said)


def _both(options: Asked, said: Asked) -> Asked:
    """Return the window of the options, or the one that the URL says where there are none."""
    return said if options == Asked() else options


def password() -> str:
    """Return ClickHouse's password: never in a URL, which ends up in a shell's history and a list of processes."""
    return os.environ.get(PASSWORD, "")
