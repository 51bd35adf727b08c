"""The plan as a value: both sides, and everything that differs between them."""

from __future__ import annotations

from dataclasses import dataclass

from tidegate_compiler.plan import access, bundles, objects
from tidegate_compiler.plan.hosts import changed_clients, changed_gateways, make_policies
from tidegate_compiler.plan.limits import DEFAULT, Exceeded, Limits, exceeded
from tidegate_compiler.plan.source import Side
from tidegate_compiler.plan.words import Access, Words


@dataclass(frozen=True)
class Plan:
    """What a change does. `objects` is None where a side is a compile output, which has none."""

    old: Side
    new: Side
    objects: tuple[objects.ObjectChange, ...] | None
    bundles: tuple[bundles.BundleChange, ...]
    gained: tuple[Access, ...]
    lost: tuple[Access, ...]
    exceeded: tuple[Exceeded, ...]

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing differs."""
        return not (self.objects or self.bundles or self.gained or self.lost)


def plan(old: Side, new: Side, limits: Limits = DEFAULT) -> Plan:
    """Compare two sides. Whoever refuses to act past a limit reads `exceeded`."""
    words = Words(old, new)
    make_policies(old.hosts, new.hosts)
    changed = changed_gateways(old.hosts, new.hosts)
    told = [words.say(one) for one in access.differences(old.policies, new.policies, changed)]
    gained = tuple(one for one in told if one.gained)
    return Plan(
        old,
        new,
        objects.changes(old.inventory, new.inventory, changed_clients(old.hosts, new.hosts))
        if old.inventory and new.inventory
        else None,
        bundles.changes(old, new),
        gained,
        tuple(one for one in told if not one.gained),
        exceeded(old, new, gained, limits),
    )
