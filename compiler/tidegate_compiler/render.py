"""Hosts to files: {path: bytes} of the output directory, the same bytes for the same fleet on any machine.

manifest.json
client/<name>/wg0.conf
gateway/<name>/peers.json  policy.json
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tidegate_schema import jsonfile

if TYPE_CHECKING:
    import jinja2

    from tidegate_compiler.resolve import ClientHost, Fleet, GatewayHost
    from tidegate_schema.wgquick import Peer

FORMAT = 1
MANIFEST = "manifest.json"
_BETWEEN = '","'


def render(fleet: Fleet, inventory_digest: str) -> dict[str, bytes]:
    """Return every file of the output by its path relative to it."""
    files = {MANIFEST: manifest(fleet.name, inventory_digest, fleet.clients, fleet.gateways)}
    known: dict[
        int, tuple[str, str]
    ] = {}  # by identity: clients alike share their peers, and hashing them costs
    for client in fleet.clients.values():
        around = known.get(id(client.peers))
        if around is None:
            around = known[id(client.peers)] = _around_addresses(client.peers)
        text = ", ".join(client.addresses).join(around)
        files[f"client/{client.name}/wg0.conf"] = text.encode("ascii")
    bundles: dict[str, dict[str, bytes]] = {}
    for gateway in fleet.gateways.values():
        twin = fleet.twins[gateway.name]
        if twin not in bundles:
            bundles[twin] = of_gateway(gateway)
        for name, data in bundles[twin].items():
            files[f"gateway/{gateway.name}/{name}"] = data
    return files


def of_client(client: ClientHost) -> dict[str, bytes]:
    """Return the files of a client's bundle."""
    return {"wg0.conf": ", ".join(client.addresses).join(_around_addresses(client.peers)).encode("ascii")}


def of_gateway(gateway: GatewayHost) -> dict[str, bytes]:
    """Return the files of a gateway's bundle."""
    files = {"peers.json": _peers(gateway)}
    if gateway.policy is not None:
        files["policy.json"] = jsonfile.canonical(gateway.policy)
    return files


@functools.lru_cache(maxsize=4096)
def _around_addresses(peers: tuple[tuple[str, Peer], ...]) -> tuple[str, str]:
    """Return what stands before and after the addresses of a client with these peers.

    Every value in it comes from a parsed key, address or endpoint, never from text.
    """
    from tidegate_schema.wgquick import KEYLESS_POSTUP

    mark = "\0"
    text = _template().render(addresses=[mark], postup=KEYLESS_POSTUP, peers=[peer for _, peer in peers])
    before, after = text.split(mark)
    return before, after


@functools.cache
def _template() -> jinja2.Template:
    import jinja2  # only where something is rendered: `validate` does without

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tidegate_compiler"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - a wg-quick file knows no escapes; values are canonical by construction
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("wg0.conf.j2")


def manifest(fleet: str, inventory_digest: str, clients: Iterable[str], gateways: Iterable[str]) -> bytes:
    """Return the file that names all hosts, given in order: what `jsonfile.canonical` would, of names and digests."""
    listed = [f'["{_BETWEEN.join(names)}"]' if names else "[]" for names in map(list, (clients, gateways))]
    return (
        f'{{"fleet":"{fleet}","format":{FORMAT},"hosts":{{"client":{listed[0]},"gateway":{listed[1]}}},'
        f'"inventory":"{inventory_digest}"}}\n'
    ).encode("ascii")


def _peers(gateway: GatewayHost) -> bytes:
    """Return what `jsonfile.canonical` would, of values that need no escape: digits, names and base64."""
    peers = ",".join(
        [
            f'{{"allowed_ips":["{_BETWEEN.join(peer.addresses)}"],'
            f'"client_id":"{peer.client_id}","public_key":"{peer.public_key}"}}'
            for peer in gateway.peers
        ]
    )
    return f'{{"format":{FORMAT},"peers":[{peers}]}}\n'.encode("ascii")
