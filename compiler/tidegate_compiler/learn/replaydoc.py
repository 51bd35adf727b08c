"""A replay as `--format json` prints it. Text and Markdown are made from this document, and so is the page.

Change per (client, destination, port) ──► entries: clients x destinations x ports that fare alike, and why
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tidegate_compiler.diagnostics import show_path
from tidegate_compiler.judge import NO_ROUTE
from tidegate_compiler.learn.flows import NO_PORT
from tidegate_compiler.learn.names import Names
from tidegate_compiler.learn.places import Places
from tidegate_compiler.learn.replay import NO_CLIENT, Evidence, Key, Replayed
from tidegate_compiler.model import Inventory
from tidegate_compiler.plan.words import Groups
from tidegate_compiler.times import format_instant
from tidegate_schema.policy import Reason
from tidegate_schema.ports import ICMP, PortRange

FORMAT = 1
WHY: Mapping[str, str] = {
    Reason.ALLOWED.name: "the policy allows it, and none denies it",
    Reason.DENIED.name: "the policy denies it",
    Reason.NO_RULE.name: "no policy matches",
    Reason.OUT_OF_TIME.name: "the policy allows it at another time only",
    Reason.NO_POLICY.name: "the inventory has no policy",
    Reason.UNKNOWN_SOURCE.name: "no client had the source address",
    Reason.UNPARSEABLE.name: "no packet whose destination can be told",
    NO_ROUTE: "no gateway of the client has a network with that destination",
    NO_CLIENT: "the client is not in the inventory",
}


class About(NamedTuple):
    """What was asked: titles, the moment of the verdicts (None: when each was recorded), what could not be read."""

    inventory: str
    root: str
    flows: str
    at: int | None
    against: str | None = None
    unreadable: int = 0
    gaps: int = 0


def document(done: Replayed, inventory: Inventory, names: Names, about: About) -> dict[str, Any]:
    """Return the whole outcome; nothing is left out."""
    entries = list(_Entries(inventory, names, about.root).of(done.changes))
    breaks, passes = ([one for p, one in entries if p == way] for way in (False, True))
    return {
        "format": FORMAT,
        "inventory": about.inventory,
        "against": about.against,
        "flows": about.flows,
        "at": "recorded" if about.at is None else format_instant(about.at),
        "first": None if not done.flows else format_instant(int(done.first)),
        "last": None if not done.flows else format_instant(int(done.last)),
        "changes": bool(entries),
        "counts": {
            "flows": done.flows,
            "same": done.same,
            "unjudged": done.unjudged,
            "unreadable_lines": about.unreadable,
            "gaps": about.gaps,
            "clients": len(done.clients - {""}),
            "breaks": sum(one["flows"] for one in breaks),
            "passes": sum(one["flows"] for one in passes),
        },
        "gateways": [{"name": name, "flows": done.gateways[name]} for name in sorted(done.gateways)],
        "breaks": breaks,
        "passes": passes,
    }


def port_text(destination: str, protocol: int, port: int) -> str:
    """Return the written form of a recorded packet's protocol and port."""
    if protocol == ICMP[6 if ":" in destination else 4]:
        return "icmp"
    ranged = PortRange(protocol, port, port) if port > 0 else PortRange(protocol)
    return f"{ranged}/?" if port == NO_PORT else str(ranged)


class _Same(NamedTuple):
    """What the members of an entry have in common."""

    passes: bool
    reason: str
    policy: str | None


_Cells = dict[tuple[str, str], dict[str, Evidence]]
"""(destination, port) -> client -> evidence."""


_Product = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]


def _products(cells: _Cells) -> Iterable[_Product]:
    """Yield (clients, destinations, ports), each cell of it changed for each of the clients."""
    of_address: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (to, port), clients in cells.items():
        of_address.setdefault((to, tuple(sorted(clients))), []).append(port)
    merged: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for (to, clients_of), ports in of_address.items():
        merged.setdefault((clients_of, tuple(sorted(ports))), []).append(to)
    for (clients_of, ports_of), all_to in merged.items():
        yield clients_of, tuple(sorted(all_to)), ports_of


class _Entries:
    """Says changes in the candidate's words."""

    def __init__(self, inventory: Inventory, names: Names, root: str) -> None:
        self._inventory, self._names = inventory, names
        self._root = show_path(root.rstrip("/"))
        self._groups, self._places = Groups(inventory), Places(inventory)

    def of(self, changes: Mapping[Key, Evidence]) -> Iterable[tuple[bool, dict[str, Any]]]:
        """Yield (passes, entry): what breaks first, most clients first."""
        of: dict[_Same, _Cells] = {}
        for key, evidence in changes.items():
            to = key.destination
            cell = (to, port_text(to, key.protocol, key.port) if to else "")
            cells = of.setdefault(_Same(key.passes, key.reason, key.policy), {})
            cells.setdefault(cell, {})[key.client] = evidence
        found = [
            (same.passes, self._entry(same, product, cells))
            for same, cells in of.items()
            for product in _products(cells)
        ]
        return sorted(found, key=_order)

    def _entry(self, same: _Same, product: _Product, cells: _Cells) -> dict[str, Any]:
        clients, to, ports = product
        mine = {client: [cells[one, port][client] for one in to for port in ports] for client in clients}
        every = [one for found in mine.values() for one in found]
        told = sorted((self._names.called(client), client) for client in clients)
        policy = self._inventory.policies.get(same.policy) if same.policy else None
        return {
            "clients": [
                {
                    "name": name or None,
                    "client_id": client or None,
                    "was": sorted({was for one in mine[client] for was in one.was}),
                }
                for name, client in told
            ],
            "group": self._groups.name(frozenset(name for name, _ in told)),
            "to": [{"address": one or None, "resource": self._places.resource(one)} for one in to],
            "ports": [port for port in ports if port],
            "reason": same.reason.lower().replace("_", "-"),
            "why": WHY[same.reason],
            "policy": same.policy,
            "file": f"{self._root}/{show_path(policy.where.file)}" if policy else None,
            "line": policy.where.line if policy else None,
            "flows": sum(one.flows for one in every),
            "bytes": sum(one.octets for one in every),
            "days": len({day for one in every for day in one.days}),
            "first": format_instant(int(min(one.first for one in every))),
            "last": format_instant(int(max(one.last for one in every))),
            "gateways": sorted({name for one in every for name in one.gateways}),
        }


def _order(one: tuple[bool, dict[str, Any]]) -> tuple[Any, ...]:
    passes, entry = one
    names = [(client["name"] or "", client["client_id"] or "") for client in entry["clients"]]
    to = [place["address"] or "" for place in entry["to"]]
    return (
        passes,
        -len(names),
        -entry["flows"],
        names,
        to,
        entry["ports"],
        entry["reason"],
        entry["policy"] or "",
    )
