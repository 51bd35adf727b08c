"""Verdicts of the judge: who sent it, fragments, and ICMP errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate_agents.datapath import judge as module
from tidegate_agents.datapath.judge import FRAGMENT_SECONDS, FRAGMENTS_MAX, Judge, Tables
from tidegate_agents.datapath.packet import parse
from tidegate_agents.gateway import generation
from tidegate_agents.host import Places
from tidegate_schema.policy import PolicyTable, Reason, Verdict
from unit.agents.kit import (
    ICMP,
    ICMP6,
    NOW,
    TCP,
    UDP,
    fragment6,
    icmp,
    id_of,
    ip4,
    ip6,
    policy,
    raw,
    tcp,
    udp,
)

ALICE4, ALICE6, BOB4, WEB4, WEB6 = "10.64.0.11", "fd64::11", "10.64.0.12", "10.20.0.80", "fd20::80"
RULES: list[dict[str, Any]] = [
    {"to": ["10.20.0.80/32"], "ports": ["tcp/443", "udp/53"]},
    {"to": ["fd20::80/128"], "ports": ["udp/53"]},
]


def tables(document: dict[str, Any] | None = None, **changes: Any) -> Tables:
    clients = {raw(ALICE4): id_of("alice"), raw(ALICE6): id_of("alice"), raw(BOB4): id_of("bob")}
    chosen = policy(alice=RULES, bob=[]) if document is None else document
    return Tables(
        **{"generation": 1, "enforce": True, "clients": clients, "policy": PolicyTable(chosen)} | changes
    )


@pytest.fixture
def judge() -> Judge:
    return Judge(tables())


def ask(judge: Judge, data: bytes, now: float = NOW) -> Verdict:
    return judge.judge(parse(data), now)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (ip4(ALICE4, WEB4, TCP, tcp()), Reason.ALLOWED),
        (ip4(ALICE4, WEB4, UDP, udp()), Reason.ALLOWED),
        (ip6(ALICE6, WEB6, UDP, udp()), Reason.ALLOWED),
        (ip6(ALICE6, WEB6, TCP, tcp()), Reason.NO_RULE),
        (ip4(ALICE4, WEB4, TCP, tcp(443, 22)), Reason.NO_RULE),  # the source port is no way in
        (ip4(ALICE4, "10.20.0.81", TCP, tcp()), Reason.NO_RULE),
        (ip4(BOB4, WEB4, TCP, tcp()), Reason.NO_RULE),
        (ip4("10.64.0.13", WEB4, TCP, tcp()), Reason.UNKNOWN_SOURCE),
        (ip4(WEB4, ALICE4, TCP, tcp()), Reason.UNKNOWN_SOURCE),
        (ip6("::ffff:10.64.0.11", WEB6, UDP, udp()), Reason.UNKNOWN_SOURCE),
        (b"", Reason.UNPARSEABLE),
        (ip4(ALICE4, WEB4, TCP, tcp()[:4]), Reason.UNPARSEABLE),
        (ip4(ALICE4, WEB4, TCP, bytes(20), fragment=(1480, False)), Reason.FRAGMENT),
        (ip4("10.64.0.13", WEB4, TCP, bytes(20), fragment=(1480, False)), Reason.UNKNOWN_SOURCE),
    ],
)
def test_a_verdict_has_its_reason(judge: Judge, data: bytes, reason: Reason) -> None:
    verdict = ask(judge, data)
    assert verdict.reason is reason
    assert verdict.allow == (reason is Reason.ALLOWED)


def test_without_a_policy_everything_is_denied() -> None:
    none = Judge(tables(policy=PolicyTable(None)))
    assert ask(none, ip4(ALICE4, WEB4, TCP, tcp())) == (False, Reason.NO_POLICY, None)


@settings(deadline=None, max_examples=300)
@given(st.binary(max_size=80), st.sampled_from([b"", b"\x45", b"\x60"]))
def test_any_bytes_get_a_verdict(data: bytes, start: bytes) -> None:
    assert not ask(Judge(tables()), start + data).allow


# Fragments ----------------------------------------------------------------------------------------------------


def first4(port: int = 53, number: int = 7, source: str = ALICE4) -> bytes:
    return ip4(source, WEB4, UDP, udp(destination=port, body=bytes(16)), fragment=(0, True), number=number)


def later4(number: int = 7, source: str = ALICE4, protocol: int = UDP, destination: str = WEB4) -> bytes:
    return ip4(source, destination, protocol, bytes(16), fragment=(24, False), number=number)


def test_later_fragments_follow_their_first(judge: Judge) -> None:
    assert not ask(judge, later4()).allow
    assert ask(judge, first4()).allow
    assert ask(judge, later4()).allow
    assert ask(judge, first4(port=54, number=8)).reason is Reason.NO_RULE
    assert ask(judge, later4(number=8)).reason is Reason.NO_RULE


def test_later_fragments_follow_their_first_in_ipv6(judge: Judge) -> None:
    first = ip6(ALICE6, WEB6, UDP, udp(), fragment6(0, True, 70000))
    later = ip6(ALICE6, WEB6, UDP, bytes(8), fragment6(8, False, 70000))
    assert ask(judge, later).reason is Reason.FRAGMENT
    assert ask(judge, first).allow
    assert ask(judge, later).allow


@pytest.mark.parametrize(
    "other",
    [later4(number=8), later4(source=BOB4), later4(protocol=TCP), later4(destination="10.20.0.81")],
    ids=["number", "source", "protocol", "destination"],
)
def test_a_fragment_of_another_packet_is_denied(judge: Judge, other: bytes) -> None:
    assert ask(judge, first4()).allow
    assert ask(judge, other).reason is Reason.FRAGMENT


def test_a_first_fragment_is_remembered_for_a_while_only(judge: Judge) -> None:
    assert ask(judge, first4(), NOW).allow
    assert ask(judge, later4(), NOW + FRAGMENT_SECONDS - 0.001).allow
    assert ask(judge, later4(), NOW + FRAGMENT_SECONDS).reason is Reason.FRAGMENT


def test_a_second_first_fragment_never_turns_a_denial_around(judge: Judge) -> None:
    assert not ask(judge, first4(port=54)).allow
    assert not ask(judge, first4(port=53)).allow
    assert not ask(judge, later4()).allow
    # Nor does the second one's denial stop short of the fragments that follow it.
    assert ask(judge, first4(port=53, number=9)).allow
    assert not ask(judge, first4(port=54, number=9)).allow
    assert not ask(judge, later4(number=9)).allow
    # After its time the number may be used anew.
    assert ask(judge, first4(port=53), NOW + 2 * FRAGMENT_SECONDS).allow


def test_the_memory_of_fragments_is_bounded_and_loses_the_oldest(judge: Judge) -> None:
    for number in range(FRAGMENTS_MAX + 1):
        assert ask(judge, first4(number=number)).allow
    assert len(judge._fragments) == FRAGMENTS_MAX
    assert ask(judge, later4(number=0)).reason is Reason.FRAGMENT
    assert ask(judge, later4(number=1)).allow
    assert ask(judge, later4(number=FRAGMENTS_MAX)).allow
    ask(judge, first4(number=1))  # known already: nothing has to go for it
    assert len(judge._fragments) == FRAGMENTS_MAX
    assert ask(judge, later4(number=2)).allow


def test_later_fragments_of_nobody_are_not_remembered(judge: Judge) -> None:
    for number in range(100):
        ask(judge, later4(number=number))
        ask(judge, first4(number=number, source="10.64.0.99"))
    assert judge._fragments == {}


# ICMP errors --------------------------------------------------------------------------------------------------


def error4(quoted: bytes, to: str = WEB4, source: str = ALICE4, kind: int = 3) -> bytes:
    return ip4(source, to, ICMP, icmp(kind, quoted))


def test_an_icmp_error_is_judged_as_what_it_reports_on(judge: Judge) -> None:
    answer = ip4(WEB4, ALICE4, UDP, udp(53, 40000))
    assert ask(judge, error4(answer)).allow
    assert ask(judge, error4(answer[:28])).allow
    assert ask(judge, error4(ip4(WEB4, ALICE4, UDP, udp(54, 40000)))).reason is Reason.NO_RULE
    assert ask(judge, error4(ip4(WEB4, ALICE4, UDP, udp(40000, 53)))).reason is Reason.NO_RULE
    assert ask(judge, ip4(ALICE4, WEB4, ICMP, icmp(8))).reason is Reason.NO_RULE  # an echo is no error
    six = ip6(ALICE6, WEB6, ICMP6, icmp(2, ip6(WEB6, ALICE6, UDP, udp(53, 40000))))
    assert ask(judge, six).allow


@pytest.mark.parametrize(
    "data",
    [
        error4(b""),
        error4(b"\x45" * 40),
        error4(ip4(WEB4, ALICE4, UDP, udp(53, 1))[:27]),
        error4(ip4(WEB4, BOB4, UDP, udp(53, 1))),  # about somebody else's conversation
        error4(ip4("10.20.0.81", ALICE4, UDP, udp(53, 1))),  # sent to another than the one it quotes
        error4(ip4(WEB4, ALICE4, UDP, udp(53, 1)), to="10.20.0.81"),
        error4(ip4(ALICE4, WEB4, UDP, udp(53, 53))),
        error4(ip6(WEB6, ALICE6, UDP, udp(53, 1))),
    ],
)
def test_an_icmp_error_about_something_else_is_denied(judge: Judge, data: bytes) -> None:
    assert ask(judge, data).reason is Reason.UNPARSEABLE


def test_an_icmp_rule_does_not_let_errors_through() -> None:
    only_icmp = Judge(tables(policy(alice=[{"to": ["10.20.0.0/16"], "ports": ["proto/1"]}])))
    assert ask(only_icmp, ip4(ALICE4, WEB4, ICMP, icmp(8))).allow
    assert not ask(only_icmp, error4(ip4(WEB4, ALICE4, UDP, udp(53, 1)))).allow


# Tables -------------------------------------------------------------------------------------------------------


def test_the_tables_of_a_generation_read_back_as_they_were_written(tmp_path: Path) -> None:
    places = Places("gateway", run_directory=tmp_path)
    places.run.mkdir()
    generation.prepare(places, 61002)
    written = tables(generation=7, not_earlier_than=12.5)
    generation.write(places, written)
    found = Tables.parse(generation.file(places, 7).read_bytes())
    assert (found.generation, found.enforce, found.clients, found.not_earlier_than) == (
        7,
        True,
        written.clients,
        12.5,
    )
    assert found.policy.document == written.policy.document
    generation.write(places, tables(generation=8, policy=PolicyTable(None), enforce=False))
    assert Tables.parse(generation.file(places, 8).read_bytes()).policy.document is None
    assert generation.last(places) == 8


def test_old_generations_are_forgotten_and_numbers_go_on(tmp_path: Path) -> None:
    places = Places("gateway", run_directory=tmp_path)
    places.run.mkdir()
    generation.prepare(places, 61002)
    assert generation.last(places) == 0
    for number in range(1, 31):
        generation.write(places, tables(generation=number))
        generation.forget_before(places, number)
    left = sorted(int(path.stem) for path in generation.directory(places).iterdir())
    assert left == list(range(15, 31))
    assert generation.last(places) == 30


def test_a_file_that_is_no_generation_is_not_loaded() -> None:
    for text in ("", "[]", "{}", json.dumps({"generation": 1})):
        with pytest.raises((ValueError, KeyError, TypeError)):
            Tables.parse(text.encode())


def test_the_judge_never_reads_a_clock() -> None:
    assert not hasattr(module, "time")
