"""The repository and the branch that hold the inventory, as the inventory service needs them."""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tidegate_compiler.baseline import REF as RELEASED
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.plan import revision
from tidegate_control.git import refs, trees
from tidegate_control.git.objects import Objects
from tidegate_control.git.pack import Pack
from tidegate_control.git.process import MOST_BYTES, GitError, run
from tidegate_control.git.remote import SECONDS, BehindError, Remote

COMMITTER = ("tidegate control", "tidegate-control@localhost")
_REASON = "tidegate control"
_DIVERGED = "merge one into the other by hand, and let nobody push to the server's own repository"
INVENTORY_MOST_BYTES = 256 << 20
"""All files of an inventory together: ten times what a hundred thousand clients take."""
_REMEMBERED = 10_000
"""Commits of which is remembered whether the branch has them."""
_LAST_SECOND = 253402300799  # of the year 9999
_RECORD = "//"  # begins a commit in a log; no path of git's has an empty part, so no file is called that


class Logged(NamedTuple):
    """A commit as `git log` tells it; `files` from the repository's top."""

    commit: str
    name: str
    email: str
    when: int
    subject: str
    files: tuple[str, ...]


@dataclass(frozen=True)
class Content:
    """An inventory as a commit has it: bytes by path, git's ID of those read from git, what may not be read."""

    files: Mapping[str, bytes]
    blobs: Mapping[str, str]
    problems: tuple[Diagnostic, ...] = field(default=())


class Repository:
    """One branch of one repository. May be used by several threads. GitError in one line, from all of it."""

    def __init__(
        self,
        path: Path | str,
        *,
        branch: str = "main",
        inventory: str = revision.DEFAULT_PATH,
        remote: str | None = None,
        review: bool = False,
        remote_seconds: float = SECONDS,
    ) -> None:
        """Open it; GitError when it is none, or when its branch is checked out.

        With a `remote` (a name or URL of git's) its branch is the truth, see `git.remote`. With `review` every change
        is a branch of its own, at the remote if there is one, and `branch` is left to those who merge.
        """
        self.directory = _directory(Path(path))
        self.branch = branch
        self.ref = f"refs/heads/{branch}"
        self._seen = f"refs/tidegate/remote/{_one_part(branch)}"
        """Where the remote's branch was last."""
        self.inventory = _inside(inventory)
        if not branch or branch.startswith("-"):
            raise GitError("no name for a branch")
        run(self.directory, "check-ref-format", self.ref)
        self._all = [f":(top,literal){self.inventory}"] if self.inventory else []
        self.objects = Objects(self.directory)
        self.remote = Remote(self.directory, remote, remote_seconds) if remote is not None else None
        self.review = review
        self._asking = threading.Lock()
        self._served_tip = ""
        self._served: dict[str, bool] = {}
        self._not_checked_out()

    def head(self) -> str:
        """Return the ID of the branch's tip."""
        found = self.objects.find(self.ref)
        if found is None:
            raise GitError(
                f"there is no branch {self.branch}; push a first commit to it, or name another in the setting branch"
            )
        return found

    def commit_of(self, name: str) -> str | None:
        """Return the ID of the commit that a full or short ID names; None when there is none in this repository."""
        if not 4 <= len(name) <= 64 or set(name) - set("0123456789abcdef"):
            return None
        found = self.objects.find(f"{name}^{{commit}}")
        # A branch or tag may be called like one, and git would rather take that; a tag has an ID, too.
        return found if found is not None and found.startswith(name) else None

    def content(self, commit: str, like: Content | None = None) -> Content:
        """Read a commit's inventory; what `like` has with the same ID is not read again."""
        top = f"{commit}:{self.inventory}" if self.inventory else f"{commit}^{{tree}}"
        tree = self.objects.get(top)
        if tree is None or tree.kind != "tree":
            raise GitError(f"the branch has no directory {self.inventory or '/'}; commit an inventory there")
        wanted, problems = revision.judged(tree.sha, self.ask)
        if sum(entry.size for entry in wanted) > INVENTORY_MOST_BYTES:
            raise GitError(f"the inventory has more than {INVENTORY_MOST_BYTES} bytes; nobody reads so much")
        known = {blob: like.files[path] for path, blob in like.blobs.items()} if like else {}
        unknown = [entry for entry in wanted if entry.sha not in known]
        read = revision.contents(unknown, self._ask_much) if unknown else {}
        files = {entry.path: known[entry.sha] if entry.sha in known else read[entry.path] for entry in wanted}
        return Content(files, {entry.path: entry.sha for entry in wanted}, tuple(problems))

    def tree_of(self, commit: str) -> str:
        """Return the ID of the inventory's tree in a commit: two commits with the same one have the same inventory."""
        return self.objects.find(f"{commit}:{self.inventory}") or ""

    def commit(
        self,
        parent: str,
        files: Mapping[str, bytes | None],
        author: tuple[str, str],
        message: str,
    ) -> str:
        """Make a commit of the inventory's files on a parent; no ref moves. TreeError.

        `author` is name and email, without line breaks and `<>`; git refuses the commit otherwise.
        """
        prefix = f"{self.inventory}/" if self.inventory else ""
        root = self.objects.find(f"{parent}^{{tree}}")
        if root is None:
            raise GitError("git does not have the tree of the branch's tip")
        pack = Pack(parent)
        tree = trees.changed(
            pack, self.objects, root, {f"{prefix}{path}": data for path, data in files.items()}
        )
        people = [("author", author), ("committer", COMMITTER)]
        lines = [f"tree {tree}", f"parent {parent}"]
        lines += [f"{role} {name} <{email}> {int(time.time())} +0000" for role, (name, email) in people]
        commit = pack.add("commit", "\n".join([*lines, "", message]).encode())
        pack.write(self.directory)
        return commit

    def advance(self, old: str, new: str) -> bool:
        """Move the branch from one commit to another, at the remote first; False when it is not at the first."""
        if self.remote is not None:
            try:
                self.remote.push(new, self.ref, old)
            except BehindError:
                self.follow()
                return False
            try:
                self._note(new)
            except GitError as error:  # so the branch stays, and whoever looks next follows
                raise GitError(f"the remote has the change, but here it cannot be noted: {error}") from None
        moved = refs.advance(self.directory, self.objects, self.ref, new, old, _REASON)
        if not moved and self.remote is not None and not self._has(new, self.head()):
            raise GitError(
                f"the remote has the change, but {self.branch} was moved here as well; {_DIVERGED}"
            )
        return moved or self.remote is not None

    def propose(self, commit: str, user: str) -> str:
        """Make a branch for one change, at the remote if there is one; return its name."""
        slug = re.sub("[^a-z0-9]+", "-", user.lower()).strip("-")[:30].rstrip("-") or "unknown"
        branch = f"tidegate/{slug}/{commit[:10]}"
        ref = f"refs/heads/{branch}"
        if self.remote is not None:
            try:
                self.remote.push(commit, ref, None)
            except BehindError:
                raise GitError(f"the remote has a branch {branch} already; try again") from None
        elif not refs.advance(self.directory, self.objects, ref, commit, refs.absent(commit), _REASON):
            raise GitError(f"there is a branch {branch} already; try again")
        return branch

    def follow(self) -> None:
        """Move the branch to where the remote's is; what is only here goes there. GitError when they have diverged.

        What the remote had and has no longer does not go there again: somebody took it back. With `review` nothing of
        the branch does.
        """
        if self.remote is None:
            return
        theirs, ours = self.remote.fetched(self.ref), self.head()
        if theirs is None:
            raise GitError(f"the remote has no branch {self.branch}; push it there first")
        if theirs != ours and not self._has(ours, theirs):
            self._bring(ours, theirs)
            return
        self._note(theirs)
        if theirs != ours:
            refs.advance(self.directory, self.objects, self.ref, theirs, ours, _REASON)

    def _bring(self, ours: str, theirs: str) -> None:
        """Push what is only here; GitError when that is not meant."""
        assert self.remote is not None
        seen = self.objects.find(self._seen)
        if seen is not None and not self._has(seen, theirs):
            raise GitError(
                f"{self.branch} was taken back at the remote, from {seen[:12]} to {theirs[:12]}, and what was taken "
                f"back is not pushed again; take it back here, too: git update-ref {self.ref} {theirs[:12]}"
            )
        if self.review or not self._has(theirs, ours):
            raise GitError(f"{self.branch} here and at the remote have diverged; {_DIVERGED}")
        with suppress(BehindError):  # it has moved again; whoever comes next follows
            self.remote.push(ours, self.ref, theirs)
            self._note(ours)

    def _note(self, tip: str) -> None:
        """Note where the remote's branch is."""
        seen = self.objects.find(self._seen)
        if seen != tip:
            refs.advance(self.directory, self.objects, self._seen, tip, seen or refs.absent(tip), _REASON)

    def released(self) -> str | None:
        """Return the ID of the commit that was published last; None where no publish has told this repository."""
        return self.objects.find(f"{RELEASED}^{{commit}}")

    def follow_release(self) -> None:
        """Move what was published last to where the remote has it; only `tidegate publish` moves it anywhere."""
        theirs = self.remote.fetched(RELEASED) if self.remote is not None else None
        ours = self.objects.find(RELEASED)
        if theirs is not None and theirs != ours:
            refs.advance(self.directory, self.objects, RELEASED, theirs, ours or refs.absent(theirs), _REASON)

    def serves(self, commit: str) -> bool:
        """Tell whether a commit, by its ID, is on the branch: its tip or before it. Git is asked once for a tip."""
        tip = self.head()
        if commit == tip:
            return True
        with self._asking:
            if self._served_tip != tip:
                self._served_tip, self._served = tip, {}
            known = self._served.get(commit)
        if known is None:
            known = self._has(commit, tip)
            with self._asking:
                if self._served_tip == tip and len(self._served) < _REMEMBERED:
                    self._served[commit] = known
        return known

    def _has(self, commit: str, tip: str) -> bool:
        """Tell whether a commit is a tip's own or before it."""
        return not run(self.directory, "rev-list", "--max-count=1", commit, f"^{tip}", "--").strip()

    def parent(self, commit: str) -> str | None:
        """Return a commit's first parent, None for one without."""
        return self.objects.find(f"{commit}^1^{{commit}}")

    def log(
        self, *, start: str, limit: int, paths: tuple[str, ...] = (), everywhere: bool = False
    ) -> list[Logged]:
        """Return commits from `start` on backwards that touch the inventory, these paths of it, or anything."""
        prefix = f"{self.inventory}/" if self.inventory else ""
        within = [f":(top,literal){prefix}{path}" for path in paths] or self._all
        if everywhere:
            within = []
        out = run(
            self.directory,
            "log",
            f"--max-count={limit}",
            f"--format={_RECORD}%x00%H%x00%an%x00%ae%x00%at%x00%s%x00",
            "--name-only",
            "--no-renames",
            "-z",
            "--first-parent",
            "--diff-merges=first-parent",
            start,
            "--",
            *within,
        )
        return list(_logged(out.decode("utf-8", "replace")))

    def diff(self, commit: str, limit: int) -> str:
        """Return what a commit changed in the inventory as a unified diff, at most `limit` bytes of it."""
        out = run(
            self.directory,
            "diff-tree",
            "-p",
            "--root",
            "--no-commit-id",
            "--no-ext-diff",
            "--no-textconv",
            "--text",  # no attribute hides a change as binary
            "--no-renames",
            "-m",
            "--first-parent",
            commit,
            "--",
            *self._all,
            limit=limit,
        )
        return out.decode("utf-8", "backslashreplace")

    def ask(self, *words: str, given: bytes = b"") -> bytes:
        """Run a git command, as `revision` does; its RevisionError when it fails."""
        return run(self.directory, *words, given=given)

    def _ask_much(self, *words: str, given: bytes = b"") -> bytes:
        """Run a git command that prints the contents of an inventory, and a line for each file."""
        return run(self.directory, *words, given=given, most=INVENTORY_MOST_BYTES + MOST_BYTES)

    def close(self) -> None:
        """End git's reader."""
        self.objects.close()

    def _not_checked_out(self) -> None:
        """Refuse what receive.denyCurrentBranch does: a working tree would be left behind its own branch."""
        listed = run(self.directory, "worktree", "list", "--porcelain").decode("utf-8", "replace")
        for block in listed.split("\n\n"):
            if f"branch {self.ref}" in block.splitlines():
                raise GitError(
                    f"the branch {self.branch} is checked out; give the server a bare repository of its own "
                    f"(git clone --bare), or check out another branch there"
                )


def _directory(path: Path) -> Path:
    """Return the git directory of a bare repository or a working tree."""
    inner = path / ".git"
    found = inner if inner.is_dir() else path
    if not (found / "objects").is_dir() or not (found / "HEAD").is_file():
        raise GitError("no git repository; make one with git clone --bare, or git init --bare")
    return found.absolute()


def _one_part(branch: str) -> str:
    """Return a branch's name as one part of a ref: beside what was noted of `a`, there is room for `a/b`."""
    return branch.replace("%", "%25").replace("/", "%2F")


def _inside(path: str) -> str:
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or path.startswith("/") or "\0" in path or ":" in path:
        raise GitError("the inventory's path is one inside the repository")
    return "/".join(parts)


def _logged(text: str) -> Iterator[Logged]:
    """Yield the commits of a log; what somebody wrote in a field is never taken for the beginning of another commit."""
    tokens = deque(text.split("\0"))
    while tokens:
        if tokens.popleft().lstrip("\n") != _RECORD:
            continue
        commit, name, email, when, subject = (tokens.popleft() for _ in range(5))
        files = []
        while tokens and tokens[0].lstrip("\n") != _RECORD:
            files.append(tokens.popleft().lstrip("\n"))
        yield Logged(commit, name, email, _second(when), subject, tuple(filter(None, files)))


def _second(text: str) -> int:
    """Return a date of git's as Unix seconds that a calendar has; 0 for what is no date, as git has it in `%ad`."""
    return min(int(text), _LAST_SECOND) if text.isascii() and text.isdecimal() else 0
