"""Bundles changed: which hosts will reload, which of their files differ, and in which part.

both sides -> one BundleChange per host that differs
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.plan.hosts import differing, peers
from tidegate_compiler.plan.objects import ADDED, CHANGED, REMOVED
from tidegate_compiler.plan.rights import said
from tidegate_compiler.plan.source import Side
from tidegate_schema import wgquick


@dataclass(frozen=True)
class FileChange:
    """A file of a bundle, what happened to it, and the parts that differ, each in a few words."""

    file: str
    change: str
    parts: tuple[str, ...] = ()


@dataclass(frozen=True)
class BundleChange:
    """A host whose bundle is new, gone, or no longer the same."""

    kind: str
    host: str
    change: str
    files: tuple[FileChange, ...]


def changes(old: Side, new: Side) -> tuple[BundleChange, ...]:
    """Return every host whose files differ."""
    names = {**old.names, **new.names}
    found = []
    for (kind, host), files in differing(old.hosts, new.hosts).items():
        change = CHANGED
        if (kind, host) not in old.hosts or (kind, host) not in new.hosts:
            change = REMOVED if (kind, host) in old.hosts else ADDED
        told = [
            FileChange(file, what, tuple(_parts(file, host, old, new, names)) if what == CHANGED else ())
            for file, what in files.items()
        ]
        found.append(BundleChange(kind, host, change, tuple(told)))
    return tuple(found)


def _parts(file: str, host: str, old: Side, new: Side, names: Mapping[str, str]) -> Iterator[str]:
    """Yield what differs in a file that a host has on both sides."""
    match file:
        case "wg0.conf":
            yield from _wg_quick(*[side.hosts["client", host][file] for side in (old, new)])
        case "peers.json":
            yield from _peers(*peers(old.hosts, new.hosts, host), names)
        case _:
            before, after = old.policies[host], new.policies[host]
            assert before is not None
            assert after is not None
            yield from _policy(before, after, names)


def _wg_quick(old: bytes, new: bytes) -> Iterator[str]:
    before, after = wgquick.parse(old), wgquick.parse(new)
    if before.addresses != after.addresses:
        yield f"Address {', '.join(before.addresses)} becomes {', '.join(after.addresses)}"
    peers = [{peer.public_key: peer for peer in config.peers} for config in (before, after)]
    for key in sorted(peers[0].keys() | peers[1].keys()):
        gateway, replaced = (side.get(key) for side in peers)
        known = gateway or replaced
        assert known is not None
        title = f"peer {known.endpoint}"
        if gateway is None or replaced is None:
            yield f"{title} {ADDED if gateway is None else REMOVED}"
            continue
        if gateway.endpoint != replaced.endpoint:
            yield f"{title}: Endpoint becomes {replaced.endpoint}"
        if gateway.allowed_ips != replaced.allowed_ips:
            yield f"{title}: AllowedIPs {_lists(gateway.allowed_ips, replaced.allowed_ips)}"
    if list(peers[0]) != list(peers[1]) and peers[0].keys() == peers[1].keys():
        yield "order of peers"


def _lists(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    gone = [f"without {value}" for value in old if value not in new]
    return ", ".join(gone + [f"with {value}" for value in new if value not in old]) or "in another order"


def _peers(
    before: Mapping[str, object], after: Mapping[str, object], names: Mapping[str, str]
) -> Iterator[str]:
    moved = [one for one in before.keys() | after.keys() if before.get(one) != after.get(one)]
    for identifier in sorted(moved, key=lambda one: (names.get(one, one), one)):
        state = CHANGED if identifier in before and identifier in after else _on_one_side(identifier, before)
        yield f"peer {names.get(identifier, identifier)} {state}"


def _policy(before: Mapping[str, Any], after: Mapping[str, Any], names: Mapping[str, str]) -> Iterator[str]:
    rules = [Counter(map(_rule, document["rules"])) for document in (before, after)]
    named = [{rule["policy"] for rule in document["rules"]} for document in (before, after)]
    for policy in sorted({rule[0] for rule in (rules[0] - rules[1]) + (rules[1] - rules[0])}):
        state = CHANGED if policy in named[0] and policy in named[1] else _on_one_side(policy, named[0])
        yield f"rules of {policy} {state}"
    rights = [_rights(document) for document in (before, after)]
    moved = [one for one in rights[0].keys() | rights[1].keys() if rights[0].get(one) != rights[1].get(one)]
    for name in sorted(names.get(one, one) for one in moved):
        yield f"rights of {name}"
    if not moved and rules[0] == rules[1]:
        yield "numbering of rules"


def _rule(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return all that a rule says."""
    return rule["policy"], *said(rule)


def _rights(document: Mapping[str, Any]) -> dict[str, frozenset[Any]]:
    """Return each client's rules by what they say, whatever their numbers."""
    rules = list(map(_rule, document["rules"]))
    sets = [frozenset(rules[index] for index in indexes) for indexes in document["sets"]]
    return {client: sets[number] for client, number in document["clients"].items()}


def _on_one_side(one: str, old: Container[str]) -> str:
    return REMOVED if one in old else ADDED
