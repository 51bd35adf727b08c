"""Bytes to documents: text checked, YAML parsed, every position kept. First step after reading."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import TYPE_CHECKING, Any, TypeAlias

from tidegate_compiler import canonical, parallel, quick, sheets
from tidegate_compiler.diagnostics import Diagnostic, Where
from tidegate_compiler.files import OVERLAY_FILE
from tidegate_compiler.progress import track
from tidegate_compiler.yamltree import Node, parse

if TYPE_CHECKING:
    from tidegate_compiler.cache import Cache

# Controls but tab, newline and carriage return; the line breaks only some YAML versions know; bidi controls
# (https://trojansource.codes/), because a reviewer must see what the compiler reads; byte order mark.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff]"
    "|\r(?!\n)"
)
_VISIBLE = bytes(range(ord(" "), ord("~") + 1)) + b"\t\n"


@dataclass(frozen=True)
class Document:
    """One file of the inventory: its kind ("overlay" or a directory's name), path and content.

    `data` are the bytes of a flawless file, b"" of one with flaws: that is read anew for them every time.
    """

    kind: str
    file: str
    root: Node
    data: bytes = field(default=b"", repr=False, compare=False)


@dataclass(frozen=True)
class QuickDocument:
    """One file of the inventory, right beyond doubt and read the fast way: no place is known but its objects'.

    A file of clients or groups comes as rows.
    """

    kind: str
    file: str
    content: quick.Objects | sheets.Rows
    data: bytes

    @cached_property
    def places(self) -> dict[str, tuple[int, int]]:
        """Return the line and column of each object's name."""
        return quick.places(self.data.decode("utf-8"), self.content)

    def where(self, name: str) -> Where:
        """Return where an object's name stands."""
        return Where(self.file, *self.places[name])


Documents: TypeAlias = tuple[Document | QuickDocument, ...]


def load(
    files: Mapping[str, bytes],
    careful: Collection[str] = (),
    like: Documents = (),
    cache: Cache | None = None,
) -> tuple[Documents, list[Diagnostic]]:
    """Parse every file; the documents in order of their paths, and every problem. Never raises.

    The files that `careful` names are read with every position, whatever is in them. `like` are documents of another
    inventory: a file that is there with the same bytes is not parsed again, nor is one whose content is in `cache`.
    """
    kept = {
        d.file: d
        for d in like
        if d.data and d.data == files.get(d.file) and not (isinstance(d, QuickDocument) and d.file in careful)
    }
    known: dict[str, Any] = {}
    documents: list[Document | QuickDocument] = []
    problems: list[Diagnostic] = []
    quickly = [
        file for file in files if file not in careful and file not in kept and _kind(file) in quick.KINDS
    ]
    if cache is not None:
        digests = {file: sha256(files[file]).hexdigest() for file in quickly}
        kept_content = {file: cache.content(_kind(file), digest) for file, digest in digests.items()}
        known = {file: found for file, found in kept_content.items() if found is not None}
        quickly = [file for file in quickly if file not in known]
    parsed = parallel.each(
        lambda file: _quickly(file, files[file]), quickly, lambda file: len(files[file]), "loading"
    )
    contents = known | dict(zip(quickly, parsed, strict=True))
    if cache is not None:
        for file in quickly:
            if contents[file] is not None:
                cache.keep(_kind(file), digests[file], contents[file])
    for file, data in track("loading", sorted(files.items())):
        content = contents.get(file)
        if content is not None:
            documents.append(QuickDocument(_kind(file), file, content, data))
            continue
        if file in kept:
            documents.append(kept[file])
            continue
        text = _text(file, data, problems)
        if text is None:
            continue
        root, flaws = parse(text)
        problems.extend(Diagnostic(Where(file, f.line, f.column), f.code, f.message) for f in flaws)
        if root is None and not flaws:  # empty, or nothing but comments
            root = Node([] if _kind(file) == "tests" else {}, 1, 1)
        if root is not None:
            documents.append(Document(_kind(file), file, root, b"" if flaws else data))
    return tuple(documents), problems


def _kind(file: str) -> str:
    return "overlay" if file == OVERLAY_FILE else file.partition("/")[0]


def _quickly(file: str, data: bytes) -> Any:
    """Return a file's objects or rows, plain values through and through; None when it takes the careful reader."""
    kind, text = _kind(file), _text(file, data, [])
    if text is None:
        return None
    if kind not in sheets.KINDS:
        return quick.read(kind, text)
    rows = canonical.rows(kind, text)
    if rows is not None:
        return rows
    objects = quick.read(kind, text)
    return None if objects is None else sheets.read(kind, objects)


def _text(file: str, data: bytes, problems: list[Diagnostic]) -> str | None:
    if data.isascii() and not data.translate(None, _VISIBLE):
        return data.decode("ascii")  # as the expression below would find, in a tenth of its time
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        before = data[data.rfind(b"\n", 0, error.start) + 1 : error.start]
        column = len(before.decode("utf-8")) + 1  # in characters, as everywhere
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        problems.append(Diagnostic(Where(file, line, column), "TG003", message))
        return None
    hidden = _HIDDEN.search(text)
    if hidden is None:
        return text
    start = hidden.start()
    where = Where(file, text.count("\n", 0, start) + 1, start - (text.rfind("\n", 0, start) + 1) + 1)
    message = f"a hidden character (U+{ord(text[start]):04X}); remove it"
    problems.append(Diagnostic(where, "TG003", message))
    return None
