"""Both sides of a plan, as far as the change between them concerns them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from tidegate_compiler.cache import Cache
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.grants import grants
from tidegate_compiler.model import ClientRow
from tidegate_compiler.resolve import Fleet
from tidegate_compiler.stepwise import record as records
from tidegate_compiler.stepwise.part import Around, with_clients
from tidegate_compiler.stepwise.record import Record
from tidegate_compiler.stepwise.step import Step, are_warnings_alike, differing, step


@dataclass(frozen=True)
class Part:
    """A part of an inventory that is right; `others` is how many clients are left out of it.

    `digests` are the SHA-256 of the whole inventory's files, `warnings` are all that it has.
    """

    fleet: Fleet
    others: int
    digests: Mapping[str, str]
    warnings: tuple[Diagnostic, ...]


def digests(content: Mapping[str, bytes]) -> dict[str, str]:
    """Return the SHA-256 of each file."""
    return {file: sha256(data).hexdigest() for file, data in content.items()}


def both(cache: Cache, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> tuple[Part, Part] | None:
    """Return parts of two inventories that differ as the whole ones do; None when they cannot be told beyond doubt.

    Both are given as {path: bytes}. A plan of the parts is the plan of the whole.
    """
    record = records.read(cache)
    if record is None:
        return None
    mine = digests(old)
    theirs = {f: mine[f] if old.get(f) == data else sha256(data).hexdigest() for f, data in new.items()}
    moved = [differing(record, one) for one in (mine, theirs)]
    if moved[0] is None or moved[1] is None:
        return None
    paths = moved[0] | moved[1]
    around = Around(new)
    steps: list[Step] = []
    for content in (old, new):
        found = step(cache, record, content, paths, around.inventory)
        if found is None:
            return None
        steps.append(found)
    changed = steps[0].names | steps[1].names
    rows = [one for taken in steps for side in (taken.before, taken.after) for one in side.values()]
    gateways = {gateway for _, _, listed in rows for gateway in listed}
    kept = records.clients_of(cache, gateways)
    concerned = around.of(cache, record, gateways, len(changed))
    # Where everybody changes, a plan may say "all-clients"; a part must not look as if everybody did.
    if kept is None or concerned is None or (changed and kept.keys() <= changed):
        return None
    inventories = [with_clients(concerned, kept, {})] + [
        with_clients(concerned, _after(kept, one), one.clients) for one in steps
    ]
    every = [grants(one) for one in inventories]
    if not are_warnings_alike((inventories[0], every[0]), (inventories[2], every[2])):
        return None
    cache.leave()  # what is kept is as good for the next change
    first = Fleet(inventories[1], every[1])
    second = Fleet(inventories[2], every[2], first)
    left = record.clients - len(kept)
    return Part(first, left, mine, ()), Part(second, left, theirs, record.warnings)


def _after(kept: Mapping[str, ClientRow], one: Step) -> dict[str, ClientRow]:
    return {**{name: row for name, row in kept.items() if name not in one.before}, **one.after}
