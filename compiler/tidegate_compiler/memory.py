"""What a publisher remembers beside its git ref, so that a publish of one changed host need not read ten thousand.

    GIT_DIR/tidegate/<name of the ref>.sqlite
        meta(key, value)                          format, the commit that the ref names, output, version
        host(kind, name, digest, stats)           what was published; stats: lstat of its files in the output
        file(kind, host, name, data)              its bytes

Two things are taken from it, and both only while the ref names the very commit: what was published, which is then not
compiled again; and which files of the output are the ones that were read then, by inode, times and size, as git's own
index has it. It lies where the ref lies, so whoever can write it could move the ref as well. Without it, or with a
damaged one, everything is read.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Self

from tidegate_compiler.output import Host, Known, Output
from tidegate_schema import __version__

_FORMAT = "1"
_TABLES = """
    CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
    CREATE TABLE host(kind TEXT, name TEXT, digest TEXT, stats TEXT, PRIMARY KEY(kind, name)) WITHOUT ROWID;
    CREATE TABLE file(kind TEXT, host TEXT, name TEXT, data BLOB, PRIMARY KEY(kind, host, name));
"""
_LARGE = "policy.json"
"""What only few have a use for; it is read when somebody asks."""


class Memory:
    """An opened memory; `hosts` is what was published, empty when nothing is remembered of this commit and output."""

    def __init__(self, path: Path | None, commit: str, out: Path) -> None:
        """Read what is remembered. `path` None: no repository, so there is no memory."""
        self._path = path
        self._identity = {
            "format": _FORMAT,
            "version": __version__,
            "out": str(out.absolute()),
            "commit": commit,
        }
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self.hosts: dict[Host, Known] = {}
        if path is not None and commit and path.is_file():
            try:
                self._read(path)
            except (sqlite3.Error, ValueError, TypeError, KeyError):
                self.hosts = {}

    def _read(self, path: Path) -> None:
        self._database = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=ro", uri=True, check_same_thread=False
        )
        ask = self._database.execute
        if dict(ask("SELECT key, value FROM meta")) != self._identity:
            return
        files: dict[Host, dict[str, bytes | None]] = {}
        for kind, host, name, data in ask(
            "SELECT kind, host, name, CASE name WHEN ? THEN NULL ELSE data END FROM file", (_LARGE,)
        ):
            if not isinstance(data, bytes) and name != _LARGE:
                raise ValueError("not bytes")
            files.setdefault((kind, host), {})[name] = data
        for kind, name, digest, stats in ask("SELECT kind, name, digest, stats FROM host"):
            host = (kind, name)
            self.hosts[host] = Known(stats, digest, _Files(self, host, files[host]))

    def load(self, host: Host, name: str) -> bytes:
        """Return one file of a host; sqlite3.Error when it is damaged."""
        assert self._database is not None
        with self._lock:
            (data,) = self._database.execute(
                "SELECT data FROM file WHERE kind = ? AND host = ? AND name = ?", (*host, name)
            ).fetchone() or (None,)
        if not isinstance(data, bytes):
            raise sqlite3.DatabaseError("not bytes")
        return data

    def save(self, output: Output, digests: Mapping[Host, str], commit: str) -> None:
        """Remember what was published and its commit. sqlite3.Error and OSError when that cannot be written."""
        if self._path is None:
            return
        self._path.parent.mkdir(mode=0o700, exist_ok=True)
        if not self.hosts:
            self._path.unlink(missing_ok=True)
            self._path.touch(0o600)
        changed = [
            host
            for host in output.hosts
            if host not in self.hosts or self.hosts[host].files is not output.hosts[host]
        ]
        gone = self.hosts.keys() - output.hosts.keys()
        with closing(sqlite3.connect(self._path)) as database, database:
            if not self.hosts:
                database.executescript(_TABLES)
            for host in (*changed, *gone):
                database.execute("DELETE FROM host WHERE kind = ? AND name = ?", host)
                database.execute("DELETE FROM file WHERE kind = ? AND host = ?", host)
            database.executemany(
                "INSERT INTO host VALUES(?, ?, ?, ?)",
                ((*host, digests[host], output.stats.get(host, "")) for host in changed),
            )
            database.executemany(
                "INSERT INTO file VALUES(?, ?, ?, ?)",
                ((*host, name, data) for host in changed for name, data in output.hosts[host].items()),
            )
            database.executemany(
                "INSERT OR REPLACE INTO meta VALUES(?, ?)", (self._identity | {"commit": commit}).items()
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()


class _Files(Mapping[str, bytes]):
    """The files of a host; the large ones are read when they are asked for."""

    def __init__(self, memory: Memory, host: Host, files: dict[str, bytes | None]) -> None:
        self._memory, self._host, self._files = memory, host, files

    def __getitem__(self, name: str) -> bytes:
        data = self._files[name]
        if data is None:
            data = self._files[name] = self._memory.load(self._host, name)
        return data

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, name: object) -> bool:
        return name in self._files

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Mapping) and dict(self) == dict(other))

    __hash__ = None  # type: ignore[assignment]
