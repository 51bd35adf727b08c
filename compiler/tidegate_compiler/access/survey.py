"""Who reaches what: for clients that reach the same, what each resource gives them, and what they reach elsewhere.

    Reach --allowed pieces of a client--> the resources they touch --> Cell: full or partial, and why

A cell is full only when every address of the resource is reached on everything the resource offers (its ports, or
every protocol where it says none), all the time. Anything less is partial and says in which way.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tidegate_compiler.model import ALL_CLIENTS, Inventory, Resource
from tidegate_compiler.networks import intersect
from tidegate_compiler.plan.access import products
from tidegate_compiler.plan.regions import Box, Interval, Spans, ports_box
from tidegate_compiler.reach import ALWAYS, Piece, Reach, everything, meet, overlap, span, subtract
from tidegate_schema.ports import parse_ports

FULL, PARTIAL, NONE = "full", "partial", "none"
FAMILY, ADDRESSES, PORTS, TIME, COMBINATIONS = "family", "addresses", "ports", "time", "combinations"
WAYS = (FAMILY, ADDRESSES, PORTS, TIME, COMBINATIONS)
"""In which way a part is one: a family is missing; some addresses, ports, times; or not all of them together."""

_Pieces = tuple[Piece, ...]


@dataclass(frozen=True)
class Entry:
    """Access that is a product: every address of `to`, on every one of `ports` of its family, within `time`.

    `to` are (family, interval of addresses), `ports` are (family, protocols, ports); `policies` allow it.
    """

    to: tuple[tuple[int, Interval], ...]
    ports: tuple[tuple[int, Interval, Interval], ...]
    time: Interval
    policies: tuple[str, ...]


@dataclass(frozen=True)
class Cell:
    """What a resource gives: how much of what it offers, in which `ways` that is a part of it, and all access to it.

    `beyond`: access goes beyond the resource's own ports, too; `reach` NONE with it: to nothing but other ports.
    """

    resource: str
    reach: str
    ways: tuple[str, ...]
    beyond: bool
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Row:
    """Clients that reach the same. A resource without a cell gives nothing; `elsewhere` is in no resource.

    `group` is the one whose members, or all clients, are exactly these.
    """

    clients: tuple[str, ...]
    group: str | None
    cells: Mapping[str, Cell]
    elsewhere: tuple[Entry, ...]


@dataclass(frozen=True)
class Survey:
    """The rows in order of their first client. `at` None: at any time; `resources` are those asked about."""

    inventory: Inventory
    at: int | None
    resources: tuple[str, ...]
    rows: tuple[Row, ...]


def survey(
    inventory: Inventory,
    reach: Reach,
    at: int | None = None,
    clients: Sequence[str] = (),
    resources: Sequence[str] = (),
) -> Survey:
    """Ask about some clients and resources, by default all; elsewhere is asked about only with all resources."""
    time = ALWAYS if at is None else (at, at + 1)
    columns = tuple(name for name in inventory.resources if not resources or name in resources)
    cells = _Cells(inventory, time, columns, elsewhere=not resources)
    alike: dict[object, list[str]] = {}
    for name in inventory.clients:
        if not clients or name in clients:
            alike.setdefault(reach.alike(name), []).append(name)
    # Different rights may come to the same in the end, for instance by the order of two standbys.
    same: dict[tuple[tuple[Cell, ...], tuple[Entry, ...]], list[str]] = {}
    for names in alike.values():
        pieces = reach.allowed(names[0], time)
        same.setdefault((tuple(cells.of(pieces)), cells.elsewhere(pieces)), []).extend(names)
    groups = _groups(inventory)
    rows = (
        Row(
            tuple(sorted(names)),
            groups.get(frozenset(names)),
            {cell.resource: cell for cell in found},
            elsewhere,
        )
        for (found, elsewhere), names in same.items()
    )
    return Survey(inventory, at, columns, tuple(sorted(rows, key=lambda row: row.clients)))


def gateways_of(inventory: Inventory, resource: str) -> tuple[str, ...]:
    """Return the gateways that have a network with an address of the resource, in order of name."""
    own = [at.value for at in inventory.resources[resource].addresses]
    return tuple(
        gateway.name
        for gateway in inventory.gateways.values()
        if any(intersect(network, address) for network in gateway.network_set for address in own)
    )


def _groups(inventory: Inventory) -> dict[frozenset[str], str]:
    """Return the names of the sets of clients that have one; of equal groups the first."""
    found = {frozenset(inventory.clients): ALL_CLIENTS} if len(inventory.clients) > 1 else {}
    for group in inventory.groups.values():
        found.setdefault(frozenset(member.value for member in group.members), f"group:{group.name}")
    return found


class _Cells:
    """Cuts what a client reaches by resources; equal parts of a resource are judged once."""

    def __init__(self, inventory: Inventory, time: Interval, columns: Sequence[str], elsewhere: bool) -> None:
        self._time = time
        self._columns = columns
        self._elsewhere = elsewhere
        self._resources = inventory.resources
        self._index = {family: _Index(inventory, columns, family) for family in (4, 6)}
        self._taken = everything(
            (at.value for resource in inventory.resources.values() for at in resource.addresses), time
        )
        self._offers = {name: _offer(inventory.resources[name], time) for name in columns}
        self._known: dict[tuple[str, _Pieces], Cell] = {}

    def of(self, pieces: _Pieces) -> Iterator[Cell]:
        """Yield a cell for every resource of which something is reached, in order of name."""
        touched: dict[str, list[Piece]] = {}
        for piece in pieces:
            for name, to in self._index[piece.family].within(piece.box[0]):
                inside = Piece(piece.family, (to, *piece.box[1:]), piece.judgement)
                touched.setdefault(name, []).append(inside)
        for name in self._columns:
            if name in touched:
                found = tuple(touched[name])
                if (name, found) not in self._known:
                    self._known[name, found] = self._cell(name, found)
                yield self._known[name, found]

    def elsewhere(self, pieces: _Pieces) -> tuple[Entry, ...]:
        """Return what is reached of addresses that are in no resource."""
        if not self._elsewhere:
            return ()
        families = {}
        for family in dict.fromkeys(piece.family for piece in pieces):
            own = [piece.box for piece in pieces if piece.family == family]
            near = Spans(box[0] for box in own)
            taken = [box for version, box in self._taken if version == family and near.meet(box[0])]
            families[family] = subtract(own, taken)
        return _entries({family: boxes for family, boxes in families.items() if boxes}, pieces)

    def _cell(self, name: str, pieces: _Pieces) -> Cell:
        reached: dict[int, list[Box]] = {}
        for piece in pieces:
            reached.setdefault(piece.family, []).append(piece.box)
        offers = self._offers[name]
        ways: set[str] = set()
        some = False
        for family, offer in offers.items():
            both = [part for one in reached.get(family, ()) for other in offer if (part := meet(one, other))]
            some = some or bool(both)
            ways |= set(_ways(both, offer))
        return Cell(
            name,
            NONE if not some else PARTIAL if ways else FULL,
            tuple(way for way in WAYS if some and way in ways),
            any(subtract(boxes, offers.get(family, ())) for family, boxes in reached.items()),
            _entries(reached, pieces),
        )


def _offer(resource: Resource, time: Interval) -> dict[int, list[Box]]:
    """Return what a resource offers, by family: its ports, or without any every protocol."""
    found: dict[int, list[Box]] = {}
    texts = ["any"] if resource.ports is None else [at.value for at in resource.ports]
    for at in resource.addresses:
        family = at.value.version
        found.setdefault(family, []).extend(
            (span(at.value), *ports_box(parse_ports(text, family)), time) for text in texts
        )
    return found


def _ways(reached: Sequence[Box], offer: Sequence[Box]) -> Iterator[str]:
    """Yield in which ways `reached`, which is part of `offer`, is less than it."""
    if not reached:
        yield FAMILY
        return
    if not subtract(offer, reached):
        return
    axes = {ADDRESSES: (0,), PORTS: (1, 2), TIME: (3,)}
    fewer = [way for way, kept in axes.items() if subtract(_shadow(offer, kept), _shadow(reached, kept))]
    yield from fewer or (COMBINATIONS,)


def _shadow(boxes: Iterable[Box], kept: tuple[int, ...]) -> list[Box]:
    """Return boxes projected on some axes: the others all become the same point."""
    found = []
    for box in boxes:
        to, protocol, port, time = (of if axis in kept else (0, 1) for axis, of in enumerate(box))
        found.append((to, protocol, port, time))
    return found


def _entries(families: Mapping[int, Sequence[Box]], pieces: _Pieces) -> tuple[Entry, ...]:
    found = []
    for to, ports, time in products({family: list(boxes) for family, boxes in families.items()}):
        boxes = [
            (family, (span_of, protocols, numbers, time))
            for family, span_of in to
            for of, protocols, numbers in ports
            if of == family
        ]
        policies = {
            piece.judgement.policy
            for piece in pieces
            for family, box in boxes
            if family == piece.family and piece.judgement.policy and meet(piece.box, box)
        }
        found.append(Entry(to, ports, time, tuple(sorted(policies))))
    return tuple(sorted(found, key=lambda entry: (entry.to, entry.ports, entry.time)))


class _Index:
    """The resources' addresses of one family, so that those a piece touches are found without asking each."""

    def __init__(self, inventory: Inventory, columns: Iterable[str], family: int) -> None:
        own = [
            (span(at.value), name)
            for name in columns
            for at in inventory.resources[name].addresses
            if at.value.version == family
        ]
        self._ends = sorted({end for to, _ in own for end in to})
        self._inside: list[list[str]] = [[] for _ in self._ends]
        for (low, high), name in own:
            for slot in range(bisect_left(self._ends, low), bisect_left(self._ends, high)):
                self._inside[slot].append(name)

    def within(self, to: Interval) -> Iterator[tuple[str, Interval]]:
        """Yield every resource with what it has of an interval of addresses."""
        for slot in range(max(bisect_right(self._ends, to[0]) - 1, 0), bisect_left(self._ends, to[1])):
            if slot + 1 < len(self._ends):
                shared = overlap(to, (self._ends[slot], self._ends[slot + 1]))
                if shared is not None:
                    yield from ((name, shared) for name in dict.fromkeys(self._inside[slot]))
