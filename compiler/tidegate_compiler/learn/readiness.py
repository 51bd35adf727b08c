"""How long each gateway, and each policy on it, has had no denial that nobody decided on. Pure.

A denial is explained where a deny policy decides it. Any other one is somebody's work that would stop under enforce,
or already has: a policy is missing, or the traffic should not be. It counts against the gateway, and against each allow
policy whose destinations and ports the packet was for: those are the policies whose list of clients may be too short.

Days are counted back from the last one on which the gateway recorded anything, and only those on which it did: silence
proves nothing. Nothing here switches anything; `authz_mode` is set on the gateway.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tidegate_compiler.grants import Grant, Ports, grants
from tidegate_compiler.learn.flows import DAY, FlowGroup
from tidegate_compiler.learn.replay import Candidate
from tidegate_compiler.learn.replaydoc import port_text
from tidegate_compiler.model import Inventory, Network
from tidegate_compiler.networks import Covering
from tidegate_compiler.times import format_instant
from tidegate_schema.policy import Reason
from tidegate_schema.ports import ANY_PROTOCOL

FORMAT = 1
EXAMPLES = 3


@dataclass
class Standing:
    """One gateway's record, or one policy's on it. Days are numbers since the epoch."""

    recorded: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    flows: int = 0
    unexplained: int = 0
    explained: int = 0
    clients: set[str] = field(default_factory=set)
    last: float = 0.0
    examples: dict[tuple[str, str, str], int] = field(default_factory=dict)

    def days(self, recorded: set[int]) -> int:
        """Return how many of the recorded days came after the last one with an unexplained denial."""
        worst = max(self.refused, default=-1)
        return sum(day > worst for day in recorded)


@dataclass
class Readiness:
    """The standing of each gateway, and of each (policy, gateway) that the inventory has or traffic met."""

    gateways: dict[str, Standing] = field(default_factory=dict)
    policies: dict[tuple[str, str], Standing] = field(default_factory=dict)


class _Asked:
    """Finds the allow policies that a packet's destination and port are of."""

    def __init__(self, inventory: Inventory) -> None:
        self._of: dict[Network, list[tuple[Grant, Ports]]] = {}
        for grant in grants(inventory):
            if grant.action == "allow":
                for prefix, ports in grant.destinations.items():
                    self._of.setdefault(prefix, []).append((grant, ports))
        self._covering = Covering(self._of)
        self.find = functools.lru_cache(1 << 16)(self._find)

    def _find(self, destination: str, protocol: int, port: int) -> tuple[str, ...]:
        return tuple(
            sorted(
                {
                    grant.policy
                    for prefix in self._covering.of(ipaddress.ip_network(destination))
                    for grant, ports in self._of[prefix]
                    if _admit(ports, protocol, port)
                }
            )
        )


def _admit(ports: Ports, protocol: int, port: int) -> bool:
    return any(
        one.protocol == ANY_PROTOCOL or (one.protocol == protocol and one.first <= port <= one.last)
        for one in ports
    )


def readiness(
    groups: Iterable[tuple[int, FlowGroup]], candidate: Candidate, inventory: Inventory, at: float | None
) -> Readiness:
    """Judge every group at Unix second `at`, or for None at the time when it was recorded."""
    found, asked = Readiness(), _Asked(inventory)
    for slot, group in groups:
        judged = candidate.judge(group, slot if at is None else at)
        if judged is None:
            continue
        day = slot // DAY
        whole = found.gateways.setdefault(group.gateway, Standing())
        met = asked.find(group.destination, group.protocol, group.port) if group.destination else ()
        of_policies = [found.policies.setdefault((name, group.gateway), Standing()) for name in met]
        for standing in (whole, *of_policies):
            standing.recorded.add(day)
            standing.flows += group.flows
            if judged.allow:
                continue
            if judged.reason == Reason.DENIED.name:
                standing.explained += group.flows
                continue
            standing.unexplained += group.flows
            standing.refused.add(day)
            standing.last = max(standing.last, group.last)
            client = candidate.names.called(group.client_id)
            standing.clients.add(client)
            port = port_text(group.destination, group.protocol, group.port) if group.destination else ""
            example = (client, group.destination, port)
            standing.examples[example] = standing.examples.get(example, 0) + group.flows
            if len(standing.examples) > EXAMPLES:  # the first by name, in whatever order flows come
                del standing.examples[max(standing.examples)]
    return found


def document(found: Readiness, title: str, flows: str, at: int | None) -> dict[str, Any]:
    """Return the outcome as `--format json` prints it; the gateways, each with its policies, the worst first."""
    return {
        "format": FORMAT,
        "inventory": title,
        "flows": flows,
        "at": "recorded" if at is None else format_instant(at),
        "gateways": [
            _row(found.gateways[name], found.gateways[name].recorded)
            | {"gateway": name, "policies": list(_policies(found, name))}
            for name in sorted(found.gateways)
        ],
    }


def _policies(found: Readiness, gateway: str) -> Iterator[dict[str, Any]]:
    recorded = found.gateways[gateway].recorded
    rows = [
        {"policy": policy} | _row(standing, recorded)
        for (policy, where), standing in found.policies.items()
        if where == gateway
    ]
    yield from sorted(rows, key=lambda row: (row["days"], -row["unexplained"], row["policy"]))


def _row(standing: Standing, recorded: set[int]) -> dict[str, Any]:
    return {
        "days": standing.days(recorded),
        "days_recorded": len(recorded),
        "flows": standing.flows,
        "unexplained": standing.unexplained,
        "explained": standing.explained,
        "clients": sorted(standing.clients),
        "last": format_instant(int(standing.last)) if standing.unexplained else None,
        "examples": [
            {"client": client or None, "destination": to or None, "port": port or None, "flows": flows}
            for (client, to, port), flows in sorted(standing.examples.items())
        ],
    }


TITLES = ("gateway", "policy", "days without", "of recorded", "flows", "unexplained", "last", "for instance")


def cells(told: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the document's rows for a table: a gateway as a whole, then its policies."""
    for gateway in told["gateways"]:
        for row in ({"policy": "(all)"} | gateway, *gateway["policies"]):
            one = next(iter(row["examples"]), None)
            yield (
                gateway["gateway"],
                row["policy"],
                *(str(row[name]) for name in ("days", "days_recorded", "flows", "unexplained")),
                row["last"] or "-",
                f"{one['client'] or 'unknown'} -> {one['destination'] or '?'} {one['port'] or ''}".strip()
                if one
                else "-",
            )
