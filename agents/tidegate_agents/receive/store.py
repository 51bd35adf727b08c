"""The receiver's side of a watched directory: a release is complete, and on the disk, before `current` names it.

    BUNDLES/<kind>/<host>/current -> releases/<digest>
    BUNDLES/<kind>/<host>/releases/<digest>/   release.json, keys.json where there is one, and the payload
    BUNDLES/<kind>/<host>/releases/.new/       what is being received; a start removes it

Names are ours or checked before they come here, and files are made with O_EXCL or moved into place: nothing that
a server sends is a path.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tidegate_agents.files import FileRefused, read_bounded, sync_directory
from tidegate_schema.jetstream.layout import PART_BYTES, Stored, file_limit, sha256
from tidegate_schema.release import DIGEST_PATTERN, ENVELOPE_FILE, FileEntry

_RELEASES = "releases"
_ASIDE = ".new"
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class StoreError(Exception):
    """The directory cannot be used; one line."""


@dataclass(frozen=True)
class Writing:
    """A file that is being received: write its bytes in order, then `done`."""

    descriptor: int
    digest: hashlib._Hash

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self.digest.update(data)
        view = memoryview(data)
        while view:
            view = view[os.write(self.descriptor, view) :]

    def entry(self) -> FileEntry:
        """Return SHA-256 and size of what was written."""
        return FileEntry(self.digest.hexdigest(), os.fstat(self.descriptor).st_size)


class Store:
    """One host's directory, which this process holds alone from `__enter__` on."""

    def __init__(self, bundles: Path, kind: str, host: str, keep: int) -> None:
        """`keep` releases stay at most, the current one among them."""
        self.directory = bundles / kind / host
        self._releases = self.directory / _RELEASES
        self._aside = self._releases / _ASIDE
        self._keep = keep
        self._lock = -1

    def __enter__(self) -> Store:
        try:
            self._releases.mkdir(parents=True, exist_ok=True)
            os.close(os.open(self._releases, _DIRECTORY))  # no link
            self._lock = os.open(self.directory, _DIRECTORY)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.__exit__()
            raise StoreError(f"{self.directory}: another receiver is at work there") from None
        except OSError as error:
            raise StoreError(
                f"{error.filename or self.directory}: {error.strerror}; "
                f"the receiver's user has to own {self.directory}"
            ) from None
        self._clean()
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def current(self) -> str:
        """Return the digest that `current` names, "" when none."""
        try:
            link = str((self.directory / "current").readlink())
        except OSError:
            return ""
        folder, _, digest = link.partition("/")
        return digest if folder == _RELEASES and DIGEST_PATTERN.fullmatch(digest) else ""

    def fingerprint(self, digest: str, names: Collection[str]) -> tuple[object, ...]:
        """Return what changes when somebody else touches a release; a look that proves nothing."""
        found: list[object] = [self.current()]
        for name in sorted(names):
            try:
                info = (self._releases / digest / name).lstat()
            except OSError:
                return ()
            found.append((name, info.st_ino, info.st_size, info.st_mtime_ns))
        return tuple(found)

    def read(self, digest: str, name: str) -> bytes:
        """Return a file of a release here, at most of its size limit; FileRefused or FileNotFoundError."""
        return read_bounded(self._releases / digest / name, file_limit(name))

    def has(self, digest: str, name: str, stored: Stored) -> bool:
        """Tell whether a release here has just this file."""
        if (self._releases / digest).is_symlink():  # which the agent would not follow
            return False
        try:
            descriptor = os.open(self._releases / digest / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(descriptor).st_size != stored.size:
                return False
            return all(sha256(os.read(descriptor, PART_BYTES)) == part for part in stored.parts)
        except OSError:  # a directory, say
            return False
        finally:
            os.close(descriptor)

    def entry(self, digest: str, name: str) -> FileEntry:
        """Return SHA-256 and size of a file here; FileRefused or FileNotFoundError."""
        return FileEntry.of(self.read(digest, name))

    @contextlib.contextmanager
    def begin(self) -> Iterator[None]:
        """Make an empty place to receive into, which is gone afterwards whatever happens."""
        self._remove_aside()
        self._aside.mkdir()
        try:
            yield
        finally:
            self._remove_aside()

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Writing]:
        """Receive a file; its bytes are on the disk afterwards."""
        descriptor = os.open(self._aside / name, _CREATE, 0o644)
        try:
            yield Writing(descriptor, hashlib.sha256())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def received(self, name: str) -> bytes:
        """Return a file that was received."""
        return read_bounded(self._aside / name, file_limit(name))

    def install(self, digest: str, names: Collection[str]) -> None:
        """Make what was received, and what is here of the release already, the current release."""
        final = self._releases / digest
        if final.is_dir() and not final.is_symlink():
            # The payload first, what vouches for it last, so that a crash in between leaves what is refused by name
            # at worst, and what the next start mends.
            for name in sorted(names, key=lambda name: (name == ENVELOPE_FILE, name)):
                with contextlib.suppress(FileNotFoundError):  # it is there already
                    (self._aside / name).replace(final / name)
            for stranger in {entry.name for entry in os.scandir(final)}.difference(names):
                _remove(final / stranger)
            sync_directory(final)
        else:
            _remove(final)
            sync_directory(self._aside)
            self._aside.rename(final)
            sync_directory(self._releases)
        self._point(digest)
        self._prune(digest)

    def _point(self, digest: str) -> None:
        """Move `current`; also when it points there already, so that whoever watches it sees a renewal."""
        aside = self.directory / ".current.new"
        _remove(aside)
        aside.symlink_to(f"{_RELEASES}/{digest}")
        aside.replace(self.directory / "current")
        sync_directory(self.directory)

    def _prune(self, digest: str) -> None:
        """Remove the oldest releases beyond those that are kept."""
        others = [entry for entry in os.scandir(self._releases) if DIGEST_PATTERN.fullmatch(entry.name)]
        others.sort(key=lambda entry: entry.stat(follow_symlinks=False).st_mtime_ns, reverse=True)
        for entry in [entry for entry in others if entry.name != digest][self._keep - 1 :]:
            _remove(Path(entry.path))

    def _clean(self) -> None:
        """Remove what a receiver that was killed left behind."""
        self._remove_aside()
        _remove(self.directory / ".current.new")
        current = self.current()
        if current:
            self._prune(current)

    def _remove_aside(self) -> None:
        _remove(self._aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


__all__ = ["FileRefused", "Store", "StoreError", "Writing"]
