"""The source lines that diagnostics point at, and the paths that code review knows the files by. The I/O edge.

A line is read again when it is told, so that nothing on the way from file to diagnostic has to carry it along.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from tidegate_compiler.diagnostics import Where
from tidegate_compiler.files import FILE_MAX_BYTES


class Sources:
    """An inventory's files by line. What cannot be read, or is a link, has no lines."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._lines: dict[str, list[str]] = {}

    def line(self, where: Where) -> str | None:
        """Return a place's line without its line break; bytes that are not UTF-8 as surrogates U+DC80 to U+DCFF."""
        if where.file not in self._lines:
            self._lines[where.file] = _read(self._root, where.file)
        lines = self._lines[where.file]
        return lines[where.line - 1] if where.line <= len(lines) else None


def _read(root: Path, file: str) -> list[str]:
    directory, _, name = file.rpartition("/")
    try:
        # The root may be a link, as the user named it; nothing below it may. O_NONBLOCK: a FIFO must not hang us.
        inside = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            if directory:
                outside = inside
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                inside = os.open(directory, flags, dir_fd=outside)
                os.close(outside)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=inside)
        finally:
            os.close(inside)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                return []
            data = opened.read(FILE_MAX_BYTES)
    except OSError:
        return []
    return [line.removesuffix("\r") for line in data.decode("utf-8", "surrogateescape").split("\n")]


def repository_path(root: Path) -> str:
    """Return an inventory's path from the top of the git repository it is in, else from the working directory.

    A path outside of both stays absolute. Code review knows files by the former, wherever the command was run.
    """
    real = root.resolve()
    top = next((above for above in (real, *real.parents) if (above / ".git").exists()), Path.cwd().resolve())
    return str(real.relative_to(top)) if real.is_relative_to(top) else str(real)
