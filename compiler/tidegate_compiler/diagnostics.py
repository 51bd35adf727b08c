"""A diagnostic: a coded problem at a place in a file, told in one line that is safe to print anywhere.

What the inventory's author wrote is hostile until shown: `show` escapes everything outside printable ASCII
and cuts long values, so that no escape sequence, bidi control or lookalike letter reaches a terminal.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.codes import CODES, ERROR

LONGEST_SHOWN = 60
BAD_KEY, KEY_SHOWN = "TG020", 6
# CI services read commands anywhere in a line of a log: ##[add-mask]x (GitHub), ##vso[task.setvariable]x (Azure).
LOG_COMMAND = re.compile(r"##(?=[A-Za-z]*\[)")


@dataclass(frozen=True, order=True)
class Where:
    """A place in the inventory: path relative to it with '/' between, line and column from 1."""

    file: str
    line: int = 1
    column: int = 1

    def __str__(self) -> str:
        """Return `file:line:column`, printable."""
        return f"{show_path(self.file)}:{self.line}:{self.column}"


class Rough(Where):
    """The place of an object, standing for that of a value in it; `told` learns the files of those that are printed.

    The fast path of loading knows no better. Whoever needs the value's own place reads the file again, carefully.
    """

    told: set[str]

    @classmethod
    def of(cls, where: Where, told: set[str]) -> Rough:
        """Return the rough place of every value of the object at `where`."""
        place = cls(where.file, where.line, where.column)
        object.__setattr__(place, "told", told)
        return place

    def __str__(self) -> str:
        """Return `file:line:column` of the object, and remember that somebody asked."""
        self.told.add(self.file)
        return super().__str__()


@dataclass(frozen=True, order=True)
class Diagnostic:
    """One problem; sorts by place. `message` is one line and says how to mend it."""

    where: Where
    code: str
    message: str

    @property
    def severity(self) -> str:
        """Return "error" or "warning"."""
        return CODES[self.code].severity

    @property
    def is_error(self) -> bool:
        """Tell whether it stops a compile."""
        return self.severity == ERROR


def has_errors(diagnostics: Iterable[Diagnostic], strict: bool = False) -> bool:
    """Tell whether any of them fails the run; in strict mode warnings do too."""
    return any(strict or diagnostic.is_error for diagnostic in diagnostics)


def show(value: Any) -> str:
    """Return a value as quoted, printable ASCII of bounded length."""
    if isinstance(value, str):
        return harmless(ascii(value[:LONGEST_SHOWN])) + ("..." if len(value) > LONGEST_SHOWN else "")
    if value is None or isinstance(value, bool | int | float):
        text = "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
        return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."
    return "a mapping" if isinstance(value, dict) else "a list"


def show_refused(code: str, text: str) -> str:
    """Return a value that was refused, as `show` does. Of a bad key only the beginning: it may be a private one,
    and reports end up in logs.
    """
    return show(text[:KEY_SHOWN] if code == BAD_KEY else text)


def show_path(path: str) -> str:
    """Return a file's path printable: letters of any script stay, controls and undecodable bytes do not."""
    return harmless(
        "".join(
            char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in path
        )
    )


def harmless(text: str) -> str:
    """Return a text in which no CI service finds a command for itself."""
    return LOG_COMMAND.sub(r"#\\x23", text)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x'?" for the nearest known word, or nothing."""
    import difflib  # only where something is wrong

    names = sorted(known)
    close = difflib.get_close_matches(word[:LONGEST_SHOWN], names, n=1, cutoff=0.6) or [
        name for name in names if len(word) > 1 and name.startswith(word)
    ]
    return f"; did you mean {show(close[0])}?" if close else ""
