"""File by file: what the inventory says against what the output says.

    manifest.json                     fleet, hosts, and the inventory's digest
    client/<name>/wg0.conf            addresses, gateways in order, routes, the one PostUp line
    gateway/<name>/peers.json         the clients that list the gateway, no more and no fewer
    gateway/<name>/policy.json        see `rights`; only when the inventory has policies

Anything else in the output is a difference, too.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping

from tidegate_compiler.verify import bundles, rights, wgfile, words
from tidegate_compiler.verify.difference import Difference, show
from tidegate_compiler.verify.inventory import Client, Facts
from tidegate_compiler.verify.words import Net, RefusalError

Check = Callable[[bytes], Iterable[Difference]]


def differences(facts: Facts, files: Mapping[str, bytes | None]) -> Iterator[Difference]:
    """Yield every difference, file by file in order of their paths."""
    checks = dict(_checks(facts))
    for path in sorted(checks.keys() | files.keys()):
        data = files.get(path)
        if path not in checks:
            yield Difference(path, "extra", "the inventory has no place for it")
        elif path not in files:
            yield Difference(path, "missing", "the inventory says that it is there")
        elif data is None:
            yield Difference(path, "unreadable", "not a regular file of sane size")
        else:
            try:
                yield from checks[path](data)
            except RefusalError as refusal:
                yield Difference(path, "unreadable", str(refusal))


def _checks(facts: Facts) -> Iterator[tuple[str, Check]]:
    """Yield every path that an output of this inventory has, with the check of its content."""
    deals = rights.deals(facts)
    yield "manifest.json", functools.partial(_manifest, facts)
    for name, client in facts.clients.items():
        path = f"client/{name}/wg0.conf"
        yield path, functools.partial(_client, path, client, facts)
    for name in facts.gateways:
        path = f"gateway/{name}/peers.json"
        yield path, functools.partial(_peers, path, name, facts)
        if facts.policies is not None:
            path = f"gateway/{name}/policy.json"
            yield path, functools.partial(_policy, path, name, facts, deals)


def _manifest(facts: Facts, data: bytes) -> Iterator[Difference]:
    found = bundles.document(data)
    wanted = {
        "format": 1,
        "fleet": facts.fleet,
        "inventory": facts.digest,
        "hosts": {"client": sorted(facts.clients), "gateway": sorted(facts.gateways)},
    }
    if not isinstance(found, dict):
        raise RefusalError("not an object")
    for field in sorted(wanted.keys() | found.keys()):
        if (
            field not in wanted
            or type(found.get(field)) is not type(wanted[field])
            or found[field] != wanted[field]
        ):
            yield Difference("manifest.json", field, "not what the inventory says")


def _client(path: str, client: Client, facts: Facts, data: bytes) -> Iterator[Difference]:
    found = wgfile.parse(data)
    if found.addresses != client.addresses:
        yield Difference(path, "Address", _lists(client.addresses, found.addresses))
    if found.postup != wgfile.POSTUP:
        yield Difference(path, "PostUp", f"{show(found.postup)} instead of {wgfile.POSTUP!r}")
    wanted = list(_wanted_peers(client, facts))
    if len(found.peers) != len(wanted):
        yield Difference(path, "Peer", f"{len(found.peers)} of them instead of {len(wanted)}")
    for (gateway, peer), other in zip(wanted, found.peers, strict=False):
        if other.key != peer.key:
            yield Difference(path, "PublicKey", f"another key where that of {gateway} belongs")
        if other.endpoint != peer.endpoint:
            here = " port ".join(map(str, other.endpoint))
            yield Difference(path, "Endpoint", f"{here} is not where {gateway} is")
        if other.routes != peer.routes:
            yield Difference(path, "AllowedIPs", f"{gateway}: {_lists(peer.routes, other.routes)}")


def _wanted_peers(client: Client, facts: Facts) -> Iterator[tuple[str, wgfile.Peer]]:
    """Yield a client's gateways: the first of those with equal networks has the routes, its standbys follow it."""
    rest = list(client.gateways)
    while rest:
        networks = facts.gateways[rest[0]].networks
        equal = [name for name in rest if facts.gateways[name].networks == networks]
        rest = [name for name in rest if name not in equal]
        routes = frozenset(network for network in networks if network.version in client.families)
        for name in equal:
            gateway = facts.gateways[name]
            yield (
                name,
                wgfile.Peer(gateway.key, gateway.endpoint, routes if name == equal[0] else frozenset()),
            )


def _peers(path: str, gateway: str, facts: Facts, data: bytes) -> Iterator[Difference]:
    found = bundles.peers(data)
    of_key = {client.key: name for name, client in facts.clients.items() if gateway in client.gateways}
    listed = Counter(peer.key for peer in found)
    for key in sorted(of_key.keys() - listed.keys()):
        yield Difference(path, "missing-peer", f"{of_key[key]} lists this gateway and is no peer of it")
    for peer in found:
        name = of_key.get(peer.key)
        if name is None:
            yield Difference(
                path, "extra-peer", f"{peer.client_id}: no client that lists this gateway has its key"
            )
            continue
        if listed[peer.key] > 1:
            yield Difference(path, "extra-peer", f"{name} is there more than once")
        if peer.client_id != words.client_id(peer.key):
            yield Difference(path, "client_id", f"{peer.client_id} is not the ID of {name}")
        addresses = facts.clients[name].addresses
        if peer.addresses != addresses:
            yield Difference(path, "allowed_ips", f"{name}: {_lists(addresses, peer.addresses)}")


def _policy(
    path: str, gateway: str, facts: Facts, deals: Mapping[str, rights.Deal], data: bytes
) -> Iterable[Difference]:
    return rights.differences(path, gateway, facts, deals, bundles.policy(data))


def _lists(wanted: frozenset[Net], found: frozenset[Net]) -> str:
    said = [
        f"{what} {', '.join(sorted(map(str, nets))[:4])}"
        for what, nets in (("lacks", wanted - found), ("has besides", found - wanted))
        if nets
    ]
    return "; ".join(said)
