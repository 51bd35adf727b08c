"""A long-lived `git cat-file --batch-command`: a ref or an object costs a line through a pipe, not a process.

Git looks every name up anew and notices new packs, so what comes is never stale (git-cat-file(1)).
"""

from __future__ import annotations

import subprocess
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from tidegate_control.git.process import MOST_BYTES, GitError, command, environment


class Found(NamedTuple):
    """An object: its ID, its type ("commit", "tree", "blob", "tag") and its bytes."""

    sha: str
    kind: str
    data: bytes


class Objects:
    """The objects and refs of a repository; may be used by several threads."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._finish: Callable[[], object] = bool

    def find(self, name: str) -> str | None:
        """Return the ID of what a name stands for, None when there is no such thing."""
        return self._ask("info", name).partition(" ")[0] or None

    def size(self, name: str) -> int:
        """Return how many bytes an object has, 0 when there is none of that name."""
        return int(self._ask("info", name).rpartition(" ")[2] or 0)

    def get(self, name: str) -> Found | None:
        """Return an object, None when there is none of that name. GitError for one that nobody should hold."""
        with self._lock:
            head = self._line("contents", name)
            if not head:
                return None
            sha, kind, size = head.split(" ")
            if int(size) > MOST_BYTES:
                self._end()  # rather than read it to its end
                raise GitError(f"{kind} {sha[:12]} has more than {MOST_BYTES} bytes")
            data = self._read(int(size) + 1)
        return Found(sha, kind, data[:-1])

    def _ask(self, word: str, name: str) -> str:
        with self._lock:
            return self._line(word, name)

    def _line(self, word: str, name: str) -> str:
        """Return git's first line about a name, "" when it knows none. Asked once more if git has gone meanwhile."""
        if not name or any(char < " " or char == "\x7f" for char in name):
            return ""
        for attempt in (1, 2):
            process = self._running()
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(OSError):
                process.stdin.write(f"{word} {name}\n".encode())
                process.stdin.flush()
                line = process.stdout.readline().decode("utf-8", "replace").rstrip("\n")
                if line:
                    return "" if line.endswith((" missing", " ambiguous")) else line
            self._end()
            if attempt == 2:
                break
        raise GitError("git cat-file ended; is the repository still there?")

    def _read(self, size: int) -> bytes:
        assert self._process is not None
        assert self._process.stdout is not None
        data = self._process.stdout.read(size)
        if len(data) != size:
            self._end()
            raise GitError("git cat-file ended in the middle of an object")
        return data

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            try:
                self._process = subprocess.Popen(
                    command(self._directory, "cat-file", "--batch-command"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    env=environment(),
                    start_new_session=True,
                )
            except OSError as error:
                raise GitError(f"git cannot be run: {error.strerror}") from None
            self._finish = weakref.finalize(self, _stop, self._process)
        return self._process

    def close(self) -> None:
        """End the reader; the next question starts another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        self._process = None
        self._finish()


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            assert pipe is not None
            pipe.close()
    process.wait()
