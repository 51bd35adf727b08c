"""The output directory: what `compile` writes and `publish` reads.

Only a directory that is absent, empty, or carries our manifest is ever written into, and only there is anything
removed. Files whose bytes are right already are not touched. New bytes are first written beside the old ones,
all of them, and then renamed in one go, under the mark `.incomplete`; an output that carries the mark may be a
mixture of two runs, which `publish` refuses and the next `compile` mends. One run writes at a time. Nothing is
synced to the disk: the output can be made again at any time, and `publish` checks what it signs.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import filterfalse
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from tidegate_compiler import parallel, stamps
from tidegate_compiler.diagnostics import show
from tidegate_compiler.progress import track
from tidegate_compiler.render import FORMAT, MANIFEST
from tidegate_schema import jsonfile
from tidegate_schema.bundle import FILE_MAX_BYTES, FILES
from tidegate_schema.names import is_name

INCOMPLETE = ".incomplete"
_ASIDE = ".new"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
MANIFEST_MAX_BYTES = 64 << 20


class OutputError(Exception):
    """The directory is not what it has to be; one line."""


@dataclass(frozen=True)
class Written:
    """What a write did: paths relative to the output, sorted."""

    changed: tuple[str, ...]
    removed: tuple[str, ...]
    unchanged: int


Host: TypeAlias = tuple[str, str]
"""(kind, name)."""


@dataclass(frozen=True)
class Known:
    """A host's files as they were read before, with what lstat said of them then, and their digest."""

    stats: str
    digest: str
    files: Mapping[str, bytes]


@dataclass(frozen=True)
class Output:
    """A compile output read back: fleet, the inventory's digest, and the files of every (kind, host).

    `stats` is what lstat said of a host's files, for the next `read`, of hosts where that can be relied on.
    """

    fleet: str
    inventory: str
    hosts: Mapping[Host, Mapping[str, bytes]]
    stats: Mapping[Host, str] = field(default_factory=dict)


def write(out: Path, files: Mapping[str, bytes]) -> Written:
    """Make `out` hold exactly `files`. Raises OutputError when it is not ours, OSError on trouble."""
    _claim(out)
    with opened(out) as root:
        return write_into(root, out, files, hosts_in(root))


@contextmanager
def opened(out: Path) -> Iterator[int]:
    """Open an output's directory and keep other runs out; OutputError when there is one, OSError on trouble."""
    root = os.open(out, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _lock(root, out)
        yield root
    finally:
        os.close(root)


def hosts_in(root: int, right: Mapping[str, Set[str]] = MappingProxyType({})) -> list[str]:
    """Return what stands where an opened output has hosts, "kind/name", but for those, by kind, that are right."""
    found: list[str] = []
    for kind in FILES:
        names, known = _names(root, kind) or (), right.get(kind, frozenset())
        found += [f"{kind}/{name}" for name in filterfalse(known.__contains__, names)]
    return found


def write_into(root: int, out: Path, files: Mapping[str, bytes], hosts: Iterable[str]) -> Written:
    """Do what `write` does in an opened output, which holds these hosts, and maybe others that are right.

    What those hold counts neither as changed nor as unchanged.
    """
    try:
        return _Writer(root).write(files, hosts)
    except OSError as error:
        if isinstance(error.filename, str):
            error.filename = f"{out}/{error.filename}"  # told from where people stand
        raise


def _names(root: int, folder: str) -> list[str] | None:
    """Return the names in a folder; None when it is not there, or no folder: a link is none."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        descriptor = os.open(folder, flags, dir_fd=root)
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        return os.listdir(descriptor)  # noqa: PTH208 - a Path per name would cost more than the listing
    finally:
        os.close(descriptor)


def _lock(root: int, out: Path) -> None:
    """Keep other runs out until `root` is closed, which the system does when this one is killed."""
    try:
        fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{out}: another compile is writing there; try again when it is done") from None
    except OSError:
        return  # a file system without locks


class _Writer:
    """One write into an output, by paths relative to it: there may be a hundred thousand of them."""

    def __init__(self, root: int) -> None:
        self._root = root
        self._hosts: dict[str, list[str]] = {}
        """The names in each host's folder."""
        self._strangers: list[str] = []
        """What stands in a folder's place and is none."""

    def write(self, files: Mapping[str, bytes], hosts: Iterable[str]) -> Written:
        """Make it hold exactly `files`, where there are these hosts by now."""
        by_host: dict[str, list[str]] = {host: [] for host in ("", *hosts)}  # at the top is the manifest
        new: list[str] = []
        for path in files:
            paths = by_host.get(path.rpartition("/")[0])
            (new if paths is None else paths).append(path)
        found = parallel.each(
            lambda host: self._look(host, by_host[host], files), list(by_host), parallel.by_count, "comparing"
        )
        changed: list[str] = []
        unchanged = 0
        for host, (names, different) in zip(by_host, found, strict=True):
            if names is None:
                self._strangers.append(host)
                new += by_host[host]
                continue
            if host:
                self._hosts[host] = names
            changed += different
            unchanged += len(by_host[host]) - len(different)
        held = {f"{host}/{name}" for host, names in self._hosts.items() for name in names}
        if self._exists(MANIFEST + _ASIDE):  # of a run that was cut
            held.add(MANIFEST + _ASIDE)
        aside = [path + _ASIDE for path in changed]
        stale = sorted({*held.difference(files, aside), *self._strangers})
        is_marked = self._exists(INCOMPLETE)
        for path in stale:
            if path not in self._strangers and stat.S_ISDIR(self._mode(path)):
                raise IsADirectoryError(
                    errno.EISDIR, "a directory, where an output has none; remove it", path
                )
        if new or changed or stale or is_marked:
            if not is_marked:
                self._create(INCOMPLETE, b"")
            self._apply(files, new, changed, stale)
            os.unlink(INCOMPLETE, dir_fd=self._root)
        return Written(tuple(sorted(new + changed)), tuple(stale), unchanged)

    def _look(
        self, host: str, paths: Iterable[str], files: Mapping[str, bytes]
    ) -> tuple[list[str] | None, list[str]]:
        """Return the names in a host's folder, and which of its files have other bytes than they should."""
        names = _names(self._root, host) if host else []
        if names is None:
            return None, []
        return names, [path for path in paths if not self._is_same(path, files[path])]

    def _apply(
        self, files: Mapping[str, bytes], new: list[str], changed: list[str], stale: list[str]
    ) -> None:
        for path in self._strangers:
            os.unlink(path, dir_fd=self._root)
        for host in {path.rpartition("/")[0]: None for path in new}:
            self._make_folder(host)
        # New hosts first and in place: there is nothing that they could get mixed with.
        for path in track("writing", new):
            self._create(path, files[path])
        for path in track("replacing", changed):
            self._create(path + _ASIDE, files[path])
        for path in changed:
            os.replace(path + _ASIDE, path, src_dir_fd=self._root, dst_dir_fd=self._root)
        for path in stale:
            if path not in self._strangers:
                os.unlink(path, dir_fd=self._root)
        emptied = {path.rpartition("/")[0] for path in stale} & self._hosts.keys()
        for host in {host for host, names in self._hosts.items() if not names} | emptied:
            if not _names(self._root, host):
                os.rmdir(host, dir_fd=self._root)

    def _exists(self, path: str) -> bool:
        return self._mode(path) != 0

    def _mode(self, path: str) -> int:
        """Return what stands there, as stat(2) tells it; 0 for nothing."""
        try:
            return os.stat(path, dir_fd=self._root, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return 0

    def _is_same(self, path: str, data: bytes) -> bool:
        try:
            descriptor = os.open(path, _READ, dir_fd=self._root)
        except OSError:  # missing, or a link
            return False
        try:
            return os.read(descriptor, len(data) + 1) == data
        except OSError:  # a directory, say
            return False
        finally:
            os.close(descriptor)

    def _make_folder(self, host: str) -> None:
        try:
            os.mkdir(host, dir_fd=self._root)
        except FileNotFoundError:
            os.mkdir(host.partition("/")[0], dir_fd=self._root)
            os.mkdir(host, dir_fd=self._root)

    def _create(self, path: str, data: bytes) -> None:
        """Write a new file; what a run that was cut, or anybody else, left in its place goes."""
        try:
            descriptor = os.open(path, _CREATE, 0o666, dir_fd=self._root)
        except FileExistsError:
            os.unlink(path, dir_fd=self._root)
            descriptor = os.open(path, _CREATE, 0o666, dir_fd=self._root)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
        except OSError as error:  # a full disk, say; the error of a descriptor names no file
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            os.close(descriptor)


def _claim(out: Path) -> None:
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise OutputError(f"{out}: not a directory")
    for kind in FILES:
        if (out / kind).is_symlink():
            raise OutputError(f"{out / kind}: a symbolic link, and no directory of an output; remove it")
    out.mkdir(parents=True, exist_ok=True)
    names = {entry.name for entry in out.iterdir()}
    first_run_was_cut = (
        names <= {INCOMPLETE, "client", "gateway", MANIFEST + _ASIDE} and (out / INCOMPLETE).exists()
    )
    if not names or first_run_was_cut:
        return
    if MANIFEST not in names:
        raise OutputError(
            f"{out}: not empty and no output of 'tidegate compile' (no {MANIFEST}); name another"
        )
    _manifest(out)


def _manifest(out: Path) -> dict[str, Any]:
    try:
        data = read_bounded(out / MANIFEST, MANIFEST_MAX_BYTES)
        document = jsonfile.parse(data)
        fleet, hosts = document["fleet"], document["hosts"]
        names = [name for kind in FILES for name in hosts[kind]]
        if (
            document["format"] != FORMAT
            or set(hosts) != set(FILES)
            or not isinstance(document["inventory"], str)
        ):
            raise ValueError
        if not all(isinstance(name, str) and is_name(name) for name in (*names, fleet)):
            raise ValueError
    except (OutputError, OSError, ValueError, KeyError, TypeError):
        raise OutputError(f"{out}: no output of 'tidegate compile' ({MANIFEST} is not one of ours)") from None
    return dict(document)


def read(out: Path, known: Mapping[Host, Known] = MappingProxyType({}), now: float = 0) -> Output:
    """Read an output back for publishing.

    A host whose files are those that are `known` is not read again; `now`, in Unix seconds, is what makes its stats
    worth knowing. Raises OutputError on anything in it that a host would refuse: nobody signs what nobody can apply.
    """
    if not out.is_dir():
        raise OutputError(f"{out}: no such directory; run 'tidegate compile' first")
    manifest = _manifest(out)
    if os.path.lexists(out / INCOMPLETE):
        raise OutputError(f"{out}: an interrupted compile left a mixture; run 'tidegate compile' again")
    hosts: dict[Host, Mapping[str, bytes]] = {}
    stats: dict[Host, str] = {}
    for kind in sorted(FILES):
        place = f"{os.fspath(out)}/{kind}"
        names = sorted(manifest["hosts"][kind])
        present = set(os.listdir(out / kind)) if (out / kind).is_dir() else set()  # noqa: PTH208 - names, quickly
        for name in sorted(present.symmetric_difference(names)):
            state = "is missing" if name in names else f"is not in {MANIFEST}"
            raise OutputError(f"{out}: {kind} {show(name)} {state}; run 'tidegate compile' again")
        look = functools.partial(_stats, place, kind, now)
        found = parallel.each(look, names, parallel.by_count, "looking at the output")
        for name, (seen, is_settled) in zip(names, found, strict=True):
            host = (kind, name)
            if host in known and seen and seen == known[host].stats:
                hosts[host] = known[host].files
            else:
                hosts[host] = _host_files(out, kind, name)
            if seen and is_settled:
                stats[host] = seen
    if os.path.lexists(out / INCOMPLETE) or _manifest(out) != manifest:
        raise OutputError(f"{out}: a compile wrote there while it was read; try again")
    return Output(manifest["fleet"], manifest["inventory"], hosts, stats)


def _stats(place: str, kind: str, now: float, host: str) -> tuple[str, bool]:
    """Return what lstat says of a host's folder in `place` and of its files, and whether they are settled.

    "" stands for nothing to rely on.
    """
    told = []
    changed = 0
    try:
        for path in (f"{place}/{host}", *(f"{place}/{host}/{name}" for name in _NAMES[kind])):
            try:
                found = os.lstat(path)
            except FileNotFoundError:
                told.append("-")
                continue
            told.append(
                f"{found.st_mode}.{found.st_ino}.{found.st_mtime_ns}.{found.st_ctime_ns}.{found.st_size}"
            )
            changed = max(changed, found.st_mtime_ns, found.st_ctime_ns)
    except OSError:
        return "", False
    return " ".join(told), stamps.is_settled(changed, int(now * 1e9))


_NAMES = {kind: sorted(allowed) for kind, (_, allowed) in FILES.items()}


def _host_files(out: Path, kind: str, host: str) -> dict[str, bytes]:
    folder = out / kind / host
    required, allowed = FILES[kind]
    names = (
        {entry.name for entry in folder.iterdir()} if folder.is_dir() and not folder.is_symlink() else set()
    )
    for name in sorted((required - names) | (names - allowed)):
        state = "is missing" if name in required else "does not belong there"
        raise OutputError(f"{folder}: {show(name)} {state}; run 'tidegate compile' again")
    files = {name: read_bounded(folder / name, FILE_MAX_BYTES[name]) for name in sorted(names)}
    for name, data in files.items():
        try:
            refuse(name, data)
        except ValueError as error:
            raise OutputError(f"{folder / name}: {error}") from None
    return files


def refuse(name: str, data: bytes) -> None:
    """Raise ValueError, one line, when a host would refuse this payload file."""
    from tidegate_schema import validation, wgquick  # `compile` refuses nothing that it makes itself
    from tidegate_schema.policy import PolicyTable

    if name == "wg0.conf":
        wgquick.parse(data)
        return
    fractions: list[str] = []
    document = jsonfile.parse(data, fractions)
    kind = name.removesuffix(".json")
    problems = validation.problems(kind, document, fractions)
    if problems:
        raise ValueError(f"breaks its schema: {ascii(problems[0].message[:160])[1:-1]}")
    if name == "policy.json":
        PolicyTable(document)


def read_bounded(path: Path, limit: int) -> bytes:
    """Read a regular file that is no link; OutputError when it cannot be read or is larger than `limit` bytes."""
    try:
        descriptor = os.open(path, _READ)
        with os.fdopen(descriptor, "rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise OutputError(f"{path}: larger than {limit} bytes")
    return data
