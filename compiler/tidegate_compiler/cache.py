"""What was made of files that were read before: a file with the same bytes is not parsed again.

    DIR/rows        "tidegate rows 3 MADE_BY MAC"; a line of JSON, {key: [offset, length, digest]}; the entries
    DIR/changes     the same of what differs from these rows by now; null stands for an entry that is gone
    STATE/cache.key the secret of this user that the MACs are made with; STATE is $XDG_STATE_HOME/tidegate

A MAC is over the line of JSON, that of changes over the first line of their rows too. The digests in it are those
of the entries, so that one of them is believed without a look at the others. A key names what an entry was made of:

    KIND SHA-256    the content of the file with these bytes: of clients and groups rows, else its objects
    step ...        what `stepwise` keeps of the last inventory that was right

A cache only saves time. It is keyed by content, so it is never out of date. One that is damaged, made by
another version, by another user or on another machine is passed over as if it were not there. `verify` and
`publish` never read one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import weakref
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tidegate_schema
from tidegate_schema import __version__

if TYPE_CHECKING:
    from tidegate_compiler import cachedrows

FILE, CHANGES = "rows", "changes"
LARGE = 4 << 20
"""Bytes of entries, which are not all written again where little has changed."""
_MOST_CHANGED = 0.25  # of their bytes
_FORMAT = "tidegate rows 3"
_MAX_TABLE_BYTES = 1 << 28
_SECRET_BYTES = 32
_HERE = Path(__file__).parent
_SCHEMA = Path(tidegate_schema.__file__).parent
_CODE = (
    *((place, ".py") for place in (_HERE, _HERE / "check", _HERE / "stepwise", _SCHEMA)),
    (_SCHEMA / "schemas", ".json"),
)
"""Where the modules and schemas are that make and judge what is kept."""


class Cache:
    """The entries of one directory, for one run."""

    def __init__(self, directory: Path) -> None:
        """Read what is there; whatever cannot be read or believed is not there. Never raises."""
        self._directory = directory
        self._rows: _Opened | None = None
        self._places: dict[str, _Opened] = {}
        """Which of the files each entry is in."""
        with suppress(OSError, ValueError, RecursionError):
            seal = _Seal(_made_by(), _believed(_secret_file()))
            self._rows = _Opened(directory / FILE, seal)
            self._places = dict.fromkeys(self._rows.table, self._rows)
            changes = _Opened(directory / CHANGES, seal, self._rows.head)
            self._places |= dict.fromkeys(changes.table, changes)
            for gone in changes.gone:
                del self._places[gone]
        self._used: set[str] = set()
        self._new: dict[str, bytes] = {}

    @property
    def there(self) -> Collection[str]:
        """Return the keys of the entries that were there when it was opened."""
        return self._places.keys()

    @property
    def is_changed(self) -> bool:
        """Tell whether this run has made entries."""
        return bool(self._new)

    def get(self, key: str) -> bytes | None:
        """Return an entry, or None when there is none, or a damaged one."""
        file = self._places.get(key)
        data = None if file is None else file.read(key)
        if data is not None:
            self._used.add(key)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep an entry."""
        self._new[key] = data

    def put_all(self, entries: Mapping[str, bytes]) -> None:
        """Keep some entries."""
        self._new.update(entries)

    def use(self, keys: Iterable[str]) -> None:
        """Keep entries that are there, without a look at them."""
        self._used.update(keys)

    def forget(self, keys: Iterable[str]) -> None:
        """Keep none of these entries that are there, whoever has had a look at them."""
        self._used.difference_update(keys)

    def is_new(self, key: str) -> bool:
        """Tell whether this run has made an entry."""
        return key in self._new

    def leave(self) -> None:
        """Let everything stay as it was."""
        self._new.clear()

    def content(self, kind: str, digest: str) -> Any:
        """Return the content of a file of a kind, given the SHA-256 of its bytes; None when it is not known."""
        from tidegate_compiler import cachedrows  # with all that reads files

        data = self.get(f"{kind} {digest}")
        with suppress(ValueError):
            return None if data is None else cachedrows.decode(kind, data)
        return None

    def keep(self, kind: str, digest: str, content: cachedrows.Content) -> None:
        """Keep the content of a file."""
        from tidegate_compiler import cachedrows

        self.put(f"{kind} {digest}", cachedrows.encode(kind, content))

    def save(self) -> None:
        """Write what this run used, if it is not there yet. A cache that cannot be written is none."""
        if self._new:
            with suppress(OSError, ValueError):
                self._write()

    def _write(self) -> None:
        seal = _Seal(_made_by(), _secret())
        old = {key: self._places[key] for key in self._used - self._new.keys()}
        rows = self._rows
        if rows is not None and rows.size() >= LARGE:
            carried = {key: file for key, file in old.items() if file is not rows}
            left = [key for key, file in old.items() if file is rows]
            changed = sum(map(len, self._new.values())) + sum(f.table[key][1] for key, f in carried.items())
            if changed + rows.size() - rows.size(left) <= rows.size() * _MOST_CHANGED:
                self._write_file(CHANGES, seal, carried, rows.head, rows.table.keys() - left)
                return
        self._write_file(FILE, seal, old)
        (self._directory / CHANGES).unlink(missing_ok=True)

    def _write_file(
        self,
        name: str,
        seal: _Seal,
        old: Mapping[str, _Opened],
        rows: bytes = b"",
        gone: Iterable[str] = (),
    ) -> None:
        """Write a file of old entries and all new ones; see `_Opened` for `rows` and `gone`."""
        table: dict[str, _Entry | None] = dict.fromkeys(gone)
        end = 0
        for key, length, digest in (
            *((key, *file.table[key][1:]) for key, file in old.items()),
            *((key, len(data), _digest(data)) for key, data in self._new.items()),
        ):
            table[key] = (end, length, digest)
            end += length
        line = json.dumps(table, separators=(",", ":")).encode("ascii")

        def parts() -> Iterator[bytes]:
            yield b"%s\n%s\n" % (seal.head(line, rows), line)
            for key, file in old.items():
                yield file.read_as_it_is(key)
            yield from self._new.values()

        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self._directory / f"{name}.{os.getpid()}"
        aside.unlink(missing_ok=True)
        try:
            _create(aside, parts())
            aside.replace(self._directory / name)
        finally:
            aside.unlink(missing_ok=True)


_Entry = tuple[int, int, str]
"""Where an entry begins, counted from the end of the table; its length; and its digest."""


@dataclass(frozen=True)
class _Seal:
    """What the first line of a file says that is to be believed: the code that made it, and the user's secret."""

    made_by: str
    secret: bytes

    def head(self, line: bytes, rows: bytes = b"") -> bytes:
        """Return the first line of a file with this table; of changes, given the first line of their rows."""
        made_by = f"{_FORMAT} {self.made_by}"
        mac = hashlib.blake2b(f"{made_by}\n".encode(), digest_size=32, key=self.secret)
        mac.update(rows)
        mac.update(line)
        return f"{made_by} {mac.hexdigest()}".encode()


class _Opened:
    """A file whose table is believed; closed when it is gone. `gone` are keys of its rows that are there no more."""

    def __init__(self, path: Path, seal: _Seal, rows: bytes = b"") -> None:
        """Open it; OSError or ValueError when it is not to be believed. Changes are given the head of their rows."""
        self._descriptor = _open_own(path, 0o022)
        weakref.finalize(self, os.close, self._descriptor)
        with os.fdopen(self._descriptor, "rb", closefd=False) as file:
            self.head, line = (file.readline(_MAX_TABLE_BYTES).removesuffix(b"\n") for _ in range(2))
        if not hmac.compare_digest(self.head, seal.head(line, rows)):
            raise ValueError("damaged, or made by another version, user or machine")
        self._begin = len(self.head) + len(line) + 2
        found: dict[str, _Entry | None] = json.loads(line)
        self.table = {key: entry for key, entry in found.items() if entry is not None}
        self.gone = found.keys() - self.table.keys()

    def size(self, keys: Iterable[str] | None = None) -> int:
        """Return how many bytes some entries have, or all."""
        return sum(self.table[key][1] for key in (self.table if keys is None else keys))

    def read(self, key: str) -> bytes | None:
        """Return an entry; None when it is not what was written."""
        with suppress(OSError):
            data = self.read_as_it_is(key)
            return data if _digest(data) == self.table[key][2] else None
        return None

    def read_as_it_is(self, key: str) -> bytes:
        """Return the bytes in an entry's place; OSError."""
        offset, length, _ = self.table[key]
        data = os.pread(self._descriptor, length, self._begin + offset)
        return data.ljust(length, b"\0")  # of a file that was cut


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _made_by() -> str:
    """Return what stands for the code that makes and judges rows: another version may read a file otherwise.

    A working copy changes without a new version, so that its modules count as well.
    """
    told = hashlib.blake2b(__version__.encode(), digest_size=16)
    for place, ending in _CODE:
        for name in sorted(os.listdir(place)):  # noqa: PTH208 - a Path per name would cost more than reading it
            if name.endswith(ending):
                told.update(b"%s\n%s" % (os.fsencode(name), (place / name).read_bytes()))
    return told.hexdigest()


def _open_own(path: Path, for_others: int) -> int:
    """Open a file; ValueError or OSError when it is not this user's, or others may what `for_others` says."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & for_others:
        os.close(descriptor)
        raise ValueError("not this user's alone")
    return descriptor


def _secret_file() -> Path:
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # to be ignored, says the XDG Base Directory Specification
        try:
            state = Path("~/.local/state").expanduser()
        except RuntimeError:
            raise ValueError("this user has no home") from None
    return state / "tidegate" / "cache.key"


def _secret() -> bytes:
    """Return this user's secret, made if there is none yet."""
    path = _secret_file()
    with suppress(FileExistsError, FileNotFoundError):
        return _believed(path)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    aside.unlink(missing_ok=True)
    try:
        _create(aside, [os.urandom(_SECRET_BYTES)])
        with suppress(FileExistsError):  # another run was as quick
            os.link(aside, path)  # whole or not at all
    finally:
        aside.unlink(missing_ok=True)
    return _believed(path)


def _believed(path: Path) -> bytes:
    with os.fdopen(_open_own(path, 0o077), "rb") as file:
        secret = file.read(_SECRET_BYTES + 1)
    if len(secret) != _SECRET_BYTES:
        raise ValueError("no secret of ours")
    return secret


def _create(path: Path, parts: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.writelines(parts)
