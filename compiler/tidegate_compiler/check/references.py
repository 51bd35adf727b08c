"""References: every name that is used exists, and memberships are of members."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Set
from itertools import chain
from typing import Any

from tidegate_compiler.diagnostics import Diagnostic, Rough, did_you_mean, show
from tidegate_compiler.model import ALL_CLIENTS, At, From, Group, Inventory, To

_MOST_COMPARED = 100_000


class _Hints:
    """Suggests a known name for each wrong one, which takes a look at all that are known: until it has been enough.

    A lost file of a large fleet leaves thousands of wrong names, and no two of its names would be far apart.
    """

    def __init__(self) -> None:
        self._left = _MOST_COMPARED
        self._given: dict[tuple[str, str], str] = {}

    def of(self, word: str, kind: str, known: Collection[str]) -> str:
        """Return a hint to the name of a kind that is meant, or nothing."""
        if (kind, word) not in self._given:
            if self._left <= 0:
                return ""
            self._left -= len(known)
            self._given[kind, word] = did_you_mean(word, known)
        return self._given[kind, word]


def references(inventory: Inventory, incomplete: Set[str]) -> Iterator[Diagnostic]:
    """Yield every reference that leads nowhere.

    `incomplete` names the kinds of which a file could not be read: what is missing there may be in that file.
    """
    hints = _Hints()
    for reference, kind in _references(inventory):
        if kind in incomplete:
            continue
        known: Mapping[str, Any] = getattr(inventory, kind)
        if reference.value in known:
            continue
        if kind == "clients" and reference.value in inventory.groups:
            message = (
                f"{show(reference.value)} is a group, not a client; groups do not nest: list its clients, "
                "or write group:NAME in the policy"
            )
            yield Diagnostic(reference.where, "TG034", message)
            continue
        if isinstance(reference.where, Rough):  # only a mark: the careful reader says where, and what
            yield Diagnostic(reference.where, "TG030", "")
            continue
        hint = hints.of(reference.value, kind, known) or "; add it or correct the name"
        message = f"there is no {show(reference.value)} in {kind}{hint}"
        yield Diagnostic(reference.where, "TG030", message)
    for name, (_, not_before, expires) in inventory.group_rows.items():
        if not_before or expires:
            yield from _memberships(inventory.groups[name], hints)


def _references(inventory: Inventory) -> Iterator[tuple[At[str], str]]:
    """Yield each reference and the kind it leads to; of clients and groups only those that hold a wrong one."""
    known_lists: dict[tuple[str, ...], bool] = {}
    for name, (_, _, gateways) in inventory.client_rows.items():
        if gateways not in known_lists:
            known_lists[gateways] = all(gateway in inventory.gateways for gateway in gateways)
        if not known_lists[gateways]:
            for gateway in inventory.clients[name].gateways:
                yield gateway, "gateways"
    members_of_any = set(chain.from_iterable(members for members, _, _ in inventory.group_rows.values()))
    every_one_exists = inventory.client_rows.keys() >= members_of_any
    for name, (members, _, _) in () if every_one_exists else inventory.group_rows.items():
        if not all(map(inventory.client_rows.__contains__, members)):
            for member in inventory.groups[name].members:
                yield member, "clients"
    for policy in inventory.policies.values():
        for source in policy.sources:
            yield from _source(source)
        for to in policy.destinations:
            yield from _destination(to)
    for test in inventory.tests:
        yield from _source(test.source)
        yield from _destination(test.to)


def _memberships(group: Group, hints: _Hints) -> Iterator[Diagnostic]:
    members = {member.value for member in group.members}
    for field, times in (("not_before", group.not_before), ("expires", group.expires)):
        for member, time in times.items():
            if member not in members and "members" not in group.broken:
                hint = (
                    hints.of(member, f"group {group.name}", members) or "; add the member or remove the time"
                )
                message = f"{field} of {show(member)}, who is no member of {show(group.name)}{hint}"
                yield Diagnostic(time.where, "TG033", message)


def _source(source: At[From]) -> Iterator[tuple[At[str], str]]:
    if source.value.kind != ALL_CLIENTS:
        yield At(source.value.name, source.where), "groups" if source.value.kind == "group" else "clients"


def _destination(to: At[To]) -> Iterator[tuple[At[str], str]]:
    if to.value.resource:
        yield At(to.value.resource, to.where), "resources"
