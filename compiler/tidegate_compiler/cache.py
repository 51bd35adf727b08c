"""The rows of files that were read before: a file with the same bytes is not parsed again.

    DIR/rows        "tidegate rows 1 MADE_BY MAC", then a line of JSON: {digest of kind and bytes of a file: its rows}
    STATE/cache.key the secret of this user that the MAC is made with; STATE is $XDG_STATE_HOME/tidegate

A cache only saves time. It is keyed by content, so it is never out of date. One that is damaged, made by another
version, by another user or on another machine is passed over as if it were not there. `verify` and `publish` never
read one.
"""

from __future__ import annotations

import binascii
import hashlib
import hmac
import json
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

from tidegate_compiler.model import ClientRow, GroupRow
from tidegate_compiler.sheets import Rows
from tidegate_schema import __version__, validation
from tidegate_schema.keys import KEY_BYTES, LOW_ORDER_KEYS
from tidegate_schema.names import NAME_PATTERN

FILE = "rows"
_FORMAT = "tidegate rows 1"
_MAX_BYTES = 1 << 30
_SECRET_BYTES = 32
_NAMES = re.compile(rf"{NAME_PATTERN}(?:\n{NAME_PATTERN})*")


class Cache:
    """The rows of one directory, for one run."""

    def __init__(self, directory: Path) -> None:
        """Read what is there; whatever cannot be read or believed is not there. Never raises."""
        self._directory = directory
        self._known: dict[str, Any] = {}
        with suppress(OSError, ValueError, RecursionError):
            self._known = _read(directory)
        self._used: dict[str, Any] = {}
        self._has_new = False

    def rows(self, kind: str, data: bytes) -> Rows | None:
        """Return the rows of a file with these bytes, or None."""
        key = _key(kind, data)
        try:
            rows = _READERS[kind](self._known[key])
        except (KeyError, ValueError, TypeError, IndexError, AttributeError):
            return None
        self._used[key] = self._known[key]
        return rows

    def keep(self, kind: str, data: bytes, rows: Rows) -> None:
        """Keep the rows of a file with these bytes."""
        self._used[_key(kind, data)] = _WRITERS[kind](rows)
        self._has_new = True

    def save(self) -> None:
        """Write what this run used, if it is not there yet. A cache that cannot be written is none."""
        if self._has_new:
            with suppress(OSError, ValueError):
                _write(self._directory, self._used)


def _key(kind: str, data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=32, person=kind.encode()).hexdigest()


def _made_by() -> str:
    """Return what stands for the code that makes rows: another version may read a file otherwise."""
    schemas = json.dumps([validation.schema(kind) for kind in sorted(_READERS)], sort_keys=True)
    return hashlib.blake2b(f"{__version__} {schemas}".encode(), digest_size=16).hexdigest()


def _read(directory: Path) -> dict[str, Any]:
    secret = _believed(_secret_file())
    head, _, body = _own(directory / FILE, _MAX_BYTES, 0o022).partition(b"\n")
    if not hmac.compare_digest(head, _head(body, secret)):
        raise ValueError("damaged, or made by another version, user or machine")
    known = json.loads(body)
    return known if isinstance(known, dict) else {}


def _own(path: Path, limit: int, for_others: int) -> bytes:
    """Return a file's bytes; ValueError or OSError when it is not this user's, or others may what `for_others` says."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & for_others:
            raise ValueError("not this user's alone")
        return file.read(limit)


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
    secret = _own(path, _SECRET_BYTES + 1, 0o077)
    if len(secret) != _SECRET_BYTES:
        raise ValueError("no secret of ours")
    return secret


def _head(body: bytes, secret: bytes) -> bytes:
    made_by = f"{_FORMAT} {_made_by()}"
    mac = hashlib.blake2b(f"{made_by}\n".encode(), digest_size=32, key=secret)
    mac.update(body)
    return f"{made_by} {mac.hexdigest()}".encode()


def _write(directory: Path, entries: Mapping[str, Any]) -> None:
    body = json.dumps(entries, separators=(",", ":")).encode("ascii")
    head = _head(body, _secret())
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    aside = directory / f"{FILE}.{os.getpid()}"
    aside.unlink(missing_ok=True)
    try:
        _create(aside, [head, b"\n", body])
        aside.replace(directory / FILE)
    finally:
        aside.unlink(missing_ok=True)


def _create(path: Path, parts: Iterable[bytes]) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
        file.writelines(parts)


def _clients_written(rows: Mapping[str, ClientRow]) -> dict[str, Any]:
    lists: dict[tuple[str, ...], int] = {}
    shapes: dict[tuple[int, ...], int] = {}
    return {
        "names": "\n".join(rows),
        "keys": _base64(b"".join([key for key, _, _ in rows.values()])),
        "addresses": _base64(b"".join(chain.from_iterable(addresses for _, addresses, _ in rows.values()))),
        "shape": [
            shapes.setdefault(tuple(map(len, addresses)), len(shapes)) for _, addresses, _ in rows.values()
        ],
        "list": [lists.setdefault(gateways, len(lists)) for _, _, gateways in rows.values()],
        "shapes": list(shapes),
        "lists": list(lists),
    }


def _clients_read(entry: Mapping[str, Any]) -> dict[str, ClientRow]:
    names = _names(entry["names"])
    keys = _cut(_bytes(entry["keys"]), [KEY_BYTES] * len(names))
    if not LOW_ORDER_KEYS.isdisjoint(keys):
        raise ValueError("a low-order key")
    shapes = _by_number(entry["shape"], [tuple(shape) for shape in entry["shapes"]])
    if not {4, 16}.issuperset(chain.from_iterable(shapes)) or not all(shapes):
        raise ValueError("no addresses")
    lists = _by_number(entry["list"], [tuple(_names("\n".join(gateways))) for gateways in entry["lists"]])
    addresses = iter(_cut(_bytes(entry["addresses"]), list(chain.from_iterable(shapes))))
    own = [tuple([next(addresses) for _ in shape]) for shape in shapes]
    return dict(zip(names, zip(keys, own, lists, strict=True), strict=True))


def _groups_written(rows: Mapping[str, GroupRow]) -> dict[str, Any]:
    return {
        "names": "\n".join(rows),
        "members": ["\n".join(members) for members, _, _ in rows.values()],
        "not_before": {name: dict(times) for name, (_, times, _) in rows.items() if times},
        "expires": {name: dict(times) for name, (_, _, times) in rows.items() if times},
    }


def _groups_read(entry: Mapping[str, Any]) -> dict[str, GroupRow]:
    names = _names(entry["names"])
    members = [tuple(_names(text)) for text in entry["members"]]
    times = [
        {name: _instants(found) for name, found in entry[end].items()} for end in ("not_before", "expires")
    ]
    rows: dict[str, GroupRow] = {
        name: (mine, times[0].get(name, {}), times[1].get(name, {}))
        for name, mine in zip(names, members, strict=True)
    }
    if not rows.keys() >= times[0].keys() | times[1].keys():
        raise ValueError("times of a group that is not there")
    return rows


def _instants(times: Mapping[str, Any]) -> dict[str, int]:
    if not all(type(second) is int and second >= 0 for second in times.values()):
        raise ValueError("no Unix seconds")
    _names("\n".join(times))
    return dict(times)


def _names(text: str) -> list[str]:
    if not _NAMES.fullmatch(text):
        raise ValueError("no names")
    names = text.split("\n")
    if len(set(names)) != len(names):
        raise ValueError("a name twice")
    return names


def _by_number(numbers: list[int], values: list[Any]) -> list[Any]:
    if numbers and min(numbers) < 0:
        raise ValueError("no such number")
    return [values[number] for number in numbers]


def _cut(data: bytes, lengths: list[int]) -> list[bytes]:
    """Return the pieces of these lengths, which are all of it."""
    ends = list(accumulate(lengths))
    if (ends[-1] if ends else 0) != len(data):
        raise ValueError("too many bytes, or too few")
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _bytes(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Rows]] = {
    "clients": _clients_read,
    "groups": _groups_read,
}
_WRITERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "clients": _clients_written,
    "groups": _groups_written,
}
