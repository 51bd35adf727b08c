"""The client's interface: brought up by wg-quick, then changed live so that no key, port or session is lost."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tidegate_agents import tools, wireguard
from tidegate_agents.client import keyfiles, render
from tidegate_agents.client.reconcile import DEFAULTS, Action, Link, Observed, Verb, Wanted, plan
from tidegate_agents.files import write_atomic
from tidegate_agents.host import HostError, Places, public_key
from tidegate_schema.wgquick import ClientConfig

log = logging.getLogger("tidegate.client")

_SECONDS = 60.0  # wg-quick runs a dozen programs, which a busy host may make wait
_PASSES = 3  # losing an address can take routes with it, which the next pass brings back


def _run(*command: str) -> str:
    try:
        done = tools.run(*command, seconds=_SECONDS)
    except subprocess.TimeoutExpired:
        raise HostError(f"{' '.join(command[:3])}: no answer within {_SECONDS:.0f} s") from None
    if done.returncode:
        raise HostError(f"{' '.join(command[:3])}: {(done.stderr.strip() or 'failed').splitlines()[-1]}")
    return done.stdout


def exists(name: str) -> bool:
    """Tell whether the interface is there."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def _file(places: Places, name: str) -> Path:
    return places.run / f"{name}.conf"


def wanted(places: Places, config: ClientConfig, settings: Mapping[str, Any]) -> Wanted:
    """Return the interface that a bundle and the settings ask for. HostError when there is no key."""
    return Wanted(
        public_key(places),
        render.peers(config, settings),
        frozenset(config.addresses),
        render.networks(config),
        config.mtu or settings["mtu"],
    )


def observe(name: str) -> Observed | None:
    """Read the interface as it is; None when it is not there."""
    if not exists(name):
        return None
    try:
        device = wireguard.show(name)
        return Observed(device.public_key, device.peers, look(name), device.fwmark)
    except HostError:
        if exists(name):
            raise
        return None  # it went in between


def look(name: str) -> Link:
    """Read what ip(8) says of the interface."""
    (link,) = json.loads(_run("ip", "-json", "address", "show", "dev", name))
    addresses = frozenset(
        f"{info['local']}/{info['prefixlen']}"
        for info in link.get("addr_info", ())
        if info["scope"] == "global"
    )
    return Link(addresses, _routes(name), link["mtu"], "UP" in link["flags"])


def _routes(name: str) -> frozenset[str]:
    """Return the prefixes routed into the interface; a default route in any table, where wg-quick puts it."""
    found: set[str] = set()
    for family, default in (("-4", "0.0.0.0/0"), ("-6", "::/0")):
        words = ("ip", family, "-json", "route", "show", "table", "all", "dev", name, "proto", "boot")
        for route in json.loads(_run(*words) or "[]"):
            prefix = default if route["dst"] == "default" else str(ipaddress.ip_network(route["dst"]))
            if "table" not in route or prefix in DEFAULTS:
                found.add(prefix)
    return frozenset(found)


def apply(places: Places, config: ClientConfig, settings: Mapping[str, Any]) -> None:
    """Make the interface what the bundle says; bring it up when it is not there. HostError when a tool refuses.

    An endpoint to which a gateway has moved by itself is set to the bundle's, once.
    """
    name, target = settings["interface"], wanted(places, config, settings)
    actions: list[Action] = []
    for number in range(_PASSES):
        observed = observe(name)
        if observed is not None:
            refuse_strangers(places, name, observed.key)
        actions = plan(target, observed, time.time() if number else None)
        if number == 0:
            write_atomic(_file(places, name), render.wg_quick_file(config, settings, places.key).encode())
        if not actions:
            return
        for action in actions:
            _EXECUTE[action.verb](places, name, action)
    raise HostError(f"{name} does not become as wanted; still to do: {actions[0].text}")


def refuse_strangers(places: Places, name: str, key: str) -> None:
    """Raise HostError when an interface of this name has a key that is none of this client's."""
    if key not in (*keyfiles.public_keys(places).values(), "(none)"):
        raise HostError(
            f"{name} is there and has not this client's key; remove it, or name another 'interface'"
        )


def shake(name: str, key: str, peer: wireguard.PeerConfig) -> None:
    """Make a peer that carries nothing shake hands at once: by itself it would wait for something to send.

    Taken off and put back it has no earlier attempt to wait for, and a keepalive that is switched on is sent at once
    (set_peer in Linux's drivers/net/wireguard/netlink.c, handlePostConfig in wireguard-go's device/uapi.go).
    """
    words = ["peer", key, "remove", "peer", key]
    words += ["endpoint", peer.endpoint] if peer.endpoint else []
    wireguard.run("set", name, *words, "persistent-keepalive", "1")
    wireguard.run("set", name, "peer", key, "persistent-keepalive", str(peer.persistent_keepalive))


def find_source_anew(name: str, peers: Mapping[str, wireguard.PeerState]) -> None:
    """Have the device choose its own address towards each peer anew, after the network under it has changed.

    WireGuard keeps sending from the address that it was last answered at, and an endpoint that is set drops that
    (wg_socket_set_peer_endpoint in Linux's drivers/net/wireguard/socket.c). Without it, wireguard-go of 2022 took 15 s.
    """
    words = [
        word
        for key, peer in peers.items()
        if peer.config.endpoint
        for word in ("peer", key, "endpoint", peer.config.endpoint)
    ]
    if words:
        wireguard.run("set", name, *words)


def is_ours(places: Places, name: str) -> bool:
    """Tell whether an agent of this client has brought up the interface."""
    return _file(places, name).exists()


def up(places: Places, name: str, text: str) -> None:
    """Bring up an interface by wg-quick(8) from this file. HostError when it refuses."""
    write_atomic(_file(places, name), text.encode())
    _run("wg-quick", "up", str(_file(places, name)))


def down(places: Places, name: str) -> None:
    """Take the interface away, if it is there and ours."""
    if exists(name) and is_ours(places, name):
        _run("wg-quick", "down", str(_file(places, name)))
    _file(places, name).unlink(missing_ok=True)


def _create(places: Places, name: str, _action: Action) -> None:
    _run("wg-quick", "up", str(_file(places, name)))


def _recreate(places: Places, name: str, action: Action) -> None:
    _run("wg-quick", "down", str(_file(places, name)))
    _create(places, name, action)


def _ip(kind: str, verb: str) -> Callable[[Places, str, Action], None]:
    def execute(_places: Places, name: str, action: Action) -> None:
        family = f"-{ipaddress.ip_network(action.subject).version}"
        _run("ip", family, kind, verb, action.subject, "dev", name)

    return execute


def _set_peer(_places: Places, name: str, action: Action) -> None:
    assert action.peer is not None
    wireguard.set_peers(name, {action.subject: action.peer})


_EXECUTE: Mapping[Verb, Callable[[Places, str, Action], None]] = {
    Verb.CREATE: _create,
    Verb.RECREATE: _recreate,
    Verb.REMOVE_ROUTE: _ip("route", "del"),
    Verb.REMOVE_PEER: lambda _, name, action: wireguard.remove_peers(name, [action.subject]),
    Verb.NARROW_PEER: _set_peer,
    Verb.SET_KEY: lambda places, name, _: _discard(
        wireguard.run("set", name, "private-key", str(places.key))
    ),
    Verb.SET_PEER: _set_peer,
    Verb.ADD_ADDRESS: _ip("address", "add"),
    Verb.REMOVE_ADDRESS: _ip("address", "del"),
    Verb.SET_MTU: lambda _, name, action: _discard(
        _run("ip", "link", "set", "dev", name, "mtu", action.subject)
    ),
    Verb.SET_UP: lambda _, name, __: _discard(_run("ip", "link", "set", "dev", name, "up")),
    Verb.ADD_ROUTE: _ip("route", "add"),
}


def _discard(_output: str) -> None:
    pass
