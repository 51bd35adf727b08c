"""The plan's document as a pull-request comment: Markdown that stays within a size, and within its cells.

Every value stands in a code span and holds letters, digits and a few harmless signs alone; anything else is
written as an escape. There no host's Markdown sees a mention, a link, a tag, a table's border or a hidden letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tidegate_compiler.plan import report

MARKER = "<!-- tidegate-plan -->"
"""The comment's first line, hidden on the page: by it the comment of an earlier run is found and replaced."""
MAX_CHARS = 65536
_NOTE_CHARS = 160
_CELL_CHARS = 800
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._/:,;=+()~^\-]")
_Table = tuple[str, tuple[str, ...], Sequence[tuple[str, ...]]]


def markdown(document: dict[str, Any], notes: Iterable[str] = ()) -> str:
    """Return the comment, at most MAX_CHARS long; what did not fit is counted where it would have stood.

    `notes` are paragraphs under the totals, in Markdown. An entry of access that has a text under `recorded` shows it.
    """
    old, new = (code(document[side]["name"]) for side in ("old", "new"))
    head = [MARKER, "### Tidegate plan", "", f"{old} → {new}: **{report.summary(document)}**"]
    for limit in document["limits"]:
        head += ["", f"**Limit {code(limit['name'])} exceeded:** {code(limit['message'])}"]
    head += [line for note in notes for line in ("", note)]
    text = "\n".join(head) + "\n"
    tables = [table for table in _tables(document) if table[2]]
    left = MAX_CHARS - len(text) - _NOTE_CHARS
    for number, (title, titles, rows) in enumerate(tables):
        # What is left is shared so that one long table leaves every later one its head and its note.
        reserve = sum(_frame(title, titles) for title, titles, _ in tables[number + 1 :])
        table = _table(title, titles, rows, left - reserve)
        text += table
        left -= len(table)
    return text


def code(text: str) -> str:
    """Return a value as a code span; unsafe characters as \\xNN or \\uNNNN, and what is too long cut."""
    safe = _UNSAFE.sub(_escape, text.encode("utf-8", "backslashreplace").decode("utf-8")).strip()
    if len(safe) > _CELL_CHARS:
        safe = safe[: _CELL_CHARS - 3] + "..."
    return f"`{safe}`" if safe else "-"


def _escape(match: re.Match[str]) -> str:
    number = ord(match[0])
    if number < 0x100:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _frame(title: str, titles: Sequence[str]) -> int:
    return len(_head(title, titles, 10**9)) + _NOTE_CHARS


def _head(title: str, titles: Sequence[str], total: int) -> str:
    return f"\n#### {title} ({total})\n\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n"


def _table(title: str, titles: Sequence[str], rows: Sequence[tuple[str, ...]], room: int) -> str:
    text = _head(title, titles, len(rows))
    for shown, row in enumerate(rows):
        line = f"| {' | '.join(row)} |\n"
        if len(text) + len(line) + _NOTE_CHARS > room:
            told = f"**Cut here: {len(rows) - shown} of {len(rows)} rows are not shown;**"
            return f"{text}\n{told} `--format json` has all.\n"
        text += line
    return text


def _tables(document: dict[str, Any]) -> Iterator[_Table]:
    for kind, why in (("gained", "granted by"), ("lost", "taken by")):
        rows = document["access"][kind]
        more = ("recorded traffic",) if any("recorded" in one for one in rows) else ()
        titles = ("who", "to", "ports", "when", why, "for instance", *more)
        yield f"Access {kind}", titles, list(_access(kind, rows))
    yield "Hosts that reload", ("host", "change", "why"), list(_bundles(document["bundles"]))
    objects = list(_objects(document["objects"] or ()))
    yield "Objects changed", ("object", "change", "where", "fields"), objects


def _access(kind: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for one in rows:
        yield (
            code(report.who(one)),
            code(report.some(one["to"])),
            code(report.some(one["ports"])),
            code(report.when(one).removeprefix(", ") or "always"),
            code(report.cause(kind, one).removeprefix("granted by ").removeprefix("denied by ")),
            " ".join(code(report.witness_text(witness, "to")) for witness in one["witnesses"]),
            *([code(one["recorded"])] if "recorded" in one else ()),
        )


def _bundles(bundles: Iterable[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for bundle in bundles:
        parts = (
            f"{one['file']}: {report.some(one['parts'], '; ') or one['change']}" for one in bundle["files"]
        )
        yield code(f"{bundle['kind']} {bundle['host']}"), bundle["change"], " ".join(map(code, parts))


def _objects(objects: Iterable[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    for one in objects:
        fields = [f"{field['field']}: {report.field_text(field)}" for field in one["fields"]]
        more = [f"and {len(fields) - report.SHOWN} more fields"] if len(fields) > report.SHOWN else []
        yield (
            code(f"{one['kind']} {one['name']}"),
            one["change"] + (f" from {code(one['was'])}" if one["was"] else ""),
            code(f"{one['file']}:{one['line']}"),
            " ".join(map(code, fields[: report.SHOWN] + more)),
        )
