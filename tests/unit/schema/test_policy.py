"""The one meaning of a policy, against a reading of the document that shares nothing with it."""

from __future__ import annotations

import ipaddress
import random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tidegate_schema import validation
from tidegate_schema.policy import FAR_FUTURE, PolicyTable, Reason, Verdict, _PolicySet

ALICE, BOB, NOBODY = "a" * 32, "b" * 32, "c" * 32
CLIENTS = (ALICE, BOB, NOBODY)
PREFIXES = {
    4: ["0.0.0.0/0", "10.0.0.0/8", "10.20.0.0/16", "10.20.0.0/29", "10.20.0.4/30", "10.20.0.5/32", "10.20.0.6/31"],
    6: ["::/0", "fd20::/48", "fd20::/64", "fd20::4/126", "fd20::5/128", "fd20::6/127", "::ffff:0:0/96"],
}  # fmt: skip
ADDRESSES = [
    ipaddress.ip_address(text).packed
    for text in (
        *("10.20.0.0", "10.20.0.4", "10.20.0.5", "10.20.0.6", "10.20.0.8", "10.21.0.1", "11.0.0.1"),
        *("0.0.0.0", "255.255.255.255", "fd20::", "fd20::4", "fd20::5", "fd20::7", "fd20:0:0:1::", "fd21::"),
        *("::", "::ffff:10.20.0.5", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    )
]
PORTS = [
    "any", "tcp/0", "tcp/80", "tcp/80-90", "tcp/85-443", "tcp/65535", "tcp/0-65535", "udp/53", "udp/80-90",
    "sctp/1-100", "proto/1", "proto/58", "proto/47", "proto/6", "proto/0", "proto/255",
]  # fmt: skip
WIRE = [
    *((6, port) for port in (0, 79, 80, 85, 90, 91, 443, 444, 65535)),
    *((17, 53), (17, 80), (132, 1), (132, 101), (1, 0), (58, 0), (47, 0), (0, 0), (255, 0)),
]
TIMES = [100, 200, 300]


@st.composite
def rules(draw: st.DrawFn) -> dict[str, Any]:
    family = draw(st.sampled_from([4, 6]))
    rule: dict[str, Any] = {
        "policy": "p",
        "action": draw(st.sampled_from(["allow", "allow", "deny"])),
        "to": draw(st.lists(st.sampled_from(PREFIXES[family]), min_size=1, max_size=3, unique=True)),
        "ports": draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=3, unique=True)),
    }
    for name in ("not_before", "expires"):
        if draw(st.booleans()):
            rule[name] = draw(st.sampled_from(TIMES))
    return rule


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    made = draw(st.lists(rules(), max_size=6))
    indexes = st.lists(st.integers(0, len(made) - 1), max_size=6, unique=True) if made else st.just([])
    sets = draw(st.lists(indexes, min_size=1, max_size=3))
    members = draw(
        st.dictionaries(st.sampled_from([ALICE, BOB]), st.integers(0, len(sets) - 1), min_size=1, max_size=2)
    )
    return {"format": 1, "rules": made, "sets": sets, "clients": members}


packets = st.tuples(
    st.sampled_from(CLIENTS),
    st.sampled_from(ADDRESSES),
    st.sampled_from(WIRE),
    st.sampled_from([0, 99, 99.9, 100, 199, 200, 299.999, 300, 301]),
)


def admits(text: str, protocol: int, port: int) -> bool:
    """Read one written form of ports anew."""
    if text == "any":
        return True
    name, _, what = text.partition("/")
    if name == "proto":
        return protocol == int(what)
    first, _, last = what.partition("-")
    return protocol == {"tcp": 6, "udp": 17, "sctp": 132}[name] and int(first) <= port <= int(last or first)


def oracle(
    document: dict[str, Any], client: str, address: bytes, protocol: int, port: int, now: float
) -> Verdict:
    """Ask every rule of the client, one after the other."""
    if client not in document["clients"]:
        return Verdict(False, Reason.NO_RULE, None)
    found: dict[str, list[int]] = {"allow": [], "deny": [], "late": []}
    for index in document["sets"][document["clients"][client]]:
        rule = document["rules"][index]
        inside = [p for p in rule["to"] if ipaddress.ip_address(address) in ipaddress.ip_network(p)]
        if not inside or not any(admits(text, protocol, port) for text in rule["ports"]):
            continue
        if now < rule.get("not_before", now) or now >= rule.get("expires", now + 1):
            if rule["action"] == "allow":
                found["late"].append(index)
        else:
            found[rule["action"]].append(index)
    if found["deny"]:
        return Verdict(False, Reason.DENIED, min(found["deny"]))
    if found["allow"]:
        return Verdict(True, Reason.ALLOWED, min(found["allow"]))
    if found["late"]:
        return Verdict(False, Reason.OUT_OF_TIME, min(found["late"]))
    return Verdict(False, Reason.NO_RULE, None)


@settings(deadline=None, max_examples=250)
@given(documents(), st.lists(packets, min_size=1, max_size=30))
def test_a_verdict_is_what_the_document_says(document: dict[str, Any], asked: list[Any]) -> None:
    assert validation.errors("policy", document) == []
    table = PolicyTable(document)
    for client, address, (protocol, port), now in asked:
        expected = oracle(document, client, address, protocol, port, now)
        assert table.decide(client, address, protocol, port, now) == expected


@settings(deadline=None, max_examples=100)
@given(documents(), st.lists(packets, min_size=1, max_size=20), st.randoms())
def test_order_never_matters(document: dict[str, Any], asked: list[Any], chance: random.Random) -> None:
    order = list(range(len(document["rules"])))
    chance.shuffle(order)  # the rule at order[n] moves to n
    places = {old: new for new, old in enumerate(order)}
    set_order = list(range(len(document["sets"])))
    chance.shuffle(set_order)
    set_places = {old: new for new, old in enumerate(set_order)}
    other = {
        "format": 1,
        "rules": [
            document["rules"][old]
            | {"to": document["rules"][old]["to"][::-1], "ports": document["rules"][old]["ports"][::-1]}
            for old in order
        ],
        "sets": [[places[index] for index in reversed(document["sets"][old])] for old in set_order],
        "clients": {client: set_places[n] for client, n in reversed(document["clients"].items())},
    }
    one, two = PolicyTable(document), PolicyTable(other)
    for client, address, (protocol, port), now in asked:
        first = one.decide(client, address, protocol, port, now)
        second = two.decide(client, address, protocol, port, now)
        assert first[:2] == second[:2]
        assert (first.rule is None) == (second.rule is None)


@settings(deadline=None, max_examples=150)
@given(documents(), rules(), st.lists(packets, min_size=1, max_size=20))
def test_a_deny_more_never_allows_and_an_allow_more_never_denies(
    document: dict[str, Any], rule: dict[str, Any], asked: list[Any]
) -> None:
    more = document | {
        "rules": [*document["rules"], rule],
        "sets": [[*indexes, len(document["rules"])] for indexes in document["sets"]],
    }
    before, after = PolicyTable(document), PolicyTable(more)
    for client, address, (protocol, port), now in asked:
        was = before.decide(client, address, protocol, port, now).allow
        now_is = after.decide(client, address, protocol, port, now).allow
        assert now_is <= was if rule["action"] == "deny" else now_is >= was


def simple(*made: dict[str, Any]) -> PolicyTable:
    document = {
        "format": 1,
        "rules": [{"policy": "p", "action": "allow", "ports": ["any"]} | rule for rule in made],
        "sets": [list(range(len(made)))],
        "clients": {ALICE: 0},
    }
    assert validation.errors("policy", document) == []
    return PolicyTable(document)


V4, V6 = bytes([10, 20, 0, 5]), ipaddress.ip_address("fd20::5").packed


@pytest.mark.parametrize("deny", ["0.0.0.0/0", "10.20.0.0/16", "10.20.0.5/32"])
@pytest.mark.parametrize("allow", ["0.0.0.0/0", "10.20.0.0/16", "10.20.0.5/32"])
@pytest.mark.parametrize("deny_first", [True, False])
def test_a_deny_wins_whatever_the_length_of_its_prefix(allow: str, deny: str, deny_first: bool) -> None:
    made: list[dict[str, Any]] = [{"to": [allow]}, {"to": [deny], "action": "deny"}]
    table = simple(*(made[::-1] if deny_first else made))
    assert table.decide(ALICE, V4, 6, 80, 0) == Verdict(False, Reason.DENIED, 0 if deny_first else 1)


def test_ipv4_never_allows_ipv6_nor_the_other_way_round() -> None:
    only4, only6 = simple({"to": ["0.0.0.0/0"]}), simple({"to": ["::/0"]})
    mapped = ipaddress.ip_address("::ffff:10.20.0.5").packed
    assert only4.decide(ALICE, V4, 6, 1, 0).allow
    assert not only4.decide(ALICE, V6, 6, 1, 0).allow
    assert not only4.decide(ALICE, mapped, 6, 1, 0).allow
    assert only6.decide(ALICE, V6, 6, 1, 0).allow
    assert only6.decide(ALICE, mapped, 6, 1, 0).allow
    assert not only6.decide(ALICE, V4, 6, 1, 0).allow


def test_a_window_begins_inclusive_and_ends_exclusive() -> None:
    table = simple({"to": ["0.0.0.0/0"], "not_before": 100, "expires": 200})
    verdicts = {now: table.decide(ALICE, V4, 6, 1, now) for now in (99.999, 100, 199.999, 200)}
    assert [verdict.allow for verdict in verdicts.values()] == [False, True, True, False]
    assert verdicts[200] == Verdict(False, Reason.OUT_OF_TIME, 0)


def test_an_empty_window_is_never() -> None:
    table = simple({"to": ["0.0.0.0/0"], "not_before": 200, "expires": 100})
    assert not any(table.decide(ALICE, V4, 6, 1, now).allow for now in (99, 100, 150, 200, 201))


def test_a_deny_outside_its_window_denies_nothing() -> None:
    table = simple({"to": ["0.0.0.0/0"]}, {"to": ["0.0.0.0/0"], "action": "deny", "expires": 100})
    assert not table.decide(ALICE, V4, 6, 1, 99).allow
    assert table.decide(ALICE, V4, 6, 1, 100) == Verdict(True, Reason.ALLOWED, 0)


@pytest.mark.parametrize("document", [None, {"format": 1, "rules": [], "sets": [], "clients": {}}])
def test_without_a_rule_everything_is_denied(document: dict[str, Any] | None) -> None:
    verdict = PolicyTable(document).decide(ALICE, V4, 6, 80, 0)
    assert verdict == (False, Reason.NO_POLICY if document is None else Reason.NO_RULE, None)


@pytest.mark.parametrize(
    "document",
    [
        {"rules": [], "sets": [[0]], "clients": {}},
        {"rules": [], "sets": [], "clients": {ALICE: 0}},
        {"rules": [], "sets": [[]], "clients": {ALICE: 1}},
        {"rules": [], "sets": [[]], "clients": {ALICE: -1}},
        {"rules": [], "sets": [[-1]], "clients": {}},
        {"rules": [{"action": "allow", "to": ["10.0.0.1/8"], "ports": ["any"]}], "sets": [[0]], "clients": {}},
        {"rules": [{"action": "allow", "to": ["10.0.0.0/33"], "ports": ["any"]}], "sets": [[0]], "clients": {}},
        {"rules": [{"action": "allow", "to": ["::/0"], "ports": ["tcp/9-1"]}], "sets": [[0]], "clients": {}},
    ],
)  # fmt: skip
def test_a_document_that_contradicts_itself_is_a_value_error(document: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        PolicyTable(document)


@settings(deadline=None, max_examples=150)
@given(
    documents(),
    st.text(max_size=3) | st.sampled_from(CLIENTS),
    st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16) | st.sampled_from(ADDRESSES),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.floats(allow_nan=True, allow_infinity=True) | st.integers(),
)
@example({"format": 1, "rules": [], "sets": [[]], "clients": {}}, ALICE, bytes(4), 0, 0, float("nan"))
def test_decide_never_raises(
    document: dict[str, Any], client: str, address: bytes, protocol: int, port: int, now: float
) -> None:
    verdict = PolicyTable(document).decide(client, address, protocol, port, now)
    assert verdict.allow == (verdict.reason is Reason.ALLOWED)
    assert (verdict.rule is None) == (verdict.reason is Reason.NO_RULE)


def test_a_time_that_is_not_a_number_allows_nothing() -> None:
    table = simple({"to": ["0.0.0.0/0"]}, {"to": ["0.0.0.0/0"], "expires": 100})
    assert not table.decide(ALICE, V4, 6, 1, float("nan")).allow


@settings(deadline=None)
@given(documents(), st.sampled_from([0, 99, 100, 101, 200, 299, 300, 301]))
def test_the_next_change_is_the_next_instant_that_any_rule_names(document: dict[str, Any], now: int) -> None:
    instants = [
        rule[name] for rule in document["rules"] for name in ("not_before", "expires") if name in rule
    ]
    expected = min((instant for instant in instants if instant > now), default=FAR_FUTURE)
    assert PolicyTable(document).next_change(now) == expected


@settings(deadline=None, max_examples=100)
@given(documents(), packets)
def test_between_two_changes_no_verdict_changes(document: dict[str, Any], packet: Any) -> None:
    client, address, (protocol, port), now = packet
    table = PolicyTable(document)
    until = min(table.next_change(now), now + 1000)
    first = table.decide(client, address, protocol, port, now)
    for moment in (now + (until - now) / 2, until - 1e-6):
        if moment >= now:
            assert table.decide(client, address, protocol, port, moment) == first


class CountedDict(dict[int, Any]):
    """A dict that counts how often it is asked."""

    lookups = 0

    def get(self, key: int, default: Any = None) -> Any:
        CountedDict.lookups += 1
        return super().get(key, default)


def lookups(rights: _PolicySet, address: bytes) -> int:
    """Return how many dict lookups one decision costs."""
    rights.by_family = {
        length: [
            (shift, CountedDict({number: CountedDict(protocols) for number, protocols in networks.items()}))
            for shift, networks in by_length
        ]
        for length, by_length in rights.by_family.items()
    }  # type: ignore[assignment]
    CountedDict.lookups = 0
    rights.matching(address, 6, 443)
    return CountedDict.lookups


def test_the_cost_of_a_decision_does_not_grow_with_rules_or_clients() -> None:
    costs = []
    for many in (1, 10, 1000):
        made = [
            {"policy": "p", "action": "allow", "to": [f"10.{n // 256}.{n % 256}.0/24"], "ports": ["tcp/443"]}
            for n in range(many)
        ]
        document = {
            "format": 1,
            "rules": made,
            "sets": [list(range(many)), []],
            "clients": {f"{n:032x}": n % 2 for n in range(10 * many)},
        }
        table = PolicyTable(document)
        rights = table._clients[f"{0:032x}"]
        assert rights is table._clients[f"{2 * (5 * many - 1):032x}"]  # clients with equal rights share a set
        assert len(rights.by_family[4]) == 1  # one prefix length is one look
        assert rights.by_family[16] == []
        costs.append(lookups(rights, bytes([10, 0, 0, 1])))
    assert len(set(costs)) == 1
    assert costs[0] <= 3


def test_the_prefix_lengths_bound_the_looks_and_no_range_is_walked() -> None:
    made = [
        {"policy": "p", "action": "allow", "to": ["10.0.0.0/8"], "ports": [f"tcp/{n}"]}
        for n in range(0, 60000, 20)
    ]
    table = PolicyTable({"format": 1, "rules": made, "sets": [list(range(len(made)))], "clients": {ALICE: 0}})
    ((_, networks),) = table._clients[ALICE].by_family[4]
    intervals = networks[10][6]
    assert intervals.starts == sorted(set(intervals.starts))  # disjoint and in order, found by bisection
    assert max(len(found) for found in intervals.rules) == 1
    assert table.decide(ALICE, bytes([10, 0, 0, 1]), 6, 40, 0).rule == 2
    assert not table.decide(ALICE, bytes([10, 0, 0, 1]), 6, 41, 0).allow


def test_the_numbers_of_reasons_never_change() -> None:
    assert {reason.name: int(reason) for reason in Reason} == {
        "OBSERVED": 0, "ALLOWED": 1, "DENIED": 2, "NO_RULE": 3, "OUT_OF_TIME": 4, "NO_POLICY": 5,
        "UNKNOWN_SOURCE": 6, "UNPARSEABLE": 7, "FRAGMENT": 8,
    }  # fmt: skip
