"""The verdict of a replay is the gateway's own, packet for packet; and what is told of it."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compilerkit
from compilerkit import client, gateway, inventory, policy
from learnkit import NOON, candidate, deny, groups, id_of, ready, record
from tidegate_agents.datapath.judge import Judge, Tables
from tidegate_agents.datapath.packet import parse
from tidegate_compiler.learn.flows import Slots, Window
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.learn.replay import Replayed, replay
from tidegate_compiler.times import format_instant
from tidegate_schema.policy import PolicyTable, Reason
from unit.agents.kit import SCTP, TCP, UDP, icmp, ip4, ip6, sctp, tcp, udp

BEGIN, END = NOON - 50, NOON + 50
SOURCES = {
    "alice": {4: "10.64.0.11", 6: "fd64::11"},
    "bob": {4: "10.64.0.12", 6: "fd64::12"},
    "stranger": {4: "10.64.0.99", 6: "fd64::99"},
}


def run(files: dict[str, bytes], lines: list[bytes], at: float | None = NOON, **more: Any) -> Replayed:
    judging = candidate(files, more.pop("past", None))
    slots = Slots(Window(), judging.instants if at is None else ())
    return replay(groups(lines, slots), judging, at, **more)


def told(done: Replayed) -> set[tuple[str, str, int, str, str | None]]:
    return {
        ("passes" if key.passes else "breaks", key.destination, key.port, key.reason, key.policy)
        for key in done.changes
    }


# The property ----------------------------------------------------------------------------------------------------

PREFIXES = ["10.20.0.0/16", "10.20.0.80/32", "10.20.0.64/26", "fd20::/48", "fd20::80/128", "10.21.0.0/24"]
PORTS = ["any", "tcp/443", "tcp/400-450", "udp/53", "icmp", "proto/47", "proto/6", "sctp/443"]
TIMES = [None, format_instant(NOON), format_instant(BEGIN), format_instant(END)]


@st.composite
def policies(draw: st.DrawFn) -> dict[str, Any]:
    made = {}
    for number in range(draw(st.integers(0, 5))):
        begin, end = sorted(
            (draw(st.sampled_from(TIMES)), draw(st.sampled_from(TIMES))), key=lambda time: time or ""
        )
        times = {"not_before": begin, "expires": end} if begin != end else {}
        made[f"p{number}"] = {
            "from": draw(
                st.lists(
                    st.sampled_from(["client:alice", "client:bob", "group:g", "all-clients"]),
                    min_size=1,
                    unique=True,
                )
            ),
            "to": draw(st.lists(st.sampled_from(PREFIXES[:5]), min_size=1, max_size=3, unique=True)),
            "ports": draw(st.lists(st.sampled_from(PORTS), min_size=1, max_size=3, unique=True)),
            "action": draw(st.sampled_from(["allow", "allow", "deny"])),
            **{name: time for name, time in times.items() if time},
        }
    return made


PACKETS = st.tuples(
    st.sampled_from(list(SOURCES)),
    st.sampled_from(["10.20.0.80", "10.20.0.81", "10.20.9.1", "fd20::80", "fd20::1", "10.20.0.64"]),
    st.sampled_from([TCP, UDP, SCTP, 1, 47]),
    st.sampled_from([443, 53, 400, 451, 1]),
    # Half of them at the last second before a rule begins or ends, or at the first one then.
    st.integers(BEGIN - 20, END + 20)
    | st.sampled_from([moment - before for moment in (BEGIN, NOON, END) for before in (1, 0)]),
)


def raw(who: str, to: str, protocol: int, port: int) -> bytes:
    """Return the bytes of a whole packet."""
    family = 6 if ":" in to else 4
    body = {TCP: tcp(40000, port), UDP: udp(40000, port), SCTP: sctp(40000, port), 1: icmp(8), 47: b"tunnel"}[
        protocol
    ]
    if family == 6 and protocol == 1:
        return ip6(SOURCES[who][6], to, 58, icmp(128))
    return (ip6 if family == 6 else ip4)(SOURCES[who][family], to, protocol, body)


@given(policies(), st.lists(PACKETS, min_size=1, max_size=12), st.booleans(), st.booleans())
@settings(max_examples=200, deadline=None)
def test_replay_equals_the_gateway_s_verdict_packet_for_packet(
    made: dict[str, Any], packets: list[tuple[str, str, int, int, int]], recorded: bool, has_policy: bool
) -> None:
    """The forwarder's judge on the bytes, against replay on what the gateway would have recorded of them in observe."""
    kinds: dict[str, Any] = {"policies": made} if has_policy else {}
    files = inventory(groups={"g": {"members": ["alice"]}}, **kinds)
    compiled = compilerkit.compiled(files)
    judging = ready(compiled.fleet)
    host = compiled.fleet.gateways["gw"]
    table = Tables(
        1,
        True,
        {
            ipaddress.ip_network(address).network_address.packed: peer.client_id
            for peer in host.peers
            for address in peer.addresses
        },
        PolicyTable(host.policy),
    )
    for who, to, protocol, port, at in packets:
        packet = parse(raw(who, to, protocol, port))
        assert packet is not None
        verdict = Judge(table).judge(packet, at)
        line = record(
            None if who == "stranger" else who,
            to,
            packet.port if packet.has_ports else None,
            packet.protocol,
            at=at,
            kind="packet",
        )
        ((slot, group),) = groups([line], Slots(Window(), judging.instants if recorded else ()))
        judged = judging.judge(group, slot if recorded else at)
        assert judged is not None
        assert (judged.allow, judged.reason) == (verdict.allow, verdict.reason.name)
        rules = (host.policy or {"rules": []})["rules"]
        assert judged.policy == (None if verdict.rule is None else rules[verdict.rule]["policy"])


# What would break, what would pass -------------------------------------------------------------------------------

WEB = {"web": policy("client:alice", ["10.20.0.80/32"], ports=["tcp/443"])}


def test_what_observe_let_through_breaks_where_no_policy_matches() -> None:
    done = run(inventory(policies=WEB), [record(), record(port=22), record("bob")])
    assert told(done) == {
        ("breaks", "10.20.0.80", 22, "NO_RULE", None),
        ("breaks", "10.20.0.80", 443, "NO_RULE", None),
    }
    assert (done.flows, done.same) == (3, 1)


def test_what_enforce_refused_passes_where_a_policy_allows_it_now() -> None:
    done = run(inventory(policies=WEB), [deny(), deny(port=22)])
    assert told(done) == {("passes", "10.20.0.80", 443, "ALLOWED", "web")}


def test_a_deny_is_named() -> None:
    files = inventory(policies=WEB | {"no": policy("all-clients", ["10.20.0.0/16"], action="deny")})
    assert told(run(files, [record()])) == {("breaks", "10.20.0.80", 443, "DENIED", "no")}


def test_a_client_that_is_gone_breaks_by_that_name() -> None:
    done = run(inventory(policies=WEB), [record("carol")])
    assert told(done) == {("breaks", "10.20.0.80", 443, "NO_CLIENT", None)}


def test_a_destination_behind_no_gateway_has_no_route() -> None:
    done = run(inventory(policies=WEB), [record(to="10.99.0.1")])
    assert told(done) == {("breaks", "10.99.0.1", 443, "NO_ROUTE", None)}


def test_a_client_is_judged_by_the_gateway_that_recorded_it_or_where_its_route_leads() -> None:
    gateways = gateway("gw", "10.20.0.0/16") | gateway("gx", "10.21.0.0/16", endpoint="203.0.113.250:1")
    files = inventory(
        gateways=gateways,
        clients=client("alice", 11, "gw", "gx"),
        policies={"p": policy("client:alice", ["10.21.0.0/24"])},
    )
    judging = candidate(files)
    ((_, moved),) = groups([record(to="10.21.0.1", gateway="gw")])
    judged = judging.judge(moved, NOON)
    assert judged is not None
    assert (judged.allow, judged.gateway) == (True, "gx")


def test_a_standby_that_recorded_it_judges_it() -> None:
    gateways = gateway("gw", "10.20.0.0/16") | gateway("gx", "10.20.0.0/16", endpoint="203.0.113.250:1")
    files = inventory(gateways=gateways, clients=client("alice", 11, "gw", "gx"), policies=WEB)
    judged = candidate(files).judge(groups([record(gateway="gx")])[0][1], NOON)
    assert judged is not None
    assert (judged.allow, judged.gateway) == (True, "gx")


def test_later_fragments_are_not_judged() -> None:
    done = run(inventory(policies=WEB), [record(port=None)])
    assert (done.unjudged, done.changes) == (1, {})


def test_time_is_now_or_each_flow_s_own() -> None:
    until = {"web": WEB["web"] | {"expires": format_instant(NOON)}}
    lines = [record(at=NOON - 1), record(at=NOON)]
    assert {key.reason: e.flows for key, e in run(inventory(policies=until), lines).changes.items()} == {
        "OUT_OF_TIME": 2
    }
    by_own = run(inventory(policies=until), lines, None)
    assert {key.reason: e.flows for key, e in by_own.changes.items()} == {"OUT_OF_TIME": 1}
    assert run(inventory(policies=until), lines, NOON - 1).changes == {}


def test_against_another_inventory_the_recorded_verdict_does_not_count() -> None:
    old, new = inventory(policies=WEB), inventory(policies={"ssh": policy("client:alice", ports=["tcp/22"])})
    done = run(new, [record(), deny(), record(port=22), record(port=23)], against=candidate(old))
    assert told(done) == {
        ("breaks", "10.20.0.80", 443, "NO_RULE", None),
        ("passes", "10.20.0.80", 22, "ALLOWED", "ssh"),
    }


@pytest.mark.parametrize("way", ["candidate", "past"])
def test_a_rotated_key_is_judged_as_the_one_that_followed(way: str) -> None:
    """Flows of the key before the rotation belong to the client that has the new one: nothing of them breaks."""
    files = inventory(policies=WEB)
    past = Timeline()
    past.step(NOON - 100, {"all.yaml": {"alice": "1" * 32}})
    if way == "past":
        past.step(NOON - 10, {"all.yaml": {"alice": id_of("alice")}})
    done = run(files, [record("1" * 32), record("1" * 32, port=22)], past=past)
    ((key, evidence),) = done.changes.items()
    assert (key.client, key.port) == (id_of("alice"), 22)
    assert evidence.was == {f"alice ({'1' * 32})"}


def test_a_reason_is_told_for_every_verdict() -> None:
    from tidegate_compiler.learn.replay import NO_CLIENT
    from tidegate_compiler.learn.replaydoc import WHY

    verdicts = {reason.name for reason in Reason} - {"OBSERVED", "FRAGMENT"}
    assert set(WHY) == verdicts | {"NO_ROUTE", NO_CLIENT}
