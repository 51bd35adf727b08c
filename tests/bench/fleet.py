"""A fleet as large organisations have them, generated: the same numbers make the same bytes.

Clients stand 500 to a file and are in three to eight groups each; groups have sizes by Zipf's law; everything is
dual-stack. Of 100,000 clients: 200 gateways, 5,000 groups, 2,000 resources, 3,000 policies; smaller fleets have
the same shape with as many gateways, resources and policies, and groups in proportion.
"""

from __future__ import annotations

import base64
import hashlib
import random
from collections.abc import Iterable
from itertools import accumulate
from pathlib import Path

PER_FILE = 500
GROUPS_PER_FILE = 10  # the largest ones stand together, and a file is 4 MiB at most
GATEWAYS, RESOURCES, POLICIES = 200, 2000, 3000
CLIENTS_PER_GROUP = 20


def key(name: str) -> str:
    """Return a public key for a name, the same every time; nobody holds its private key."""
    return base64.b64encode(hashlib.blake2s(name.encode()).digest()).decode()


def client(number: int, gateway: int) -> str:
    """Return the line of one client."""
    v4 = f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}/32"
    return (
        f'laptop-{number:06}: {{public_key: "{key(f"client {number}")}", '
        f'addresses: [{v4}, "fd64::{number >> 16:x}:{number & 0xFFFF:x}/128"], '
        f"gateways: [gw-{gateway:03}, gw-{gateway ^ 1:03}]}}\n"
    )


def generate(root: Path, clients: int, seed: int = 1) -> None:
    """Write the inventory of a fleet into an empty or absent directory."""
    chance = random.Random(seed)
    for kind in ("gateways", "clients", "groups", "resources", "policies", "tests"):
        (root / kind).mkdir(parents=True, exist_ok=True)
    (root / "overlay.yaml").write_text('overlay: {fleet: bench, prefixes: [10.64.0.0/10, "fd64::/48"]}\n')
    # Gateways stand in pairs that serve the same networks, so that each client has a standby.
    _write(
        root / "gateways/all.yaml",
        (
            f'gw-{n:03}: {{public_key: "{key(f"gateway {n}")}", endpoint: "203.0.{n // 250}.{n % 250 + 1}:51820", '
            f'networks: [172.{16 + n // 32}.{n // 2 % 16 * 16}.0/20, "fd20:{n // 2:x}::/32"]}}\n'
            for n in range(GATEWAYS)
        ),
    )
    homes = [chance.randrange(GATEWAYS) for _ in range(clients)]
    for first in range(0, clients, PER_FILE):
        of_file = range(first, min(first + PER_FILE, clients))
        _write(root / f"clients/{first // PER_FILE:04}.yaml", (client(n, homes[n]) for n in of_file))
    groups = max(10, clients // CLIENTS_PER_GROUP)
    weights = list(accumulate(1 / rank for rank in range(1, groups + 1)))
    members: list[list[int]] = [[] for _ in range(groups)]
    for number in range(clients):
        for group in sorted(set(chance.choices(range(groups), cum_weights=weights, k=chance.randint(3, 8)))):
            members[group].append(number)
    for group in range(groups):
        members[group] = members[group] or [chance.randrange(clients)]
    for first in range(0, groups, GROUPS_PER_FILE):
        _write(
            root / f"groups/{first // GROUPS_PER_FILE:04}.yaml",
            (
                f"group-{n:04}:\n  members:\n" + "".join(f"    - laptop-{m:06}\n" for m in members[n])
                for n in range(first, min(first + GROUPS_PER_FILE, groups))
            ),
        )
    _write(
        root / "resources/all.yaml",
        (
            f"res-{n:04}: {{addresses: [172.{16 + g // 16}.{g % 16 * 16 + n // 100 % 16}.{n % 8 * 32}/28, "
            f'"fd20:{g:x}:{n:x}::/64"], ports: [tcp/{1000 + n}, udp/{1000 + n}-{1010 + n}]}}\n'
            for n in range(RESOURCES)
            for g in [n % (GATEWAYS // 2)]
        ),
    )
    # A policy's resource is one that some member of its group has a way to.
    pairs = GATEWAYS // 2
    named = [chance.randrange(groups) for _ in range(POLICIES)]
    _write(
        root / "policies/all.yaml",
        (
            f"policy-{n:04}: {{from: [group:group-{group:04}], "
            f"to: [resource:res-{chance.randrange(RESOURCES // pairs) * pairs + homes[members[group][0]] // 2:04}], "
            f"action: {'deny' if n % 50 == 0 else 'allow'}}}\n"
            for n, group in enumerate(named)
        ),
    )


def _write(path: Path, lines: Iterable[str]) -> None:
    path.write_text("".join(lines))
