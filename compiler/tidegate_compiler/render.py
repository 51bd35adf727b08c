"""Hosts to files: {path: bytes} of the output directory, the same bytes for the same fleet on any machine.

manifest.json
client/<name>/wg0.conf
gateway/<name>/peers.json  policy.json
"""

from __future__ import annotations

import functools
from typing import Any

import jinja2

from tidegate_compiler.resolve import ClientHost, Fleet, GatewayHost
from tidegate_schema import jsonfile
from tidegate_schema.wgquick import KEYLESS_POSTUP

FORMAT = 1
MANIFEST = "manifest.json"


def render(fleet: Fleet, inventory_digest: str) -> dict[str, bytes]:
    """Return every file of the output by its path relative to it."""
    files = {MANIFEST: jsonfile.canonical(_manifest(fleet, inventory_digest))}
    for client in fleet.clients:
        files[f"client/{client.name}/wg0.conf"] = wg_quick(client)
    for gateway in fleet.gateways:
        files[f"gateway/{gateway.name}/peers.json"] = jsonfile.canonical(_peers(gateway))
        if gateway.policy is not None:
            files[f"gateway/{gateway.name}/policy.json"] = jsonfile.canonical(gateway.policy)
    return files


def wg_quick(client: ClientHost) -> bytes:
    """Return a client's wg-quick file. Every value comes from a parsed key, address or endpoint, never from text."""
    text = _template().render(
        addresses=list(map(str, client.addresses)),
        postup=KEYLESS_POSTUP,
        peers=[peer for _, peer in client.peers],
    )
    return text.encode("ascii")


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tidegate_compiler"),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - a wg-quick file knows no escapes; values are canonical by construction
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("wg0.conf.j2")


def _manifest(fleet: Fleet, inventory_digest: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "fleet": fleet.name,
        "inventory": inventory_digest,
        "hosts": {
            "client": [client.name for client in fleet.clients],
            "gateway": [gateway.name for gateway in fleet.gateways],
        },
    }


def _peers(gateway: GatewayHost) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "peers": [
            {
                "client_id": peer.client_id,
                "public_key": peer.public_key,
                "allowed_ips": list(peer.allowed_ips),
            }
            for peer in gateway.peers
        ],
    }
