"""Files of the state directory: their user's alone, read whole and bounded, replaced in one step."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class StateError(ValueError):
    """A state directory or a file in it that is not to be relied on; the message is one line."""


def state_directory(path: Path) -> Path:
    """Make the state directory 0700 when it is not there; StateError when others may write in it or read it."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        info = path.stat()
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from None
    if os.geteuid() not in (0, info.st_uid):
        raise StateError(f"{path}: it belongs to another user; run this as that user, or chown it")
    if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StateError(f"{path}: others may look into it; chmod 700 {path}")
    return path


def version(path: Path) -> tuple[int, int, int]:
    """Return what tells a file from what it was before; (0, 0, 0) when it is not there."""
    try:
        info = path.lstat()
    except FileNotFoundError:
        return 0, 0, 0
    return info.st_ino, info.st_ctime_ns, info.st_size  # not mtime: a change of mode counts too


def read_private(path: Path, limit: int) -> bytes | None:
    """Return the file's bytes, None when it is not there; StateError for a link, or one that others may read."""
    try:
        fd = os.open(path, _READ)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: {error.strerror}") from None
    with open(fd, "rb", closefd=False) as file:
        try:
            info = os.fstat(fd)
            if not stat.S_ISREG(info.st_mode):
                raise StateError(f"{path}: not a regular file")
            if info.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise StateError(f"{path}: others may read it or write to it; chmod 600 {path}")
            data = file.read(limit + 1)
        except OSError as error:
            raise StateError(f"{path}: {error.strerror}") from None
        finally:
            os.close(fd)
    if len(data) > limit:
        raise StateError(f"{path}: more than {limit} bytes")
    return data


def write_private(path: Path, data: bytes) -> None:
    """Replace a file in one step with one of mode 0600: a crash leaves the old bytes or the new ones. OSError.

    What root writes belongs to the directory's owner, as whom the server runs.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}.new")
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:  # noqa: PTH123 - it is a descriptor
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(fd, owner.st_uid, owner.st_gid)
            os.fchmod(fd, 0o600)
            file.write(data)
            file.flush()
            os.fsync(fd)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)  # the rename survives a power cut
    finally:
        os.close(directory)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock that ends with the process; BlockingIOError when another has it and `wait` is False."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(fd, owner.st_uid, owner.st_gid)
        fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield
    finally:
        os.close(fd)
