"""A branch moved by compare-and-swap: it is where the writer saw it, or it stays where it is.

`git update-ref` takes REF.lock for some milliseconds. Only a machine that goes down, or a SIGKILL to git itself, leaves
one behind: one that is older than git ever keeps it is put away, and said so by nobody, since nothing was lost.
"""

from __future__ import annotations

import random
import time
from contextlib import suppress
from pathlib import Path

from tidegate_control.git.objects import Objects
from tidegate_control.git.process import GitError, run

STALE_SECONDS = 120
"""A ref's lock that is so old is nobody's: git holds it while it writes one line."""
WAIT_SECONDS = 10


def advance(directory: Path, objects: Objects, ref: str, new: str, old: str, why: str) -> bool:
    """Move a ref from `old` to `new`; False when it is not at `old`. GitError when it cannot be moved at all."""
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            run(directory, "update-ref", "--no-deref", "-m", why, ref, new, old)
        except GitError as error:
            if (objects.find(ref) or absent(new)) != old:
                return False
            lock = directory / f"{ref}.lock"
            if not lock.exists() and "lock" not in str(error):
                raise
            _put_away(lock)
            if time.monotonic() > deadline:
                raise GitError(
                    f"{ref} is locked; when no git is at work there, remove {lock.name} beside it"
                ) from None
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - so that two do not wait in step
        else:
            return True


def absent(like: str) -> str:
    """Return what stands for a ref that is not there, as long as another ID of the repository."""
    return "0" * len(like)


def _put_away(lock: Path) -> None:
    """Remove a lock that its owner has left. Renamed first: of two who see it old, one gets it."""
    with suppress(OSError):
        if time.time() - lock.stat().st_mtime > STALE_SECONDS:
            aside = lock.with_name(f".{lock.name}.stale")
            lock.rename(aside)
            aside.unlink()
