"""Files as a hostile place: read once, bounded, never through a link; write aside, sync, rename."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tidegate_agents.process import is_mapped


class FileRefused(ValueError):  # noqa: N818 - it names what happened to the file
    """A file that is not read; the message is one line."""


def read_bounded(path: Path | str, limit: int, *, dir_fd: int | None = None) -> bytes:
    """Return the bytes of a regular file of at most `limit` bytes, opened once, not through a symbolic link.

    The size is checked before reading. Raises FileRefused, or FileNotFoundError.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise FileRefused(f"{path}: {error.strerror}") from None
    info = os.fstat(fd)
    if not stat.S_ISREG(info.st_mode):  # before open(), which would leave a directory's descriptor behind
        os.close(fd)
        raise FileRefused(f"{path}: not a regular file")
    with open(fd, "rb") as file:  # noqa: PTH123 - it is a descriptor
        if info.st_size > limit:
            raise FileRefused(f"{path}: {info.st_size} bytes, at most {limit} are read")
        try:
            data = file.read(limit + 1)
        except OSError as error:
            raise FileRefused(f"{path}: {error.strerror}") from None
    if len(data) > limit:
        raise FileRefused(f"{path}: it grew past {limit} bytes while being read")
    return data


def write_atomic(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file in one step: a reader, or a crash at any moment, sees the old bytes or the new ones."""
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 - it is a descriptor
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            os.fsync(fd)
        aside.replace(path)
    except BaseException as error:
        aside.unlink(missing_ok=True)
        if (
            isinstance(error, OSError) and error.filename is None
        ):  # the system names no file in a full disk's error
            error.filename = str(path)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make a rename in this directory survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_private_directory(path: Path) -> None:
    """Make a directory 0700 (and its parents) when it is not there; refuse one that others may write."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o022:
        raise FileRefused(f"{path}: must be a directory of this user that nobody else may write")


def share(directory: Path, group: int) -> None:
    """Let a group read what will be in this directory, by its own right to read there, and change nothing."""
    if is_mapped(group):
        os.chown(directory, -1, group)
    directory.chmod(0o2750)  # set-group-ID: what is made in it is the group's
