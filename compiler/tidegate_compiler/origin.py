"""What to say of an output that is compiled from no commit at hand, and of a --source that is not its commit.

compiled from the commit that is published ─► nothing to do for it; HEAD wants a compile
compiled from what the working tree holds  ─► commit it
else                                       ─► an old output, or another commit's: compile, or name it
"""

from __future__ import annotations

import os
from pathlib import Path

from tidegate_compiler import baseline, files
from tidegate_compiler.diagnostics import show, show_path
from tidegate_compiler.output import Output
from tidegate_compiler.plan.revision import DEFAULT_PATH, RevisionError, git


def commit_of(output: Output, out: Path, source: str | None) -> baseline.Commit | None:
    """Return the commit that an output is compiled from: the one that `source` names, or HEAD; None for neither.

    In a repository a `source` is checked: BaselineError when it names no commit there, or one of another inventory.
    Without one it is text for people, and nothing can be checked.
    """
    commit = baseline.commit_of(output, source)
    if source is None or commit is not None or not baseline.has_repository():
        return commit
    sha = baseline.find_commit(source)
    shown = show_path(str(out))
    if not sha:
        raise baseline.BaselineError(
            f"--source {show(source)}: no such commit in this repository; fetch it, name the one that {shown} is "
            "compiled from, or leave --source out"
        )
    raise baseline.BaselineError(
        f"--source {show(source)}: {shown} is not compiled from the inventory of that commit ({sha[:12]}); "
        "compile it again, or name the commit that it is compiled from"
    )


def advice(output: Output, out: Path, ref: str, before: str) -> str:
    """Return why the ref is not moved to the commit of an output that has none at hand, and what to do; one line."""
    shown = show_path(str(out))
    told = f"{ref} has not moved" if before else f"{ref} is not made"
    if not baseline.has_repository():
        return (
            f"no git repository around {show_path(str(Path.cwd()))}, so nothing says what was published; "
            "the next publish needs --since again"
        )
    head = baseline.find_commit("HEAD")
    inventories = _inventories(head)
    command = f"'tidegate compile {show_path(inventories[0])} --out {shown}'"
    if before and baseline.commit_of(output, before) is not None:
        return (
            f"{shown} is compiled from the commit that is published already ({before[:12]}), so {ref} stays; "
            f"HEAD ({head[:12]}) has another inventory: run {command} and publish again"
        )
    if any(_holds(path, output) for path in inventories):
        return f"{shown} is compiled from what is not committed, so {told}: commit the inventory and publish again"
    if not head:
        return f"{shown} is compiled from no commit, so {told}: commit the inventory and publish again"
    return (
        f"{shown} is not compiled from HEAD ({head[:12]}), so {told}: run {command} again, "
        "or name its commit with --source"
    )


def _inventories(head: str) -> list[str]:
    """Return the places of inventories in the working tree, as they are named from here, the likeliest first."""
    try:
        top = os.fsdecode(git("rev-parse", "--show-toplevel").removesuffix(b"\n"))
    except RevisionError:  # a bare repository
        top = "."
    known = baseline.inventories(head) if head else []
    return [os.path.relpath(Path(top, path)) for path in known] + [DEFAULT_PATH]


def _holds(inventory: str, output: Output) -> bool:
    try:
        return files.digest(files.read(Path(inventory))[0]) == output.inventory
    except OSError:
        return False
