"""One list of rules for both tools: aerleon's definitions and policy, and a Tidegate inventory that says the same.

Each rule allows, or denies, a group of addresses a network on a range of TCP ports. In aerleon the first rule that
matches wins, in Tidegate any deny does, so the denies stand first and both mean the same.

    rule-0000: from group-000 (ten addresses) to 172.16.0.0/28, tcp/1000-1010
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from bench import fleet

GROUPS, MEMBERS = 100, 10
DENIES_EVERY = 50

_NFT_RULE = re.compile(
    r"ip saddr (\{[^}]*\}|\S+) ip daddr (\{[^}]*\}|\S+) (tcp) dport (\S+) (?:ct state new )?(accept|drop)"
)


class Rule(NamedTuple):
    """One rule, whoever wrote it; `sources` are single addresses."""

    action: str
    sources: frozenset[str]
    destination: str
    ports: str


def _members(group: int) -> list[int]:
    """Return the numbers of a group's clients; no two stand side by side, so none are merged into one prefix."""
    return [2 * (group * 7 + position * 5) for position in range(MEMBERS)]


CLIENTS = sorted({number for group in range(GROUPS) for number in _members(group)})


def wanted(count: int) -> list[tuple[str, int, Rule]]:
    """Return every rule's name, its group and what it says, denies first."""
    rules = []
    for number in range(count):
        group = number % GROUPS
        sources = frozenset(_address(member) for member in _members(group))
        network = f"172.{16 + (number >> 12)}.{number >> 4 & 255}.{number % 16 * 16}/28"
        action = "allow" if number % DENIES_EVERY else "deny"
        rules.append(
            (f"rule-{number:04}", group, Rule(action, sources, network, f"{1000 + number}-{1010 + number}"))
        )
    return sorted(rules, key=lambda rule: (rule[2].action != "deny", rule[0]))


def _address(number: int) -> str:
    return f"10.64.{number >> 8}.{number & 255}"


def write_inventory(root: Path, count: int) -> None:
    """Write the rules as an inventory with one gateway, into a directory that is not there yet."""
    for kind in ("gateways", "clients", "groups", "policies"):
        (root / kind).mkdir(parents=True)
    (root / "overlay.yaml").write_text("overlay: {fleet: rules, prefixes: [10.64.0.0/16]}\n")
    (root / "gateways/all.yaml").write_text(
        f'gw: {{public_key: "{fleet.key("rules gateway")}", endpoint: "203.0.113.1:51820", '
        "networks: [172.16.0.0/12]}\n"
    )
    (root / "clients/all.yaml").write_text(
        "".join(
            f'laptop-{number:04}: {{public_key: "{fleet.key(f"rules {number}")}", '
            f"addresses: [{_address(number)}/32], gateways: [gw]}}\n"
            for number in CLIENTS
        )
    )
    (root / "groups/all.yaml").write_text(
        "".join(
            f"group-{group:03}: {{members: [{', '.join(f'laptop-{n:04}' for n in _members(group))}]}}\n"
            for group in range(GROUPS)
        )
    )
    (root / "policies/all.yaml").write_text(
        "".join(
            f"{name}: {{from: [group:group-{group:03}], to: [{rule.destination}], ports: [tcp/{rule.ports}], "
            f"action: {rule.action}}}\n"
            for name, group, rule in wanted(count)
        )
    )


def definitions(count: int) -> dict[str, Any]:
    """Return aerleon's names of networks and services."""
    networks = {
        f"GROUP_{group:03}": {"values": [{"address": f"{_address(number)}/32"} for number in _members(group)]}
        for group in range(GROUPS)
    }
    services = {}
    for name, _, rule in wanted(count):
        networks[_upper(name)] = {"values": [{"address": rule.destination}]}
        services[_upper(name)] = [{"protocol": "tcp", "port": rule.ports}]
    return {"networks": networks, "services": services}


def policy(count: int) -> dict[str, Any]:
    """Return aerleon's policy, which its nftables generator renders."""
    terms = [
        {
            "name": name,
            "source-address": f"GROUP_{group:03}",
            "destination-address": _upper(name),
            "destination-port": _upper(name),
            "protocol": "tcp",
            "action": {"allow": "accept", "deny": "deny"}[rule.action],
        }
        for name, group, rule in wanted(count)
    ]
    header = {"targets": {"nftables": "inet input"}}  # in aerleon's words: IPv4 only, input hook
    return {"filename": "rules", "filters": [{"header": header, "terms": terms}]}


def _upper(name: str) -> str:
    return name.upper().replace("-", "_")


def write_definitions(root: Path, count: int) -> None:
    """Write aerleon's inputs as the YAML files that its users write."""
    (root / "def").mkdir(parents=True)
    (root / "pol").mkdir()
    (root / "out").mkdir()
    (root / "def/names.yaml").write_text(_yaml(definitions(count)))
    told = policy(count)
    del told["filename"]  # the file has one
    (root / "pol/rules.yaml").write_text(_yaml(told))


def _yaml(value: Any) -> str:
    return yaml.dump(value, Dumper=yaml.CSafeDumper, sort_keys=False)


def of_bundle(policy_json: bytes, peers_json: bytes) -> list[Rule]:
    """Return the rules of a gateway's bundle, in no order that means anything."""
    policy_ = json.loads(policy_json)
    address = {
        peer["client_id"]: peer["allowed_ips"][0].partition("/")[0]
        for peer in json.loads(peers_json)["peers"]
    }
    sources: list[set[str]] = [set() for _ in policy_["rules"]]
    for client, number in policy_["clients"].items():
        for rule in policy_["sets"][number]:
            sources[rule].add(address[client])
    return [
        Rule(rule["action"], frozenset(sources[number]), to, ports.removeprefix("tcp/"))
        for number, rule in enumerate(policy_["rules"])
        for to in rule["to"]
        for ports in rule["ports"]
    ]


def of_ruleset(text: str) -> Iterator[Rule]:
    """Yield the rules of an nftables ruleset that aerleon wrote, in order."""
    for sources, destinations, _, ports, verdict in _NFT_RULE.findall(text):
        for destination in _elements(destinations):
            yield Rule(
                {"accept": "allow", "drop": "deny"}[verdict],
                frozenset(
                    str(address) for one in _elements(sources) for address in ipaddress.ip_network(one)
                ),
                destination,
                ports,
            )


def _elements(text: str) -> list[str]:
    return [part.strip() for part in text.strip("{} ").split(",")]
