"""What is kept of an inventory that is right, for the next run to step from.

step inventory      JSON: the digests of its files, its warnings, what is said of its groups and policies
step taken          checksums of all clients' names, keys and addresses, sorted, 4 bytes each
step referred       checksums of all clients' names that a group, a policy or a test refers to
step of GATEWAYS    the rows of the clients with exactly this list of gateways
"""

from __future__ import annotations

import json
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any, cast
from zlib import crc32

from tidegate_compiler import cachedrows
from tidegate_compiler.cache import Cache
from tidegate_compiler.check.addresses import point
from tidegate_compiler.diagnostics import Diagnostic, Where
from tidegate_compiler.load import Documents, QuickDocument
from tidegate_compiler.model import ALL_CLIENTS, ClientRow, From, Inventory
from tidegate_compiler.resolve import Fleet

if TYPE_CHECKING:
    from tidegate_compiler.stepwise.parts import Part

INVENTORY, TAKEN, REFERRED, OF = "step inventory", "step taken", "step referred", "step of "
_MOST_LISTS = 4096
"""Of gateways: clients that have nearly each a list of its own would make as many entries."""


@dataclass(frozen=True)
class Record:
    """An inventory that is right, as far as the next run has to know it.

    `files` are SHA-256 by path. `groups` pairs each group's file and the number of its members. `reaching`
    names the policies that have a destination in a gateway's networks. `widest` is the most clients that a
    policy can select that does not name all of them.
    """

    files: Mapping[str, str]
    warnings: tuple[Diagnostic, ...]
    clients: int
    widest: int
    groups: Mapping[str, tuple[str, int]]
    reaching: Mapping[str, list[str]]


class Checksums:
    """A bag of values kept as checksums: it may say that it has a value that it does not have, never the reverse."""

    def __init__(self, values: Iterable[int]) -> None:
        self._sorted = array("I", sorted(values))

    @classmethod
    def read(cls, data: bytes) -> Checksums:
        """Return what `data` made bytes of."""
        made = cls(())
        made._sorted.frombytes(data)
        return made

    def count(self, value: int) -> int:
        """Return how many there are of one."""
        return bisect_right(self._sorted, value) - bisect_left(self._sorted, value)

    def change(self, gone: Iterable[int], new: Iterable[int]) -> None:
        """Leave out those that are gone, and take in new ones."""
        for value in gone:
            del self._sorted[bisect_left(self._sorted, value)]
        for value in new:
            self._sorted.insert(bisect_left(self._sorted, value), value)

    def data(self) -> bytes:
        """Return them as bytes."""
        return self._sorted.tobytes()


def claims(rows: Mapping[str, ClientRow]) -> Iterable[int]:
    """Return the checksums of what clients have each for itself: name, key in either spelling, and addresses."""
    keys = (key for key, _, _ in rows.values())
    addresses = chain.from_iterable(own for _, own, _ in rows.values())
    return chain(
        map(name_sum, rows),
        map(crc32, map(point, keys), repeat(1)),
        map(crc32, addresses, repeat(2)),
    )


def name_sum(name: str) -> int:
    """Return the checksum of a name."""
    return crc32(name.encode("ascii"))


def remember(
    cache: Cache,
    digests: Mapping[str, str],
    documents: Documents,
    fleet: Fleet,
    warnings: tuple[Diagnostic, ...],
) -> None:
    """Keep an inventory that was made from `documents` and is right, if all of its groups came as rows.

    `digests` are the SHA-256 of its files, by path.
    """
    inventory = fleet.inventory
    known = read(cache)
    if known is not None and known.files == digests:
        retain(cache)
        return
    sheets = [document for document in documents if document.kind == "groups"]
    if not all(isinstance(sheet, QuickDocument) for sheet in sheets):
        return
    by_list = _by_list(inventory)
    if len(by_list) > _MOST_LISTS:
        return
    groups = {
        name: (sheet.file, len(members))
        for sheet in sheets
        for name, (members, _, _) in cast(Any, sheet).content.items()
    }
    selections = [[at.value for at in policy.sources] for policy in inventory.policies.values()]
    limited = [one for one in selections if all(source.kind != ALL_CLIENTS for source in one)]
    record = Record(
        digests,
        warnings,
        len(inventory.client_rows),
        max(
            (sum(groups[one.name][1] if one.kind == "group" else 1 for one in of) for of in limited),
            default=0,
        ),
        groups,
        {name: fleet.reaching(name) for name in inventory.gateways},
    )
    cache.forget(filter(_is_ours, cache.there))
    referred = _referred(inventory, chain.from_iterable(selections))
    cache.put_all(
        {
            INVENTORY: _written(record),
            TAKEN: Checksums(claims(inventory.client_rows)).data(),
            REFERRED: Checksums(map(name_sum, referred)).data(),
            **_lists(by_list),
        }
    )


def entries(cache: Cache, record: Record, part: Part) -> dict[str, bytes]:
    """Return what is to be kept of the inventory that a part is of, where it differs from what is kept now."""
    taken = checksums(cache, TAKEN)
    assert taken is not None
    taken.change(claims(part.step.before), claims(part.step.after))
    after = replace(record, files=part.digests, clients=part.others + len(part.fleet.clients))
    return {TAKEN: taken.data(), INVENTORY: _written(after), **_lists(_by_list(part.fleet.inventory))}


def follow(cache: Cache, part: Part, entries: Mapping[str, bytes]) -> None:
    """Keep the inventory that a part is of, and `entries`, instead of the one that it has been made from."""
    lists = {key for key in cache.there if key.startswith(OF) and not part.gateways.isdisjoint(_list(key))}
    files = _of_files(part.digests)
    cache.use(cache.there)
    cache.forget({key for key in cache.there if key in lists or not (_is_ours(key) or key in files)})
    cache.put_all(entries)


def retain(cache: Cache) -> None:
    """Let what is kept stay as it is, for a later run to step from, unless this run has kept another inventory."""
    record = None if cache.is_new(INVENTORY) else read(cache)
    if record is not None:
        files = _of_files(record.files)
        cache.use(key for key in cache.there if _is_ours(key) or key in files)


def _is_ours(key: str) -> bool:
    return key.startswith("step ")


def _of_files(digests: Mapping[str, str]) -> set[str]:
    """Return the keys of these files' content."""
    return {f"{path.partition('/')[0]} {digest}" for path, digest in digests.items()}


def _by_list(inventory: Inventory) -> dict[tuple[str, ...], dict[str, ClientRow]]:
    found: dict[tuple[str, ...], dict[str, ClientRow]] = {}
    for name, row in inventory.client_rows.items():
        found.setdefault(row[2], {})[name] = row
    return found


def _lists(by_list: Mapping[tuple[str, ...], Mapping[str, ClientRow]]) -> dict[str, bytes]:
    return {OF + " ".join(gateways): cachedrows.encode("clients", rows) for gateways, rows in by_list.items()}


def _list(key: str) -> list[str]:
    return key.removeprefix(OF).split(" ")


def _referred(inventory: Inventory, sources: Iterable[From]) -> set[str]:
    every = [*sources, *(test.source.value for test in inventory.tests)]
    members = (members for members, _, _ in inventory.group_rows.values())
    return {one.name for one in every if one.kind == "client"}.union(*members)


def _written(record: Record) -> bytes:
    """Return the record as `read` finds it."""
    told = [
        record.files,
        [
            [one.where.file, one.where.line, one.where.column, one.code, one.message]
            for one in record.warnings
        ],
        record.clients,
        record.widest,
        record.groups,
        record.reaching,
    ]
    return json.dumps(told).encode("ascii")


def read(cache: Cache) -> Record | None:
    """Return what is kept, or None."""
    data = cache.get(INVENTORY)
    if data is None:
        return None
    files, warnings, clients, widest, groups, reaching = json.loads(data)
    told = tuple(Diagnostic(Where(*place), code, message) for *place, code, message in warnings)
    return Record(files, told, clients, widest, groups, reaching)


def checksums(cache: Cache, key: str) -> Checksums | None:
    """Return the checksums kept under a key, or None."""
    data = cache.get(key)
    return None if data is None else Checksums.read(data)


def clients_of(cache: Cache, gateways: Iterable[str]) -> dict[str, ClientRow] | None:
    """Return the rows of all clients that list some of these gateways; None when that cannot be told."""
    wanted = set(gateways)
    found: dict[str, ClientRow] = {}
    for key in cache.there:
        if key.startswith(OF) and not wanted.isdisjoint(_list(key)):
            data = cache.get(key)
            if data is None:
                return None
            with suppress(ValueError):
                found.update(cast(Mapping[str, ClientRow], cachedrows.decode("clients", data)))
                continue
            return None
    return found


def rows_of_files(cache: Cache, kind: str, digests: Iterable[str]) -> dict[str, Any] | None:
    """Return the rows of all these files of a kind; None when some are not known."""
    found: dict[str, Any] = {}
    for digest in digests:
        rows = cache.content(kind, digest)
        if rows is None:
            return None
        found.update(rows)
    return found
