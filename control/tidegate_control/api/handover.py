"""Handing a commit over to whoever signs and publishes it. This server holds no key and signs nothing.

Two ways, of which the settings name one:

    publish_command    an argument vector, never a shell; the request on standard input as one JSON object, the commit
                       also as TIDEGATE_COMMIT; done when it ends with status 0 within SECONDS
    publish_directory  DIRECTORY/<commit>.json, whole at once, for a signer on the other side to find and take away

    {"format": 1, "commit": "…", "branch": "main", "by": {"name": "…", "email": "…"}, "at": "2026-11-30T12:00:00Z"}

What the command prints goes where the server's own errors go, and never into an answer.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_compiler.times import format_instant
from tidegate_schema import jsonfile

FORMAT = 1
SECONDS = 300.0
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TZ")
_STDERR = 2
_TURN = threading.Lock()


class HandoverError(Exception):
    """It was not handed over; one line. `status` is what HTTP calls it."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Request:
    """What is asked of the signer; `at` in Unix seconds."""

    commit: str
    branch: str
    name: str
    email: str
    at: int

    def document(self) -> dict[str, Any]:
        """Return it as the signer reads it."""
        return {
            "format": FORMAT,
            "commit": self.commit,
            "branch": self.branch,
            "by": {"name": self.name, "email": self.email},
            "at": format_instant(self.at),
        }


def run(command: Sequence[str], request: Request, seconds: float = SECONDS) -> None:
    """Run the command to its end, one at a time. HandoverError."""
    if not _TURN.acquire(blocking=False):
        raise HandoverError(409, "another publish is running; wait for it")
    try:
        _run(command, request, seconds)
    finally:
        _TURN.release()


def _run(command: Sequence[str], request: Request, seconds: float) -> None:
    # Of the server's own environment nothing but what a program needs to start: the rest may hold secrets.
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment["TIDEGATE_COMMIT"] = request.commit
    try:
        process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=_STDERR,
            cwd="/",
            env=environment,
            start_new_session=True,  # so that the end of the time ends whatever it has started
        )
    except OSError as error:
        raise HandoverError(502, f"the publish command cannot be run: {error.strerror}") from None
    try:
        process.communicate(jsonfile.canonical(request.document()), timeout=seconds)
    except subprocess.TimeoutExpired:
        raise HandoverError(
            504, f"the publish command took longer than {seconds:g} s and was ended"
        ) from None
    finally:
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        assert process.stdin is not None
        process.stdin.close()
    if process.returncode:
        raise HandoverError(
            502,
            f"the publish command ended with status {process.returncode}; the server's log has what it said",
        )


def write(directory: Path, request: Request) -> str:
    """Write the request for a signer to find, and return its name; asking twice is asking once. HandoverError."""
    name = f"{request.commit}.json"
    aside = f".{name}.{secrets.token_hex(8)}.new"
    try:
        folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _whole(folder, aside, name, jsonfile.canonical(request.document()))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(aside, dir_fd=folder)
            os.close(folder)
    except OSError as error:
        raise HandoverError(503, f"the publish directory cannot be written: {error.strerror}") from None
    return name


def _whole(folder: int, aside: str, name: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(aside, flags, 0o644, dir_fd=folder), "wb") as file:
        os.fchmod(file.fileno(), 0o644)  # the signer is somebody else, whatever this server's umask is
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)
