"""The branch of another repository, which is then the truth: a commit is pushed there first, and only then is it ours.

    git push --force-with-lease=REF:TIP REMOTE COMMIT:REF   ->   update-ref REF COMMIT TIP

So a push that is refused leaves nothing to take back. A crash between the two leaves the remote ahead, and `fetched`
follows it, as it follows what others merge there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tidegate_control.git.process import GitError, run

SECONDS = 30.0
_BEHIND = ("[rejected]", "[remote rejected] (incorrect old value", "cannot lock ref", "failed to update ref")
_NAME = re.compile(r"[A-Za-z0-9./~@:_+%\[\]-][^\0\n]*")


class BehindError(Exception):
    """The remote's branch is not where this repository believed it to be: fetch, and make the change anew."""


@dataclass(frozen=True)
class Remote:
    """A remote by name or URL. `seconds` is how long it may take to answer."""

    directory: Path
    name: str
    seconds: float = SECONDS

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name) or self.name.startswith("-"):
            raise GitError("the remote is a name or a URL of git's")

    def push(self, commit: str, ref: str, old: str | None) -> None:
        """Move the remote's ref from `old` (None: there is none yet) to a commit.

        BehindError when it stands elsewhere; GitError with the remote's own line when it refuses or does not answer.
        """
        lease = f"--force-with-lease={ref}:{old or ''}"
        words = (
            "push",
            "--porcelain",
            "--no-verify",
            "--no-follow-tags",
            "--recurse-submodules=no",
            "--no-signed",
        )
        try:
            run(self.directory, *words, lease, self.name, f"{commit}:{ref}", seconds=self.seconds)
        except GitError as error:
            told = next((line for line in error.lines if line.startswith("!")), "")
            if any(sign in told for sign in _BEHIND):
                raise BehindError from None
            said = [
                line.removeprefix("remote: ").strip() for line in error.lines if line.startswith("remote: ")
            ]
            reason = told[told.index("[") :] if "[" in told else str(error)
            raise GitError(f"the remote refused the change: {' '.join([reason, *said[:1]])}") from None

    def fetched(self, ref: str) -> str | None:
        """Fetch the remote's ref; return the commit it names, None when the remote has no such ref."""
        try:
            listed = run(self.directory, "ls-remote", "--refs", self.name, ref, seconds=self.seconds)
            tip = _of(listed, ref)
            if tip is None:
                return None
            run(
                self.directory,
                "fetch",
                "--quiet",
                "--no-tags",
                "--no-write-fetch-head",
                "--no-auto-maintenance",
                "--recurse-submodules=no",
                self.name,
                ref,
                seconds=self.seconds,
            )
        except GitError as error:
            raise GitError(f"the remote cannot be read: {error}") from None
        return tip


def _of(listed: bytes, ref: str) -> str | None:
    """Return what `git ls-remote` says of this very ref: it also lists those whose names end so, as a/refs/heads/main.

    Whoever may push any branch could otherwise say where this one is.
    """
    lines = (line.partition("\t") for line in listed.decode("utf-8", "replace").splitlines())
    return next((commit for commit, _, name in lines if name == ref), None)
