"""Documents to model: every field through its reader, every failure a diagnostic, names unique.

Reading goes on after a failure. A list loses the entries that could not be read; a single value becomes
neutral; the object remembers both in `broken`, so that later checks do not blame what is merely missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypeVar

from tidegate_compiler import fields, sheets
from tidegate_compiler.diagnostics import Diagnostic, Rough, Where, show, show_refused
from tidegate_compiler.files import KINDS, OVERLAY_FILE
from tidegate_compiler.load import Document, Documents, QuickDocument
from tidegate_compiler.model import (
    AccessTest,
    At,
    Client,
    Gateway,
    Group,
    Inventory,
    Lazily,
    Overlay,
    Policy,
    Resource,
)
from tidegate_compiler.yamltree import Member, Node

T = TypeVar("T")
DEFAULT_FLEET = "default"


@dataclass(frozen=True)
class _Object:
    """An object's fields while they are read; `problems` is the run's list, `broken` this object's."""

    file: str
    where: Where
    members: Mapping[str, Member]
    problems: list[Diagnostic]
    broken: set[str] = field(default_factory=set)

    def one(self, name: str, reader: Callable[[str], T]) -> At[T] | None:
        """Read a single value; None when it is absent or broken."""
        member = self.members.get(name)
        if member is None:
            return None
        found = self._value(name, member.node, reader)
        if found is None:
            self.broken.add(name)
        return found

    def required(self, name: str, reader: Callable[[str], T], neutral: T) -> At[T]:
        """Read a single value that must be there; the neutral value when it is absent or broken."""
        found = self.one(name, reader)
        if found is None:
            self.broken.add(name)
        return found or At(neutral, self.where)

    def many(self, name: str, reader: Callable[[str], T]) -> tuple[At[T], ...]:
        """Read a list; entries that are broken are left out."""
        member = self.members.get(name)
        if member is None or not isinstance(member.node.value, list) or not member.node.value:
            self.broken.add(name)
            return ()
        found = []
        seen = set()
        for node in member.node.value:
            entry = self._value(name, node, reader)
            if entry is None:
                self.broken.add(name)
            elif node.value not in seen:  # written twice: the schema has said so
                found.append(entry)
                seen.add(node.value)
        return tuple(found)

    def mapping(self, name: str, reader: Callable[[str], T]) -> dict[str, At[T]]:
        """Read a mapping from member to value; `where` of each is its key's place."""
        member = self.members.get(name)
        if member is None or not isinstance(member.node.value, dict):
            return {}
        found = {}
        for key, entry in member.node.value.items():
            value = self._value(f"{name} of {key}", entry.node, reader)
            if value is None:
                self.broken.add(name)
            else:
                found[key] = At(value.value, Where(self.file, entry.line, entry.column))
        return found

    def _value(self, name: str, node: Node, reader: Callable[[str], T]) -> At[T] | None:
        if not isinstance(node.value, str):
            return None  # of another type: the schema has said so
        where = Where(self.file, node.line, node.column)
        try:
            return At(reader(node.value), where)
        except fields.FieldError as error:
            label = name if name.isascii() and name.isprintable() else show(name)
            told = show_refused(error.code, node.value)
            self.problems.append(Diagnostic(where, error.code, f"{label} {told}: {error}"))
            return None


@dataclass(frozen=True)
class _Quick:
    """The same for an object that its schema accepts and that stands in a file read the fast way."""

    where: Where
    rough: Rough
    members: Mapping[str, Any]
    problems: list[Diagnostic]
    broken: set[str] = field(default_factory=set)

    def one(self, name: str, reader: Callable[[str], T]) -> At[T] | None:
        return self._value(name, self.members[name], reader) if name in self.members else None

    def required(self, name: str, reader: Callable[[str], T], neutral: T) -> At[T]:
        return self.one(name, reader) or At(neutral, self.where)

    def many(self, name: str, reader: Callable[[str], T]) -> tuple[At[T], ...]:
        found = [self._value(name, text, reader) for text in self.members[name]]
        return tuple(entry for entry in found if entry is not None)

    def mapping(self, name: str, reader: Callable[[str], T]) -> dict[str, At[T]]:
        found = {key: self._value(name, text, reader) for key, text in self.members.get(name, {}).items()}
        return {key: value for key, value in found.items() if value is not None}

    def _value(self, name: str, text: str, reader: Callable[[str], T]) -> At[T] | None:
        try:
            return At(reader(text), self.rough)
        except fields.FieldError as error:
            self.broken.add(name)
            # Only a mark that there is something: the careful reader says what.
            self.problems.append(Diagnostic(self.rough, error.code, ""))
            return None


@dataclass(frozen=True)
class Like:
    """Another inventory in which `read` found no problem, and the documents that it was read from."""

    inventory: Inventory
    documents: Documents


def read(
    documents: Documents, problems: list[Diagnostic], told: set[str], like: Like | None = None
) -> Inventory:
    """Return the model, complete or not; what could not be read is appended to `problems`.

    `told` learns of every file read the fast way whose places had to be told; see `Rough`. A gateway, resource or
    policy that says the same in the same place in `like` is the very same object, so both readings have one `told`.
    """
    by_kind = {kind: _Kind(kind, problems, told, like) for kind in KINDS if kind != "tests"}
    for document in documents:
        if document.kind in by_kind:
            by_kind[document.kind].add(document)
    return Inventory(
        overlay=_overlay(documents, problems, told),
        **{kind: gathered.objects() for kind, gathered in by_kind.items()},
        tests=tuple(_tests(documents, problems)),
        has_policy=any(document.kind == "policies" for document in documents),
    )


class _Kind:
    """The objects of one kind, from all of its documents; the first of a name counts."""

    def __init__(self, kind: str, problems: list[Diagnostic], told: set[str], like: Like | None) -> None:
        self._kind = kind
        self._problems = problems
        self._told = told
        self._like: Mapping[str, Any] = {}
        self._like_documents: Mapping[str, QuickDocument] = {}
        if like is not None and kind not in sheets.KINDS:
            self._like = getattr(like.inventory, kind)
            self._like_documents = {
                d.file: d for d in like.documents if d.kind == kind and isinstance(d, QuickDocument)
            }
        self._made: dict[str, Any] = {}
        self._rows: dict[str, Any] = {}
        self._sheets: list[QuickDocument] = []

    def add(self, document: Document | QuickDocument) -> None:
        if isinstance(document, QuickDocument) and self._kind in sheets.KINDS:
            self._add_rows(document)
            return
        for name, item in _objects(document, self._problems, self._told):
            # Also one that does not count, for the problems inside it.
            made = self._same(name, item) or _READERS[self._kind](name, item)
            if self._is_new(name, item.where):
                self._made[name] = made
                self._rows[name] = made.row if self._kind in sheets.KINDS else None

    def _same(self, name: str, item: _Object | _Quick) -> Any:
        """Return the object of the other inventory that stands where this one does and says the same, or None."""
        known = self._like.get(name)
        if known is None or not isinstance(item, _Quick) or known.where != item.where:
            return None
        other = self._like_documents.get(item.where.file)
        return known if other is not None and other.content[name] == item.members else None

    def _add_rows(self, document: QuickDocument) -> None:
        self._sheets.append(document)
        rows: Mapping[str, Any] = document.content
        if not self._rows.keys().isdisjoint(rows):
            rows = {name: row for name, row in rows.items() if self._is_new(name, document.where(name))}
        self._rows.update(rows)

    def _is_new(self, name: str, where: Where) -> bool:
        if name not in self._rows:
            return True
        if name in self._made:
            first = self._made[name].where
        else:
            first = next(sheet for sheet in self._sheets if name in sheet.content).where(name)
        message = f"{show(name)} is already in {first}; names are unique within {self._kind}"
        self._problems.append(Diagnostic(where, "TG018", message))
        return False

    @cached_property
    def _sheet_of(self) -> dict[str, QuickDocument]:
        """Return where each name's row stands; asked for only when all documents are added."""
        found: dict[str, QuickDocument] = {}
        for sheet in reversed(self._sheets):
            found.update(dict.fromkeys(sheet.content, sheet))
        return found

    def objects(self) -> Mapping[str, Any]:
        """Return them by name, in order of name."""
        if self._kind not in sheets.KINDS:
            return dict(sorted(self._made.items()))
        rows = {name: self._rows[name] for name in sorted(self._rows)}
        return Lazily(rows, self._make, self._made, self._place)

    def _place(self, name: str) -> Where:
        made = self._made.get(name)
        return self._sheet_of[name].where(name) if made is None else made.where

    def _make(self, name: str) -> Any:
        where = self._place(name)
        return sheets.MAKERS[self._kind](name, self._rows[name], where, Rough.of(where, self._told))


def _objects(
    document: Document | QuickDocument, problems: list[Diagnostic], told: set[str]
) -> Iterator[tuple[str, _Object | _Quick]]:
    if isinstance(document, QuickDocument):
        objects: Mapping[str, Any] = document.content
        for name, values in objects.items():
            where = document.where(name)
            yield name, _Quick(where, Rough.of(where, told), values, problems)
    elif isinstance(document.root.value, dict):
        for name, member in document.root.value.items():
            where = Where(document.file, member.line, member.column)
            members = member.node.value if isinstance(member.node.value, dict) else {}
            yield name, _Object(document.file, where, members, problems)


def _overlay(documents: Documents, problems: list[Diagnostic], told: set[str]) -> Overlay:
    document = next((d for d in documents if d.kind == "overlay"), None)
    for name, item in _objects(document, problems, told) if document else ():
        if name == "overlay":
            fleet = item.one("fleet", fields.name)
            return Overlay(fleet.value if fleet else DEFAULT_FLEET, item.many("prefixes", fields.network))
    return Overlay(DEFAULT_FLEET, ())


def _gateway(name: str, item: _Object | _Quick) -> Gateway:
    return Gateway(
        name,
        item.where,
        item.required("public_key", fields.public_key, b""),
        item.one("endpoint", fields.endpoint),
        item.many("networks", fields.network),
        frozenset(item.broken),
    )


def _client(name: str, item: _Object | _Quick) -> Client:
    return Client(
        name,
        item.where,
        item.required("public_key", fields.public_key, b""),
        item.many("addresses", fields.host),
        item.many("gateways", fields.name),
        frozenset(item.broken),
    )


def _group(name: str, item: _Object | _Quick) -> Group:
    return Group(
        name,
        item.where,
        item.many("members", fields.member),
        item.mapping("not_before", fields.instant),
        item.mapping("expires", fields.instant),
        frozenset(item.broken),
    )


def _resource(name: str, item: _Object | _Quick) -> Resource:
    return Resource(
        name,
        item.where,
        item.many("addresses", fields.network),
        item.many("ports", fields.ports) if "ports" in item.members else None,
        frozenset(item.broken),
    )


def _policy(name: str, item: _Object | _Quick) -> Policy:
    return Policy(
        name,
        item.where,
        item.required("action", _action, "allow").value,
        item.many("from", fields.source),
        item.many("to", fields.destination),
        item.many("ports", fields.ports) if "ports" in item.members else None,
        item.one("not_before", fields.instant),
        item.one("expires", fields.instant),
        frozenset(item.broken),
    )


def _action(text: str) -> str:
    return text if text == "deny" else "allow"  # the schema has refused anything else


_READERS: Mapping[str, Callable[[str, _Object | _Quick], Any]] = {
    "gateways": _gateway,
    "clients": _client,
    "groups": _group,
    "resources": _resource,
    "policies": _policy,
}


def _tests(documents: Documents, problems: list[Diagnostic]) -> Iterator[AccessTest]:
    for document in documents:
        if (
            isinstance(document, QuickDocument)
            or document.kind != "tests"
            or not isinstance(document.root.value, list)
        ):
            continue
        for node in document.root.value:
            if not isinstance(node.value, dict):
                continue
            where = Where(document.file, node.line, node.column)
            item = _Object(document.file, where, node.value, problems)
            source = item.one("from", fields.test_source)
            to = item.one("to", fields.test_destination)
            port = item.one("port", fields.one_port)
            expect = item.one("expect", _action)
            at = item.one("at", fields.instant)
            if source and to and port and expect and not item.broken:
                yield AccessTest(where, source, to, port.value, expect.value, at.value if at else None)


def missing_overlay(documents: Documents, files: Mapping[str, bytes]) -> list[Diagnostic]:
    """Return the problem of an inventory without overlay.yaml; one that cannot be parsed is not missing."""
    if OVERLAY_FILE in files or any(document.kind == "overlay" for document in documents):
        return []
    message = "there is no overlay.yaml; write 'overlay: {prefixes: [10.64.0.0/16]}' into it"
    return [Diagnostic(Where(OVERLAY_FILE), "TG010", message)]
