"""The inventory of one branch: every write is one commit on the tip, made in memory and moved there, or nothing.

    tip -> snapshot -> edit -> judge -> commit -> move the branch, if it is still at the tip; else all over again

So a write is never made on anything but what it was judged on, whoever else writes: threads of this process, other
processes, a push. See docs/adr/0015-a-write-is-one-commit.md.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.edit.change import Change, diff, new_errors, unknown
from tidegate_compiler.edit.survey import KINDS as FOLDERS
from tidegate_compiler.files import OVERLAY_FILE
from tidegate_compiler.learn.history import of_commit
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.plan.plan import Plan
from tidegate_compiler.plan.plan import plan as make_plan
from tidegate_compiler.plan.revision import RevisionError
from tidegate_compiler.report import counts
from tidegate_control.git.process import GitError
from tidegate_control.git.repository import Content, Logged, Repository
from tidegate_control.git.trees import TreeError
from tidegate_control.inventory import edits
from tidegate_control.inventory.edits import Edit
from tidegate_control.inventory.errors import Invalid, NotFound, Refused, Stale, Unavailable
from tidegate_control.inventory.message import message as commit_message
from tidegate_control.inventory.message import person
from tidegate_control.inventory.model import KINDS, OVERLAY, Author, Entry, Outcome, Released
from tidegate_control.inventory.past import commits_of
from tidegate_control.inventory.revert import reverted
from tidegate_control.inventory.secrets import hidden_line
from tidegate_control.inventory.snapshot import Snapshot
from tidegate_control.inventory.turn import Turns

HISTORY_MAX = 500
DIFF_MAX_BYTES = 1 << 20
_BUSY_SECONDS = 30
_KEPT = 8


class Inventory:
    """The inventory of a repository's branch. One for each process; may be used by several threads."""

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        self._reading = threading.Lock()
        self._turns = Turns()
        self._snapshots: dict[str, Snapshot] = {}

    def close(self) -> None:
        """End what reads the repository."""
        self._repository.close()

    # Reading --------------------------------------------------------------------------------------------------------

    def head(self) -> str:
        """Return the commit ID of the branch's tip: the inventory's revision."""
        with _git():
            return self._repository.head()

    def refresh(self) -> None:
        """Follow the remote, if there is one: to be called now and then, so that what others merge there is seen."""
        with _git(), self._turns.taken(_BUSY_SECONDS):
            self._repository.follow()
            self._repository.follow_release()

    def snapshot(self, commit: str | None = None) -> Snapshot:
        """Return the inventory at a commit, or at the tip. NotFound for what is no commit of the branch."""
        with _git():
            return self._at(self._repository.head() if commit is None else self._commit(commit))

    def history(
        self, *, kind: str | None = None, name: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[Entry]:
        """Return the commits that touch the inventory, the newest first; with a kind and name those of one object.

        `before` is a commit of an earlier answer: what comes are the commits behind it.
        """
        with _git():
            return self._history(kind, name, min(max(limit, 1), HISTORY_MAX), before)

    def names(self, commit: str) -> Timeline:
        """Return who had which key, along the branch, up to a commit; nothing where git cannot tell."""
        try:
            return of_commit(str(self._repository.directory), commit, self._repository.inventory)
        except RevisionError:
            return Timeline()

    def diff(self, commit: str) -> list[str]:
        """Return what a commit changed as lines of a unified diff, every one printable; cut where it is very long."""
        with _git():
            found = self._commit(commit)
            lines = self._repository.diff(found, DIFF_MAX_BYTES).splitlines()
            return [show_path(hidden_line(line)) for line in lines]

    def released(self) -> Released | None:
        """Return what `tidegate publish` published last, where this repository is told (docs/publish.md)."""
        with _git():
            found = self._repository.released()
            if found is None:
                return None
            is_current = self._repository.tree_of(found) == self._repository.tree_of(self._repository.head())
        # Whoever publishes chose it: it need not be on the branch.
        return Released(self._entry(self._logged(found)), is_current)

    def entry(self, commit: str) -> Entry:
        """Return what the history says of one commit. NotFound."""
        with _git():
            return self._entry(self._logged(self._commit(commit)))

    def _logged(self, commit: str) -> Logged:
        return self._repository.log(start=commit, limit=1, everywhere=True)[0]

    def _commit(self, name: str) -> str:
        """Return a commit's ID. NotFound for one that is not on the branch, as for one that is nowhere."""
        found = self._repository.commit_of(name)
        if found is None or not self._repository.serves(found):
            raise NotFound(f"there is no commit {show(name)}")
        return found

    def _history(self, kind: str | None, name: str | None, limit: int, before: str | None) -> list[Entry]:
        start = self._repository.head()
        if before is not None:
            start = f"{self._commit(before)}^@"
        if kind is None and name is not None:
            raise NotFound("a name alone says nothing; say its kind, too")
        if kind is not None and kind not in KINDS:
            raise NotFound(f"there is no kind {show(kind)}")
        if kind is None or name is None:
            folder = () if kind is None else (OVERLAY_FILE if kind == OVERLAY else FOLDERS[kind],)
            found = self._repository.log(start=start, limit=limit, paths=folder)
        else:
            found = commits_of(self._repository, kind, name, start, limit, self._file_of(kind, name))
        return [self._entry(one) for one in found]

    def _file_of(self, kind: str, name: str) -> str | None:
        """Return the file of an object, from the repository's top, where some inventory in memory has it."""
        with self._reading:
            known = next(reversed(self._snapshots.values()), None)
        sheet = known.place(kind, name) if known is not None else None
        return f"{self._prefix}{sheet.file}" if sheet is not None else None

    @property
    def _prefix(self) -> str:
        """Return what the paths of the inventory's files begin with, from the repository's top."""
        return f"{self._repository.inventory}/" if self._repository.inventory else ""

    def _entry(self, one: Logged) -> Entry:
        return Entry(
            one.commit,
            show_path(one.name),
            show_path(one.email),
            one.when,
            show_path(one.subject),
            tuple(show_path(file.removeprefix(self._prefix)) for file in one.files),
        )

    # Writing --------------------------------------------------------------------------------------------------------

    def create(
        self,
        kind: str,
        name: str,
        fields: Mapping[str, Any],
        *,
        author: Author,
        expected: str | None = None,
        dry_run: bool = False,
        file: str | None = None,
        message: str | None = None,
    ) -> Outcome:
        """Add an object, in `file` ("clients/team.yaml") or where its neighbours are. Raises InventoryError.

        A test needs no name; `Outcome.name` says under which it is found.
        """
        return self._write(
            lambda snapshot: edits.create(snapshot, kind, name, fields, file),
            author,
            expected,
            dry_run,
            message,
        )

    def update(
        self,
        kind: str,
        name: str,
        fields: Mapping[str, Any],
        *,
        author: Author,
        expected: str | None = None,
        dry_run: bool = False,
        message: str | None = None,
    ) -> Outcome:
        """Replace an object's fields, all of them. Raises InventoryError."""
        return self._write(
            lambda snapshot: edits.update(snapshot, kind, name, fields), author, expected, dry_run, message
        )

    def check(
        self, kind: str, name: str, fields: Mapping[str, Any], *, is_new: bool, file: str | None = None
    ) -> None:
        """Judge what `create` or `update` would write, without its plan. Raises InventoryError."""

        def edit(snapshot: Snapshot) -> Edit:
            if is_new:
                return edits.create(snapshot, kind, name, fields, file)
            return edits.update(snapshot, kind, name, fields)

        with _git():
            self._judged(self._at(self._repository.head()), edit)

    def delete(
        self,
        kind: str,
        name: str,
        *,
        author: Author,
        expected: str | None = None,
        cascade: bool = False,
        dry_run: bool = False,
        message: str | None = None,
    ) -> Outcome:
        """Remove an object and every mention of it; with `cascade`, what would be left empty too."""
        return self._write(
            lambda snapshot: edits.delete(snapshot, kind, name, cascade), author, expected, dry_run, message
        )

    def revert(
        self, commit: str, *, author: Author, expected: str | None = None, dry_run: bool = False
    ) -> Outcome:
        """Undo a commit by a new one; what came later stays. Refused when it changed the same places."""

        def edit(tip: Snapshot) -> Edit:
            undone = self.snapshot(commit)
            parent = self._repository.parent(undone.commit)
            if parent is None:
                raise Refused("the first commit of all cannot be undone")
            told = self._logged(undone.commit)
            change = reverted(self._repository, self.snapshot(parent).files, undone.files, tip.files)
            return Edit(change, f"Revert {undone.commit[:12]}: {told.subject}")

        return self._write(edit, author, expected, dry_run, f"This reverts commit {commit}.")

    def _write(
        self,
        edit: Callable[[Snapshot], Edit],
        author: Author,
        expected: str | None,
        dry_run: bool,
        message: str | None,
    ) -> Outcome:
        with _git(), nullcontext() if dry_run else self._turns.taken(_BUSY_SECONDS):
            deadline = time.monotonic() + _BUSY_SECONDS
            if self._repository.review and not dry_run:
                self._repository.follow()
            while True:
                base = self._at(self._repository.head())
                self._meets(expected, base)
                made, after = self._judged(base, edit)
                if dry_run:
                    return self._rehearsed(base, after, made)
                if not _changes(made.change):
                    return Outcome(None, base.commit, None, base, made.name_in(base), losses=made.losses)
                done = self._published(base, after, made, author, message)
                if done is not None:
                    return done
                if time.monotonic() > deadline:
                    raise Unavailable("too many others write at once; nothing is written, try again")

    @staticmethod
    def _judged(base: Snapshot, edit: Callable[[Snapshot], Edit]) -> tuple[Edit, Snapshot]:
        """Return an edit, and the inventory with it."""
        _is_known(base)
        made = edit(base)
        after = Snapshot.of(base.commit, _content(base.content, made.change), base)
        _judge(base, after)
        return made, after

    def _published(
        self, base: Snapshot, after: Snapshot, made: Edit, author: Author, message: str | None
    ) -> Outcome | None:
        """Commit an edit and move the branch there, or make one for it; None when the branch was moved meanwhile."""
        text = commit_message(made.subject, message)
        commit = self._repository.commit(base.commit, made.change.files, person(author), text)
        done = after.at(commit)
        name, losses = made.name_in(done), made.losses
        if self._repository.review:
            branch = self._repository.propose(commit, author.name)
            return Outcome(commit, base.commit, None, done, name, losses=losses, branch=branch)
        if not self._repository.advance(base.commit, commit):
            return None
        return Outcome(commit, commit, None, self._keep(done), name, losses=losses)

    def _rehearsed(self, base: Snapshot, after: Snapshot, made: Edit) -> Outcome:
        """Return what a write would do."""
        known = set(base.checked.diagnostics)
        warnings = tuple(d for d in after.checked.diagnostics if d not in known and not d.is_error)
        return Outcome(
            None,
            base.commit,
            self._plan(base, after),
            after,
            made.name_in(after),
            warnings,
            made.losses,
            tuple(map(hidden_line, diff(made.change, self._repository.inventory))),
        )

    def _plan(self, base: Snapshot, after: Snapshot) -> Plan | None:
        root = self._repository.inventory
        old, new = base.side(base.commit[:12], root), after.side("this change", root)
        return make_plan(old, new) if old and new else None

    def _meets(self, expected: str | None, base: Snapshot) -> None:
        """Raise Stale unless the inventory is what the caller has seen; another commit with the same one will do."""
        if expected is None or expected == base.commit:
            return
        seen = self._repository.commit_of(expected)
        if seen is None or self._repository.tree_of(seen) != self._repository.tree_of(base.commit):
            raise Stale("the inventory has changed since it was read; look at it again and repeat the change")

    def _at(self, commit: str) -> Snapshot:
        with self._reading:
            found = self._snapshots.get(commit)
            if found is not None:
                return found
            like = next(reversed(self._snapshots.values()), None)
        content = self._repository.content(commit, like.content if like else None)
        return self._keep(Snapshot.of(commit, content, like))

    def _keep(self, snapshot: Snapshot) -> Snapshot:
        """Remember a snapshot, and forget the oldest."""
        with self._reading:
            known = self._snapshots.setdefault(snapshot.commit, snapshot)
            while len(self._snapshots) > _KEPT:
                del self._snapshots[next(iter(self._snapshots))]
        return known


@contextmanager
def _git() -> Iterator[None]:
    """Tell of git's failures as the service's own."""
    try:
        yield
    except TreeError as error:
        raise Refused(str(error)) from None
    except GitError as error:
        raise Unavailable(str(error)) from None


def _changes(change: Change) -> bool:
    return any(change.before.get(path) != data for path, data in change.files.items())


def _is_known(base: Snapshot) -> None:
    """Refuse to edit where there is a file of which nobody knows what it says: see `edit.change.unknown`."""
    problem = unknown(base.checked) if base.has_errors else None
    if problem is not None:
        raise Refused(f"{problem.where}: {problem.message}; mend the file first", [problem])


def _judge(base: Snapshot, after: Snapshot) -> None:
    """Raise Invalid when a change brings new errors; an inventory that had some may still be mended."""
    if not after.has_errors:
        return
    errors = new_errors(base.checked, after.checked)
    if errors:
        raise Invalid(f"the change would make {counts(errors)}; nothing is written", errors, after.files)


def _content(base: Content, change: Change) -> Content:
    blobs = {path: blob for path, blob in base.blobs.items() if path not in change.files}
    return Content(change.after, blobs, base.problems)
