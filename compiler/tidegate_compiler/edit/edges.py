"""What every edit begins and ends with: read and judge the inventory; judge the result, write once, say it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tidegate_compiler import files, pipeline, progress, report
from tidegate_compiler.check import Checked
from tidegate_compiler.diagnostics import Diagnostic, Where, show_path
from tidegate_compiler.edit import store
from tidegate_compiler.edit.change import Change, EditError, diff, new_errors, unknown
from tidegate_compiler.terminal import say
from tidegate_schema.cli import Failure

OK, PROBLEMS = 0, 1


def read(root: Path) -> tuple[dict[str, bytes], list[Diagnostic], Checked]:
    """Return an inventory's files, what could not be read of it, and what `check` says of it.

    Failure in one line when there is a file of which nobody knows what it says.
    """
    content, unreadable = files.read(root)
    with progress.shown():
        checked = pipeline.validate_files(content, unreadable)
    problem = unknown(checked)
    if problem is not None:
        at = f"{show_path(os.path.normpath(root))}/{problem.where}"
        raise Failure(f"{at}: {problem.message}; mend the file first, nothing is edited without it")
    return content, unreadable, checked


def write(
    root: Path,
    change: Change,
    unreadable: list[Diagnostic],
    before: Checked,
    lines: Sequence[str],
    told: dict[str, Any],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Judge the changed inventory; write it unless it has new errors; print what was done."""
    with progress.shown():
        after = pipeline.validate_files(change.after, unreadable)
    errors = new_errors(before, after)
    if errors:
        say(report.diagnostic_lines(errors, str(root)), err=True)
        raise Failure(
            f"{show_path(str(root))}: the edit would make {report.counts(errors)}; nothing is written"
        )
    warnings = [d for d in after.diagnostics if d not in before.diagnostics and not d.is_error]
    say(report.diagnostic_lines(warnings, str(root)), err=True)
    if not dry_run:
        store_change(root, change)
    if as_json:
        written = sorted(path for path, data in change.files.items() if data is not None)
        gone = sorted(path for path, data in change.files.items() if data is None)
        files_ = {"written": list(map(show_path, written)), "deleted": list(map(show_path, gone))}
        document = {"format": 1, "dry_run": dry_run, **files_, **told}
        say([report.to_json(document | ({"diff": diff(change, str(root))} if dry_run else {}))])
    elif dry_run:
        say(lines, err=True)
        say(diff(change, str(root)))
    else:
        say(lines)
    return OK


def store_change(root: Path, change: Change) -> None:
    """Write a change; Failure in one line when the inventory is not as it was read."""
    try:
        store.write(root, change)
    except EditError as error:
        raise Failure(under(root, error)) from None


def inside(root: Path, file: str | None) -> str | None:
    """Return a file's path inside the inventory; one that shells complete begins with the inventory's own."""
    if file is None:
        return None
    prefix = os.path.normpath(root) + os.sep
    path = os.path.normpath(file)
    return path.removeprefix(prefix)


def place(root: Path, where: Where) -> str:
    """Return `file:line` from where people stand."""
    return f"{show_path(os.path.normpath(root / where.file))}:{where.line}"


def under(root: Path, error: EditError) -> str:
    """Return an error's line; places in it are relative to the inventory."""
    return f"{show_path(str(root))}: {error}"
