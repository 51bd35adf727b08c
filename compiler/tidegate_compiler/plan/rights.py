"""What a side's gateways allow, read from its policy documents: client ID -> gateway -> rules as boxes."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tidegate_compiler.plan.regions import FOREVER, Box, ports_box
from tidegate_schema.ports import parse_ports

FAMILIES = (4, 6)


class Atom(NamedTuple):
    """The smallest part of a rule: one box, allowed or denied."""

    family: int
    deny: bool
    box: Box


class Rule(NamedTuple):
    """One rule of a policy document: a number for what it says, the policy it came from, and its atoms."""

    number: int
    policy: str
    atoms: tuple[Atom, ...]


Rights = tuple[tuple[str, int], ...]
"""A client's (gateway, set number) of every gateway that has rules for it, in order of gateways."""


class Sets:
    """Rules and sets of rules numbered by what they say, so that equal ones of two sides have the same number.

    Policies' names are no part of what a rule says: a renamed policy leaves every number as it is.
    """

    def __init__(self) -> None:
        self._numbers: dict[frozenset[Any], int] = {}
        self._said: dict[Any, int] = {}

    def rule(self, document: Mapping[str, Any]) -> int:
        """Return the number of a rule of a policy document."""
        return self._said.setdefault(said(document), len(self._said))

    def set(self, rules: Iterable[int]) -> int:
        """Return the number of the set of rules with these numbers."""
        return self._numbers.setdefault(frozenset(rules), len(self._numbers))


def said(rule: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return what a rule of a policy document says, its policy's name apart."""
    return (
        rule["action"],
        tuple(rule["to"]),
        tuple(rule["ports"]),
        rule.get("not_before"),
        rule.get("expires"),
    )


class Gateways:
    """The policy documents of one side, made ready to be compared with another's through shared `Sets`."""

    def __init__(self, documents: Mapping[str, Mapping[str, Any] | None], sets: Sets) -> None:
        self._rules: dict[str, list[Rule | None]] = {}
        self._said: dict[str, list[int]] = {}
        self._content: dict[str, Mapping[str, Any]] = {}
        self._example: dict[tuple[str, int], Sequence[int]] = {}
        rights: dict[str, list[tuple[str, int]]] = {}
        for gateway, document in sorted(documents.items()):
            if document is None:
                continue
            self._content[gateway] = document
            self._rules[gateway] = [None] * len(document["rules"])
            self._said[gateway] = numbered = [sets.rule(rule) for rule in document["rules"]]
            numbers = []
            for indexes in document["sets"]:
                number = sets.set(numbered[index] for index in indexes)
                self._example[gateway, number] = indexes
                numbers.append(number)
            for client, index in document["clients"].items():
                rights.setdefault(client, []).append((gateway, numbers[index]))
        self.clients: Mapping[str, Rights] = {client: tuple(found) for client, found in rights.items()}

    def rules(self, gateway: str, number: int) -> list[Rule]:
        """Return the rules of a set that some client of this side has at the gateway."""
        known = self._rules[gateway]
        found = []
        for index in self._example[gateway, number]:
            rule = known[index]
            if rule is None:
                rule = known[index] = _rule(
                    self._said[gateway][index], self._content[gateway]["rules"][index]
                )
            found.append(rule)
        return found


def _rule(number: int, document: Mapping[str, Any]) -> Rule:
    time = (document.get("not_before", 0), document.get("expires", FOREVER))
    atoms = []
    for prefix in document["to"]:
        network = ipaddress.ip_network(prefix)
        first = int(network.network_address)
        for text in document["ports"]:
            protocol, port = ports_box(parse_ports(text, network.version))
            box = ((first, first + network.num_addresses), protocol, port, time)
            if time[0] < time[1]:
                atoms.append(Atom(network.version, document["action"] == "deny", box))
    return Rule(number, str(document["policy"]), tuple(atoms))
