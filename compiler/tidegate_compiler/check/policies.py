"""Policies: ports, time windows, and rules that say nothing.

The findings that need whole grants (never matches, shadowed, redundant) come only once nothing else is wrong:
on a broken inventory they would blame the policy for a fault that lies elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tidegate_compiler.check.addresses import Endpoints
from tidegate_compiler.diagnostics import Diagnostic, show
from tidegate_compiler.grants import Grant, both_ports
from tidegate_compiler.model import VERSIONS, At, Group, Inventory, Network, Policy, To
from tidegate_compiler.networks import Covering, intersect
from tidegate_compiler.times import Window, format_instant


def policies(inventory: Inventory) -> Iterator[Diagnostic]:
    """Yield the problems of single policies and memberships."""
    endpoints = Endpoints(inventory)
    for group in _limited(inventory):
        for member, end in group.expires.items():
            if group.window(member).is_empty:
                yield _empty_window(end, f"the membership of {show(member)} in {show(group.name)}")
    for policy in inventory.policies.values():
        if policy.expires is not None:
            if policy.window.is_empty:
                yield _empty_window(policy.expires, show(policy.name))
            if policy.action == "deny":
                message = (
                    f"{show(policy.name)} denies only until {format_instant(policy.expires.value)}: "
                    "what it denies is then allowed again, if anything allows it"
                )
                yield Diagnostic(policy.expires.where, "TG053", message)
        for to in policy.destinations:
            yield from _ports(policy, to, inventory)
            if to.value.prefix is not None:
                destination = At(to.value.prefix, to.where)
                yield from endpoints.contained(destination, f"policy {show(policy.name)}")


def _limited(inventory: Inventory) -> Iterator[Group]:
    """Yield the groups of which some membership ends."""
    return (inventory.groups[name] for name, (_, _, expires) in inventory.group_rows.items() if expires)


def _empty_window(end: At[int], subject: str) -> Diagnostic:
    return Diagnostic(
        end.where, "TG052", f"{subject} ends before it begins; not_before must lie before expires"
    )


def _ports(policy: Policy, to: At[To], inventory: Inventory) -> Iterator[Diagnostic]:
    resource = inventory.resources.get(to.value.resource) if to.value.resource else None
    if to.value.prefix is None and resource is None:
        return
    if "ports" in policy.broken or (resource is not None and resource.broken):
        return
    of_policy = None if policy.ports is None else [port.value for port in policy.ports]
    of_resource = (
        None if resource is None or resource.ports is None else [port.value for port in resource.ports]
    )
    owner = f"resource {show(resource.name)}" if resource else f"prefix {to.value.prefix}"
    if of_policy is None and of_resource is None:
        message = f"neither {show(policy.name)} nor {owner} says ports; add 'ports' (any is a port, too)"
        yield Diagnostic(to.where, "TG050", message)
        return
    families = {address.value.version for address in resource.addresses} if resource else set()
    if families and not any(both_ports(of_policy, of_resource, family) for family in families):
        message = f"{show(policy.name)} ({_said(of_policy)}) and {owner} ({_said(of_resource)}) have no port in common"
        yield Diagnostic(to.where, "TG051", message)


def _said(ports: list[str] | None) -> str:
    return ", ".join(ports or ())[:80]


def comparisons(inventory: Inventory, every_grant: Iterable[Grant]) -> Iterator[Diagnostic]:
    """Yield the policies that say nothing: they match no packet, or others already say it all."""
    effective = []
    for grant in every_grant:
        if reaches(grant, inventory):
            effective.append(grant)
        else:
            message = (
                f"{show(grant.policy)} can never match: no client it names reaches, through a gateway, "
                "an address of the same family it names, at a time it counts"
            )
            yield Diagnostic(inventory.policies[grant.policy].where, "TG054", message)
    to_prefix: dict[Network, list[int]] = {}
    for index, grant in enumerate(effective):
        for prefix in grant.destinations:
            to_prefix.setdefault(prefix, []).append(index)
    covering = Covering(to_prefix)
    for grant in effective:
        # Whoever covers a grant covers its first prefix, too; few do.
        first = next(iter(grant.destinations))
        near = sorted({index for prefix in covering.of(first) for index in to_prefix[prefix]})
        yield from _overruled(grant, [effective[index] for index in near], inventory)


def _overruled(grant: Grant, others: list[Grant], inventory: Inventory) -> Iterator[Diagnostic]:
    for other in others:
        if other is grant or not other.covers(grant):
            continue
        same = grant.covers(other)
        where = inventory.policies[other.policy].where
        mine = inventory.policies[grant.policy].where
        if other.action == "deny" and grant.action == "allow":
            message = f"{show(grant.policy)} allows nothing: {show(other.policy)} ({where}) denies all of it"
            yield Diagnostic(mine, "TG055", message)
            return
        if other.action == grant.action and (not same or other.policy < grant.policy):
            message = f"{show(grant.policy)} is redundant: {show(other.policy)} ({where}) says all of it"
            yield Diagnostic(mine, "TG056", message)
            return


def reaches(grant: Grant, inventory: Inventory) -> bool:
    """Tell whether some client of the grant routes some destination of it, in a family it has."""
    useful: dict[tuple[tuple[str, ...], frozenset[int]], bool] = {}
    for name in grant.selected.names():
        _, addresses, gateways = inventory.client_rows[name]
        key = (gateways, frozenset(VERSIONS[len(address)] for address in addresses))
        if key not in useful:
            useful[key] = any(
                prefix.version in key[1] and intersect(prefix, network.value) is not None
                for gateway in gateways
                for network in inventory.gateways[gateway].networks
                for prefix in grant.destinations
            )
        if useful[key]:
            return True
    return False


def expired(inventory: Inventory, at: int) -> Iterator[Diagnostic]:
    """Yield the policies and memberships that are over at a moment, Unix seconds."""
    for group in _limited(inventory):
        for member, end in group.expires.items():
            if _over(group.window(member), at):
                subject = f"the membership of {show(member)} in {show(group.name)}"
                yield Diagnostic(
                    end.where, "TG057", f"{subject} expired at {format_instant(end.value)}; remove it"
                )
    for policy in inventory.policies.values():
        if policy.expires is not None and _over(policy.window, at):
            message = f"{show(policy.name)} expired at {format_instant(policy.expires.value)}; remove it"
            yield Diagnostic(policy.expires.where, "TG057", message)


def _over(window: Window, at: int) -> bool:
    return window.expires is not None and window.expires <= at
