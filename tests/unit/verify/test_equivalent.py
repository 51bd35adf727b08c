"""Outputs that are written otherwise and say the same: proven."""

from __future__ import annotations

import ipaddress
import random
from collections.abc import Callable
from typing import Any

import pytest

from verifykit import Json, compiled, differences, example

POLICY = "gateway/fra1/policy.json"


def reorder_rules(document: Any) -> None:
    order = list(range(len(document["rules"])))
    random.Random(1).shuffle(order)
    document["rules"] = [document["rules"][index] for index in order]
    document["sets"] = [[order.index(index) for index in indexes] for indexes in document["sets"]]


def reorder_sets(document: Any) -> None:
    last = len(document["sets"]) - 1
    document["sets"] = [list(reversed(indexes)) for indexes in reversed(document["sets"])]
    document["clients"] = {client: last - number for client, number in document["clients"].items()}


def split_prefixes(document: Any) -> None:
    for rule in document["rules"]:
        networks = map(ipaddress.ip_network, rule["to"])
        rule["to"] = [
            str(half) for n in networks for half in (n.subnets() if n.prefixlen < n.max_prefixlen else [n])
        ]


def split_port_ranges(document: Any) -> None:
    for rule in document["rules"]:
        rule["ports"] = [
            part
            for text in rule["ports"]
            for part in (("tcp/9100-9149", "tcp/9150-9199") if text == "tcp/9100-9199" else (text,))
        ]


def split_windows(document: Any) -> None:
    """Cut each rule that ends in two that touch."""
    for index, rule in enumerate(list(document["rules"])):
        if "expires" in rule:
            document["rules"].append(rule | {"not_before": 1_800_000_000})
            rule["expires"] = 1_800_000_000
            for indexes in document["sets"]:
                if index in indexes:
                    indexes.append(len(document["rules"]) - 1)


def say_twice(document: Any) -> None:
    for index in range(len(document["rules"])):
        document["rules"].append(document["rules"][index])
        for indexes in document["sets"]:
            if index in indexes:
                indexes.append(len(document["rules"]) - 1)


def every_client_its_own_set(document: Any) -> None:
    sets = [document["sets"][number] for number in document["clients"].values()]
    document["clients"] = {client: index for index, client in enumerate(document["clients"])}
    document["sets"] = sets


def drop_denies_of_nothing_allowed(document: Any) -> None:
    """Leave the denies out where no allow meets them: default deny says it already."""
    for indexes in document["sets"]:
        policies = {document["rules"][index]["policy"] for index in indexes}
        if policies == {"nobody-logs-in-to-databases"}:
            indexes.clear()


REWRITES: list[Callable[[Any], None]] = [
    reorder_rules,
    reorder_sets,
    split_prefixes,
    split_port_ranges,
    split_windows,
    say_twice,
    every_client_its_own_set,
    drop_denies_of_nothing_allowed,
]


@pytest.mark.parametrize("rewrite", REWRITES, ids=lambda rewrite: rewrite.__name__)
def test_the_same_meaning_is_no_difference(rewrite: Callable[[Any], None]) -> None:
    files = compiled(example())
    before = files[POLICY]
    with Json(files, POLICY) as document:
        rewrite(document)
    assert files[POLICY] != before
    assert differences(example(), files) == []


def test_all_rewrites_at_once() -> None:
    files = compiled(example())
    with Json(files, POLICY) as document:
        for rewrite in REWRITES:
            rewrite(document)
    assert differences(example(), files) == []


def test_the_order_of_peers_and_addresses_is_nobodys_matter() -> None:
    files = compiled(example())
    with Json(files, "gateway/fra1/peers.json") as document:
        document["peers"].reverse()
        for peer in document["peers"]:
            peer["allowed_ips"].reverse()
    assert differences(example(), files) == []
