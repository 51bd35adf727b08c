"""The client's own wg-quick file, and the peers of its interface, from a bundle and local settings. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_agents.wireguard import PeerConfig
from tidegate_schema.wgquick import ClientConfig


def peers(config: ClientConfig, settings: Mapping[str, Any]) -> dict[str, PeerConfig]:
    """Return the peers that the interface should have, standbys with no AllowedIPs among them."""
    return {
        peer.public_key: PeerConfig(
            frozenset(peer.allowed_ips),
            peer.endpoint,
            settings["persistent_keepalive"] or peer.persistent_keepalive or 0,
        )
        for peer in config.peers
    }


def wg_quick_file(config: ClientConfig, settings: Mapping[str, Any], key: Path) -> str:
    """Return the file that wg-quick(8) is given: rendered here, from checked values only.

    The key is set by PostUp from its own file, because wg-quick's PreUp does not work with the wireguard-tools of
    stable distributions, and because this way it stands in one file only.
    """
    lines = [
        "# Written by 'tidegate client run' at every change; edit /etc/tidegate/client.yaml instead.",
        "[Interface]",
        f"Address = {', '.join(config.addresses)}",
        f"MTU = {config.mtu or settings['mtu']}",
        *([f"ListenPort = {settings['listen_port']}"] if settings["listen_port"] else []),
        f"PostUp = wg set %i private-key {key}",
    ]
    for public_key, peer in peers(config, settings).items():
        lines += ["", "[Peer]", f"PublicKey = {public_key}", f"Endpoint = {peer.endpoint}"]
        if peer.allowed_ips:
            lines.append(f"AllowedIPs = {', '.join(sorted(peer.allowed_ips))}")
        if peer.persistent_keepalive:
            lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
    return "\n".join(lines) + "\n"


def networks(config: ClientConfig) -> frozenset[str]:
    """Return the prefixes that are routed into the interface."""
    return frozenset(prefix for peer in config.peers for prefix in peer.allowed_ips)
