"""A commit's author and message from what callers say, which is hostile: one line each, nothing that ends a header."""

from __future__ import annotations

from tidegate_control.inventory.model import Author

SUBJECT_MAX = 72
_LINE_MAX = 200
_BODY_LINES = 40
_NOBODY = ("unknown", "unknown@localhost")


def person(author: Author) -> tuple[str, str]:
    """Return name and email as git takes them: without controls, `<`, `>` and a fringe of what git strips itself."""
    return _clean(author.name) or _NOBODY[0], _clean(author.email).replace(" ", "") or _NOBODY[1]


def message(subject: str, body: str | None = None) -> str:
    """Return a commit message: a subject of 72 characters at most, and what the caller has to say about it."""
    told = [_line(subject, SUBJECT_MAX)]
    lines = [_line(line, _LINE_MAX) for line in (body or "").splitlines()[:_BODY_LINES]]
    while lines and not lines[-1]:
        lines.pop()
    # Indented, so that no line of theirs is taken for a trailer (git-interpret-trailers(1)).
    told += ["", *(f"    {line}" if line else "" for line in lines)] if lines else []
    return "\n".join(told) + "\n"


def _line(text: str, longest: int) -> str:
    shown = "".join(char if char.isprintable() else " " for char in text).strip()
    return shown if len(shown) <= longest else shown[: longest - 3] + "..."


def _clean(text: str) -> str:
    return "".join(char for char in text[:_LINE_MAX] if char.isprintable() and char not in "<>").strip(
        " .,:;\"'\\"
    )
