"""Limits: what no single change should do unseen, each with a name. Past one, the plan says so by that name.

The thresholds are constants; `exceeded` takes others, so that whoever acts on a plan can be told different ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tidegate_compiler.plan.source import Side
from tidegate_compiler.plan.words import Access

CLIENTS_REMOVED = "clients-removed"
CLIENTS_REMOVED_SHARE = "clients-removed-share"
KEYS_CHANGED = "keys-changed"
ACCESS_WIDENED = "access-widened"
ACCESS_WIDENED_SHARE = "access-widened-share"
GATEWAY_EMPTIED = "gateway-emptied"
NAMES = (
    *(CLIENTS_REMOVED, CLIENTS_REMOVED_SHARE, KEYS_CHANGED),
    *(ACCESS_WIDENED, ACCESS_WIDENED_SHARE, GATEWAY_EMPTIED),
)


@dataclass(frozen=True)
class Limits:
    """The most that is let pass. Shares are of the old side's clients, and count from `share_from` clients on."""

    clients_removed: int = 50
    clients_removed_share: float = 0.2
    keys_changed: int = 20
    access_widened: int = 200
    access_widened_share: float = 0.5
    gateways_emptied: int = 0
    share_from: int = 5


DEFAULT = Limits()


@dataclass(frozen=True)
class Exceeded:
    """A limit that the change is past: its name, what was found, what is let pass, and a line for people."""

    name: str
    value: float
    limit: float
    message: str


def exceeded(
    old: Side, new: Side, gained: Iterable[Access], limits: Limits = DEFAULT
) -> tuple[Exceeded, ...]:
    """Return every limit that the change from one side to the other is past, in order of NAMES."""
    return tuple(_exceeded(old, new, gained, limits))


def _exceeded(old: Side, new: Side, gained: Iterable[Access], limits: Limits) -> Iterator[Exceeded]:
    total = len(old.names)
    before = {name: client for client, name in old.names.items()}
    after = {name: client for client, name in new.names.items()}
    removed = sum(name not in after and client not in new.names for name, client in before.items())
    yield from _count(CLIENTS_REMOVED, removed, limits.clients_removed, "clients removed")
    yield from _share(
        CLIENTS_REMOVED_SHARE, removed, total, limits.clients_removed_share, limits, "clients removed"
    )
    changed = sum(client != after.get(name, client) for name, client in before.items())
    yield from _count(KEYS_CHANGED, changed, limits.keys_changed, "clients with another key")
    widened = {client.name for access in gained for client in access.clients}
    known = {name for name in widened if name in before or after.get(name) in old.names}
    yield from _count(
        ACCESS_WIDENED, len(known), limits.access_widened, "clients that were there gain access"
    )
    yield from _share(
        *(ACCESS_WIDENED_SHARE, len(known), total, limits.access_widened_share, limits),
        "clients that were there gain access",
    )
    emptied = [gateway for gateway in sorted(_peopled(old)) if gateway not in _peopled(new)]
    if len(emptied) > limits.gateways_emptied:
        told = f"no client is left on {', '.join(emptied)}"
        yield Exceeded(GATEWAY_EMPTIED, len(emptied), limits.gateways_emptied, told)


def _count(name: str, value: int, limit: int, what: str) -> Iterator[Exceeded]:
    if value > limit:
        yield Exceeded(name, value, limit, f"{value} {what}; the limit is {limit}")


def _share(name: str, value: int, total: int, limit: float, limits: Limits, what: str) -> Iterator[Exceeded]:
    if value >= limits.share_from and value > limit * total:
        told = f"{value} {what}, of {total}; the limit is {limit:.0%}"
        yield Exceeded(name, round(value / max(total, 1), 4), limit, told)


def _peopled(side: Side) -> set[str]:
    """Return the gateways that have a peer, and of those that some client has rights at where a policy is."""
    found = set()
    for (kind, host), data in side.hosts.items():
        if kind == "gateway" and json.loads(data["peers.json"])["peers"]:
            policy = side.policies.get(host)
            if policy is None or policy["clients"]:
                found.add(host)
    return found
