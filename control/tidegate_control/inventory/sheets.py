"""The objects of one file, made when somebody asks for one; a file with the same bytes is read once for all commits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from tidegate_compiler import quick
from tidegate_compiler.diagnostics import Where
from tidegate_compiler.edit.survey import KINDS as FOLDERS
from tidegate_compiler.load import Document, QuickDocument
from tidegate_compiler.yamltree import Node, plain
from tidegate_control.inventory.model import OVERLAY, Fields, Object
from tidegate_control.inventory.secrets import hidden
from tidegate_schema.keys import client_id, parse_public_key

_KIND_OF = {folder: kind for kind, folder in FOLDERS.items()} | {OVERLAY: OVERLAY}
_ROWS = ("client", "group")
_TEST_NAME_BYTES = 8


class Sheet:
    """One file's objects by name, in the order of the file."""

    def __init__(self, document: Document | QuickDocument) -> None:
        self.kind = _KIND_OF[document.kind]
        self.file = document.file
        self._document = document

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Return the names of its objects; of tests, see `test_name`."""
        if self.kind == "test":
            return tuple(self._tests)
        document = self._document
        if isinstance(document, QuickDocument):
            return tuple(document.content)
        return tuple(document.root.value) if isinstance(document.root.value, dict) else ()

    def read(self, name: str) -> Object:
        """Return an object; KeyError when there is none of that name."""
        fields, line = self._tests[name] if self.kind == "test" else self._named(name)
        return Object(
            self.kind, name, hidden(fields), self.file, line, _id(fields) if self.kind == "client" else None
        )

    def where(self, name: str) -> Where:
        """Return where an object's name stands, or a test; KeyError."""
        document = self._document
        if self.kind == "test":
            return Where(self.file, self._tests[name][1])
        if isinstance(document, QuickDocument):
            return Where(self.file, *document.places[name])
        assert isinstance(document.root.value, dict)
        member = document.root.value[name]
        return Where(self.file, member.line, member.column)

    def index(self, name: str) -> int:
        """Return a test's position in the file, from 0."""
        return list(self._tests).index(name)

    def _named(self, name: str) -> tuple[Fields, int]:
        document = self._document
        if isinstance(document, QuickDocument):
            return dict(self._written[name]), document.places[name][0]
        assert isinstance(document.root.value, dict)
        member = document.root.value[name]
        return _fields(member.node), member.line

    @cached_property
    def _written(self) -> Mapping[str, Mapping[str, Any]]:
        """Return every object as it is written: of clients and groups the document has but rows."""
        document = self._document
        assert isinstance(document, QuickDocument)
        if self.kind not in _ROWS:
            return document.content  # type: ignore[return-value]
        found = quick.read(document.kind, document.data.decode("utf-8"))
        assert found is not None
        return found

    @cached_property
    def _tests(self) -> dict[str, tuple[Fields, int]]:
        assert isinstance(self._document, Document)
        root = self._document.root.value
        entries = [(_fields(node), node.line) for node in root] if isinstance(root, list) else []
        return dict(_numbered(self.file, entries))


def _numbered(file: str, entries: list[tuple[Fields, int]]) -> Iterator[tuple[str, tuple[Fields, int]]]:
    seen: dict[str, int] = {}
    for fields, line in entries:
        name = test_name(file, fields)
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}-{seen[name]}", (fields, line)


def test_name(file: str, fields: Fields) -> str:
    """Return an access test's name: 16 hex digits that follow from its file and what it says, wherever it stands there.

    A second test of the file that says the same has `-2` behind it, and so on.
    """
    told = json.dumps([file, fields], sort_keys=True, separators=(",", ":"))
    return hashlib.blake2s(told.encode(), digest_size=_TEST_NAME_BYTES).hexdigest()


def _fields(node: Node) -> Fields:
    found = plain(node)
    return found if isinstance(found, dict) else {}


def _id(fields: Fields) -> str | None:
    try:
        return client_id(parse_public_key(fields["public_key"]))
    except (KeyError, ValueError, TypeError, AttributeError):
        return None
