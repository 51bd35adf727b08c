"""An answer that is too large to keep in memory: made once, in a file without a name, read by any number at a time."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

from tidegate_control.problems import Problem

_PIECE = 1 << 18
_AGAIN = 60


class Spool:
    """Bytes on the disk, in pieces. They go when nobody has this any more, with the process at the latest."""

    def __init__(self, directory: Path, pieces: Iterable[bytes]) -> None:
        """Write them into a directory. Problem 503 when it has no room."""
        try:
            file = tempfile.TemporaryFile(dir=directory, buffering=0)  # noqa: SIM115 - it ends with this
            weakref.finalize(self, file.close)
            self._file = file.fileno()
            for piece in pieces:
                _write(self._file, piece)
        except OSError as error:
            detail = f"the answer cannot be written into the state directory: {error.strerror}"
            raise Problem(503, "No room", detail, headers={"Retry-After": str(_AGAIN)}) from None

    def __iter__(self) -> Iterator[bytes]:
        at = 0
        while piece := os.pread(self._file, _PIECE, at):
            yield piece
            at += len(piece)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]
