"""What a gateway allows against what the inventory means, as exact sets, IPv4 and IPv6 apart.

Clients that the inventory gives equal rights and the bundle gives equal rules are compared once.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Mapping

from tidegate_compiler.verify import bundles, words
from tidegate_compiler.verify.difference import Difference, Point
from tidegate_compiler.verify.inventory import Facts, Policy
from tidegate_compiler.verify.space import EVER, Claim, Place, Right, Span, clip, excess

Deal = tuple[frozenset[int], tuple[tuple[int, frozenset[Span]], ...]]
"""What the inventory says about a client: its address families, and when which policy (by number) is about it."""


def deals(facts: Facts) -> dict[str, Deal]:
    """Return every client's deal."""
    about: dict[str, list[tuple[int, frozenset[Span]]]] = {name: [] for name in facts.clients}
    for number, policy in enumerate(facts.policies or ()):
        for name, times in policy.clients.items():
            about[name].append((number, times))
    return {name: (client.families, tuple(about[name])) for name, client in facts.clients.items()}


def differences(
    path: str, gateway: str, facts: Facts, dealt: Mapping[str, Deal], found: bundles.Policy
) -> Iterator[Difference]:
    """Yield where the policy of one gateway says anything but what the inventory means."""
    policies = facts.policies or ()
    yield from _names(path, policies, found)
    equals: dict[tuple[Deal, int | None], list[str]] = {}
    strangers = set(found.clients)
    for name, client in sorted(facts.clients.items()):
        if gateway in client.gateways:
            identifier = words.client_id(client.key)
            strangers.discard(identifier)
            equals.setdefault((dealt[name], found.clients.get(identifier)), []).append(name)
    for identifier in sorted(strangers):
        yield Difference(path, "extra-client", f"{identifier} is no client that lists this gateway")
    networks = [(network.version, words.span(network)) for network in facts.gateways[gateway].networks]
    for (deal, number), names in equals.items():
        for family in (4, 6):
            wanted = list(_wanted(deal, family, policies, [net for of, net in networks if of == family]))
            indexes = () if number is None else found.sets[number]
            given = [claim for index in indexes for claim in found.rules[index].claims[family]]
            yield from _verdicts(path, names, family, excess(given, wanted))


def _wanted(deal: Deal, family: int, policies: tuple[Policy, ...], networks: list[Span]) -> Iterator[Claim]:
    """Yield what the inventory's policies say about a client of this deal behind these networks."""
    families, about = deal
    if family not in families:
        return
    for number, times in about:
        policy = policies[number]
        for prefix, services in policy.destinations:
            if prefix.version == family:
                for destination in clip([words.span(prefix)], networks):
                    for time in times:
                        yield Claim(destination, Right(policy.deny, tuple(sorted(services)), time))


def _verdicts(
    path: str, names: list[str], family: int, places: Iterable[Place | None]
) -> Iterator[Difference]:
    others = f" (and {len(names) - 1} more of equal rights)" if len(names) > 1 else ""
    for place, allows, refuses in zip(places, ("bundle", "inventory"), ("inventory", "bundle"), strict=True):
        if place is not None:
            protocol, port = divmod(place.service, words.PORTS)
            to = (ipaddress.IPv4Address if family == 4 else ipaddress.IPv6Address)(place.destination)
            point = Point(names[0], to, protocol, port, place.time)
            message = f"the {allows} allows {point}{others}, the {refuses} does not"
            yield Difference(path, "gained" if allows == "bundle" else "lost", message, point, allows)


def _names(path: str, policies: tuple[Policy, ...], found: bundles.Policy) -> Iterator[Difference]:
    """Yield the rules that are told to come from a policy which never said such a thing, whenever and to whomever."""
    known = {policy.name: policy for policy in policies}
    for index, rule in enumerate(found.rules):
        policy = known.get(rule.policy)
        kind = "deny" if rule.deny else "allow"
        if policy is None or policy.deny != rule.deny:
            yield Difference(
                path, "policy", f"rule {index}: the inventory has no {kind} policy {rule.policy}"
            )
            continue
        for family in (4, 6):
            said = [
                Claim(words.span(prefix), Right(False, services, EVER))
                for prefix, services in policy.destinations
                if prefix.version == family
            ]
            told = [
                claim._replace(right=Right(False, claim.right.services, EVER))
                for claim in rule.claims[family]
            ]
            if excess(told, said)[0] is not None:
                yield Difference(path, "policy", f"rule {index} says more than its policy {rule.policy}")
