"""Whether a client's release does its work: a handshake with a gateway. Looks at the device, and may make it speak.

WireGuard shakes hands when there is something to send, so a quiet client would never learn whether a new gateway
answers. A persistent keepalive that is switched on sends one at once (device/uapi.go of wireguard-go,
drivers/net/wireguard/netlink.c of Linux), and with it the handshake, which WireGuard then retries by itself.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping

from tidegate_agents import wireguard
from tidegate_agents.wireguard import PeerConfig, PeerState
from tidegate_schema.wgquick import ClientConfig

_NUDGE_SECONDS = 25


def peers(name: str) -> Mapping[str, PeerState]:
    """Return the device's peers, none where there is no such device."""
    try:
        return wireguard.show(name).peers
    except wireguard.WireGuardError:
        return {}


def has_session(found: Mapping[str, PeerState], now: float) -> bool:
    """Tell whether some gateway has shaken hands so lately that its session may still live; `now` in Unix seconds."""
    return any(peer.has_session(now) for peer in found.values())


def works(
    found: Mapping[str, PeerState],
    config: ClientConfig,
    good: ClientConfig | None,
    before: Mapping[str, PeerState],
    now: float,
) -> bool:
    """Tell whether a gateway of `config` has shown that it answers; `now` in Unix seconds.

    That is another handshake than those of `before`, what the device said when the release was taken up; or, with a
    gateway that is the same as in the good release, a session that lives: nothing about it has changed, so another
    handshake would tell nothing.
    """
    same = {(peer.public_key, peer.endpoint) for peer in (good or config).peers}
    for peer in config.peers:
        state = found.get(peer.public_key)
        if state is None or not state.latest_handshake:
            continue
        is_same = (peer.public_key, peer.endpoint) in same
        if is_same and state.has_session(now):
            return True
        known = before.get(peer.public_key)
        if known is None or state.latest_handshake != known.latest_handshake:
            return True
    return False


def nudge(
    name: str,
    wanted: Mapping[str, PeerConfig],
    good: ClientConfig | None,
    before: Mapping[str, PeerState],
    now: float,
) -> None:
    """Have every gateway shake hands, but one of the good release with a session. WireGuardError.

    A session outlives a change of the endpoint, and would hide for two minutes that nobody answers at the new one; so
    one that proves nothing is dropped. Before there is a good release there is nothing to go back to, so none has to.
    """
    same = {(peer.public_key, peer.endpoint) for peer in good.peers} if good else None
    for key, peer in wanted.items():
        known = before.get(key)
        if known is not None and has_session({key: known}, now):
            is_same = same is None or (key, peer.endpoint) in same
            if is_same and known.config.endpoint == peer.endpoint:
                continue
            wireguard.remove_peers(name, [key])
            wireguard.set_peers(name, {key: peer})
        for keepalive in (0, _NUDGE_SECONDS, peer.persistent_keepalive):
            wireguard.run("set", name, "peer", key, "persistent-keepalive", str(keepalive))


def is_online(config: ClientConfig) -> bool:
    """Tell whether the host has a route to any gateway's endpoint; sends nothing."""
    return any(_has_route(peer.endpoint) for peer in config.peers)


def _has_route(endpoint: str) -> bool:
    host, _, port = endpoint.rpartition(":")
    address = ipaddress.ip_address(host.strip("[]"))
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as asked:
        try:
            asked.connect((str(address), int(port)))
        except OSError:
            return False
    return True
