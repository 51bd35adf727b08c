"""Whether an inventory without errors has none after a change of clients, with no look at what cannot have changed.

Of a hundred thousand clients some hundred stand in one file. What the check of an inventory says of an error there
follows from that file's clients, the overlay and the gateways, and from the names, keys and addresses of all other
clients; nothing else depends on what a client says, only on its being there. So the same functions look at those
clients alone. Whatever is not right beyond doubt is left to the whole check, which says what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import cast

from tidegate_compiler.check.addresses import addresses, point
from tidegate_compiler.check.read import read
from tidegate_compiler.check.references import references
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.load import Document, Documents, QuickDocument
from tidegate_compiler.model import ClientRow, Inventory

_KIND = "clients"


def is_right(known: Inventory, before: Documents, after: Documents) -> bool:
    """Tell whether `after` is beyond doubt without errors; False says nothing.

    `before` has none, and its overlay and gateways are those of `known`.
    """
    old, new = ({document.file: document for document in documents} for documents in (before, after))
    changed = [file for file in old.keys() | new.keys() if not _is_same(old.get(file), new.get(file))]
    ours = [document for file, document in new.items() if file in changed]
    others = [document for file, document in new.items() if file not in changed and document.kind == _KIND]
    theirs = [old[file] for file in changed if file in old]
    if not all(d.kind == _KIND and isinstance(d, QuickDocument) for d in (*others, *ours, *theirs)):
        return False
    problems: list[Diagnostic] = []
    told: set[str] = set()
    part = replace(read(tuple(ours), problems, told), overlay=known.overlay, gateways=known.gateways)
    gone = {name for document in theirs for name in _rows(document)} - part.client_rows.keys()
    if problems or gone:  # somebody may refer to one that is gone
        return False
    if not _are_apart(part, others):
        return False
    nothing: frozenset[str] = frozenset()
    return not any(True for found in (references(part, nothing), addresses(part, nothing)) for _ in found)


def _is_same(old: Document | QuickDocument | None, new: Document | QuickDocument | None) -> bool:
    if old is None or new is None or type(old) is not type(new):
        return False
    return old is new or (bool(old.data) and old.data == new.data)


def _rows(document: Document | QuickDocument) -> Mapping[str, ClientRow]:
    assert isinstance(document, QuickDocument)
    return cast(Mapping[str, ClientRow], document.content)


def _are_apart(part: Inventory, others: Iterable[Document | QuickDocument]) -> bool:
    """Tell whether no other client has a name, key (in either spelling, see `point`) or address of these."""
    names = part.client_rows.keys()
    points = {point(key) for key, _, _ in part.client_rows.values()}
    keys = points | {key[:-1] + bytes([key[-1] | 0x80]) for key in points}
    taken = {address for _, own, _ in part.client_rows.values() for address in own}
    for rows in map(_rows, others):
        if not names.isdisjoint(rows) or not keys.isdisjoint([key for key, _, _ in rows.values()]):
            return False
        if not taken.isdisjoint([address for _, own, _ in rows.values() for address in own]):
            return False
    return True
