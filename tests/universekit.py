"""Small inventories drawn at random, as the Python values that files are made from, and the points to judge them at."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from hypothesis import strategies as st

from compilerkit import client, gateway

DAYS = ["2027-01-01", "2027-02-01", "2027-03-01T12:00Z", "2027-04-01"]
PREFIXES = [
    "10.0.0.0/8", "10.20.0.0/16", "10.20.0.0/24", "10.20.0.0/29", "10.20.0.4/30", "10.20.0.4/32",
    "10.30.0.0/16", "10.30.0.0/30", "10.20.0.8/29",
    "fd00::/8", "fd20::/48", "fd20::/64", "fd20::4/126", "fd20::4/128", "fd30::/48", "fd30::/127",
]  # fmt: skip
ADDRESSES = [
    "10.20.0.0", "10.20.0.3", "10.20.0.4", "10.20.0.5", "10.20.0.9", "10.20.1.1", "10.30.0.1", "10.30.9.9",
    "10.40.0.1", "10.64.0.2", "fd20::", "fd20::3", "fd20::4", "fd20::5", "fd20:0:0:1::1", "fd30::1", "fd40::1",
]  # fmt: skip
PORTS = [
    "any",
    "tcp/80",
    "tcp/80-90",
    "tcp/85-443",
    "udp/80",
    "sctp/1-100",
    "icmp",
    "proto/47",
    "proto/6",
    "proto/1",
]
WIRE = [(6, 80), (6, 83), (6, 85), (6, 91), (6, 443), (17, 80), (132, 80), (1, 0), (58, 0), (47, 0), (50, 0)]
GATEWAYS = [
    gateway("g1") | gateway("g2", "10.30.0.0/16", "fd30::/48"),  # disjoint
    gateway("g1") | gateway("g2"),  # failover
    gateway("g1", "10.0.0.0/10", "fd00::/10") | gateway("g2", "10.20.0.0/24", "fd20::/64"),  # nested
    gateway("g1", "10.20.0.0/16", "10.30.0.0/16") | gateway("g2", "fd20::/48", "fd30::/48"),  # families apart
]


def second(text: str) -> float:
    return datetime.fromisoformat(
        text.replace("Z", "+00:00") if "T" in text else text + "T00:00+00:00"
    ).timestamp()


MOMENTS = sorted(
    {moment for day in DAYS for moment in (second(day) - 1, second(day))} | {second(DAYS[-1]) + 9e6}
)


def some(values: list[str], most: int = 3) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=most, unique=True)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, str]:
    begin, end = sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 3))))
    window = {}
    if draw(st.booleans()) and begin < end:
        window["not_before"] = DAYS[begin]
    if draw(st.booleans()):
        window["expires"] = DAYS[end]
    return window


@st.composite
def universes(draw: st.DrawFn) -> dict[str, Any]:
    names = ["c1", "c2", "c3"]
    families = st.sampled_from([(4,), (6,), (4, 6)])
    raw: dict[str, Any] = {
        "gateways": draw(st.sampled_from(GATEWAYS)),
        "clients": {},
        "groups": {},
        "resources": {},
        "policies": {},
    }
    for number, name in enumerate(names, 1):
        raw["clients"] |= client(name, number, *draw(some(["g1", "g2"], 2)), families=draw(families))
    for group in ("eng", "ops"):
        members = draw(some(names))
        raw["groups"][group] = {"members": members}
        for member in members:
            for field, time in draw(windows()).items():
                raw["groups"][group].setdefault(field, {})[member] = time
    for resource in ("web", "db"):
        raw["resources"][resource] = {"addresses": draw(some(PREFIXES))}
        if draw(st.booleans()):
            raw["resources"][resource]["ports"] = draw(some(PORTS))
    sources = ["all-clients", "group:eng", "group:ops", *(f"client:{name}" for name in names)]
    destinations = ["resource:web", "resource:db", *PREFIXES]
    for number in range(draw(st.integers(0, 5))):
        to = draw(some(destinations, 2))
        found = {
            "from": draw(some(sources, 2)),
            "to": to,
            "action": draw(st.sampled_from(["allow", "allow", "deny"])),
        }
        said = all(one.startswith("resource:") and "ports" in raw["resources"][one[9:]] for one in to)
        if not said or draw(st.booleans()):
            found["ports"] = draw(some(PORTS))
        raw["policies"][f"p{number}"] = found | draw(windows())
    return raw
