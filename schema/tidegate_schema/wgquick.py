"""The client's bundle, a wg-quick file that is data and never commands.

    [Interface]
    Address = 10.64.0.11/32, fd64::11/128
    PostUp = wg set %i private-key /etc/tidegate/client.key      exactly this line, or none

    [Peer]                                                       a gateway and the networks behind it
    PublicKey = <44 characters of base64>
    Endpoint = 203.0.113.10:51820
    AllowedIPs = 10.20.0.0/16, fd20::/48

    [Peer]                                                       no AllowedIPs: a standby of the peer above
    PublicKey = …
    Endpoint = …

The file works by itself in stock wg-quick(8). wg-quick runs PostUp as root, so an agent never hands it these
bytes: it reads them with `parse`, which refuses every other line by name, and renders a file of its own.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tidegate_schema.keys import parse_public_key

KEYLESS_POSTUP = "wg set %i private-key /etc/tidegate/client.key"
MAX_BYTES = 1 << 20

_LINE = re.compile(r"([A-Za-z]+)[ \t]*=[ \t]*(.*)")
_ENDPOINT = re.compile(r"(?:\[([0-9a-fA-F:.]+)\]|([0-9.]+)):([0-9]{1,5})")
# Not what Python's ipaddress takes: no netmask, no bare address, no IPv6 zone (which may be any text at all).
_PREFIX = re.compile(r"[0-9a-fA-F:.]{2,45}/[0-9]{1,3}")
_INTERFACE = {"address", "mtu", "postup"}
_PEER = {"publickey", "endpoint", "allowedips", "persistentkeepalive"}
_T = TypeVar("_T")


class ConfigError(ValueError):
    """A line that a client bundle may not have; the message is one line with its number and key."""


@dataclass(frozen=True)
class Peer:
    """One gateway as a client sees it; no `allowed_ips` means a standby of the peer before it."""

    public_key: str
    endpoint: str
    allowed_ips: tuple[str, ...] = ()
    persistent_keepalive: int | None = None


@dataclass(frozen=True)
class ClientConfig:
    """All that a client bundle says."""

    addresses: tuple[str, ...]
    peers: tuple[Peer, ...]
    mtu: int | None = None


def parse_endpoint(text: str) -> str:
    """Return an endpoint `IP:port` or `[IPv6]:port` in canonical form; ValueError says what is wrong."""
    match = _ENDPOINT.fullmatch(text)
    if match is None:
        raise ValueError("write an endpoint as IP:port, or [IPv6]:port; names are not looked up")
    address = ipaddress.IPv6Address(match[1]) if match[1] else ipaddress.IPv4Address(match[2])
    port = int(match[3])
    if not 1 <= port <= 65535:
        raise ValueError(f"a port is 1 to 65535, not {port}")
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def _prefixes(text: str) -> tuple[str, ...]:
    parts = [part.strip(" \t") for part in text.split(",")]
    if not all(_PREFIX.fullmatch(part) for part in parts):
        raise ValueError("write prefixes as ADDRESS/LENGTH, separated by commas")
    return tuple(str(ipaddress.ip_network(part, strict=True)) for part in parts)


def _hosts(text: str) -> tuple[str, ...]:
    prefixes = _prefixes(text)
    if any(ipaddress.ip_network(p).prefixlen != ipaddress.ip_network(p).max_prefixlen for p in prefixes):
        raise ValueError("a client's address is a /32 or a /128")
    if len(set(prefixes)) != len(prefixes):
        raise ValueError("an address stands twice")
    return prefixes


def _key(text: str) -> str:
    parse_public_key(text)
    return text


def _number(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]{1,5}", text) or not low <= int(text) <= high:
            raise ValueError(f"a number from {low} to {high}")
        return int(text)

    return read


_mtu = _number(1280, 65535)
_keepalive = _number(0, 65535)


def parse(data: bytes) -> ClientConfig:
    """Read a client bundle strictly; ConfigError names the first line that does not belong.

    Accepted: Address, MTU and the one keyless PostUp in [Interface]; PublicKey, Endpoint, AllowedIPs and
    PersistentKeepalive in [Peer]. No comment, no second [Interface], no key twice in a section.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"{len(data)} bytes; a client bundle has at most {MAX_BYTES}")
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise ConfigError(f"byte {error.start} is not ASCII") from None
    sections = _sections(text)
    if not sections or sections[0][1] != "[Interface]":
        raise ConfigError("line 1: a client bundle starts with [Interface]")
    interface = sections[0][2]
    if "address" not in interface:
        raise ConfigError("[Interface] has no Address")
    if "postup" in interface and interface["postup"][1] != KEYLESS_POSTUP:
        raise ConfigError(
            f"line {interface['postup'][0]}: PostUp is refused: a bundle is data, never commands"
        )
    peers = []
    for start, _, values in sections[1:]:
        for key in ("publickey", "endpoint"):
            if key not in values:
                raise ConfigError(f"line {start}: a [Peer] without {key}")
        peers.append(
            Peer(
                _read(values, "publickey", _key),
                _read(values, "endpoint", parse_endpoint),
                _read(values, "allowedips", _prefixes) if "allowedips" in values else (),
                _read(values, "persistentkeepalive", _keepalive) if "persistentkeepalive" in values else None,
            )
        )
    _check_peers(peers)
    return ClientConfig(
        _read(interface, "address", _hosts),
        tuple(peers),
        _read(interface, "mtu", _mtu) if "mtu" in interface else None,
    )


def _check_peers(peers: list[Peer]) -> None:
    if peers and not peers[0].allowed_ips:
        raise ConfigError("the first [Peer] has no AllowedIPs, so it is a standby of nothing")
    if len({peer.public_key for peer in peers}) != len(peers):
        raise ConfigError("two [Peer] sections have one PublicKey")
    prefixes = [prefix for peer in peers for prefix in peer.allowed_ips]
    if len(set(prefixes)) != len(prefixes):
        raise ConfigError("two peers claim one prefix; WireGuard would silently give it to the last")


_Section = tuple[int, str, dict[str, tuple[int, str]]]


def _sections(text: str) -> list[_Section]:
    sections: list[_Section] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t")
        if not line:
            continue
        if line in ("[Interface]", "[Peer]"):
            if line == "[Interface]" and sections:
                raise ConfigError(f"line {number}: a second [Interface]")
            sections.append((number, line, {}))
            continue
        match = _LINE.fullmatch(line)
        if match is None or not sections:
            raise ConfigError(f"line {number}: {_show(line)} is not a line of a client bundle")
        key, value = match[1].lower(), match[2]
        _, section, values = sections[-1]
        if key not in (_INTERFACE if section == "[Interface]" else _PEER):
            raise ConfigError(
                f"line {number}: {match[1]} in {section} is refused: a bundle is data, never commands"
            )
        if key in values:
            raise ConfigError(f"line {number}: {match[1]} stands twice in one section")
        values[key] = (number, value)
    return sections


def _read(values: dict[str, tuple[int, str]], key: str, read: Callable[[str], _T]) -> _T:
    number, text = values[key]
    try:
        return read(text)
    except ValueError as error:
        raise ConfigError(f"line {number}: {key} {_show(text)}: {error}") from None


def _show(text: str) -> str:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return repr(shown)
