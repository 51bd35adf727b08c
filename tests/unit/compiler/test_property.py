"""The compiled policy against a brute-force reading of the raw inventory, on small universes.

The oracle shares nothing with the compiler: it reads the same Python values the files are made from, knows no
clipping, no merging, no sets, and asks of every policy anew whether it matches.
"""

from __future__ import annotations

import ipaddress
import itertools
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compilerkit import inventory
from tidegate_compiler.judge import Packet, court, judge
from tidegate_compiler.model import Address
from tidegate_compiler.pipeline import Compiled, compile_files
from tidegate_compiler.reach import Piece, Reach, asked
from tidegate_schema.keys import client_id, parse_public_key
from tidegate_schema.policy import PolicyTable
from universekit import ADDRESSES, MOMENTS, PORTS, WIRE, second, universes


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
    tables = {host.name: PolicyTable(host.policy) for host in result.fleet.gateways.values()}
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
