"""The parts of inventories that a change of clients concerns: of both sides of a plan, or of one that is compiled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from tidegate_compiler import files
from tidegate_compiler.cache import Cache
from tidegate_compiler.diagnostics import Diagnostic
from tidegate_compiler.grants import Grant, grants
from tidegate_compiler.model import ClientRow, Inventory
from tidegate_compiler.resolve import Fleet
from tidegate_compiler.stepwise import record as records
from tidegate_compiler.stepwise.part import Around, with_clients
from tidegate_compiler.stepwise.record import Record
from tidegate_compiler.stepwise.step import Step, are_warnings_alike, differing, step


@dataclass(frozen=True)
class Part:
    """A part of an inventory that is right; `others` is how many clients are left out of it.

    `step` leads to it from the inventory that is kept, `digests` are the SHA-256 of all files of the
    inventory, `warnings` are all that it has, and `gateways` are those that the step concerns.
    """

    fleet: Fleet
    others: int
    step: Step
    digests: Mapping[str, str]
    warnings: tuple[Diagnostic, ...]
    gateways: frozenset[str]


def both(cache: Cache, old: Mapping[str, bytes], new: Mapping[str, bytes]) -> tuple[Part, Part] | None:
    """Return parts of two inventories that differ as the whole ones do; None where that is not beyond doubt.

    Both are given as {path: bytes}. A plan of the parts is the plan of the whole.
    """
    record = records.read(cache)
    if record is None:
        return None
    mine = files.digests(old)
    theirs = {f: mine[f] if old.get(f) == data else sha256(data).hexdigest() for f, data in new.items()}
    parts = _parts(cache, record, [(old, mine), (new, theirs)])
    if parts is None:
        return None
    cache.leave()  # what is kept is as good for the next change
    return parts[0], parts[1]


def one(cache: Cache, record: Record, content: Mapping[str, bytes]) -> Part | None:
    """Return the part of an inventory that a change since the one that is kept concerns; None as `both` does."""
    parts = _parts(cache, record, [(content, files.digests(content))])
    return None if parts is None else parts[0]


def _parts(
    cache: Cache, record: Record, inventories: Sequence[tuple[Mapping[str, bytes], Mapping[str, str]]]
) -> list[Part] | None:
    """Return parts of inventories, each given by its files and their digests; the last one's warnings are told."""
    paths: set[str] = set()
    for _, digests in inventories:
        moved = differing(record, digests)
        if moved is None:
            return None
        paths |= moved
    around = Around(inventories[-1][0], cache)
    steps: list[Step] = []
    for content, _ in inventories:
        found = step(cache, record, content, paths, around.inventory)
        if found is None:
            return None
        steps.append(found)
    changed = {name for found in steps for name in found.names}
    gateways = frozenset(gateway for found in steps for gateway in found.gateways)
    kept = records.clients_of(cache, gateways)
    concerned = around.of(cache, record, gateways, len(changed))
    # Where everybody changes, a plan may say "all-clients"; a part must not look as if everybody did.
    if kept is None or concerned is None or (changed and kept.keys() <= changed):
        return None
    before = with_clients(concerned, kept, {})
    parts: list[Part] = []
    made: list[tuple[Inventory, tuple[Grant, ...]]] = [(before, grants(before))]
    for (_, digests), found in zip(inventories, steps, strict=True):
        inventory = with_clients(concerned, _after(kept, found), found.clients)
        made.append((inventory, grants(inventory)))
        fleet = Fleet(*made[-1], parts[-1].fleet if parts else None)
        parts.append(Part(fleet, record.clients - len(kept), found, digests, record.warnings, gateways))
    return parts if are_warnings_alike(made[0], made[-1]) else None


def _after(kept: Mapping[str, ClientRow], found: Step) -> dict[str, ClientRow]:
    return {**{name: row for name, row in kept.items() if name not in found.before}, **found.after}
