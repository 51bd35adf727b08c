"""Access gained and lost: where one side's gateways allow a client's packet and the other side's do not.

Clients are told apart by their IDs, so a renamed client is the same one and a new key is a new client. A packet is
allowed when some gateway's policy allows it; gateways that share a destination agree on it, and a client's route
never changes that. Clients with the same rights before and the same rights after are compared once.

    (rights before, rights after) --sweep--> boxes, each with its Cause --group--> Difference
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any, NamedTuple

from tidegate_compiler.plan.regions import Box, Interval, Spans, Sweep, union
from tidegate_compiler.plan.rights import FAMILIES, Gateways, Rights, Sets

OLD, NEW = 0, 1


class Cause(NamedTuple):
    """Why access differs: gained or lost, the policy that allows it where it is allowed, and one that denied it.

    For a gain `policy` is of the new side and `denied_by` of the old one; for a loss the other way round.
    """

    gained: bool
    policy: str
    denied_by: str | None


@dataclass(frozen=True)
class Difference:
    """Every client of `clients` (IDs) to every one of `to`, on every one of `ports`, within `time`.

    `to` are (family, interval of addresses), `ports` are (family, protocols, ports) and hold for their family.
    """

    cause: Cause
    clients: tuple[str, ...]
    to: tuple[tuple[int, Interval], ...]
    ports: tuple[tuple[int, Interval, Interval], ...]
    time: Interval


class _Tag(NamedTuple):
    side: int
    gateway: str
    deny: bool
    policy: str
    changed: bool


def differences(
    old: Mapping[str, Mapping[str, Any] | None],
    new: Mapping[str, Mapping[str, Any] | None],
    changed: Set[str] | None = None,
) -> tuple[Difference, ...]:
    """Compare two sides' policy documents by gateway; gains first, then losses, in a stable order.

    `changed`, if known, are the gateways to look at: whatever reaches the others' networks is the same on both sides,
    and so are their clients with all of their gateways.
    """
    sets = Sets()
    if changed is not None:
        old, new = ({name: side[name] for name in changed & side.keys()} for side in (old, new))
    sides = (Gateways(old, sets), Gateways(new, sets))
    alike: dict[tuple[Rights, Rights], list[str]] = {}
    for client in sorted({*sides[OLD].clients, *sides[NEW].clients}):
        before, after = (side.clients.get(client, ()) for side in sides)
        if before != after:
            alike.setdefault((before, after), []).append(client)
    sweep: Sweep[Cause] = Sweep(cause)
    groups: dict[tuple[int, Box, Cause], list[int]] = {}
    for number, rights in enumerate(alike):
        for family, box, found in _compare(sides, rights, sweep):
            groups.setdefault((family, box, found), []).append(number)
    return tuple(_grouped(groups, list(alike.values())))


def _compare(
    sides: tuple[Gateways, Gateways], rights: tuple[Rights, Rights], sweep: Sweep[Cause]
) -> Iterable[tuple[int, Box, Cause]]:
    """Yield (family, box, cause) wherever these rights before and after differ."""
    rules = [
        [(gateway, rule) for gateway, number in rights[side] for rule in sides[side].rules(gateway, number)]
        for side in (OLD, NEW)
    ]
    said = [{(gateway, rule.number) for gateway, rule in rules[side]} for side in (OLD, NEW)]
    # A rule that both have says the same on both sides; of the others, so does an atom that both have.
    parts = [
        {
            (gateway, atom)
            for gateway, rule in rules[side]
            if (gateway, rule.number) not in said[1 - side]
            for atom in rule.atoms
        }
        for side in (OLD, NEW)
    ]
    changed = parts[OLD] ^ parts[NEW]
    for family in FAMILIES:
        touched = Spans(atom.box[0] for _, atom in changed if atom.family == family)
        boxes = (
            (atom.box, _Tag(side, gateway, atom.deny, rule.policy, (gateway, atom) in changed))
            for side in (OLD, NEW)
            for gateway, rule in rules[side]
            for atom in rule.atoms
            if atom.family == family and touched.meet(atom.box[0])
        )
        for box, found in sweep.over((box, tag, tag.changed) for box, tag in boxes):
            yield family, box, found


def cause(tags: frozenset[_Tag]) -> Cause | None:
    """Return why a cell differs whose boxes have these tags; None when it does not."""
    allowed = [_allowed_by(tags, side) for side in (OLD, NEW)]
    if bool(allowed[OLD]) == bool(allowed[NEW]):
        return None
    gained = bool(allowed[NEW])
    denies = (tag.policy for tag in tags if tag.deny and tag.side == (OLD if gained else NEW))
    # A rule that is itself part of the change explains more than one that was there all along.
    granting = min(allowed[NEW if gained else OLD], key=lambda tag: (not tag.changed, tag.policy))
    return Cause(gained, granting.policy, min(denies, default=None))


def _allowed_by(tags: frozenset[_Tag], side: int) -> list[_Tag]:
    mine = [tag for tag in tags if tag.side == side]
    denying = {tag.gateway for tag in mine if tag.deny}
    return [tag for tag in mine if not tag.deny and tag.gateway not in denying]


def _grouped(
    groups: Mapping[tuple[int, Box, Cause], list[int]], alike: list[list[str]]
) -> Iterable[Difference]:
    """Bring together the boxes of the same clients and cause, and say each set of them the shortest way."""
    gathered: dict[tuple[Cause, tuple[int, ...]], dict[int, list[Box]]] = {}
    for (family, box, found), numbers in groups.items():
        gathered.setdefault((found, tuple(numbers)), {}).setdefault(family, []).append(box)
    told = []
    for (found, members), families in gathered.items():
        clients = tuple(sorted(client for number in members for client in alike[number]))
        told += [Difference(found, clients, *product) for product in products(families)]
    return sorted(told, key=_order)


def _order(one: Difference) -> tuple[Any, ...]:
    # More clients first: it is what a reader has to see.
    return (
        not one.cause.gained,
        -len(one.clients),
        one.cause.policy,
        one.cause.denied_by or "",
        one.clients,
        one.time,
        one.to,
        one.ports,
    )


_Ports = tuple[Interval, Interval]


def products(
    families: Mapping[int, list[Box]],
) -> Iterable[tuple[tuple[tuple[int, Interval], ...], tuple[tuple[int, Interval, Interval], ...], Interval]]:
    """Yield (to, ports, time): destinations with equal ports and times together, then both families if alike."""
    merged: dict[tuple[Interval, frozenset[Any]], dict[int, tuple[list[Interval], list[_Ports]]]] = {}
    for family, boxes in sorted(families.items()):
        at: dict[Interval, dict[Interval, list[_Ports]]] = {}
        for to, protocol, port, time in union(boxes):
            at.setdefault(to, {}).setdefault(time, []).append((protocol, port))
        for to, times in at.items():
            for time, ports in times.items():
                alike = frozenset(_family_free(family, one) for one in ports)
                entry = merged.setdefault((time, alike), {}).setdefault(family, ([], ports))
                entry[0].append(to)
    for (time, _), by_family in merged.items():
        yield (
            tuple((family, to) for family, (all_to, _) in by_family.items() for to in all_to),
            tuple((family, *one) for family, (_, ports) in by_family.items() for one in ports),
            time,
        )


def _family_free(family: int, ports: _Ports) -> Any:
    """Return the same for ICMP of either family, and for other ports themselves."""
    return "icmp" if ports[0] == ((1, 2) if family == 4 else (58, 59)) else ports
