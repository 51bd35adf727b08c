"""A bundle: the payload files that one host is sent, by kind of host, and how large each may be."""

from __future__ import annotations

from collections.abc import Mapping

FILE_MAX_BYTES = {"wg0.conf": 1 << 20, "peers.json": 64 << 20, "policy.json": 64 << 20}
FILES: Mapping[str, tuple[frozenset[str], frozenset[str]]] = {
    # kind: (files that must be there, files that may be there)
    "client": (frozenset({"wg0.conf"}), frozenset({"wg0.conf"})),
    "gateway": (frozenset({"peers.json"}), frozenset({"peers.json", "policy.json"})),
}
