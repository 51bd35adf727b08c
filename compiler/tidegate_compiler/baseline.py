"""What was published last, by git: a ref that a complete publish moves to the commit that its output came from.

    refs/tidegate/published -> commit whose inventory was compiled to what the hosts were last sent

It is the side that a publish is compared with. A target could be emptied by whoever carries it; this ref cannot be
moved without writing to the repository. It is read by git's plumbing, and moved by compare-and-swap.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from tidegate_compiler import files, report
from tidegate_compiler.diagnostics import show
from tidegate_compiler.files import OVERLAY_FILE
from tidegate_compiler.output import Output
from tidegate_compiler.plan import source
from tidegate_compiler.plan.revision import DEFAULT_PATH, RevisionError, git
from tidegate_compiler.plan.revision import read as read_revision

REF = "refs/tidegate/published"
_CANDIDATES = 20
_NO_REPOSITORY = "not a git repository (or any"  # and not that a .git file names none


class BaselineError(Exception):
    """There is nothing to compare with, or it cannot be read; one line."""


@dataclass(frozen=True)
class Commit:
    """A commit, and the inventory's path in it ("" for its top)."""

    sha: str
    path: str


def commit_of(output: Output, revision: str | None) -> Commit | None:
    """Return the commit at a revision (default HEAD) if an inventory in it is what the output was compiled from."""
    sha = find_commit(revision or "HEAD")
    for path in inventories(sha) if sha else ():
        try:
            found = read_revision(f"{sha}:{path}")[1]
        except RevisionError:
            continue
        if files.digest(found) == output.inventory:
            return Commit(sha, path)
    return None


def has_repository() -> bool:
    """Tell whether there is a git repository around the working directory; one that cannot be read is one."""
    try:
        return _look()
    except RevisionError:
        return True


def published(ref: str) -> str:
    """Return the commit that a ref says was published last; "" when there is none, or no repository.

    BaselineError when it is there, or may be, and cannot be read: then there is something to compare with.
    """
    try:
        if not _look():
            return ""
    except RevisionError as error:
        raise BaselineError(f"{ref} cannot be read: {error}") from None
    sha = find_commit(ref)
    if not sha and _is_there(ref):
        raise BaselineError(
            f"{ref} names no commit that is here; fetch what it names, or mend it with git update-ref"
        )
    return sha


def memory_path(ref: str) -> Path | None:
    """Return where the publisher remembers what it published under a ref; None without a repository."""
    try:
        directory = git("rev-parse", "--git-common-dir")
    except RevisionError:
        return None
    return Path(os.fsdecode(directory.removesuffix(b"\n"))) / "tidegate" / f"{ref.rpartition('/')[2]}.sqlite"


def used_key_set(memory: Path | None) -> int:
    """Return the newest key set that was published under, as noted beside the memory; 0 for none, or nothing known."""
    try:
        return int(_key_set_note(memory).read_text("ascii")) if memory else 0
    except (OSError, ValueError):
        return 0


def note_key_set(memory: Path | None, number: int) -> None:
    """Note beside the memory the key set that was published under. OSError."""
    if memory is None or used_key_set(memory) == number:
        return
    note = _key_set_note(memory)
    note.parent.mkdir(mode=0o700, exist_ok=True)
    aside = note.with_name(f".{note.name}.new")
    aside.write_text(f"{number}\n", "ascii")
    aside.replace(note)


def _key_set_note(memory: Path) -> Path:
    return memory.with_suffix(".keyset")


def record(ref: str, commit: Commit, before: str) -> None:
    """Move a ref from `before` ("" for absent) to a commit. BaselineError when it stands elsewhere by now."""
    if commit.sha == before:
        return
    try:
        git("update-ref", "--create-reflog", "-m", "tidegate publish", ref, commit.sha, before)
    except RevisionError as error:
        raise BaselineError(f"{ref} was not moved to {commit.sha[:12]}: {error}") from None


def read(since: str | None, ref: str, sha: str, commit: Commit | None) -> source.Side:
    """Return the side to compare with: what `since` names as `tidegate plan` would, else the commit `sha` of `ref`."""
    name = since
    if name is None:
        paths = inventories(sha)
        path = commit.path if commit and commit.path in paths else next(iter(paths), DEFAULT_PATH)
        name = f"{sha}:{path}"
    title = since or f"{ref} ({sha[:12]})"
    try:
        found = source.read(name)
    except source.SourceError as error:
        raise BaselineError(f"{error}; name what was published last with --since") from None
    if isinstance(found, source.Side):
        return found
    from tidegate_compiler import pipeline  # not where it is remembered what was published

    made = pipeline.compile_files(found.files, found.problems)
    if not isinstance(made, pipeline.Compiled):
        raise BaselineError(
            f"{show(title)}: {report.counts(made.diagnostics)}, so nothing can be compared with it; "
            "name a compile output of what was published last with --since"
        )
    return source.of_compiled(source.Content(title, found.root, found.files, found.problems), made)


def _look() -> bool:
    """Tell whether there is a repository; RevisionError when there is one that cannot be read."""
    try:
        git("rev-parse", "--git-dir")
    except RevisionError as error:
        if str(error).startswith(_NO_REPOSITORY) or shutil.which("git") is None:
            return False
        raise
    return True


def as_old(ref: str, sha: str) -> str:
    """Return how `tidegate plan` is told the inventory of a ref's commit."""
    path = next(iter(inventories(sha)), DEFAULT_PATH) if sha else DEFAULT_PATH
    return ref if path == DEFAULT_PATH else f"{ref}:{path}"


def find_commit(revision: str) -> str:
    """Return the commit that a revision names, "" when there is none here."""
    if revision.startswith("-") or "\0" in revision:
        return ""
    try:
        asked = f"{revision}^{{commit}}"
        return git("rev-parse", "--verify", "--quiet", "--end-of-options", asked).decode().strip()
    except RevisionError:
        return ""


def _is_there(ref: str) -> bool:
    try:
        return bool(git("rev-parse", "--verify", "--quiet", "--end-of-options", ref))
    except RevisionError as error:
        return bool(str(error))  # of a ref that is absent nothing is said


def inventories(sha: str) -> list[str]:
    """Return the paths of inventories in a commit, the usual one first."""
    try:
        listed = git("ls-tree", "-r", "-z", "--name-only", "--full-tree", sha).decode("utf-8", "replace")
    except RevisionError:
        return []
    found = [
        path.removesuffix(OVERLAY_FILE).rstrip("/")
        for path in listed.split("\0")
        if path == OVERLAY_FILE or path.endswith(f"/{OVERLAY_FILE}")
    ]
    return sorted(found, key=lambda path: (path != DEFAULT_PATH, path))[:_CANDIDATES]
