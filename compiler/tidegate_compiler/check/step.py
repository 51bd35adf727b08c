"""Whether an inventory without errors has none after a change of it, with no look at what cannot have changed.

Of a hundred thousand clients some hundred stand in one file. The errors that a change of clients, groups, policies or
tests can bring follow from the objects of the changed files, from the overlay, gateways and resources, and from the
names, keys and addresses of everybody else; what others say does not depend on what a client or a group says, only on
its being there. So the same functions look at those objects alone. Whatever is not right beyond doubt, and every change
of the overlay, a gateway or a resource, is left to the whole check, which says what is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar, cast

from tidegate_compiler.check import Reading
from tidegate_compiler.check.addresses import addresses, point
from tidegate_compiler.check.policies import policies
from tidegate_compiler.check.read import read
from tidegate_compiler.check.references import references
from tidegate_compiler.check.structure import structure
from tidegate_compiler.diagnostics import Diagnostic, has_errors
from tidegate_compiler.load import Document, Documents, QuickDocument
from tidegate_compiler.model import ClientRow, GroupRow, Inventory, Lazily, Resource

T = TypeVar("T")
_ROWS = ("clients", "groups")
_KINDS = (*_ROWS, "policies", "tests")
_NOTHING: frozenset[str] = frozenset()
_NO_CLIENT: ClientRow = (b"", (), ())
_NO_GROUP: GroupRow = ((), {}, {})


def is_right(known: Inventory, before: Documents, after: Documents) -> bool:
    """Tell whether `after` is beyond doubt without errors; False says nothing.

    `before` has none, and its overlay, gateways and resources are those of `known`; both were loaded without a problem.
    """
    old, new = ({document.file: document for document in documents} for documents in (before, after))
    changed = {file for file in old.keys() | new.keys() if not _is_same(old.get(file), new.get(file))}
    ours = [document for file, document in new.items() if file in changed]
    others = [document for file, document in new.items() if file not in changed]
    theirs = [old[file] for file in changed if file in old]
    rows = [document for document in (*others, *ours, *theirs) if document.kind in _ROWS]
    if not all(document.kind in _KINDS for document in (*ours, *theirs)):
        return False
    if not all(isinstance(document, QuickDocument) for document in rows):
        return False
    problems: list[Diagnostic] = []
    if any(one for document in ours if isinstance(document, Document) for one in structure(document)):
        return False
    made = read(tuple(ours), problems, set())
    part = replace(made, overlay=known.overlay, gateways=known.gateways, resources=known.resources)
    if problems or not _are_apart(part, ours, others):
        return False
    gone = {(d.kind, name) for d in theirs if d.kind in _ROWS for name in _content(d)}
    if not gone <= {
        (d.kind, name) for d in ours for name in _content(d)
    }:  # somebody may refer to one that is gone
        return False
    return _has_no_error(part, _with_neighbours(part, others), {})


def is_as_right(reading: Reading, known: Inventory, theirs: Documents) -> bool:
    """Tell whether what was read is beyond doubt without errors, as `known` is; False says nothing.

    `theirs` are the documents of `known`, among them those of the reading that have the same bytes. Both were loaded
    without a problem. Objects that say something else are looked at, policies of such a resource, and tests.
    """
    own = reading.inventory
    if reading.problems or (own.overlay, own.gateways) != (known.overlay, known.gateways):
        return False
    same = set(map(id, theirs))
    careful = (d for d in reading.documents if isinstance(d, Document) and id(d) not in same)
    if any(one for document in careful for one in structure(document)):
        return False
    clients = _differing(own.client_rows, known.client_rows)
    groups = _differing(own.group_rows, known.group_rows)
    resources = _differing(own.resources, known.resources)
    changed = {
        name: policy
        for name, policy in own.policies.items()
        if known.policies.get(name) != policy
        or not resources.keys().isdisjoint([to.value.resource for to in policy.destinations])
    }
    # Whatever only the other one has, anybody may refer to here.
    if not own.client_rows.keys() >= known.client_rows.keys():
        groups, changed = dict(own.group_rows), dict(own.policies)
    elif not own.groups.keys() >= known.groups.keys() or not own.resources.keys() >= known.resources.keys():
        changed = dict(own.policies)
    if not _is_apart(clients.values(), [row for name, row in own.client_rows.items() if name not in clients]):
        return False
    part = replace(
        own,
        clients=Lazily(clients, own.clients.__getitem__, {}),
        groups=Lazily(groups, own.groups.__getitem__, {}),
        policies=changed,
    )
    return _has_no_error(part, _with_names(part, own.client_rows, own.group_rows), resources)


def _differing(own: Mapping[str, T], others: Mapping[str, T]) -> dict[str, T]:
    return {name: one for name, one in own.items() if others.get(name) != one}


def _has_no_error(part: Inventory, around: Inventory, resources: Mapping[str, Resource]) -> bool:
    """Tell whether a part of an inventory is without errors, of its resources these.

    `around` is the same part with the names of all others.
    """
    return not has_errors(
        chain(
            references(around, _NOTHING),
            policies(part),
            addresses(replace(part, resources=resources), _NOTHING),
        )
    )


def _is_same(old: Document | QuickDocument | None, new: Document | QuickDocument | None) -> bool:
    if old is None or new is None or type(old) is not type(new):
        return False
    return old is new or (bool(old.data) and old.data == new.data)


def _content(document: Document | QuickDocument) -> Mapping[str, Any]:
    """Return a file's objects by name, whatever stands for each; of tests none, which have no names."""
    if isinstance(document, QuickDocument):
        return document.content
    return document.root.value if isinstance(document.root.value, dict) else {}


def _are_apart(
    part: Inventory, ours: Iterable[Document | QuickDocument], others: Iterable[Document | QuickDocument]
) -> bool:
    """Tell whether no other object has a name, key (in either spelling, see `point`) or address of these."""
    names: dict[str, set[str]] = {}
    for document in ours:
        names.setdefault(document.kind, set()).update(_content(document))
    for document in others:
        if document.kind in names and not names[document.kind].isdisjoint(_content(document)):
            return False
    rows = (_content(document).values() for document in others if document.kind == "clients")
    return _is_apart(part.client_rows.values(), cast(list[ClientRow], list(chain.from_iterable(rows))))


def _is_apart(ours: Collection[ClientRow], others: Iterable[ClientRow]) -> bool:
    """Tell whether none of these clients has a key (in either spelling, see `point`) or address of the others."""
    if not ours:
        return True
    points = {point(key) for key, _, _ in ours}
    keys = points | {key[:-1] + bytes([key[-1] | 0x80]) for key in points}
    taken = {address for _, own, _ in ours for address in own}
    return keys.isdisjoint([key for key, _, _ in others]) and taken.isdisjoint(
        [address for _, own, _ in others for address in own]
    )


def _with_neighbours(part: Inventory, documents: Iterable[Document | QuickDocument]) -> Inventory:
    """Return an inventory in which those others are there that these refer to, as names without anything to say."""
    names: dict[str, set[str]] = {kind: set() for kind in _ROWS}
    for document in documents:
        if document.kind in _ROWS:
            names[document.kind].update(_content(document))
    sources = [at.value for policy in part.policies.values() for at in policy.sources]
    sources += [test.source.value for test in part.tests]
    members = {member for own, _, _ in part.group_rows.values() for member in own}
    clients = (members | {one.name for one in sources if one.kind == "client"}) & names["clients"]
    groups = {one.name for one in sources if one.kind == "group"} & names["groups"]
    return _with_names(part, clients, groups)


def _with_names(part: Inventory, clients: Iterable[str], groups: Iterable[str]) -> Inventory:
    """Return an inventory in which clients and groups of these names are there, too, without anything to say."""
    return replace(
        part,
        clients=Lazily(
            {**dict.fromkeys(clients, _NO_CLIENT), **part.client_rows}, part.clients.__getitem__, {}
        ),
        groups=Lazily({**dict.fromkeys(groups, _NO_GROUP), **part.group_rows}, part.groups.__getitem__, {}),
    )
