"""What was made of files that were read before: a file with the same bytes is not parsed again.

    DIR/rows        "tidegate rows 2 MADE_BY MAC"; a line of JSON, {key: [offset, length, digest]}; the entries
    STATE/cache.key the secret of this user that the MAC is made with; STATE is $XDG_STATE_HOME/tidegate

The MAC is over the line of JSON, and the digests in it are those of the entries, so that one of them is
believed without a look at the others. A key names what an entry was made of:

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
import secrets
import stat
import weakref
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidegate_compiler import cachedrows
from tidegate_compiler.quick import KINDS
from tidegate_schema import __version__, validation

FILE = "rows"
_FORMAT = "tidegate rows 2"
_MAX_TABLE_BYTES = 1 << 28
_SECRET_BYTES = 32
_HERE = Path(__file__).parent
_CODE = (_HERE, _HERE / "check", _HERE / "stepwise", Path(validation.__file__).parent)
"""Where the modules are that make and judge what is kept."""


class Cache:
    """The entries of one directory, for one run."""

    def __init__(self, directory: Path) -> None:
        """Read what is there; whatever cannot be read or believed is not there. Never raises."""
        self._directory = directory
        self._old: _Opened | None = None
        with suppress(OSError, ValueError, RecursionError):
            self._old = _Opened(directory / FILE)
        self._used: set[str] = set()
        self._new: dict[str, bytes] = {}

    @property
    def there(self) -> Collection[str]:
        """Return the keys of the entries that were there when it was opened."""
        return self._old.table.keys() if self._old else ()

    def get(self, key: str) -> bytes | None:
        """Return an entry, or None when there is none, or a damaged one."""
        if self._old is None:
            return None
        data = self._old.read(key)
        if data is not None:
            self._used.add(key)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep an entry."""
        self._new[key] = data

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
        data = self.get(f"{kind} {digest}")
        with suppress(ValueError):
            return None if data is None else cachedrows.decode(kind, data)
        return None

    def keep(self, kind: str, digest: str, content: cachedrows.Content) -> None:
        """Keep the content of a file."""
        self.put(f"{kind} {digest}", cachedrows.encode(kind, content))

    def save(self) -> None:
        """Write what this run used, if it is not there yet. A cache that cannot be written is none."""
        if self._new:
            with suppress(OSError, ValueError):
                self._write()

    def _write(self) -> None:
        old = {key: self._old.table[key] for key in self._used - self._new.keys()} if self._old else {}
        table: dict[str, _Entry] = {}
        end = 0
        for key, length, digest in (
            *((key, length, digest) for key, (_, length, digest) in old.items()),
            *((key, len(data), _digest(data)) for key, data in self._new.items()),
        ):
            table[key] = (end, length, digest)
            end += length
        line = json.dumps(table, separators=(",", ":")).encode("ascii")
        head = _head(line, _secret())
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        aside = self._directory / f"{FILE}.{os.getpid()}"
        aside.unlink(missing_ok=True)

        def parts() -> Iterator[bytes]:
            yield b"%s\n%s\n" % (head, line)
            for key in old:
                assert self._old is not None
                yield self._old.read_as_it_is(key)
            yield from self._new.values()

        try:
            _create(aside, parts())
            aside.replace(self._directory / FILE)
        finally:
            aside.unlink(missing_ok=True)


_Entry = tuple[int, int, str]
"""Where an entry begins, counted from the end of the table; its length; and its digest."""


class _Opened:
    """A cache file whose table is believed; closed when it is gone."""

    def __init__(self, path: Path) -> None:
        """Open it; OSError or ValueError when it is not to be believed."""
        secret = _believed(_secret_file())
        self._descriptor = _open_own(path, 0o022)
        weakref.finalize(self, os.close, self._descriptor)
        with os.fdopen(self._descriptor, "rb", closefd=False) as file:
            head, line = (file.readline(_MAX_TABLE_BYTES).removesuffix(b"\n") for _ in range(2))
        if not hmac.compare_digest(head, _head(line, secret)):
            raise ValueError("damaged, or made by another version, user or machine")
        self._begin = len(head) + len(line) + 2
        self.table: dict[str, _Entry] = json.loads(line)

    def read(self, key: str) -> bytes | None:
        """Return an entry; None when there is none of that name, or it is not what was written."""
        if key not in self.table:
            return None
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
    schemas = [validation.schema(kind) for kind in sorted(KINDS)]
    told = hashlib.blake2b(json.dumps([__version__, schemas], sort_keys=True).encode(), digest_size=16)
    for place in _CODE:
        for path in sorted(place.glob("*.py")):
            told.update(b"%s\n%s" % (os.fsencode(path.name), path.read_bytes()))
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
        _create(aside, [secrets.token_bytes(_SECRET_BYTES)])
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


def _head(line: bytes, secret: bytes) -> bytes:
    made_by = f"{_FORMAT} {_made_by()}"
    mac = hashlib.blake2b(f"{made_by}\n".encode(), digest_size=32, key=secret)
    mac.update(line)
    return f"{made_by} {mac.hexdigest()}".encode()


def _create(path: Path, parts: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.writelines(parts)
