"""Undoing a commit by a new one: file by file, in three ways, so that what came later stays.

before the commit  ->  the commit  ->  ...  ->  the tip
      theirs             base                    ours
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.edit.change import Change
from tidegate_control.git.process import GitError
from tidegate_control.git.repository import Repository
from tidegate_control.inventory.errors import Refused

Files = Mapping[str, bytes]


def reverted(repository: Repository, before: Files, undone: Files, tip: Files) -> Change:
    """Return the change of the tip that takes back what led from `before` to `undone`. Refused names a conflict."""
    files: dict[str, bytes | None] = {}
    for path in sorted(before.keys() | undone.keys()):
        old, new, now = before.get(path), undone.get(path), tip.get(path)
        if old in (new, now):
            continue
        files[path] = old if now == new else _merged(repository, path, now, new, old)
    if not files:
        raise Refused("nothing is left of that commit in the inventory, so there is nothing to undo")
    return Change(tip, files)


def _merged(
    repository: Repository, path: str, ours: bytes | None, base: bytes | None, theirs: bytes | None
) -> bytes:
    if ours is not None and base is not None and theirs is not None:
        with tempfile.TemporaryDirectory(prefix="tidegate-revert-") as scratch:
            names = []
            for name, data in (("ours", ours), ("base", base), ("theirs", theirs)):
                place = Path(scratch, name)
                place.write_bytes(data)
                names.append(str(place))
            try:
                return repository.ask("merge-file", "-p", "-q", *names)
            except GitError:
                pass  # the number of conflicts is its exit status: git-merge-file(1)
    raise Refused(
        f"{show_path(path)}: changed since in the same place; undo it by hand, or undo the later commit first"
    )
