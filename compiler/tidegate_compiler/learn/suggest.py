"""The smallest readable set of policies that admits what was seen. Pure.

    Demand ──► homes (terrain) ──► matrix ──► policies that are there, groups x targets (cover), the rest by name
           ──► Suggestion: policies in the inventory's own words, groups that had to be made, evidence, excess

Order of preference: an allow policy that is there and pays; a group, or all clients, on a resource; a list of clients,
which becomes a group of its own where it is long. Deny policies stay as they are, and what they refuse is not asked
for. Every pair that was seen and that a policy can admit is admitted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import NamedTuple

from tidegate_compiler.learn.cover import Mask, Matrix, Rectangle, candidates, choose, join, leftovers
from tidegate_compiler.learn.demand import Demand, Service, Use
from tidegate_compiler.learn.naming import Naming
from tidegate_compiler.learn.terrain import Home, Target, Terrain, stands, terrain
from tidegate_compiler.model import ALL_CLIENTS, Inventory, Policy
from tidegate_compiler.times import Window
from tidegate_schema.ports import parse_ports

STRICTNESS = 0.5
"""What a client that is admitted to an element and was not seen there costs, beside 1 for a client in a list."""
NAME_COST = 1.0
PER_BIT, WIDE_MOST = 0.25, 2.0
"""What it costs that a target, or a policy's ports, are wider than what was seen: by the bit, up to a limit, since the
targets are there and somebody meant them."""
GROUP_FROM = 5
"""A list of so many clients becomes a group."""
TO_MOST = 12
"""Entries of `to` in a suggested policy; more become a policy more, so that each can be read."""
MANY = 2
_Part = tuple[Home, ...]


class Draft(NamedTuple):
    """A policy of the suggestion: the words of its fields, the clients it selects, the homes it admits.

    `kept` is the policy of the inventory that it is, unchanged.
    """

    name: str
    sources: tuple[str, ...]
    to: tuple[str, ...]
    ports: tuple[str, ...] | None
    clients: Mask
    homes: tuple[Home, ...]
    kept: Policy | None = None


@dataclass
class Suggestion:
    """The outcome. `people` says which client each bit of a mask is; `groups` are those that had to be made."""

    inventory: Inventory
    demand: Demand
    land: Terrain
    matrix: Matrix
    people: Sequence[str]
    policies: list[Draft] = field(default_factory=list)
    groups: dict[str, tuple[str, ...]] = field(default_factory=dict)
    evidence: dict[str, Use] = field(default_factory=dict)
    seen: dict[str, Mask] = field(default_factory=dict)
    """Of each policy, the clients that used it."""

    def members(self, clients: Mask) -> tuple[str, ...]:
        """Return the names of a mask's clients, sorted."""
        return tuple(self.people[bit] for bit in _bits(clients))


def suggest(demand: Demand, inventory: Inventory, at: int, strictness: float = STRICTNESS) -> Suggestion:
    """Return the suggestion; memberships and policies count as of Unix second `at`."""
    land = terrain(inventory, demand.uses)
    people = sorted(inventory.client_rows)
    bits = {name: 1 << number for number, name in enumerate(people)}
    matrix = Matrix.of(_cells(demand, land, bits))
    done = Suggestion(inventory, demand, land, matrix, people)
    names = _names(inventory, bits, at)
    costs = {number: min(bits_wider * PER_BIT, WIDE_MOST) for number, bits_wider in land.breadth().items()}
    there = _drafts_there(done, names, bits, at)
    wanted = chain(
        (_rectangle(land, one, costs) for one in there.values()),
        candidates(names, matrix, {number: NAME_COST + cost for number, cost in costs.items()}),
    )
    taken = choose(matrix, wanted, strictness)
    kept = [there[one.name] for one in taken if one.name in there]
    _assemble(done, kept, [one for one in taken if one.name not in there], strictness)
    _gather(done, bits)
    return done


def _cells(demand: Demand, land: Terrain, bits: Mapping[str, Mask]) -> dict[_Part, Mask]:
    cells: dict[_Part, Mask] = {}
    for service in sorted(demand.uses):
        mask = 0
        for client in demand.uses[service]:
            mask |= bits[client]
        cell = land.homes[service]
        cells[cell] = cells.get(cell, 0) | mask
    return cells


def _names(inventory: Inventory, bits: Mapping[str, Mask], at: int) -> dict[str, Mask]:
    """Return each selector that stands for many: groups with the members of the moment, and all clients."""
    names = {}
    for name, (members, not_before, expires) in inventory.group_rows.items():
        mask = 0
        for member in members:
            if _counts(Window(not_before.get(member), expires.get(member)), at):
                mask |= bits[member]
        if mask:
            names[f"group:{name}"] = mask
    if len(bits) >= MANY:
        names[ALL_CLIENTS] = (1 << len(bits)) - 1
    return names


def _counts(window: Window, at: int) -> bool:
    return window.intersect(Window(at, at + 1)) is not None


# Policies that are there -----------------------------------------------------------------------------------------


def _drafts_there(
    done: Suggestion, names: Mapping[str, Mask], bits: Mapping[str, Mask], at: int
) -> dict[str, Draft]:
    """Return the allow policies that count, by a name that no selector has; those that admit nothing seen are out."""
    drafts = (
        _draft(done, policy, names, bits)
        for policy in done.inventory.policies.values()
        if policy.action == "allow" and _counts(policy.window, at)
    )
    return {f"policy:{one.name}": one for one in drafts if one.clients and one.homes}


def _rectangle(land: Terrain, draft: Draft, costs: Mapping[int, float]) -> Rectangle:
    """Return a policy that is there as a rectangle. Leaving it costs nothing, but its being wide does."""
    wide = WIDE_MOST if draft.ports is not None and not all(map(stands, draft.ports)) else 0.0
    cost = wide + max(costs[home.target] for home in draft.homes)
    return Rectangle(f"policy:{draft.name}", draft.clients, draft.homes, cost, _beyond(land, draft))


def _draft(done: Suggestion, policy: Policy, names: Mapping[str, Mask], bits: Mapping[str, Mask]) -> Draft:
    clients = 0
    sources = []
    for source in policy.sources:
        word = ALL_CLIENTS if source.value.kind == ALL_CLIENTS else f"{source.value.kind}:{source.value.name}"
        sources.append(word)
        clients |= bits[source.value.name] if source.value.kind == "client" else names.get(word, 0)
        if word == ALL_CLIENTS:
            clients |= (1 << len(bits)) - 1
    to = tuple(
        f"resource:{one.value.resource}" if one.value.prefix is None else str(one.value.prefix)
        for one in policy.destinations
    )
    ports = None if policy.ports is None else tuple(port.value for port in policy.ports)
    homes = tuple(
        home
        for home in sorted(done.matrix.seen)
        if done.land.targets[home.target].name in to and (ports is None or _within(home.element, ports))
    )
    return Draft(policy.name, tuple(sources), to, ports, clients, homes, policy)


def _within(element: str, ports: Iterable[str]) -> bool:
    """Tell whether an element is admitted whole, in both families."""
    return all(
        any(
            (one := parse_ports(element, family)) == one.intersect(parse_ports(text, family))
            for text in ports
        )
        for family in (4, 6)
    )


def _beyond(land: Terrain, draft: Draft) -> int:
    """Return how many elements of its targets, as far as they have own ones, a policy admits and nobody was seen at."""
    admitted = {
        (number, text)
        for number, target in enumerate(land.targets)
        if target.name in draft.to
        for text in target.own
        if draft.ports is None or _within(text, draft.ports)
    }
    return len(admitted - {tuple(home) for home in draft.homes})


# New policies ----------------------------------------------------------------------------------------------------


def _assemble(done: Suggestion, kept: Sequence[Draft], taken: Sequence[Rectangle], strictness: float) -> None:
    naming = Naming({*done.inventory.policies, *done.inventory.groups})
    rules: dict[_Part, dict[str, Mask]] = {}
    for one in taken:
        rules.setdefault(one.homes, {})[one.name] = one.clients
    rest = leftovers(done.matrix)
    becomes = join(rest, strictness)
    for left in rest:
        clients = becomes.get(left.clients, left.clients)
        sources = rules.setdefault(left.homes, {})
        if clients.bit_count() >= GROUP_FROM:
            sources[f"group:{_group(done, clients, left.homes, naming)}"] = clients
        else:
            sources.update((f"client:{name}", 1 << bit) for bit, name in _who(done, clients))
    done.policies = sorted([*kept, *_drafts(done, rules, naming)], key=lambda one: one.name)


def _who(done: Suggestion, clients: Mask) -> Iterator[tuple[int, str]]:
    yield from ((bit, done.people[bit]) for bit in _bits(clients))


def _group(done: Suggestion, clients: Mask, homes: _Part, naming: Naming) -> str:
    """Return the name of the group of exactly these clients: one that is made, unless it was made already."""
    members = done.members(clients)
    for name, known in done.groups.items():
        if known == members:
            return name
    name = naming.group(done.land.targets[homes[0].target].name)
    done.groups[name] = members
    return name


def _drafts(done: Suggestion, rules: Mapping[_Part, Mapping[str, Mask]], naming: Naming) -> Iterator[Draft]:
    """Yield policies: rules of one target and the same clients are one, and so are targets with the same of both."""
    of_target: dict[tuple[int, tuple[str, ...]], set[Home]] = {}
    masks: dict[str, Mask] = {}
    for homes, sources in rules.items():
        of_target.setdefault((homes[0].target, tuple(sorted(sources))), set()).update(homes)
        masks.update(sources)
    alike: dict[tuple[tuple[str, ...], tuple[str, ...] | None], list[tuple[int, _Part]]] = {}
    for (number, words), homes_of in of_target.items():
        part = tuple(sorted(homes_of))
        ports = _ports(done.land.targets[number], part)
        alike.setdefault((words, ports), []).append((number, part))
    for (words, ports), parts in sorted(alike.items(), key=lambda one: (one[0][0], one[0][1] or ())):
        clients = 0
        for word in words:
            clients |= masks[word]
        for first in range(0, len(parts), TO_MOST):
            these = sorted(parts[first : first + TO_MOST], key=lambda part: done.land.targets[part[0]].name)
            to = tuple(done.land.targets[number].name for number, _ in these)
            homes_to = tuple(home for _, part in these for home in part)
            yield Draft(naming.policy(words, to, ports), words, to, ports, clients, homes_to)


def _ports(target: Target, homes: _Part) -> tuple[str, ...] | None:
    """Return a policy's ports: None where the resource's own say it all."""
    elements = {home.element for home in homes}
    if target.own and len(target.own) == len(target.ports or ()) and elements >= set(target.own):
        return None
    return tuple(sorted(elements, key=_port_order))


def _port_order(text: str) -> tuple[int, int, int]:
    one = parse_ports(text, 4)
    return one.protocol, one.first, one.last


# Evidence --------------------------------------------------------------------------------------------------------


def _gather(done: Suggestion, bits: Mapping[str, Mask]) -> None:
    of_home: dict[Home, list[Service]] = {}
    for service, homes in done.land.homes.items():
        for home in homes:
            of_home.setdefault(home, []).append(service)
    for draft in done.policies:
        found, seen = Use(), 0
        for service in {service: None for home in draft.homes for service in of_home.get(home, ())}:
            for client, use in done.demand.uses[service].items():
                if bits[client] & draft.clients:
                    found.add(use)
                    seen |= bits[client]
        done.evidence[draft.name], done.seen[draft.name] = found, seen


def _bits(mask: Mask) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low
