"""Suggestions: what was seen is admitted, by names that are there, and what is admitted beyond is told."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import compilerkit
from compilerkit import client, inventory, policy
from learnkit import NOON, candidate, deny, groups, ready, record, right
from tidegate_compiler.learn import suggestdoc
from tidegate_compiler.learn.demand import demand
from tidegate_compiler.learn.replay import replay
from tidegate_compiler.learn.suggest import Suggestion, suggest
from tidegate_compiler.pipeline import validate_files

TEAM = [f"c{number}" for number in range(10)]
CLIENTS: dict[str, Any] = {}
for number, name in enumerate(TEAM):
    CLIENTS |= client(name, 20 + number)
RESOURCES = {
    "web": {"addresses": ["10.20.0.80/32", "fd20::80/128"], "ports": ["tcp/443", "tcp/80"]},
    "db": {"addresses": ["10.20.5.0/28"], "ports": ["tcp/5432"]},
    "office": {"addresses": ["10.20.0.0/16"]},
}
GROUPS = {"devs": {"members": TEAM[:6]}, "ops": {"members": TEAM[6:]}}


def world(**more: Any) -> dict[str, bytes]:
    return inventory(**{"clients": CLIENTS, "resources": RESOURCES, "groups": GROUPS} | more)


def ask(files: dict[str, bytes], lines: list[bytes], strictness: float = 0.5, **more: Any) -> Suggestion:
    compiled = compilerkit.compiled(files)
    return suggest(
        demand(groups(lines), ready(compiled.fleet), NOON, **more), compiled.inventory, NOON, strictness
    )


def told(done: Suggestion) -> dict[str, Any]:
    return right("suggest", suggestdoc.document(done, "INV", "FLOWS", NOON))


def short(done: Suggestion) -> dict[str, tuple[Any, ...]]:
    return {one.name: (one.sources, one.to, one.ports) for one in done.policies}


def every(clients: list[str], to: str = "10.20.0.80", *ports: int) -> list[bytes]:
    return [record(name, to, port) for name in clients for port in ports or (443, 80)]


def test_a_group_on_a_resource_is_said_in_their_names() -> None:
    done = ask(world(), every(TEAM[:6]))
    assert short(done) == {"devs-to-web": (("group:devs",), ("resource:web",), None)}
    (one,) = told(done)["policies"]
    assert one["excess"]["pairs"] == 0
    assert (one["evidence"]["flows"], one["evidence"]["clients"], one["evidence"]["days"]) == (12, 6, 1)


def test_a_group_of_which_most_were_seen_stands_for_all_and_says_who_was_not() -> None:
    (one,) = told(ask(world(), every(TEAM[:5])))["policies"]
    assert one["from"] == ["group:devs"]
    assert (one["excess"]["pairs"], one["excess"]["unseen"]) == (2, ["c5"])


def test_a_group_of_which_few_were_seen_does_not() -> None:
    (one,) = told(ask(world(), every(TEAM[:2])))["policies"]
    assert one["from"] == ["client:c0", "client:c1"]
    assert one["excess"]["pairs"] == 0
    (loose,) = told(ask(world(), every(TEAM[:2]), strictness=0.1))["policies"]
    assert loose["from"] == ["group:devs"]


def test_only_the_ports_that_were_seen_are_admitted() -> None:
    assert short(ask(world(), every(TEAM[:6], "10.20.0.80", 443))) == {
        "devs-to-web": (("group:devs",), ("resource:web",), ("tcp/443",))
    }


def test_two_groups_with_different_ports_of_a_resource_stay_apart() -> None:
    done = ask(world(), every(TEAM[:6], "10.20.0.80", 443) + every(TEAM[6:], "10.20.0.80", 80))
    assert short(done) == {
        "devs-to-web": (("group:devs",), ("resource:web",), ("tcp/443",)),
        "ops-to-web": (("group:ops",), ("resource:web",), ("tcp/80",)),
    }


def test_everybody_is_all_clients() -> None:
    assert short(ask(world(), every(TEAM))) == {"all-to-web": (("all-clients",), ("resource:web",), None)}


def test_a_policy_that_is_there_and_pays_is_kept_with_its_name() -> None:
    files = world(
        policies={"mine": policy(["group:devs"], ["resource:web"]) | {"ports": ["tcp/443", "tcp/80"]}}
    )
    done = ask(files, every(TEAM[:6]))
    assert [(one.name, one.kept is not None) for one in done.policies] == [("mine", True)]
    assert suggestdoc.files(done, told(done), files) == files


def test_a_policy_that_admits_far_more_than_was_seen_is_replaced() -> None:
    files = world(policies={"wide": policy("all-clients", ["10.20.0.0/16"])})
    done = ask(files, every(TEAM[:1], "10.20.9.9", 22))
    assert short(done) == {"c0-to-10-20-0-0-16": (("client:c0",), ("10.20.0.0/16",), ("tcp/22",))} or short(
        done
    ) == {"c0-to-office": (("client:c0",), ("resource:office",), ("tcp/22",))}
    assert told(done)["unused"]["replaced"] == ["wide"]


def test_the_narrowest_resource_is_meant() -> None:
    done = ask(world(), every(TEAM[:6], "10.20.5.3", 5432))
    assert short(done) == {"devs-to-db": (("group:devs",), ("resource:db",), None)}


def test_what_is_no_resource_is_told_by_address() -> None:
    files = world(resources={})
    done = ask(files, every(TEAM[:6], "10.20.7.7", 22) + every(TEAM[:6], "10.20.7.8", 22))
    assert short(done) == {
        "devs-to-10-20-7-7-and-1": (("group:devs",), ("10.20.7.7/32", "10.20.7.8/32"), ("tcp/22",))
    }


def test_clients_that_no_group_fits_become_one() -> None:
    some = [TEAM[n] for n in (0, 1, 2, 6, 7)]
    files = world(groups={"ops": {"members": TEAM[6:]}})
    done = ask(files, every(some, "10.20.5.3", 5432) + every(some, "10.20.0.80", 443), strictness=5)
    assert done.groups == {"db-users": tuple(some)}
    assert {one.sources for one in done.policies} == {("group:db-users",)}


def test_many_high_ports_are_a_range() -> None:
    lines = [record("c0", "10.20.9.9", port) for port in range(40000, 40100, 5)]
    (one,) = told(ask(world(), lines))["policies"]
    assert one["ports"] == ["tcp/40000-40095"]


def test_a_scan_of_every_port_is_one_range_and_takes_no_longer_by_each() -> None:
    """Under observe a scan goes through, and its tens of thousands of ports must not be compared each with each."""
    lines = [record("c0", "10.20.9.9", port) for port in range(1024, 31024)]
    (one,) = told(ask(world(), lines))["policies"]
    assert one["ports"] == ["tcp/1024-31023"]


def test_icmp_and_protocols_without_ports() -> None:
    lines = [
        record("c0", "10.20.9.9", None, 1),
        record("c0", "fd20::9", None, 58, source="fd64::14"),
        record("c0", "10.20.9.9", None, 47),
    ]
    found = {one["to"][0]: one["ports"] for one in told(ask(world(), lines))["policies"]}
    assert found == {"resource:office": ["icmp", "proto/47"], "fd20::9/128": ["icmp"]}


def test_what_a_deny_refuses_is_not_asked_for() -> None:
    files = world(policies={"no": policy("all-clients", ["resource:db"], action="deny", ports=["tcp/5432"])})
    done = ask(files, every(TEAM[:6], "10.20.5.3", 5432) + every(TEAM[:6]))
    assert list(short(done)) == ["devs-to-web"]
    assert told(done)["left_out"] == [{"reason": "denied", "why": "the policy denies it", "flows": 6}]
    assert "policies/all.yaml" in suggestdoc.files(done, told(done), files)


def test_what_was_refused_is_asked_for_when_somebody_says_so() -> None:
    lines = [deny("c0", "10.20.0.80", 443)]
    assert short(ask(world(), lines)) == {}
    assert list(short(ask(world(), lines, with_refused=True))) == ["c0-to-web"]


def test_what_no_policy_can_admit_is_counted() -> None:
    lines = [record("stranger"), record(None), record("c0", "10.99.0.1"), record("c0", port=None)]
    reasons = {one["reason"] for one in told(ask(world(), lines))["left_out"]}
    assert reasons == {"no-client", "unknown-source", "no-route", "fragment"}


def test_unused_things_are_listed() -> None:
    files = world(
        policies={
            "used": policy("group:devs", ["resource:web"], ports=["tcp/443", "tcp/80"]),
            "idle": policy("group:ops", ["resource:db"], ports=["tcp/5432"]),
        }
    )
    unused = told(ask(files, every(TEAM[:5])))["unused"]
    assert unused["policies"] == ["idle"]
    assert unused["groups"] == ["ops"]
    assert unused["members"] == [{"group": "devs", "members": ["c5"]}]
    assert unused["clients"] == TEAM[5:]


def test_a_membership_that_is_over_admits_nobody() -> None:
    members = {"devs": {"members": TEAM[:6], "expires": {"c0": "2026-11-01"}}}
    done = ask(world(groups=members), every(TEAM[:6]))
    assert {one.sources for one in done.policies} == {("client:c0", "group:devs")}


def test_names_are_never_taken_twice() -> None:
    files = world(
        policies={"devs-to-web": policy("all-clients", ["resource:web"], action="deny", ports=["tcp/80"])}
    )
    assert list(short(ask(files, every(TEAM[:6], "10.20.0.80", 443)))) == ["devs-to-web-tcp-443"]


TARGETS = ["10.20.0.80", "10.20.5.3", "10.20.5.4", "10.20.9.9", "10.20.9.10", "fd20::80", "fd20::81"]
FLOWS = st.tuples(
    st.sampled_from(TEAM),
    st.sampled_from(TARGETS),
    st.sampled_from([6, 17, 1]),
    st.sampled_from([80, 443, 5432, 9]),
)
SOURCES = ["group:devs", "group:ops", "client:c3", "all-clients"]
TO = ["resource:web", "resource:db", "resource:office", "10.20.9.0/24", "fd20::/64"]
POLICIES = st.dictionaries(
    st.sampled_from(["p", "q", "r"]),
    st.fixed_dictionaries(
        {
            "from": st.lists(st.sampled_from(SOURCES), min_size=1, max_size=2, unique=True),
            "to": st.lists(st.sampled_from(TO), min_size=1, max_size=2, unique=True),
            "ports": st.lists(
                st.sampled_from(["any", "tcp/443", "tcp/1-9000", "icmp"]), min_size=1, unique=True
            ),
            "action": st.sampled_from(["allow", "allow", "deny"]),
        }
    ),
)


@given(st.lists(FLOWS, min_size=1, max_size=40), POLICIES, st.sampled_from([0.05, 0.5, 4.0]), st.randoms())
@settings(max_examples=25, deadline=None)
def test_the_suggested_inventory_is_valid_admits_all_that_was_seen_and_is_the_same_each_time(
    flows: list[tuple[str, str, int, int]], policies: dict[str, Any], strictness: float, chance: random.Random
) -> None:
    lines = []
    for who, to, protocol, port in flows:
        number = 58 if protocol == 1 and ":" in to else protocol
        lines.append(record(who, to, None if protocol == 1 else port, number))
    files = world(**({"policies": policies} if policies else {}))
    before = validate_files(files)
    if before.inventory is None:  # ports that meet nowhere
        return
    done = ask(files, lines, strictness)
    after = suggestdoc.files(done, told(done), files)
    checked = validate_files(after)
    assert checked.inventory is not None, [(str(d.where), d.message) for d in checked.diagnostics]
    replayed = replay(groups(lines), candidate(after), NOON)
    assert {key.reason for key in replayed.changes} <= {"DENIED"}
    chance.shuffle(lines)
    again = ask(files, lines, strictness)
    assert suggestdoc.files(again, told(again), files) == after


@pytest.mark.parametrize("strictness", [0.1, 0.5, 2.0])
def test_the_words_are_told_without_a_hitch(strictness: float) -> None:
    done = ask(world(), every(TEAM[:4]) + every(TEAM, "10.20.9.9", 22) + [record("stranger")], strictness)
    text = "\n".join(suggestdoc.lines(told(done)))
    assert "policies admit" in text
    assert "not asked for: 1 flow, the client is not in the inventory" in text
