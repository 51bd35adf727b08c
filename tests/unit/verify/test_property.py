"""Random small inventories: what is compiled is proven; what is then changed is found exactly when it means something.

The judge of meaning is `tidegate_schema.policy`, asked point by point, which verify itself never imports.
"""

from __future__ import annotations

import copy
import ipaddress
import itertools
import json
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from compilerkit import client, gateway, inventory
from tidegate_compiler.pipeline import Compiled, compile_files
from tidegate_compiler.verify.words import client_id, instant, key
from tidegate_schema.policy import PolicyTable
from verifykit import differences

PREFIXES = [
    "10.20.0.0/30",
    "10.20.0.0/31",
    "10.20.0.2/32",
    "10.0.0.0/8",
    "fd20::/126",
    "fd20::2/128",
    "fd00::/8",
]
ADDRESSES = [f"10.20.0.{last}" for last in (0, 1, 2, 4)] + [f"fd20::{last}" for last in (0, 1, 2, 4)]
PORTS = ["any", "tcp/80", "tcp/80-81", "tcp/81-83", "udp/80", "proto/6", "icmp", "proto/47"]
BUNDLE_PORTS = [text for text in PORTS if text != "icmp"] + ["proto/1", "proto/58"]
WIRE = [(6, 80), (6, 81), (6, 82), (6, 84), (17, 80), (1, 0), (58, 0), (47, 0), (50, 0)]
DAYS = ["2027-01-01", "2027-02-01", "2027-03-01"]
MOMENTS = [0, *(instant(day) + step for day in DAYS for step in (-1, 0)), 4_000_000_000]


def some(values: list[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True)


@st.composite
def windows(draw: st.DrawFn) -> dict[str, str]:
    begin = draw(st.integers(0, 1))
    end = draw(st.integers(begin + 1, 2))
    window = {"not_before": DAYS[begin], "expires": DAYS[end]}
    return {field: day for field, day in window.items() if draw(st.booleans())}


@st.composite
def universes(draw: st.DrawFn) -> dict[str, Any]:
    families = st.sampled_from([(4,), (6,), (4, 6)])
    names = ["c1", "c2", "c3"]
    clients = {
        field: value
        for number, name in enumerate(names, 1)
        for field, value in client(name, number, families=draw(families)).items()
    }
    groups = {}
    for name in ("g1", "g2"):
        members = draw(some(names))
        groups[name] = {"members": members}
        for member in members:
            for field, day in draw(windows()).items():
                groups[name].setdefault(field, {})[member] = day  # type: ignore[call-overload]
    resource = {"addresses": draw(some(PREFIXES))} | (
        {"ports": draw(some(PORTS))} if draw(st.booleans()) else {}
    )
    policies = {}
    for number in range(draw(st.integers(1, 4))):
        policies[f"p{number}"] = {
            "from": draw(some(["all-clients", "client:c1", "client:c2", "group:g1", "group:g2"])),
            "to": draw(some([*PREFIXES, "resource:r"])),
            "ports": draw(some(PORTS)),
            "action": draw(st.sampled_from(["allow", "allow", "deny"])),
            **draw(windows()),
        }
    return {
        "gateways": gateway("gw", "10.20.0.0/16", "fd20::/48"),
        "clients": clients,
        "groups": groups,
        "resources": {"r": resource},
        "policies": policies,
    }


@st.composite
def mutated(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """Return a policy document with one rule, or one client's set, changed at random."""
    changed = copy.deepcopy(document)
    rule = draw(st.sampled_from(changed["rules"]))
    match draw(st.sampled_from(["to", "ports", "action", "time", "drop", "client"])):
        case "to":
            rule["to"] = draw(some(PREFIXES))
        case "ports":
            rule["ports"] = draw(some(BUNDLE_PORTS))
        case "action":
            rule["action"] = "deny" if rule["action"] == "allow" else "allow"
        case "time":
            field = draw(st.sampled_from(["not_before", "expires"]))
            step = draw(st.sampled_from([-1, 1]))
            if field not in rule:
                rule[field] = instant(draw(st.sampled_from(DAYS)))
            elif draw(st.booleans()):
                rule[field] += step
            else:
                del rule[field]
        case "drop":
            index = changed["rules"].index(rule)
            changed["sets"] = [[i for i in indexes if i != index] for indexes in changed["sets"]]
        case _:
            who = draw(st.sampled_from(sorted(changed["clients"])))
            changed["clients"][who] = draw(st.integers(0, len(changed["sets"]) - 1))
    return changed


def verdicts(document: dict[str, Any], clients: dict[str, str]) -> list[bool]:
    table = PolicyTable(document)
    return [
        table.decide(who, ipaddress.ip_address(to).packed, *wire, now).allow
        for who, to, wire, now in itertools.product(clients.values(), ADDRESSES, WIRE, MOMENTS)
    ]


SETTINGS = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)


@SETTINGS
@given(universes(), st.data())
def test_what_is_compiled_is_proven_and_what_is_changed_is_found(
    raw: dict[str, Any], data: st.DataObject
) -> None:
    files = inventory(**raw)
    result = compile_files(files)
    assume(isinstance(result, Compiled))
    assert isinstance(result, Compiled)
    assert list(map(str, differences(files, result.files))) == []

    path = "gateway/gw/policy.json"
    document = json.loads(result.files[path])
    assume(document["rules"])
    changed = data.draw(mutated(document))
    found = [
        d
        for d in differences(files, {**result.files, path: json.dumps(changed).encode()})
        if d.what in ("gained", "lost")
    ]
    clients = {name: client_id(key(item["public_key"])) for name, item in raw["clients"].items()}
    if verdicts(document, clients) != verdicts(changed, clients):
        assert found, "a change of meaning went unseen"
    before, after = PolicyTable(document), PolicyTable(changed)
    for difference in found:
        point = difference.witness
        assert point is not None
        asked = (clients[point.client], point.destination.packed, point.protocol, point.port, point.at)
        assert after.decide(*asked).allow == (difference.what == "gained")
        assert before.decide(*asked).allow == (difference.what == "lost")
