"""Objects changed: what two inventories say differently, object by object and field by field.

Order says nothing, except in a client's `gateways`; a place in a file says nothing at all. Clients and gateways
are recognised by their keys, so one with the same key and another name is renamed, not removed and added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Any

from tidegate_compiler.diagnostics import Where
from tidegate_compiler.model import ALL_CLIENTS, AccessTest, At, From, GroupRow, Inventory, Policy
from tidegate_compiler.times import format_instant
from tidegate_schema.keys import client_id

Fields = Mapping[str, tuple[str, ...]]
ADDED, REMOVED, CHANGED, RENAMED = "added", "removed", "changed", "renamed"


@dataclass(frozen=True)
class FieldChange:
    """What a field no longer says and what it says now; both are empty when only the order changed."""

    field: str
    removed: tuple[str, ...]
    added: tuple[str, ...]


@dataclass(frozen=True)
class ObjectChange:
    """One object: its kind in the singular, name, and what happened to it; `was` is a renamed one's old name.

    `where` is its place in the new inventory, or for a removed one in the old.
    """

    kind: str
    name: str
    change: str
    where: Where
    fields: tuple[FieldChange, ...] = ()
    was: str | None = None


@dataclass(frozen=True)
class _Object:
    fields: Fields
    where: Where
    key: str = ""


def changes(old: Inventory, new: Inventory, clients: Set[str] | None = None) -> tuple[ObjectChange, ...]:
    """Return every object that differs, kind by kind and in order of name.

    `clients` are those to look at, where others are known to be the same.
    """
    unlike = {
        kind: _unlike(_values(old, kind), _values(new, kind))
        for kind in _NAMED
        if kind != "client" or clients is None
    }
    if clients is not None:
        unlike["client"] = clients
    before, after = _objects(old, new, unlike), _objects(new, old, unlike)
    return tuple(found for kind in after for found in _of_kind(kind, before[kind], after[kind]))


_NAMED = {
    "gateway": "gateways",
    "client": "clients",
    "group": "groups",
    "resource": "resources",
    "policy": "policies",
}


def _values(inventory: Inventory, kind: str) -> Mapping[str, Any]:
    """Return what tells quickly whether an object is the same: of clients and groups their values alone."""
    rows = {"client": inventory.client_rows, "group": inventory.group_rows}
    found: Mapping[str, Any] = rows[kind] if kind in rows else getattr(inventory, _NAMED[kind])
    return found


def _unlike(old: Mapping[str, Any], new: Mapping[str, Any]) -> Set[str]:
    """Return the names of what is not beyond doubt the same, or on one side only: the only ones to look at closely."""
    if old is new:
        return frozenset()
    return {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}


def _of_kind(kind: str, old: Mapping[str, _Object], new: Mapping[str, _Object]) -> Iterator[ObjectChange]:
    gone = {found.key: name for name, found in old.items() if name not in new and found.key}
    was = {name: gone[found.key] for name, found in new.items() if name not in old and found.key in gone}
    for name in sorted({*old, *new} - set(was.values())):
        if name not in new:
            yield ObjectChange(kind, name, REMOVED, old[name].where)
        elif name in was or name in old:
            fields = tuple(_fields(old[was.get(name, name)].fields, new[name].fields))
            if name in was:
                yield ObjectChange(kind, name, RENAMED, new[name].where, fields, was[name])
            elif fields:
                yield ObjectChange(kind, name, CHANGED, new[name].where, fields)
        else:
            yield ObjectChange(kind, name, ADDED, new[name].where)


def _fields(old: Fields, new: Fields) -> Iterator[FieldChange]:
    for field in sorted({*old, *new}):
        before, after = old.get(field, ()), new.get(field, ())
        if before != after:
            had, has = set(before), set(after)
            yield FieldChange(
                field,
                tuple(value for value in before if value not in has),
                tuple(value for value in after if value not in had),
            )


def _objects(
    inventory: Inventory, other: Inventory, unlike: Mapping[str, Set[str]]
) -> dict[str, dict[str, _Object]]:
    """Return what to compare with `other`, by kind and name: of the named ones those in `unlike`."""

    def named(kind: str) -> Iterator[Any]:
        known: Mapping[str, Any] = getattr(inventory, _NAMED[kind])
        return (known[name] for name in sorted(unlike[kind]) if name in known)

    overlay = inventory.overlay
    prefixes = overlay.prefixes
    where = prefixes[0].where if prefixes else Where("overlay.yaml")
    return {
        "overlay": {"overlay": _Object({"fleet": (overlay.fleet,), "prefixes": _texts(prefixes)}, where)},
        "gateway": {
            one.name: _Object(
                {
                    "public_key": (_key(one.public_key),),
                    "endpoint": (one.endpoint.value.text,) if one.endpoint else (),
                    "networks": _texts(one.networks),
                },
                one.where,
                _key(one.public_key),
            )
            for one in named("gateway")
        },
        "client": {
            one.name: _Object(
                {
                    "public_key": (_key(one.public_key),),
                    "addresses": _texts(one.addresses),
                    "gateways": tuple(at.value for at in one.gateways),
                },
                one.where,
                _key(one.public_key),
            )
            for one in named("client")
        },
        "group": {
            name: _Object(
                _group(inventory.group_rows[name], other.group_rows.get(name, _NOBODY)),
                inventory.group_place(name),
            )
            for name in unlike["group"] & inventory.group_rows.keys()
        },
        "resource": {
            one.name: _Object(
                {"addresses": _texts(one.addresses), "ports": _texts(one.ports or ())}, one.where
            )
            for one in named("resource")
        },
        "policy": {one.name: _Object(_policy(one), one.where) for one in named("policy")},
        "test": {_test(one): _Object({}, one.where) for one in inventory.tests},
    }


_NOBODY: GroupRow = ((), {}, {})


def _group(row: GroupRow, other: GroupRow) -> Fields:
    """Return a group's fields, of its members only those that `other` has not: the largest has half of all clients."""
    members, not_before, expires = row
    fields = {"members": tuple(sorted(set(members).difference(other[0])))}
    for field, times in (("not_before", not_before), ("expires", expires)):
        fields |= {f"{field} of {member}": (format_instant(time),) for member, time in times.items()}
    return fields


def _policy(policy: Policy) -> Fields:
    return {
        "from": tuple(sorted(_source(at.value) for at in policy.sources)),
        "to": tuple(sorted(_destination(at.value) for at in policy.destinations)),
        "action": (policy.action,),
        "ports": _texts(policy.ports or ()),
        "not_before": (format_instant(policy.not_before.value),) if policy.not_before else (),
        "expires": (format_instant(policy.expires.value),) if policy.expires else (),
    }


def _source(source: From) -> str:
    return ALL_CLIENTS if source.kind == ALL_CLIENTS else f"{source.kind}:{source.name}"


def _destination(to: Any) -> str:
    return f"resource:{to.resource}" if to.prefix is None else str(to.prefix)


def _test(test: AccessTest) -> str:
    """Return what stands for a test, which has no name: all that it says."""
    at = "" if test.at is None else f" at {format_instant(test.at)}"
    return f"{_source(test.source.value)} to {test.destination} {test.port}{at}: {test.expect}"


def _key(key: At[bytes]) -> str:
    """Return the ID of a key: that is what events and bundles are known by."""
    return f"ID {client_id(key.value)}"


def _texts(values: Iterable[At[Any]]) -> tuple[str, ...]:
    return tuple(sorted(str(at.value) for at in values))
