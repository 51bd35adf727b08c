"""A folder of files as targets need it, by names and never by paths; local ones here, others where their way is.

    Folder ── Local    a directory's descriptor: nothing below it is reached through a link
           ── Sftp     sftp.py

Names are ours (checked before), bytes are bounded before they are read, and no link is followed.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tidegate_compiler.targets import TargetError

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
NAMES_MAX = 1_000_000


@dataclass(frozen=True)
class Info:
    """What lstat says: is it a directory; and a text that differs when the file was replaced or written to."""

    is_directory: bool
    stamp: str
    modified: int
    """Larger is newer; the unit is the store's."""


class Folder(Protocol):
    """One folder. Everything raises OSError, or TargetError for what is there and not what it has to be."""

    def folder(self, name: str, make: bool = False) -> Folder | None:
        """Return a folder in this one, made when `make` says so; None when it is not there. Close it."""

    def names(self) -> list[str]:
        """Return the names in it, in no order."""

    def info(self, path: str) -> Info | None:
        """Return what lstat(2) says of a path below it, None when it is not there; a look that proves nothing."""

    def stamps(self, paths: Sequence[str]) -> list[str]:
        """Return the stamp of each path's `info`; "-" for what is not there."""

    def link(self, path: str) -> str:
        """Return what a symbolic link says; "" when there is none."""

    def read(self, name: str, limit: int) -> bytes | None:
        """Return a regular file's bytes; None when it is not there, is none, or larger than `limit`."""

    def write(self, name: str, data: bytes) -> None:
        """Write a new file and have it on the disk before returning; what is in the way goes."""

    def symlink(self, name: str, to: str) -> None:
        """Make a symbolic link; what is in the way goes."""

    def replace(self, old: str, new: str) -> None:
        """Rename within this folder in one step, over what is there."""

    def remove(self, name: str) -> None:
        """Remove a file or link, or a directory with all that is in it; nothing when it is not there."""

    def sync(self) -> None:
        """Have the names in it on the disk."""

    def close(self) -> None:
        """Let go of it."""


class Local:
    """A local directory, held by its descriptor, so that nobody exchanges it meanwhile."""

    def __init__(self, descriptor: int, shown: str) -> None:
        """Take over an open directory; `shown` is its path as people know it."""
        self.descriptor = descriptor
        self.shown = shown

    def folder(self, name: str, make: bool = False) -> Local | None:
        """See Folder."""
        try:
            return Local(os.open(name, _DIRECTORY, dir_fd=self.descriptor), f"{self.shown}/{name}")
        except FileNotFoundError:
            if not make:
                return None
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise self._told(error, name) from None
            raise TargetError(
                f"{self.shown}/{name}: a symbolic link or no directory, and not followed; remove it"
            ) from None
        try:
            os.mkdir(name, dir_fd=self.descriptor)
        except FileExistsError:
            pass
        except OSError as error:
            raise self._told(error, name) from None
        self.sync()
        return self.folder(name)

    def names(self) -> list[str]:
        """See Folder."""
        found = os.listdir(self.descriptor)  # noqa: PTH208 - it is a descriptor
        if len(found) > NAMES_MAX:
            raise TargetError(f"{self.shown}: more than {NAMES_MAX} entries; it is not read")
        return found

    def info(self, path: str) -> Info | None:
        """See Folder."""
        try:
            found = os.stat(path, dir_fd=self.descriptor, follow_symlinks=False)
        except OSError:
            return None
        stamp = f"{found.st_ino}.{found.st_mtime_ns}.{found.st_size}"
        return Info(stat.S_ISDIR(found.st_mode), stamp, found.st_mtime_ns)

    def stamps(self, paths: Sequence[str]) -> list[str]:
        """See Folder. Ten thousand hosts are asked about, so nothing is made of what lstat says but its text."""
        told = []
        descriptor = self.descriptor
        for path in paths:
            try:
                found = os.stat(path, dir_fd=descriptor, follow_symlinks=False)
            except OSError:
                told.append("-")
            else:
                told.append(f"{found.st_ino}.{found.st_mtime_ns}.{found.st_size}")
        return told

    def link(self, path: str) -> str:
        """See Folder."""
        try:
            return os.readlink(path, dir_fd=self.descriptor)
        except OSError:
            return ""

    def read(self, name: str, limit: int) -> bytes | None:
        """See Folder."""
        try:
            descriptor = os.open(name, _READ, dir_fd=self.descriptor)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENXIO):
                return None
            raise self._told(error, name) from None
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
                return None
            parts, left = [], limit + 1
            while left and (part := os.read(descriptor, min(left, 1 << 20))):
                parts.append(part)
                left -= len(part)
        except OSError as error:
            raise self._told(error, name) from None
        finally:
            os.close(descriptor)
        return b"".join(parts) if left else None

    def write(self, name: str, data: bytes) -> None:
        """See Folder."""
        try:
            try:
                descriptor = os.open(name, _CREATE, 0o666, dir_fd=self.descriptor)
            except FileExistsError:
                self.remove(name)
                descriptor = os.open(name, _CREATE, 0o666, dir_fd=self.descriptor)
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(descriptor, left) :]
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise self._told(error, name) from None

    def symlink(self, name: str, to: str) -> None:
        """See Folder."""
        try:
            os.symlink(to, name, dir_fd=self.descriptor)
        except FileExistsError:
            self.remove(name)
            os.symlink(to, name, dir_fd=self.descriptor)

    def replace(self, old: str, new: str) -> None:
        """See Folder."""
        try:
            os.rename(old, new, src_dir_fd=self.descriptor, dst_dir_fd=self.descriptor)
        except OSError as error:
            raise self._told(error, new) from None

    def remove(self, name: str) -> None:
        """See Folder."""
        try:
            os.unlink(name, dir_fd=self.descriptor)
        except FileNotFoundError:
            return
        except (IsADirectoryError, PermissionError):  # unlink(2) of a directory: EISDIR, or by POSIX EPERM
            inner = self.folder(name)
            if inner is None:
                return
            try:
                for child in inner.names():
                    inner.remove(child)
            finally:
                inner.close()
            os.rmdir(name, dir_fd=self.descriptor)

    def sync(self) -> None:
        """See Folder."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """See Folder."""
        os.close(self.descriptor)

    def _told(self, error: OSError, name: str) -> OSError:
        """Return the error with the path as people know it; that of a descriptor names none."""
        return OSError(error.errno, error.strerror, f"{self.shown}/{name}")
