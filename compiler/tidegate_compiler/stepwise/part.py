"""The part of an inventory that concerns some gateways: all that their bundles are made of.

Everything in it is what it is in the whole inventory; what is left out are clients that list none of the
gateways, policies without a destination in their networks, resources and groups that no such policy names,
and tests.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tidegate_compiler.cache import Cache
from tidegate_compiler.check.read import read
from tidegate_compiler.diagnostics import Where
from tidegate_compiler.load import Document, Documents, QuickDocument, load
from tidegate_compiler.model import Client, ClientRow, Group, GroupRow, Inventory, Lazily
from tidegate_compiler.stepwise.record import Record

_KINDS = ("overlay.yaml", "gateways", "resources", "policies")


@dataclass(frozen=True)
class _Cut(QuickDocument):
    """A file of which some objects are left out; `whole` knows where the others stand."""

    whole: QuickDocument

    def where(self, name: str) -> Where:
        """Return where an object's name stands."""
        return self.whole.where(name)


class Around:
    """Everything in an inventory that is right but its clients and tests, read as far as somebody asks."""

    def __init__(self, content: Mapping[str, bytes], cache: Cache) -> None:
        """Take an inventory's files."""
        self._documents, _ = load(
            {file: data for file, data in content.items() if file.partition("/")[0] in _KINDS}, cache=cache
        )
        self.inventory: Inventory = read(
            tuple(d for d in self._documents if d.kind in ("overlay", "gateways")), [], set()
        )

    def of(self, cache: Cache, record: Record, gateways: Collection[str], changed: int) -> Inventory | None:
        """Return what concerns some gateways, and the groups with no more members than clients have changed.

        Those are the groups that a plan may have to tell by name. None when a group cannot be read.
        """
        reaching = {policy for gateway in gateways for policy in record.reaching[gateway]}
        policies = read(self._some("policies", reaching), [], set())
        sources = [at.value for policy in policies.policies.values() for at in policy.sources]
        named = {at.value.resource for policy in policies.policies.values() for at in policy.destinations}
        wanted = {source.name for source in sources if source.kind == "group"}
        wanted |= {name for name, (_, members) in record.groups.items() if members <= changed}
        groups = _groups(cache, record, wanted)
        if groups is None:
            return None
        resources = read(self._some("resources", named), [], set()).resources
        return replace(
            self.inventory,
            groups=Lazily(groups, _nobody_asks, {}),
            resources=resources,
            policies=policies.policies,
            has_policy=policies.has_policy,
        )

    def _some(self, kind: str, names: Collection[str]) -> Documents:
        documents: list[Document | QuickDocument] = []
        for one in self._documents:
            if one.kind == kind and isinstance(one, QuickDocument):
                content: Any = {name: values for name, values in one.content.items() if name in names}
                documents.append(_Cut(one.kind, one.file, content, one.data, one))
            elif one.kind == kind:
                documents.append(one)
        return tuple(documents)


def _groups(cache: Cache, record: Record, names: Collection[str]) -> dict[str, GroupRow] | None:
    of_file: dict[str, list[str]] = {}
    for name in names:
        of_file.setdefault(record.groups[name][0], []).append(name)
    found: dict[str, GroupRow] = {}
    for file, own in of_file.items():
        rows: Any = cache.content("groups", record.files[file])
        if rows is None:
            return None
        found.update((name, rows[name]) for name in own)
    return dict(sorted(found.items()))


def _nobody_asks(name: str) -> Group:
    """Refuse to make a group: what looks at some that nobody has changed reads rows."""
    raise LookupError(name)


def with_clients(
    around: Inventory, rows: Mapping[str, ClientRow], objects: Mapping[str, Client]
) -> Inventory:
    """Return an inventory with these clients, of which `objects` has those that somebody may ask for."""
    return replace(around, clients=Lazily(dict(sorted(rows.items())), objects.__getitem__, {}))
