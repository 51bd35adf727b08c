"""One step: how the clients of an inventory that is right differ from those of the one that is kept.

The checks are those of `check`, with the changed clients alone before them; see `stepwise` for what is kept of
others.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tidegate_compiler.cache import Cache
from tidegate_compiler.check.addresses import addresses
from tidegate_compiler.check.policies import reaches
from tidegate_compiler.check.read import read
from tidegate_compiler.check.references import references
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.grants import Grant
from tidegate_compiler.load import Documents, QuickDocument, load
from tidegate_compiler.model import Client, ClientRow, Inventory, Lazily
from tidegate_compiler.stepwise.record import (
    REFERRED,
    TAKEN,
    Record,
    checksums,
    claims,
    name_sum,
    rows_of_files,
)

MOST_CHANGED = 1000  # clients
_MOST_BYTES = 4 << 20  # of files that are not what they were


@dataclass(frozen=True)
class Step:
    """The clients that differ: `before` the rows that are kept, `after` those of the other inventory.

    `clients` makes the objects that stand in the other one's files that may differ.
    """

    before: Mapping[str, ClientRow]
    after: Mapping[str, ClientRow]
    clients: Mapping[str, Client]

    @property
    def names(self) -> set[str]:
        """Return the names of all clients that differ."""
        return {*self.before, *self.after}

    @property
    def gateways(self) -> set[str]:
        """Return the gateways that some of them list, before or after."""
        return {gateway for rows in (self.before, self.after) for row in rows.values() for gateway in row[2]}


def differing(record: Record, digests: Mapping[str, str]) -> set[str] | None:
    """Return the files that differ from those that are kept; None when others than files of clients do."""
    paths = {
        path for path in record.files.keys() | digests.keys() if record.files.get(path) != digests.get(path)
    }
    return paths if all(path.startswith("clients/") for path in paths) else None


def step(
    cache: Cache,
    record: Record,
    content: Mapping[str, bytes],
    paths: Collection[str],
    around: Inventory,
) -> Step | None:
    """Return the step to the inventory with these files, if it is beyond doubt right; None says nothing.

    `paths` are all files that may differ from the ones that are kept, all of them clients'; `around` is
    everything but clients.
    """
    part = {path: content[path] for path in paths if path in content}
    if sum(map(len, part.values())) > _MOST_BYTES:
        return None
    old = rows_of_files(cache, "clients", [record.files[path] for path in paths if path in record.files])
    documents, flaws = load(part, cache=cache)
    if old is None or flaws or not all(isinstance(document, QuickDocument) for document in documents):
        return None
    made = _read(documents)
    if made is None:
        return None
    rows = made.client_rows
    names = [name for name in old.keys() | rows.keys() if old.get(name) != rows.get(name)]
    if len(names) > MOST_CHANGED:
        return None
    before = {name: old[name] for name in sorted(names) if name in old}
    after = {name: rows[name] for name in sorted(names) if name in rows}
    if not (
        _is_nobody_missed(cache, before.keys() - after.keys())
        and _are_apart(cache, before, after)
        and _are_right(replace(around, clients=Lazily(after, made.clients.__getitem__, {})))
    ):
        return None
    # A policy that names clients and groups might cover one for all clients by now, or no longer.
    total = record.clients + len(after) - len(before)
    if before.keys() != after.keys() and record.widest >= min(record.clients, total):
        return None
    return Step(before, after, made.clients)


def _read(documents: Documents) -> Inventory | None:
    problems: list[Diagnostic] = []
    made = read(documents, problems, set())
    return None if problems else made


def _is_nobody_missed(cache: Cache, gone: Collection[str]) -> bool:
    """Tell whether nothing refers to clients that are gone."""
    referred = checksums(cache, REFERRED)
    return referred is not None and not any(referred.count(name_sum(name)) for name in gone)


def _are_apart(cache: Cache, before: Mapping[str, ClientRow], after: Mapping[str, ClientRow]) -> bool:
    """Tell whether no client that is kept, but for those in `before`, has a name, key or address of one in `after`."""
    taken = checksums(cache, TAKEN)
    left = Counter(claims(before))
    return taken is not None and all(taken.count(claim) == left[claim] for claim in claims(after))


def _are_right(changed: Inventory) -> bool:
    """Tell whether clients are right among themselves, and with the gateways and the overlay."""
    alone = replace(changed, groups={}, resources={}, policies={})
    found: Any = (references(alone, frozenset()), addresses(alone, frozenset()))
    return not any(True for one in found for _ in one)


def are_warnings_alike(
    one: tuple[Inventory, tuple[Grant, ...]], other: tuple[Inventory, tuple[Grant, ...]]
) -> bool:
    """Tell whether no warning comes or goes between two inventories, given their parts with what changed.

    Of all warnings, those about what policies say depend on clients. Whether a policy reaches anything at all
    is a matter of each client by itself: where the parts say the same, the others, who did not change, leave
    it at that. Whether one policy covers another depends on the names that they select, and what comes or
    goes is selected as one of all clients alone, since nothing refers to it; `step` looks at those.
    """
    told = [[reaches(grant, inventory) for grant in grants] for inventory, grants in (one, other)]
    return told[0] == told[1]
