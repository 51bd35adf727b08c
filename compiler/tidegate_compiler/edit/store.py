"""Writing an edited inventory: everything is staged and synced first, then renamed into place, file by file.

The names of staged files begin with a dot, which readers of an inventory pass over. A directory that is a symbolic
link is never written through, a file that changed since it was read is never overwritten, and when a rename fails,
the files renamed before it get their old bytes back.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.edit.change import Change, EditError
from tidegate_compiler.files import FILE_MAX_BYTES

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write(root: Path, change: Change) -> None:
    """Write, or remove, the files of a change. EditError when the inventory is not as it was read; OSError."""
    for path, data in change.files.items():
        if data is not None and len(data) > FILE_MAX_BYTES:
            raise EditError(
                f"{show_path(path)}: would be larger than {FILE_MAX_BYTES} bytes; choose another with --file"
            )
    with contextlib.ExitStack() as stack:
        folders = dict(_folders(root, change, stack))
        staged: dict[str, str] = {}
        try:
            for path, data in change.files.items():
                folder = folders[_split(path)[0]]
                _same(folder, path, change.before.get(path))
                if data is not None:
                    staged[path] = _stage(folder, _split(path)[1], data)
            _swap(folders, change, staged)
        finally:
            for path, aside in staged.items():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(aside, dir_fd=folders[_split(path)[0]])
        for folder in folders.values():
            os.fsync(folder)


def read(path: Path) -> bytes:
    """Read one file that is named by hand. EditError when it is no regular file of bounded size; OSError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if path.is_symlink():
            raise EditError(f"{show_path(str(path))}: a symbolic link; name the file itself") from None
        raise EditError(f"{show_path(str(path))}: {error.strerror}") from None
    data = _content(descriptor)
    if data is None:
        raise EditError(f"{show_path(str(path))}: not a regular file")
    if len(data) > FILE_MAX_BYTES:
        raise EditError(f"{show_path(str(path))}: larger than {FILE_MAX_BYTES} bytes")
    return data


def _content(descriptor: int) -> bytes | None:
    """Read and close; None for what is no regular file, and one byte more than a file may have at most."""
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(FILE_MAX_BYTES + 1)
    finally:
        os.close(descriptor)


def _split(path: str) -> tuple[str, str]:
    folder, _, name = path.rpartition("/")
    return folder, name


def _folders(root: Path, change: Change, stack: contextlib.ExitStack) -> Iterator[tuple[str, int]]:
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, top)
    yield "", top
    for name in sorted({_split(path)[0] for path in change.files} - {""}):
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, dir_fd=top)
        try:
            found = os.open(name, _DIRECTORY, dir_fd=top)
        except OSError as error:
            raise EditError(
                f"{show_path(name)}: cannot be opened as a directory ({error.strerror}); "
                "put a directory in its place"
            ) from None
        stack.callback(os.close, found)
        yield name, found


def _same(folder: int, path: str, before: bytes | None) -> None:
    """Raise EditError unless a file still holds what was read, or still is not there."""
    try:
        descriptor = os.open(
            _split(path)[1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
    except FileNotFoundError:
        now = None
    except OSError as error:
        raise EditError(f"{show_path(path)}: cannot be read: {error.strerror}; nothing is written") from None
    else:
        now = _content(descriptor)
        if now is None:
            raise EditError(f"{show_path(path)}: not a regular file; nothing is written")
    if now != before:
        raise EditError(f"{show_path(path)}: changed meanwhile; nothing is written, run the command again")


def _stage(folder: int, name: str, data: bytes) -> str:
    aside = f".{name[:200]}.{secrets.token_hex(8)}.new"
    try:
        mode = stat.S_IMODE(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        mode = None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(aside, flags, 0o666, dir_fd=folder), "wb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return aside


def _swap(folders: Mapping[str, int], change: Change, staged: Mapping[str, str]) -> None:
    done: list[str] = []
    try:
        for path in change.files:
            folder, name = folders[_split(path)[0]], _split(path)[1]
            if path in staged:
                os.rename(staged[path], name, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                os.unlink(name, dir_fd=folder)
            done.append(path)
    except OSError:
        for path in done:
            _restore(folders[_split(path)[0]], _split(path)[1], change.before.get(path))
        raise


def _restore(folder: int, name: str, data: bytes | None) -> None:
    with contextlib.suppress(OSError):
        if data is None:
            os.unlink(name, dir_fd=folder)
        else:
            os.rename(_stage(folder, name, data), name, src_dir_fd=folder, dst_dir_fd=folder)
