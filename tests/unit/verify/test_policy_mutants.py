"""Damage done to a gateway's policy: each kind is found under its name, with a packet whose verdict changed."""

from __future__ import annotations

from typing import Any

import pytest

from verifykit import POLICY, Files, Json, Mutants, compiled, differences, identifier, inventory_with_grace

MUTANTS = Mutants()


def rule(document: Any, policy: str, to: str) -> Any:
    """Return the first rule of a policy to a prefix."""
    return next(rule for rule in document["rules"] if rule["policy"] == policy and to in rule["to"])


@MUTANTS.kind(POLICY, "gained", "policy")
def a_v4_only_rule_admits_all_v6(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "grace-four", "10.20.9.0/24")["to"].append("::/0")


@MUTANTS.kind(POLICY, "gained")
def a_deny_is_dropped_from_a_set(files: Files) -> None:
    with Json(files, POLICY) as document:
        denies = {i for i, r in enumerate(document["rules"]) if r["action"] == "deny"}
        document["sets"] = [[i for i in indexes if i not in denies] for indexes in document["sets"]]


@MUTANTS.kind(POLICY, "gained")
def one_family_of_a_deny_is_dropped(files: Files) -> None:
    with Json(files, POLICY) as document:
        index = document["rules"].index(rule(document, "nobody-logs-in-to-databases", "fd20:0:0:5::/64"))
        document["sets"] = [[i for i in indexes if i != index] for indexes in document["sets"]]


@MUTANTS.kind(POLICY, "gained", "policy")
def a_deny_becomes_an_allow(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "nobody-logs-in-to-databases", "10.20.5.0/28")["action"] = "allow"


@MUTANTS.kind(POLICY, "lost", "policy")
def an_allow_becomes_a_deny(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reaches-web", "10.20.0.80/32")["action"] = "deny"


@MUTANTS.kind(POLICY, "gained", "policy")
def a_port_range_is_widened(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "monitor-scrapes", "10.20.0.0/16")["ports"] = ["proto/1", "tcp/9100-9200"]


@MUTANTS.kind(POLICY, "lost")
def a_port_range_is_narrowed(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "monitor-scrapes", "10.20.0.0/16")["ports"] = ["proto/1", "tcp/9101-9199"]


@MUTANTS.kind(POLICY, "gained", "policy")
def any_instead_of_tcp(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reads-prod-db", "10.20.5.0/28")["ports"] = ["any"]


@MUTANTS.kind(POLICY, "gained", "policy")
def a_whole_protocol_instead_of_a_port(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reads-prod-db", "10.20.5.0/28")["ports"] = ["proto/6"]


@MUTANTS.kind(POLICY, "gained", "lost", "policy")
def udp_instead_of_tcp(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reads-prod-db", "10.20.5.0/28")["ports"] = ["udp/5432"]


@MUTANTS.kind(POLICY, "gained", "lost", "policy")
def icmp_of_the_other_family(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reaches-web", "fd20::80/128")["ports"] = ["tcp/8080", "proto/1"]


@MUTANTS.kind(POLICY, "gained")
def an_expiry_is_lost(files: Files) -> None:
    with Json(files, POLICY) as document:
        del rule(document, "eng-reads-prod-db", "10.20.5.0/28")["expires"]


@MUTANTS.kind(POLICY, "gained")
def an_expiry_is_a_second_late(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reads-prod-db", "10.20.5.0/28")["expires"] += 1


@MUTANTS.kind(POLICY, "lost")
def an_expiry_is_a_second_early(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reads-prod-db", "10.20.5.0/28")["expires"] -= 1


@MUTANTS.kind(POLICY, "gained")
def a_beginning_is_lost(files: Files) -> None:
    with Json(files, POLICY) as document:
        del rule(document, "grace-four", "10.20.9.0/24")["not_before"]


@MUTANTS.kind(POLICY, "gained", "policy")
def a_prefix_is_a_bit_wider(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "grace-four", "10.20.9.0/24")["to"] = ["10.20.8.0/23"]


@MUTANTS.kind(POLICY, "lost")
def a_prefix_is_a_bit_longer(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "grace-four", "10.20.9.0/24")["to"] = ["10.20.9.0/25"]


@MUTANTS.kind(POLICY, "gained", "policy")
def a_rule_is_not_clipped(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "ops-administer", "10.20.0.0/16")["to"].append("10.99.0.0/16")


@MUTANTS.kind(POLICY, "gained", "lost")
def a_client_is_moved_to_another_set(files: Files) -> None:
    bob, alice = identifier(files, "bob-laptop"), identifier(files, "alice-laptop")
    with Json(files, POLICY) as document:
        clients = document["clients"]
        clients[bob], clients[alice] = clients[alice], clients[bob]


@MUTANTS.kind(POLICY, "lost")
def a_client_has_no_set(files: Files) -> None:
    with Json(files, POLICY) as document:
        del document["clients"][identifier(files, "alice-laptop")]


@MUTANTS.kind(POLICY, "extra-client")
def a_client_is_added_to_the_policy(files: Files) -> None:
    with Json(files, POLICY) as document:
        document["clients"]["00" * 16] = 0


@MUTANTS.kind(POLICY, "lost")
def a_rule_is_dropped(files: Files) -> None:
    with Json(files, POLICY) as document:
        index = document["rules"].index(rule(document, "grace-logs", "fd20:0:0:9::/64"))
        document["sets"] = [[i for i in indexes if i != index] for indexes in document["sets"]]


@MUTANTS.kind(POLICY, "unreadable")
def a_set_has_an_index_twice(files: Files) -> None:
    with Json(files, POLICY) as document:
        document["sets"][0].append(document["sets"][0][0])


@MUTANTS.kind(POLICY, "unreadable")
def a_set_names_a_rule_that_is_not_there(files: Files) -> None:
    with Json(files, POLICY) as document:
        document["sets"][0].append(len(document["rules"]))


@MUTANTS.kind(POLICY, "unreadable")
def a_client_has_a_set_that_is_not_there(files: Files) -> None:
    with Json(files, POLICY) as document:
        document["clients"][identifier(files, "alice-laptop")] = len(document["sets"])


@MUTANTS.kind(POLICY, "policy")
def a_rule_is_told_to_come_from_another_policy(files: Files) -> None:
    with Json(files, POLICY) as document:
        rule(document, "eng-reaches-web", "10.20.0.80/32")["policy"] = "grace-four"


@MUTANTS.kind(POLICY, "unreadable")
def a_field_is_added_to_a_rule(files: Files) -> None:
    with Json(files, POLICY) as document:
        document["rules"][0]["from"] = "all"


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_damage_is_found_and_named(name: str) -> None:
    MUTANTS.judge(name)


def test_there_are_enough_kinds_of_damage() -> None:
    assert len(MUTANTS) >= 25


def test_the_witness_of_a_lost_expiry_is_its_very_second() -> None:
    files = compiled(inventory_with_grace())
    an_expiry_is_lost(files)
    found = differences(inventory_with_grace(), files)
    assert [str(d) for d in found] == [
        f"{POLICY}: gained: the bundle allows alice-laptop -> 10.20.5.0 tcp/5432 at 2031-06-30T00:00:00Z "
        "(and 1 more of equal rights), the inventory does not",
        f"{POLICY}: gained: the bundle allows erin-desktop -> 10.20.5.0 tcp/5432 at 2031-06-30T00:00:00Z, "
        "the inventory does not",
    ]
