"""Which groups stand for the clients that were seen: a cover of a matrix by named rectangles, the shortest in words.

    clients x (target, element), 1 where something was seen         a rectangle: a set's members x elements of a target

It is a greedy minimum description length: a client in a list costs 1 for each cell, a rectangle has a cost of its own,
and what it admits beyond what was seen costs `strictness` for each client and element. The rectangle that saves most is
taken, until none saves anything; what is left is listed client by client. Greedy is not optimal (set cover is NP-hard),
but no pair that was seen is ever left out, and equal input gives equal output: ties go to the first name.

Sets of clients are integers, a bit for each client, so that a set of thousands is compared at once.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_compiler.learn.terrain import Home

Mask = int


class Rectangle(NamedTuple):
    """A name that stands for clients, on some homes, and what it costs; `beyond` are homes that nobody was seen at."""

    name: str
    clients: Mask
    homes: tuple[Home, ...]
    cost: float
    beyond: int = 0


@dataclass
class Matrix:
    """What was seen. A cell is a set of homes that some services share; where resources overlap it has several."""

    cells: dict[tuple[Home, ...], Mask] = field(default_factory=dict)
    seen: dict[Home, Mask] = field(default_factory=dict)
    left: dict[tuple[Home, ...], Mask] = field(default_factory=dict)
    """What is not covered yet."""
    at: dict[Home, list[tuple[Home, ...]]] = field(default_factory=dict)

    @classmethod
    def of(cls, cells: Mapping[tuple[Home, ...], Mask]) -> Matrix:
        """Return the matrix of cells, nothing covered."""
        made = cls(dict(cells), left=dict(cells))
        for cell, clients in cells.items():
            for home in cell:
                made.seen[home] = made.seen.get(home, 0) | clients
                made.at.setdefault(home, []).append(cell)
        return made

    def gain(self, one: Rectangle, strictness: float) -> float:
        """Return what a rectangle saves now; it never grows while others are taken."""
        cells = {cell for home in one.homes for cell in self.at[home]}
        covered = sum((self.left[cell] & one.clients).bit_count() for cell in cells)
        excess = sum((one.clients & ~self.seen[home]).bit_count() for home in one.homes)
        excess += one.beyond * one.clients.bit_count()
        return covered - one.cost - strictness * excess

    def take(self, one: Rectangle) -> None:
        """Cover what a rectangle covers."""
        for home in one.homes:
            for cell in self.at[home]:
                self.left[cell] &= ~one.clients


def choose(matrix: Matrix, candidates: Iterable[Rectangle], strictness: float) -> list[Rectangle]:
    """Take the rectangle that saves most, again and again, and return those that were taken, in that order."""
    # A gain only falls, so one that is still the highest after it was looked at again is the highest of all.
    queue = [
        (-gain, -one.clients.bit_count(), one.name, number, one)
        for number, one in enumerate(candidates)
        if (gain := matrix.gain(one, strictness)) > 0
    ]
    heapq.heapify(queue)
    taken = []
    while queue:
        _, size, name, number, one = heapq.heappop(queue)
        gain = matrix.gain(one, strictness)
        if gain <= 0:
            continue
        entry = (-gain, size, name, number, one)
        if queue and entry > queue[0]:
            heapq.heappush(queue, entry)
            continue
        matrix.take(one)
        taken.append(one)
    return taken


def candidates(names: Mapping[str, Mask], matrix: Matrix, costs: Mapping[int, float]) -> Iterable[Rectangle]:
    """Yield every named set on every target that some of it was seen at: on all that was seen there, and on each.

    `costs` are those of a rectangle on a target.
    """
    targets: dict[int, list[Home]] = {}
    for home in sorted(matrix.seen):
        targets.setdefault(home.target, []).append(home)
    for number, homes in targets.items():
        cost = costs[number]
        seen = 0
        for home in homes:
            seen |= matrix.seen[home]
        for name, clients in names.items():
            if clients & seen:
                yield Rectangle(name, clients, tuple(homes), cost)
                if len(homes) > 1:
                    yield from (
                        Rectangle(name, clients, (home,), cost)
                        for home in homes
                        if clients & matrix.seen[home]
                    )


class Leftover(NamedTuple):
    """Clients that no name stands for, on homes of one target."""

    clients: Mask
    homes: tuple[Home, ...]


def leftovers(matrix: Matrix) -> list[Leftover]:
    """Return what is not covered, at the first, that is the narrowest, home of each cell; homes alike together."""
    left: dict[Home, Mask] = {}
    for cell, clients in matrix.left.items():
        if clients:
            left[cell[0]] = left.get(cell[0], 0) | clients
    alike: dict[tuple[int, Mask], list[Home]] = {}
    for home in sorted(left):
        alike.setdefault((home.target, left[home]), []).append(home)
    return [Leftover(clients, tuple(homes)) for (_, clients), homes in alike.items()]


JOIN_MOST = 400
"""Different sets that are compared pair by pair; more are left as they are."""


def join(found: Sequence[Leftover], strictness: float) -> dict[Mask, Mask]:
    """Return for each set of leftover clients the one that stands for it: like sets become one where that is shorter.

    A client in a list costs 1, and `strictness` wherever it was not seen; so sets that differ in little become one.
    """
    parts: dict[Mask, list[tuple[Mask, int]]] = {}
    for listed in found:
        if listed.clients.bit_count() > 1:
            parts.setdefault(listed.clients, []).append((listed.clients, len(listed.homes)))
    becomes = {clients: clients for clients in parts}
    if len(parts) > JOIN_MOST:
        return becomes

    def cost(clients: Mask, members: Sequence[tuple[Mask, int]]) -> float:
        excess = sum((clients & ~own).bit_count() * homes for own, homes in members)
        return clients.bit_count() + strictness * excess

    def saves(one: Mask, other: Mask) -> float:
        apart = cost(one, parts[one]) + cost(other, parts[other])
        return apart - cost(one | other, [*parts[one], *parts[other]])

    live = sorted(parts)
    queue = [
        (-gain, one, other)
        for position, one in enumerate(live)
        for other in live[position + 1 :]
        if one & other and (gain := saves(one, other)) > 0
    ]
    heapq.heapify(queue)
    while queue:
        gain, one, other = heapq.heappop(queue)
        if one not in parts or other not in parts or saves(one, other) != -gain:
            continue
        both = one | other
        members = parts.pop(one) + parts.pop(other)
        for clients, into in becomes.items():
            if into in (one, other):
                becomes[clients] = both
        parts[both] = members + parts.pop(both, [])
        for third in parts:
            if third != both and third & both and (gain := saves(both, third)) > 0:
                heapq.heappush(queue, (-gain, both, third))
    return becomes
