"""Small inventories for the compiler's tests: Python values in, {path: bytes} out (JSON is YAML)."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

from tidegate_compiler.pipeline import Compiled, compile_files, validate_files

ROOT = Path(__file__).parent.parent
OVERLAY = {"overlay": {"prefixes": ["10.64.0.0/16", "fd64::/48"]}}


def key(label: str) -> str:
    """Return a valid public key that depends on the label alone."""
    raw = hashlib.sha256(label.encode()).digest()
    return base64.b64encode(raw[:31] + bytes([raw[31] & 0x7F])).decode()


def gateway(name: str, *networks: str, endpoint: str | None = None) -> dict[str, Any]:
    number = int.from_bytes(hashlib.sha256(name.encode()).digest()[:1])
    return {
        name: {
            "public_key": key(name),
            "endpoint": endpoint or f"203.0.113.{number}:51820",
            "networks": list(networks) or ["10.20.0.0/16", "fd20::/48"],
        }
    }


def client(name: str, number: int, *gateways: str, families: tuple[int, ...] = (4, 6)) -> dict[str, Any]:
    addresses = {4: f"10.64.0.{number}/32", 6: f"fd64::{number}/128"}
    return {
        name: {
            "public_key": key(name),
            "addresses": [addresses[family] for family in families],
            "gateways": list(gateways) or ["gw"],
        }
    }


def everything() -> dict[str, Any]:
    """Return the content of an inventory in which every field of every kind is used, by kind."""
    return {
        "overlay": {"overlay": OVERLAY["overlay"] | {"fleet": "example"}},
        "gateways": gateway("gw") | gateway("gx", "10.21.0.0/16", endpoint="[2001:db8::1]:51820"),
        "clients": client("alice", 11, "gw", "gx") | client("bob", 12),
        "groups": {
            "g": {
                "members": ["alice"],
                "not_before": {"alice": "2027-01-01"},
                "expires": {"alice": "2031-01-01"},
            }
        },
        "resources": {"web": {"addresses": ["10.20.0.80/32"], "ports": ["tcp/80"]}},
        "policies": {
            "p": policy(
                "group:g", ["resource:web", "10.20.1.0/24"], not_before="2027-01-01", expires="2031-01-01"
            )
        },
        "tests": [
            {
                "from": "client:alice",
                "to": "10.20.0.80",
                "port": "tcp/80",
                "expect": "allow",
                "at": "2027-02-01",
            }
        ],
    }


def inventory(**kinds: Any) -> dict[str, bytes]:
    """Return an inventory's files: one per kind; a gateway and two clients unless told otherwise."""
    kinds.setdefault("overlay", OVERLAY)
    kinds.setdefault("gateways", gateway("gw"))
    kinds.setdefault("clients", client("alice", 11) | client("bob", 12))
    return {
        "overlay.yaml" if kind == "overlay" else f"{kind}/all.yaml": json.dumps(value).encode()
        for kind, value in kinds.items()
    }


def codes(files: dict[str, bytes], at: int | None = None) -> list[str]:
    """Return the codes of every diagnostic."""
    return [diagnostic.code for diagnostic in validate_files(files, at=at).diagnostics]


def compiled(files: dict[str, bytes]) -> Compiled:
    """Compile; the inventory must be free of errors."""
    result = compile_files(files)
    assert isinstance(result, Compiled), [(str(d.where), d.code, d.message) for d in result.diagnostics]
    return result


def policy(
    source: str | list[str] = "client:alice", to: str | list[str] = "10.20.0.0/16", **more: Any
) -> dict[str, Any]:
    """Return a policy object; allow on any port unless told otherwise."""
    return {
        "from": [source] if isinstance(source, str) else source,
        "to": [to] if isinstance(to, str) else to,
        "action": "allow",
        "ports": ["any"],
    } | more
