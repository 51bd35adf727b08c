"""One full mesh for both tools: wg-meshconf's table of hosts, and a Tidegate inventory whose files say the same.

wg-meshconf gives every host one wg-quick file with all others as peers. A Tidegate client's file has its gateways as
peers, so here each host is a client, for its own file, and a gateway, for the files of all others:

    host-000: client (address)  + gateway (public key, endpoint, networks)

A gateway is no client of its own. The two then say the same but for what `docs/bench.md` lists.
"""

from __future__ import annotations

import base64
import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

import wgquickreader
from bench import fleet

PORT = 51820


class Peer(NamedTuple):
    """What a file says of one peer, whoever wrote it."""

    public_key: str
    endpoint: str
    allowed_ips: frozenset[str]


class Host(NamedTuple):
    """A host's file: its own addresses and its peers."""

    addresses: frozenset[str]
    peers: frozenset[Peer]


def addresses(number: int) -> list[str]:
    """Return a host's own addresses."""
    number += 1
    return [f"10.64.{number >> 8}.{number & 255}/32", f"fd64::{number:x}/128"]


def networks(number: int) -> list[str]:
    """Return what is reached through a host."""
    return [f"172.{16 + (number >> 8)}.{number & 255}.0/24", f"fd20:{number + 1:x}::/32"]


def _endpoint(number: int) -> str:
    return f"203.0.{113 + number // 250}.{number % 250 + 1}"


def _private_key(number: int) -> bytes:
    return hashlib.blake2s(f"mesh {number}".encode()).digest()


def _public_key(number: int) -> str:
    key = X25519PrivateKey.from_private_bytes(_private_key(number)).public_key()
    return base64.b64encode(key.public_bytes_raw()).decode()


def write_inventory(root: Path, hosts: int) -> None:
    """Write the mesh as an inventory, into a directory that is not there yet."""
    for kind in ("gateways", "clients"):
        (root / kind).mkdir(parents=True)
    (root / "overlay.yaml").write_text('overlay: {fleet: mesh, prefixes: [10.64.0.0/16, "fd64::/48"]}\n')
    names = [f"host-{number:03}" for number in range(hosts)]
    gateways, clients = [], []
    for number, name in enumerate(names):
        v4, v6 = networks(number)
        gateways.append(
            f'{name}: {{public_key: "{_public_key(number)}", endpoint: "{_endpoint(number)}:{PORT}", '
            f'networks: [{v4}, "{v6}"]}}\n'
        )
        v4, v6 = addresses(number)
        others = ", ".join(other for other in names if other != name)
        clients.append(
            f'{name}: {{public_key: "{fleet.key(f"mesh client {number}")}", addresses: [{v4}, "{v6}"], '
            f"gateways: [{others}]}}\n"
        )
    (root / "gateways/all.yaml").write_text("".join(gateways))
    (root / "clients/all.yaml").write_text("".join(clients))


def write_table(path: Path, hosts: int, columns: list[str]) -> None:
    """Write the mesh as wg-meshconf's database; `columns` are its own, in order."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, columns, restval="", quoting=csv.QUOTE_ALL)
        table.writeheader()
        for number in range(hosts):
            table.writerow(
                {
                    "Name": f"host-{number:03}",
                    "Address": ",".join(addresses(number)),
                    "Endpoint": _endpoint(number),
                    "AllowedIPs": ",".join(networks(number)),
                    "ListenPort": PORT,
                    "PrivateKey": base64.b64encode(_private_key(number)).decode(),
                }
            )


def read(data: bytes) -> Host:
    """Read a wg-quick file by the tests' own reader, which shares no code with either tool."""
    interface, *sections = wgquickreader.read(data).sections
    return Host(
        _set(dict(interface.entries)["address"]),
        frozenset(
            Peer(entries["publickey"], entries["endpoint"], _set(entries["allowedips"]))
            for entries in (dict(section.entries) for section in sections)
        ),
    )


def without_own_addresses(host: Host) -> Host:
    """Leave out what wg-meshconf adds to each peer's AllowedIPs, and Tidegate never: the peer's own addresses."""
    inside = ("10.64.", "fd64:")
    return host._replace(
        peers=frozenset(
            peer._replace(allowed_ips=frozenset(a for a in peer.allowed_ips if not a.startswith(inside)))
            for peer in host.peers
        )
    )


def _set(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(","))
