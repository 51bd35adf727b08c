"""One git command: argument vectors only, none of the machine's own variables, bounded time, one line when it fails."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from tidegate_control.git.exchange import TooMuch, exchange

SECONDS = 60
MOST_BYTES = 32 << 20
"""What a command may print: the list of some 200,000 files has so many."""
_TOLD = 200
# Whatever GIT_… the server was started with would point git elsewhere (gitenvironmentvariables in git(1)).
_KEPT = frozenset(
    {"GIT_SSH_COMMAND", "GIT_SSH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"}
)
_SETTINGS = (
    "core.hooksPath=/dev/null",  # update-ref and push would run some
    "core.fsync=committed",  # what is acknowledged is on the disk, loose objects too
    "core.quotePath=false",
    "gc.auto=0",  # whoever keeps the repository collects its garbage
    "maintenance.auto=false",
    "i18n.commitEncoding=UTF-8",
    "i18n.logOutputEncoding=UTF-8",
    "log.showSignature=false",
    "core.logAllRefUpdates=false",
)


class GitError(Exception):
    """Git refused, is not there, or took too long; one printable line. `lines` is all that it said."""

    def __init__(self, message: str, lines: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.lines = lines


def command(directory: Path, *words: str) -> list[str]:
    """Return the argument vector of a git command on the repository whose git directory is this."""
    settings = [part for setting in _SETTINGS for part in ("-c", setting)]
    return ["git", "--no-pager", "--no-replace-objects", f"--git-dir={directory}", *settings, *words]


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment of every git command: nothing is asked for on a terminal, nothing fetched by the way."""
    inherited = {
        name: value for name, value in os.environ.items() if name in _KEPT or not name.startswith("GIT_")
    }
    return {
        **inherited,
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
        **(more or {}),
    }


def run(
    directory: Path,
    *words: str,
    given: bytes = b"",
    seconds: float = SECONDS,
    more: Mapping[str, str] | None = None,
    limit: int | None = None,
    most: int = MOST_BYTES,
) -> bytes:
    """Return what a git command prints, at most `limit` bytes of it. GitError in one line, for more than `most` too."""
    try:
        # A session of its own: a signal to the server's group does not stop git half way through moving a ref, and
        # nothing that git starts (ssh) finds a terminal to ask on.
        process = subprocess.Popen(
            command(directory, *words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(more),
            start_new_session=True,
        )
    except OSError as error:
        raise GitError(f"git cannot be run: {error.strerror}") from None
    is_cut = limit is not None
    with process:
        try:
            out, err = exchange(
                process, given, seconds=seconds, most=most if limit is None else limit, is_cut=is_cut
            )
        except TooMuch:
            raise GitError(f"git {words[0]} prints more than {most} bytes") from None
        except subprocess.TimeoutExpired:
            raise GitError(f"git {words[0]} took longer than {seconds:g} s") from None
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # what git has started, too
    if is_cut and process.returncode == -signal.SIGKILL:
        return out
    if process.returncode:
        lines = tuple(map(printable, (err + out).decode("utf-8", "replace").splitlines()))
        raise GitError(_first(lines) or f"git {words[0]} failed with status {process.returncode}", lines)
    return out


def printable(text: str) -> str:
    """Return a line of git's as bounded, printable ASCII."""
    return "".join(char if " " <= char <= "~" else "?" for char in text[:_TOLD].replace("\t", " "))


def _first(lines: tuple[str, ...]) -> str:
    told = next(
        (line for line in lines if line.startswith(("fatal: ", "error: "))), lines[0] if lines else ""
    )
    return told.removeprefix("fatal: ").removeprefix("error: ")
