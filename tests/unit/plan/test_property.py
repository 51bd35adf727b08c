"""Access gained and lost against brute force: every point of small universes, judged by the gateways' own table."""

from __future__ import annotations

import ipaddress
import itertools
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from plankit import covers, policies_only
from tidegate_compiler.plan.document import document
from tidegate_compiler.plan.plan import plan
from tidegate_compiler.plan.regions import Spans, union
from tidegate_compiler.times import format_instant
from tidegate_schema import validation
from tidegate_schema.policy import PolicyTable
from tidegate_schema.ports import parse_ports

PREFIXES = {
    4: ["0.0.0.0/0", "10.0.0.0/29", "10.0.0.0/30", "10.0.0.2/31", "10.0.0.4/30", "10.0.0.3/32"],
    6: ["fd00::/126", "fd00::2/127", "fd00::1/128", "::/0"],
}
ADDRESSES = [
    ipaddress.ip_address(text)
    for text in ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.5", "9.0.0.0", "fd00::1", "fd00::3")
]
PORTS = ["any", "icmp", "tcp/80", "tcp/80-90", "tcp/85-65535", "udp/0-80", "proto/6", "proto/47", "proto/58"]
WIRE = [(6, 0), (6, 80), (6, 85), (6, 91), (17, 80), (17, 81), (1, 0), (58, 0), (47, 0), (46, 0), (255, 0)]
TIMES = [100, 200, 300]
MOMENTS = [0, 99, 100, 199, 200, 299, 300, 10**9]
CLIENTS = ["a" * 32, "b" * 32, "c" * 32]


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from([4, 4, 6]))
    rule: dict[str, Any] = {
        "policy": draw(st.sampled_from(["p1", "p2", "p3"])),
        "action": draw(st.sampled_from(["allow", "allow", "deny"])),
        "to": draw(st.lists(st.sampled_from(PREFIXES[family]), min_size=1, max_size=2, unique=True)),
        "ports": draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=2, unique=True)),
    }
    begin, end = draw(st.tuples(st.sampled_from([None, *TIMES]), st.sampled_from([None, *TIMES])))
    if begin is not None and (end is None or begin < end):
        rule["not_before"] = begin
    if end is not None:
        rule["expires"] = end
    return rule


@st.composite
def policies(draw: st.DrawFn, pool: list[dict[str, Any]]) -> dict[str, Any] | None:
    if draw(st.integers(0, 9)) == 0:
        return None
    found = draw(st.lists(st.sampled_from(pool), max_size=5))
    index = st.integers(0, len(found) - 1) if found else st.nothing()
    sets = draw(st.lists(st.lists(index, unique=True, max_size=5), max_size=3)) if found else []
    clients = {
        client: draw(st.integers(0, len(sets) - 1)) for client in CLIENTS if sets and draw(st.integers(0, 3))
    }
    return {"format": 1, "rules": found, "sets": sets, "clients": clients}


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """Two sides that share most of their rules, as two revisions do; names of gateways may come and go."""
    pool = draw(st.lists(rules(), min_size=1, max_size=6))
    sides = [
        {gateway: draw(policies(pool)) for gateway in draw(st.sampled_from([["g1"], ["g1", "g2"], ["g2"]]))}
        for _ in range(2)
    ]
    return sides[0], sides[1]


def allows(tables: list[PolicyTable], client: str, to: Any, wire: tuple[int, int], now: float) -> bool:
    return any(table.decide(client, to.packed, *wire, now).allow for table in tables)


@settings(max_examples=250, deadline=None, suppress_health_check=list(HealthCheck))
@given(pairs())
def test_the_difference_is_the_brute_force_one_point_by_point(
    both: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    names = dict(zip(CLIENTS, ("ann", "ben", "cas"), strict=True))
    sides = [policies_only(documents, names) for documents in both]
    told = document(plan(*sides))
    assert validation.errors("plan", told) == []
    tables = [[PolicyTable(policy) for policy in documents.values()] for documents in both]
    gained, lost = told["access"]["gained"], told["access"]["lost"]
    for client, to, wire, now in itertools.product(CLIENTS, ADDRESSES, WIRE, MOMENTS):
        before, after = (allows(of, client, to, wire, now) for of in tables)
        point = (client, to, *wire, format_instant(now))
        # Exactly one entry holds a point that differs: entries never overlap, so their sizes add up.
        found = (sum(covers(one, *point) for one in gained), sum(covers(one, *point) for one in lost))
        assert found == (after and not before, before and not after), point
    for kind, rows in told["access"].items():
        for one in rows:
            families = {ipaddress.ip_network(prefix).version for prefix in one["to"]}
            assert [w["client_id"] for w in one["witnesses"]] == [one["clients"][0]["client_id"]] * len(
                families
            )
            for witness in one["witnesses"]:
                check_witness(tables, witness, kind)
                assert one["policy"]["name"] in granting(both[kind == "gained"], witness)


def packet(witness: dict[str, Any]) -> tuple[Any, tuple[int, int], float]:
    to = ipaddress.ip_address(witness["destination"])
    ports = parse_ports(witness["port"], to.version)
    at = datetime.fromisoformat(witness["at"]) if witness["at"] else datetime.now(UTC)
    return to, (ports.protocol, ports.first), at.timestamp()


def check_witness(tables: list[list[PolicyTable]], witness: dict[str, Any], kind: str) -> None:
    verdicts = [allows(of, witness["client_id"], *packet(witness)) for of in tables]
    assert verdicts == [kind == "lost", kind == "gained"], witness


def granting(documents: dict[str, Any], witness: dict[str, Any]) -> set[str]:
    to, wire, now = packet(witness)
    found = set()
    for policy in filter(None, documents.values()):
        verdict = PolicyTable(policy).decide(witness["client_id"], to.packed, *wire, now)
        if verdict.allow and verdict.rule is not None:
            chosen = policy["sets"][policy["clients"][witness["client_id"]]]
            found |= {policy["rules"][index]["policy"] for index in chosen}
    return found


intervals = st.tuples(st.integers(0, 6), st.integers(1, 3)).map(lambda pair: (pair[0], sum(pair)))
boxes = st.lists(st.tuples(intervals, intervals, intervals, intervals), max_size=5)


@settings(max_examples=80, deadline=None)
@given(boxes, st.randoms())
def test_a_union_holds_the_same_points_once_and_is_the_same_however_it_is_cut(
    some: list[Any], random: Any
) -> None:
    found = union(some)
    points = [tuple(random.randrange(9) for _ in range(4)) for _ in range(60)]
    for point in points:
        inside = [all(low <= x < high for x, (low, high) in zip(point, box, strict=True)) for box in found]
        wanted = any(all(low <= x < high for x, (low, high) in zip(point, box, strict=True)) for box in some)
        assert sum(inside) == wanted
    halves = [
        ((low, middle), *box[1:])
        for box in some
        for low, high in [box[0]]
        for low, middle in ((low, (low + high) // 2), ((low + high) // 2, high))
        if low < middle
    ]
    random.shuffle(halves)
    assert union(halves) == found


@given(st.lists(intervals, max_size=5), intervals)
def test_spans_meet_what_some_interval_meets(some: list[tuple[int, int]], one: tuple[int, int]) -> None:
    assert Spans(some).meet(one) == any(low < one[1] and one[0] < high for low, high in some)
