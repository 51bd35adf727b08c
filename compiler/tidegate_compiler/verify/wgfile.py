"""A wg-quick file as it stands: a reader of its own, which knows five keys and one command and nothing else."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tidegate_compiler.verify import words
from tidegate_compiler.verify.words import Net, RefusalError

POSTUP = "wg set %i private-key /etc/tidegate/client.key"
_KEYS = {"[Interface]": {"Address", "PostUp"}, "[Peer]": {"PublicKey", "Endpoint", "AllowedIPs"}}


@dataclass(frozen=True)
class Peer:
    """A [Peer]; without `routes` it is a standby of the one before it."""

    key: bytes
    endpoint: words.Endpoint
    routes: frozenset[Net]


@dataclass(frozen=True)
class Config:
    """A whole file."""

    addresses: frozenset[Net]
    postup: str | None
    peers: tuple[Peer, ...]


def parse(data: bytes) -> Config:
    """Read a file that has these keys and no others, each once in its section. Raises RefusalError."""
    sections = _sections(data)
    if not sections:
        raise RefusalError("it does not begin with [Interface]")
    (_, interface), *peers = sections
    return Config(
        _nets(interface.get("Address", "")),
        interface.get("PostUp"),
        tuple(
            Peer(
                words.key(peer.get("PublicKey", "")),
                words.endpoint(peer.get("Endpoint", "")),
                _nets(peer["AllowedIPs"]) if "AllowedIPs" in peer else frozenset(),
            )
            for _, peer in peers
        ),
    )


def _sections(data: bytes) -> list[tuple[str, dict[str, str]]]:
    if re.search(rb"[^\n\x20-\x7e]", data):
        raise RefusalError("a byte that is not printable ASCII")
    sections: list[tuple[str, dict[str, str]]] = []
    for number, line in enumerate(data.decode("ascii").split("\n"), 1):
        if line in _KEYS:
            if (line == "[Interface]") == bool(sections):
                raise RefusalError(f"line {number}: one [Interface], and it comes first")
            sections.append((line, {}))
        elif line:
            key, equals, value = line.partition(" = ")
            if not sections or not equals or key not in _KEYS[sections[-1][0]]:
                raise RefusalError(f"line {number}: {line[:60]!a} does not belong into a client's file")
            if key in sections[-1][1]:
                raise RefusalError(f"line {number}: {key} stands twice")
            sections[-1][1][key] = value
    return sections


def _nets(text: str) -> frozenset[Net]:
    prefixes = [words.net(part) for part in text.split(", ")]
    if len(set(prefixes)) < len(prefixes):
        raise RefusalError("a prefix stands twice in one list")
    return frozenset(prefixes)
