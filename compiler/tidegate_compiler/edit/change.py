"""An edit of an inventory as a value: its files before and after, what that breaks, and what it looks like."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.check import Checked
from tidegate_compiler.diagnostics import Diagnostic, Where, show_path
from tidegate_compiler.edit.editor import Editor, FlawedError, LayoutError
from tidegate_compiler.yamltree import Flaw, Node, parse

# Unreadable, a symbolic link, bad text, YAML syntax and features, a key that stands twice, too deep.
_UNKNOWN = frozenset({"TG001", "TG002", "TG003", "TG005", "TG006", "TG007", "TG008"})
_PLACE = re.compile(r":[0-9]+:[0-9]+")


class EditError(Exception):
    """The edit cannot be made; one line that names the place and says what to do."""


@dataclass(frozen=True)
class Change:
    """What an edit does to {path: bytes}: the new bytes of every file that differs, None for one that goes."""

    before: Mapping[str, bytes]
    files: Mapping[str, bytes | None]

    @property
    def after(self) -> dict[str, bytes]:
        """Return the whole inventory as it will be."""
        both: dict[str, bytes | None] = {**self.before, **self.files}
        return {path: data for path, data in both.items() if data is not None}


def text_of(files: Mapping[str, bytes], file: str) -> str:
    """Return a file's text, "" for one that is not there; EditError when it is no text."""
    try:
        return files.get(file, b"").decode("utf-8")
    except UnicodeDecodeError:
        raise EditError(f"{Where(file)}: not UTF-8; mend the file first") from None


def tree_of(files: Mapping[str, bytes], file: str) -> Node | None:
    """Return a file's values with their places, None for one without any; EditError when it is not sound YAML."""
    tree, flaws = parse(text_of(files, file))
    if flaws:
        raise _flawed(file, flaws[0])
    return tree


def _flawed(file: str, flaw: Flaw) -> EditError:
    return EditError(f"{Where(file, flaw.line, flaw.column)}: {flaw.message}; mend the file first")


def editor(files: Mapping[str, bytes], file: str) -> Editor:
    """Open a file for editing."""
    try:
        return Editor(text_of(files, file))
    except FlawedError as error:
        raise _flawed(file, error.flaw) from None


def finished(file: str, edited: Editor) -> bytes | None:
    """Return the edited file's bytes, None when nothing is left in it."""
    try:
        text = edited.finish()
    except LayoutError as error:
        raise EditError(f"{Where(file)}: {error}") from None
    return text.encode("utf-8") if text.strip() else None


def unknown(checked: Checked) -> Diagnostic | None:
    """Return the problem of a file of which nobody knows what it says, None when there is none.

    It may hold the name or the address that an addition takes, and references that a removal has to name and take out.
    """
    return next((problem for problem in checked.diagnostics if problem.code in _UNKNOWN), None)


def new_errors(before: Checked, after: Checked) -> list[Diagnostic]:
    """Return the errors that were not there before, wherever the old ones have moved to."""
    known = Counter(_identity(problem) for problem in before.diagnostics)
    found = []
    for problem in after.diagnostics:
        if known[_identity(problem)] > 0:
            known[_identity(problem)] -= 1
        elif problem.is_error:
            found.append(problem)
    return found


def _identity(problem: Diagnostic) -> tuple[Any, ...]:
    return problem.where.file, problem.code, _PLACE.sub("", problem.message)


def diff(change: Change, root: str) -> list[str]:
    """Return the change as a unified diff for people: every line printable."""
    lines: list[str] = []
    for path, data in sorted(change.files.items()):
        old = change.before.get(path)
        shown = f"{root.rstrip('/')}/{path}"
        lines += difflib.unified_diff(
            (old or b"").decode("utf-8", "backslashreplace").splitlines(),
            (data or b"").decode("utf-8", "backslashreplace").splitlines(),
            "/dev/null" if old is None else shown,
            "/dev/null" if data is None else shown,
            lineterm="",
        )
    return [show_path(line) for line in lines]
