"""What `tidegate client status` says: the agent's own status, and the device's counters beside it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from tidegate_agents import cli, host, wireguard

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def status(places: host.Places) -> dict[str, Any]:
    """Return the status with `gateways`, one entry for each peer of the device. Failure when no agent runs here."""
    found = cli.status(places)
    try:
        peers: Mapping[str, wireguard.PeerState] = wireguard.show(found["interface"]).peers
    except wireguard.WireGuardError:
        peers = {}
    groups = found.get("groups") or []
    order = [key for group in groups for key in group["gateways"]]
    active = {group["active"] for group in groups}
    found["gateways"] = [
        {
            "public_key": key,
            "endpoint": peers[key].config.endpoint,
            "role": "active" if key in active else "standby",
            "allowed_ips": sorted(peers[key].config.allowed_ips),
            "latest_handshake": peers[key].latest_handshake or None,
            "received": peers[key].received,
            "sent": peers[key].sent,
        }
        for key in sorted(peers, key=lambda key: order.index(key) if key in order else len(order))
    ]
    return found


def show(found: dict[str, Any]) -> None:
    """Print it as a table, with what is wrong above."""
    console = Console()
    release, now = found["release"], time.time()
    serial = f"release {release['serial']}" if release else "no release yet"
    end = f", to be renewed by {_moment(release['not_after'])}" if release and "not_after" in release else ""
    console.print(
        f"{found['host']} ({found['fleet']}): {serial}{end}, interface {found['interface']}", highlight=False
    )
    cli.print_trust(console, found)
    cli.print_problems(console, found)
    for line in _notes(found):
        console.print(f"[yellow]{escape(line)}[/yellow]", highlight=False)
    table = Table(
        Column("gateway", overflow="fold"), "endpoint", "networks", "last handshake", "received", "sent"
    )
    for peer in found["gateways"]:
        networks = ", ".join(peer["allowed_ips"]) or peer["role"]
        table.add_row(
            peer["public_key"],
            peer["endpoint"],
            networks,
            _age(peer["latest_handshake"], now),
            _bytes(peer["received"]),
            _bytes(peer["sent"]),
        )
    console.print(table)


def _notes(found: Mapping[str, Any]) -> list[str]:
    lines = []
    for group in found.get("groups") or []:
        if group["active"] != group["gateways"][0]:
            since = f" since {_moment(group['since'])}" if group["since"] else ""
            lines.append(f"in use{since} is the standby {group['active']}: {group['why']}")
    drift = found.get("drift")
    if drift and not drift["repaired"]:
        lines.append(f"somebody has changed the interface, to be mended by: {'; '.join(drift['actions'])}")
    elif drift:
        lines.append(f"repaired at {_moment(drift['time'])}: {'; '.join(drift['actions'])}")
    rotation = found.get("rotation")
    if rotation and rotation["next"]:
        lines.append(f"waiting for a gateway that knows the next key {rotation['next']}")
    if rotation and rotation["previous"]:
        lines.append(f"the key before, {rotation['previous']}, is kept until the new one has proven itself")
    if rotation and rotation["problem"]:
        lines.append(f"change of keys: {rotation['problem']}")
    return lines


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(seconds))


def _age(handshake: int | None, now: float) -> str:
    return f"{max(0.0, now - handshake):.0f} s ago" if handshake else "never"


def _bytes(count: float) -> str:
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError
