"""The client's interface: brought up by wg-quick, then changed live so that no key, port or session is lost."""

from __future__ import annotations

import ipaddress
import json
import logging
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tidegate_agents import wireguard
from tidegate_agents.client import render
from tidegate_agents.files import write_atomic
from tidegate_agents.host import HostError, Places, public_key
from tidegate_schema.wgquick import ClientConfig

log = logging.getLogger("tidegate.client")


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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


def apply(places: Places, config: ClientConfig, settings: Mapping[str, Any]) -> None:
    """Make the interface what the bundle says; bring it up when it is not there. HostError when a tool refuses."""
    name = settings["interface"]
    file = _file(places, name)
    write_atomic(file, render.wg_quick_file(config, settings, places.key).encode())
    if exists(name):
        key = wireguard.run("show", name, "public-key").strip()
        if key not in (public_key(places), "(none)"):
            raise HostError(
                f"{name} is there and has not this client's key; remove it, or name another 'interface'"
            )
    else:
        _run("wg-quick", "up", str(file))
        return
    _change_live(name, config, settings, places.key)


def _change_live(name: str, config: ClientConfig, settings: Mapping[str, Any], key: Path) -> None:
    wireguard.run(
        "set", name, "private-key", str(key)
    )  # unchanged in the common case, and then it changes nothing
    observed = {public: peer.config for public, peer in wireguard.show(name).peers.items()}
    change = wireguard.difference(observed, render.peers(config, settings))
    # Routes that go, go before the peer that served them; routes that come, come after theirs.
    have_addresses, want_addresses = _addresses(name), frozenset(config.addresses)
    have_routes, want_routes = _routes(name), render.networks(config)
    _ip("route", "del", have_routes - want_routes, name)
    wireguard.remove_peers(name, change.remove)
    wireguard.set_peers(name, change.shrink)
    wireguard.set_peers(name, change.grow)
    _ip("address", "add", want_addresses - have_addresses, name)
    _ip("address", "del", have_addresses - want_addresses, name)
    # Losing an address can take routes with it, so what is there is looked at again.
    _ip("route", "add", want_routes - _routes(name), name)
    _run("ip", "link", "set", "dev", name, "mtu", str(config.mtu or settings["mtu"]), "up")


def down(places: Places, name: str) -> None:
    """Take the interface away, if it is there."""
    if exists(name) and _file(places, name).exists():
        _run("wg-quick", "down", str(_file(places, name)))
    _file(places, name).unlink(missing_ok=True)


def _ip(kind: str, verb: str, prefixes: Iterable[str], name: str) -> None:
    for prefix in sorted(prefixes):
        family = f"-{ipaddress.ip_network(prefix).version}"
        _run("ip", family, kind, verb, prefix, "dev", name)


def _addresses(name: str) -> frozenset[str]:
    links = json.loads(_run("ip", "-json", "address", "show", "dev", name))
    return frozenset(
        f"{info['local']}/{info['prefixlen']}"
        for link in links
        for info in link.get("addr_info", ())
        if info["scope"] == "global"
    )


def _routes(name: str) -> frozenset[str]:
    found: set[str] = set()
    for family in ("-4", "-6"):
        for route in json.loads(
            _run("ip", family, "-json", "route", "show", "dev", name, "proto", "boot") or "[]"
        ):
            default = "0.0.0.0/0" if family == "-4" else "::/0"
            destination = default if route["dst"] == "default" else route["dst"]
            found.add(str(ipaddress.ip_network(destination)))
    return frozenset(found)
