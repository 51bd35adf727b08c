"""Traffic of a company, generated from a policy that is known: the same numbers make the same flows.

A world has clients in groups, resources behind gateways, and policies, each one group to one resource. Every flow is
one that some policy allows; a few clients are lazy, so that not every member of a group uses all that it may.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterator
from dataclasses import dataclass

from tidegate_compiler.learn.flows import DAY, FlowGroup
from tidegate_schema.keys import client_id

BEGIN = 1_795_305_600
"""The first day, Unix seconds: 2026-11-22."""
DAYS = 7
GATEWAYS = 10


@dataclass(frozen=True)
class World:
    """Names and numbers; an object is known by its number."""

    clients: tuple[str, ...]
    """IDs."""
    groups: tuple[tuple[int, ...], ...]
    resources: tuple[tuple[int, tuple[str, ...], tuple[int, ...]], ...]
    """(gateway, addresses, TCP ports) of each."""
    policies: tuple[tuple[int, int], ...]
    """(group, resource), each once."""

    def files(self, with_policies: bool = True) -> dict[str, bytes]:
        """Return the inventory."""
        text = {
            "overlay.yaml": "overlay: {fleet: bench, prefixes: [10.64.0.0/12]}\n",
            "gateways/all.yaml": "".join(
                f'gw-{n}: {{public_key: "{_key(f"gateway {n}")}", endpoint: "203.0.113.{n + 1}:51820", '
                f"networks: [172.16.{n * 16}.0/20]}}\n"
                for n in range(GATEWAYS)
            ),
            "clients/all.yaml": "".join(
                f'client-{n:05}: {{public_key: "{_key(f"client {n}")}", addresses: [10.{64 + (n >> 16)}.{n >> 8 & 255}.'
                f"{n & 255}/32], gateways: [{', '.join(f'gw-{g}' for g in range(GATEWAYS))}]}}\n"
                for n in range(len(self.clients))
            ),
            "groups/all.yaml": "".join(
                f"group-{n:03}: {{members: [{', '.join(f'client-{m:05}' for m in members)}]}}\n"
                for n, members in enumerate(self.groups)
            ),
            "resources/all.yaml": "".join(
                f"res-{n:03}: {{addresses: [{', '.join(f'{one}/32' for one in addresses)}], "
                f"ports: [{', '.join(f'tcp/{port}' for port in ports)}]}}\n"
                for n, (_, addresses, ports) in enumerate(self.resources)
            ),
        }
        if with_policies:
            text["policies/all.yaml"] = "".join(
                f"rule-{n:03}: {{from: [group:group-{group:03}], to: [resource:res-{resource:03}], action: allow}}\n"
                for n, (group, resource) in enumerate(self.policies)
            )
        return {name: one.encode() for name, one in text.items()}

    def access(self) -> set[tuple[str, str, int]]:
        """Return every (client's name, address, port) that the policies allow."""
        return {
            (f"client-{member:05}", address, port)
            for group, resource in self.policies
            for member in self.groups[group]
            for address in self.resources[resource][1]
            for port in self.resources[resource][2]
        }


def _key(label: str) -> str:
    return base64.b64encode(hashlib.blake2s(label.encode()).digest()).decode()


def world(
    clients: int = 2000, groups: int = 120, resources: int = 200, policies: int = 300, seed: int = 1
) -> World:
    """Return a world; groups have sizes by Zipf's law, from about a third of all clients down to a few."""
    chance = random.Random(seed)
    made_groups = tuple(
        tuple(sorted(chance.sample(range(clients), max(4, clients // (3 * (rank + 1))))))
        for rank in range(groups)
    )
    made_resources = tuple(
        (
            n % GATEWAYS,
            tuple(
                f"172.16.{n % GATEWAYS * 16 + n // GATEWAYS % 16}.{n // GATEWAYS // 16 * 64 + 1 + one}"
                for one in range(chance.randint(1, 6))
            ),
            tuple(sorted(chance.sample(range(20, 9000), chance.randint(1, 3)))),
        )
        for n in range(resources)
    )
    pairs = [(group, resource) for group in range(groups) for resource in range(resources)]
    return World(
        tuple(client_id(base64.b64decode(_key(f"client {n}"))) for n in range(clients)),
        made_groups,
        made_resources,
        tuple(sorted(chance.sample(pairs, policies))),
    )


def flows(of: World, count: int, seed: int = 2) -> Iterator[tuple[int, FlowGroup]]:
    """Yield so many flows, each alone, in order of their days; the second is the slot of its day."""
    chance = random.Random(seed)
    for number in range(count):
        group, resource = of.policies[chance.randrange(len(of.policies))]
        members = of.groups[group]
        gateway, addresses, ports = of.resources[resource]
        # One in ten members is lazy: it never uses what this policy gives it.
        member = members[chance.randrange(len(members))]
        while (member * 31 + group * 17 + resource) % 10 == 0 and len(members) > 1:
            member = members[chance.randrange(len(members))]
        moment = BEGIN + number * DAYS * DAY // count
        yield (
            moment // DAY * DAY,
            FlowGroup(
                f"gw-{gateway}",
                of.clients[member],
                addresses[chance.randrange(len(addresses))],
                6,
                ports[chance.randrange(len(ports))],
                "allow",
                "observed",
                float(moment),
                float(moment),
                1,
                1000,
            ),
        )
