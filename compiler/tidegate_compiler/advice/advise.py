"""What would have allowed a denied packet: gathered, ranked, cut to the few that a person reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

from tidegate_compiler.advice import changes
from tidegate_compiler.advice.changes import Change
from tidegate_compiler.advice.near import DESTINATION, MISSING, Fit, Place, closeness, fit, told
from tidegate_compiler.judge import NO_ROUTE, Judgement, Packet
from tidegate_compiler.model import Inventory, Policy
from tidegate_compiler.networks import inside

MOST_NEAR, MOST_CHANGES = 5, 3
_MOST_TRIED = 20
"""Changes that are compiled to see whether they suffice; most do at once."""


@dataclass(frozen=True)
class Near:
    """An allow policy that lacks one thing: which of MISSING, and in words."""

    policy: Policy
    missing: str
    message: str


@dataclass(frozen=True)
class Advice:
    """About a denied packet: the denies that match it, the allows that match it all the same, what is missing where.

    `near` are the first of `near_total`. `route` says why there is none; None when there is one.
    """

    denied_by: tuple[Policy, ...] = ()
    allowed_by: tuple[Policy, ...] = ()
    near: tuple[Near, ...] = ()
    near_total: int = 0
    route: str | None = None
    changes: tuple[Change, ...] = ()


def advise(inventory: Inventory, asked: Packet, port: str, judgement: Judgement, place: Place) -> Advice:
    """Return what would have allowed a packet; nothing for one that is allowed. `port` is its written form."""
    if judgement.allow:
        return Advice()
    fits = [fit(inventory, policy, asked) for policy in inventory.policies.values()]
    matching = [found.policy for found in fits if not found.missing]
    denied_by = tuple(policy for policy in matching if policy.action == "deny")
    allowed_by = tuple(policy for policy in matching if policy.action == "allow")
    lacking = [found for found in fits if found.policy.action == "allow" and len(found.missing) == 1]
    lacking.sort(key=lambda found: _rank(found, asked))
    near = (
        Near(found.policy, found.missing[0], told(inventory, found, asked, place))
        for found in lacking[:MOST_NEAR]
    )
    route = _no_route(inventory, asked, place) if judgement.reason == NO_ROUTE else None
    # Who lacks more than one thing lacks something after any one change, too; a deny may come to match by it.
    relevant = {
        found.policy.name for found in fits if len(found.missing) <= 1 or found.policy.action == "deny"
    }
    small = changes.cut(inventory, asked.client, relevant)
    own = partial(changes.new_policy, asked=asked, port=port, taken=inventory.policies)
    sufficient = _sufficient(small, asked, port, (denied_by, lacking), route is None, place, own)
    return Advice(
        denied_by, allowed_by, tuple(near), len(lacking), route, tuple(islice(sufficient, MOST_CHANGES))
    )


def _rank(found: Fit, asked: Packet) -> tuple[int, int, str]:
    missing = found.missing[0]
    near = -closeness(found, asked) if missing == DESTINATION else 0
    return MISSING.index(missing), near, found.policy.name


def _sufficient(
    inventory: Inventory,
    asked: Packet,
    port: str,
    fits: tuple[tuple[Policy, ...], list[Fit]],
    routed: bool,
    place: Place,
    new_policy: Callable[[Inventory], Change],
) -> Iterator[Change]:
    """Yield changes after which the packet is allowed: first what must be in any case, then the smallest that allows
    it, and a policy of its own last.
    """
    denied_by, lacking = fits
    first = [Change("", None, inventory)] if routed else list(islice(changes.ways(inventory, asked), 1))
    for policy in denied_by:
        lift = Change(f"narrow deny policy {policy.name}", policy.where, inventory)
        first = [
            replace(_both(one, lift, place), after=changes.without(one.after, {policy.name})) for one in first
        ]
    for before in first:
        if before.text and changes.proven(before, asked):
            yield before
            continue
        tries = (
            change
            for found in lacking[:MOST_NEAR]
            for change in changes.nearest(before.after, found, asked, port, place)
        )
        own = new_policy(before.after)
        for change in (
            *islice(_proven(islice(tries, _MOST_TRIED), asked), MOST_CHANGES - 1),
            *_proven([own], asked),
        ):
            yield _both(before, change, place)


def _both(one: Change, other: Change, place: Place) -> Change:
    """Return two changes as one; the first is told with its place, since a change has but one."""
    if not one.text:
        return other
    also = f" ({place(one.where)})" if one.where else ""
    return replace(other, text=f"{one.text}{also}, and {other.text}")


def _proven(tries: Iterable[Change], asked: Packet) -> Iterator[Change]:
    return (change for change in tries if changes.proven(change, asked))


def _no_route(inventory: Inventory, asked: Packet, place: Place) -> str:
    client = inventory.clients[asked.client]
    if asked.address.version not in client.families:
        return f"client {client.name} ({place(client.where)}) has no IPv{asked.address.version} address"
    holding = [
        f"{gateway.name} ({place(gateway.where)})"
        for gateway in inventory.gateways.values()
        if any(inside(asked.address, network) for network in gateway.network_set)
    ]
    if not holding:
        return f"no gateway has a network with {asked.address}"
    return f"client {client.name} ({place(client.where)}) does not list {' or '.join(holding[:4])}"
