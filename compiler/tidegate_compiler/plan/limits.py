"""Limits: what no single change should do unseen, each with a name. Past one, the plan says so by that name.

`plan` tells of it, and `publish` refuses without the override of that name. The thresholds are defaults; `parse` reads
others from a command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from typing import Any

from tidegate_compiler.plan.hosts import changed_clients, changed_gateways, has_peers
from tidegate_compiler.plan.source import Side
from tidegate_compiler.plan.words import Access
from tidegate_schema import wgquick

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
    """The most that is let pass. Shares are of the old side's clients, and count from `share_from` clients on.

    The defaults let a team come or go, and stop what a wrong path, a bad merge or a lost file does to a fleet.
    """

    clients_removed: int = 50
    clients_removed_share: float = 0.2
    keys_changed: int = 20
    access_widened: int = 200
    access_widened_share: float = 0.5
    gateways_emptied: int = 0
    share_from: int = 5


DEFAULT = Limits()
_SHARES = {
    CLIENTS_REMOVED_SHARE: "clients_removed_share",
    ACCESS_WIDENED_SHARE: "access_widened_share",
}
_COUNTS = {
    CLIENTS_REMOVED: "clients_removed",
    KEYS_CHANGED: "keys_changed",
    ACCESS_WIDENED: "access_widened",
    GATEWAY_EMPTIED: "gateways_emptied",
}


def parse(texts: Iterable[str]) -> Limits:
    """Read limits written NAME=VALUE, a count or a share such as 20%; the others keep their default.

    Raises ValueError, one line that names no more of the text than its name.
    """
    found: dict[str, Any] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in NAMES:
            raise ValueError(f"no such limit; there are {', '.join(NAMES)}")
        if name in _COUNTS:
            if not re.fullmatch(r"[0-9]{1,9}", value):
                raise ValueError(f"{name} is a count; write for instance {name}=100")
            found[_COUNTS[name]] = int(value)
        else:
            if not re.fullmatch(r"[0-9]{1,2}%|100%", value):
                raise ValueError(f"{name} is a share; write for instance {name}=40%")
            found[_SHARES[name]] = int(value[:-1]) / 100
    return replace(DEFAULT, **found)


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
    total = len(old.names) + old.others
    moved = changed_clients(old.hosts, new.hosts)
    before, after = (
        {name: client for client, name in side.names.items() if moved is None or name in moved}
        for side in (old, new)
    )
    removed = sum(name not in after and client not in new.names for name, client in before.items())
    yield from _count(CLIENTS_REMOVED, removed, limits.clients_removed, "clients removed")
    yield from _share(
        CLIENTS_REMOVED_SHARE, removed, total, limits.clients_removed_share, limits, "clients removed"
    )
    changed = sum(client != after.get(name, client) for name, client in before.items())
    gateways = _gateways_rekeyed(old, new)
    told = "clients with another key"
    if gateways:
        told = f"hosts with another key, {gateways} of them gateways"
    yield from _count(KEYS_CHANGED, changed + gateways, limits.keys_changed, told)
    widened = {client.name for access in gained for client in access.clients}
    known = {
        name
        for name in widened
        if name in before or after.get(name) in old.names or (moved is not None and name not in moved)
    }
    yield from _count(
        ACCESS_WIDENED, len(known), limits.access_widened, "clients that were there gain access"
    )
    yield from _share(
        *(ACCESS_WIDENED_SHARE, len(known), total, limits.access_widened_share, limits),
        "clients that were there gain access",
    )
    near = changed_gateways(old.hosts, new.hosts)
    emptied = sorted(_peopled(old, near) - _peopled(new, near))
    if len(emptied) > limits.gateways_emptied:
        told = f"no client is left on {', '.join(emptied)}"
        yield Exceeded(GATEWAY_EMPTIED, len(emptied), limits.gateways_emptied, told)


def _gateways_rekeyed(old: Side, new: Side) -> int:
    """Return how many gateways have another key: by name, or where a side has no inventory, by endpoint.

    An output holds a gateway's key in its clients' files alone, and when it changes, every one of these does.
    """
    if old.inventory is not None and new.inventory is not None:
        after = new.inventory.gateways
        return sum(
            name in after and gateway.public_key.value != after[name].public_key.value
            for name, gateway in old.inventory.gateways.items()
        )
    changed: set[str] = set()
    for (kind, host), files in old.hosts.items():
        others = new.hosts.get((kind, host))
        if kind == "client" and others is not None and files["wg0.conf"] != others["wg0.conf"]:
            before, later = (
                {peer.endpoint: peer.public_key for peer in wgquick.parse(side["wg0.conf"]).peers}
                for side in (files, others)
            )
            changed |= {at for at in before if at in later and before[at] != later[at]}
    return len(changed)


def _count(name: str, value: int, limit: int, what: str) -> Iterator[Exceeded]:
    if value > limit:
        yield Exceeded(name, value, limit, f"{value} {what}; the limit is {limit}")


def _share(name: str, value: int, total: int, limit: float, limits: Limits, what: str) -> Iterator[Exceeded]:
    if value >= limits.share_from and value > limit * total:
        told = f"{value} {what}, of {total}; the limit is {limit:.0%}"
        yield Exceeded(name, round(value / max(total, 1), 4), limit, told)


def _peopled(side: Side, near: Set[str] | None) -> set[str]:
    """Return the gateways that have a peer, and of those that some client has rights at where a policy is.

    `near`, if known, are the only ones to look at.
    """
    found = set()
    for gateway in side.policies if near is None else near & side.policies.keys():
        policy = side.policies[gateway]
        if (policy is None or policy["clients"]) and has_peers(side.hosts, gateway):
            found.add(gateway)
    return found
