"""One new object of each kind that fits the example inventory, and how it may be wrong."""

from __future__ import annotations

from typing import Any

from controlkit import KEYS

NEW: dict[str, dict[str, Any]] = {
    "clients": {
        "name": "zed-laptop",
        "public_key": KEYS[0],
        "addresses": ["10.64.0.200/32"],
        "gateways": ["fra1"],
    },
    "gateways": {
        "name": "lon1",
        "public_key": KEYS[1],
        "endpoint": "203.0.113.77:51820",
        "networks": ["10.40.0.0/16"],
    },
    "groups": {"name": "testers", "members": ["alice-laptop", "bob-laptop"]},
    "resources": {"name": "lab", "addresses": ["10.20.9.0/24"], "ports": ["tcp/80"]},
    "policies": {
        "name": "alice-in-lab",
        "from": ["client:alice-laptop"],
        "to": ["10.20.9.0/24"],
        "action": "allow",
        "ports": ["tcp/80"],
    },
    "tests": {
        "file": "tests/engineering.yaml",  # there are two, so that one must be named
        "from": "client:alice-laptop",
        "to": "10.20.9.1",
        "port": "tcp/80",
        "expect": "deny",
    },
}
KINDS = tuple(NEW)
CHANGED: dict[str, dict[str, Any]] = {
    "clients": {"addresses": ["10.64.0.201/32"]},
    "gateways": {"networks": ["10.41.0.0/16"]},
    "groups": {"members": ["alice-laptop"], "expires": {"alice-laptop": "2031-01-31"}},
    "resources": {"ports": ["udp/53"]},
    "policies": {"expires": "2031-06-30"},
    "tests": {"at": "2031-01-01"},
}
WRONG: tuple[tuple[str, str, Any, str], ...] = (
    ("clients", "public_key", "no key", "TG020"),
    ("clients", "public_key", "cKOlGUzZDlhap8RP7GzO5aWSaM1ZzdcdASrAWAEzrwk", "TG020"),
    ("clients", "addresses", ["10.99.0.1/32"], "TG040"),
    ("clients", "addresses", ["10.64.0.11/32"], "TG041"),
    ("clients", "gateways", ["nowhere"], "TG030"),
    ("gateways", "endpoint", "gateway.example.net:51820", "TG025"),
    ("gateways", "networks", ["10.64.0.0/24"], "TG042"),
    ("groups", "members", ["group:engineers"], "TG034"),
    ("groups", "expires", {"nobody": "2031-01-01"}, "TG033"),
    ("resources", "addresses", ["192.0.2.0/24"], "TG047"),
    ("resources", "ports", ["tcp/70000"], "TG026"),
    ("policies", "from", ["everybody"], "TG031"),
    ("policies", "to", ["client:bob-laptop"], "TG032"),
    ("policies", "expires", "2031-02-30", "TG027"),
    ("tests", "port", "any", "TG026"),
    ("tests", "from", "client:nobody", "TG030"),
)
