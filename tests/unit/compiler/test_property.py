"""The compiled policy against a brute-force reading of the raw inventory, on small universes.

The oracle shares nothing with the compiler: it reads the same Python values the files are made from, knows no
clipping, no merging, no sets, and asks of every policy anew whether it matches.
"""

from __future__ import annotations

import ipaddress
import itertools
from datetime import datetime
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compilerkit import client, gateway, inventory
from tidegate_compiler.judge import Packet, court, judge
from tidegate_compiler.model import Address
from tidegate_compiler.pipeline import Compiled, compile_files
from tidegate_compiler.reach import Piece, Reach, asked
from tidegate_schema.keys import client_id, parse_public_key
from tidegate_schema.policy import PolicyTable

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


def inside(address: str, prefix: str) -> bool:
    return ipaddress.ip_address(address) in ipaddress.ip_network(prefix)


def in_time(window: dict[str, str], now: float) -> bool:
    begin, end = window.get("not_before"), window.get("expires")
    return (begin is None or second(begin) <= now) and (end is None or now < second(end))


def port_matches(texts: list[str] | None, version: int, protocol: int, port: int) -> bool:
    if texts is None:
        return True
    for text in texts:
        name, _, rest = text.partition("/")
        if text == "any" or (text == "icmp" and protocol == (1 if version == 4 else 58)):
            return True
        if name == "proto" and protocol == int(rest):
            return True
        if name in ("tcp", "udp", "sctp") and protocol == {"tcp": 6, "udp": 17, "sctp": 132}[name]:
            first, _, last = rest.partition("-")
            if int(first) <= port <= int(last or first):
                return True
    return False


def matches(
    raw: dict[str, Any], rule: dict[str, Any], name: str, to: str, wire: tuple[int, int], now: float
) -> bool:
    def is_source(source: str) -> bool:
        kind, _, group = source.partition(":")
        if kind == "group":
            of = raw["groups"][group]
            window = {
                field: of[field][name] for field in ("not_before", "expires") if name in of.get(field, {})
            }
            return name in of["members"] and in_time(window, now)
        return source in ("all-clients", f"client:{name}")

    def is_destination(destination: str) -> bool:
        resource = raw["resources"][destination[9:]] if destination.startswith("resource:") else None
        prefixes = resource["addresses"] if resource else [destination]
        ports = [rule.get("ports"), resource.get("ports") if resource else None]
        version = ipaddress.ip_address(to).version
        return any(inside(to, prefix) for prefix in prefixes) and all(
            port_matches(texts, version, *wire) for texts in ports
        )

    return in_time(rule, now) and any(map(is_source, rule["from"])) and any(map(is_destination, rule["to"]))


def allowed(raw: dict[str, Any], name: str, to: str, wire: tuple[int, int], now: float) -> bool:
    found = {rule["action"] for rule in raw["policies"].values() if matches(raw, rule, name, to, wire, now)}
    return found == {"allow"}


def has_family(raw: dict[str, Any], name: str, to: str) -> bool:
    return any((":" in address) == (":" in to) for address in raw["clients"][name]["addresses"])


def routed_to(raw: dict[str, Any], name: str, to: str) -> str | None:
    best: tuple[int, str] | None = None
    for one in raw["clients"][name]["gateways"]:
        for prefix in raw["gateways"][one]["networks"]:
            length = int(prefix.partition("/")[2])
            if inside(to, prefix) and (best is None or length > best[0]):
                best = (length, one)
    return best[1] if best and has_family(raw, name, to) else None


@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(
    universes(),
    st.lists(st.sampled_from(WIRE), min_size=4, max_size=4, unique=True),
    st.lists(st.sampled_from(MOMENTS), min_size=3, max_size=3, unique=True),
)
def test_compiled_policy_equals_brute_force(
    raw: dict[str, Any], wires: list[tuple[int, int]], moments: list[float]
) -> None:
    result = compile_files(inventory(**raw))
    assume(isinstance(result, Compiled))
    assert isinstance(result, Compiled)
    over = court(result.fleet)
    tables = {host.name: PolicyTable(host.policy) for host in result.fleet.gateways}
    for name, to in itertools.product(raw["clients"], ADDRESSES):
        identifier = client_id(parse_public_key(raw["clients"][name]["public_key"]))
        address = ipaddress.ip_address(to)
        way = routed_to(raw, name, to)
        for wire, now in itertools.product(wires, moments):
            wanted = bool(raw["policies"]) and allowed(raw, name, to, wire, now)
            got = judge(over, Packet(name, address, *wire, at=now))
            assert (got.allow, got.route.gateway if got.route else None) == (wanted and way is not None, way)
            for one in raw["clients"][name]["gateways"]:
                here = any(inside(to, prefix) for prefix in raw["gateways"][one]["networks"])
                expected = wanted and here and has_family(raw, name, to)
                assert tables[one].decide(identifier, address.packed, *wire, now).allow == expected


def holds(pieces: tuple[Piece, ...], to: Address, wire: tuple[int, int], now: float) -> list[Piece]:
    point = (int(to), *wire, now)
    return [
        piece
        for piece in pieces
        if piece.family == to.version
        and all(low <= at < high for at, (low, high) in zip(point, piece.box, strict=True))
    ]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(universes(), st.sampled_from(PORTS[1:]), st.sampled_from(MOMENTS))
def test_reach_equals_the_verdict_at_every_point(raw: dict[str, Any], port: str, moment: float) -> None:
    result = compile_files(inventory(**raw))
    assume(isinstance(result, Compiled))
    assert isinstance(result, Compiled)
    reach = Reach(result.fleet)
    of = asked(
        [ipaddress.ip_network(one) for one in ("10.20.0.0/28", "10.0.0.0/8", "fd00::/8")], port, int(moment)
    )
    for name in raw["clients"]:
        everything, some = reach.allowed(name), reach.pieces(name, of)
        for to, wire, now in itertools.product(map(ipaddress.ip_address, ADDRESSES), WIRE, MOMENTS):
            judged = judge(reach.court, Packet(name, to, *wire, at=now)).allow
            assert len(holds(everything, to, wire, now)) == judged
            found = holds(some, to, wire, now)
            is_asked = now == moment and port_matches([port], to.version, *wire)
            assert [piece.judgement.allow for piece in found] == ([judged] if is_asked else [])
