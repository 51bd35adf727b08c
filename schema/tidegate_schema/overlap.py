"""What two policies both allow, exactly; and what is left of one that has outlived its release. Pure.

For every packet and time, `both(a, b)` allows what `a` allows and `b` allows, and nothing else: its allow rules are the
intersections of one of `a`'s with one of `b`'s, and its deny rules are those of both, since
(A without D) ∩ (B without E) = (A ∩ B) without D and E. A rule that both sides have stands for all its intersections.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tidegate_schema.policy import FAR_FUTURE
from tidegate_schema.ports import PortRange, parse_ports

WORK_MOST = 4_000_000
"""Pairs of (prefix, ports) that are compared at most; beyond that only rules that both sides have are allowed."""


class _Prefix(NamedTuple):
    version: int
    network: int
    length: int
    size: int

    @classmethod
    def of(cls, text: str) -> _Prefix:
        network = ipaddress.ip_network(text)
        return cls(network.version, int(network.network_address), network.prefixlen, network.max_prefixlen)

    def holds(self, other: _Prefix) -> bool:
        shift = self.size - self.length
        return (
            self.version == other.version
            and self.length <= other.length
            and self.network >> shift == other.network >> shift
        )


class _Rule(NamedTuple):
    """A rule without its name, so that rules that mean the same are equal."""

    to: frozenset[str]
    ports: frozenset[str]
    not_before: float
    expires: float

    @property
    def work(self) -> int:
        return len(self.to) * len(self.ports)


def both(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the policy.json of what both allow; None, which allows nothing, where either is None.

    Each rule keeps the name that it has in `old`. Past WORK_MOST it allows less, never more.
    """
    if old is None or new is None:
        return None
    return _Both(old, new).document()


class _Both:
    def __init__(self, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
        self._old, self._new = old, new
        self._work = WORK_MOST
        self._rules: list[dict[str, Any]] = []
        self._index: dict[tuple[str, _Rule], int] = {}
        self._prefixes: dict[str, _Prefix] = {}

    def document(self) -> dict[str, Any]:
        sets: list[list[int]] = []
        numbers: dict[tuple[int, int], int] = {}
        clients = {}
        for client, first in self._old["clients"].items():
            second = self._new["clients"].get(client)
            if second is None:
                continue
            if (first, second) not in numbers:
                numbers[first, second] = len(sets)
                sets.append(self._set(self._old["sets"][first], self._new["sets"][second]))
            clients[client] = numbers[first, second]
        return {"format": 1, "rules": self._rules, "sets": sets, "clients": clients}

    def _set(self, first: Sequence[int], second: Sequence[int]) -> list[int]:
        old, new = (
            {action: _named(document, numbers, action) for action in ("allow", "deny")}
            for document, numbers in ((self._old, first), (self._new, second))
        )
        found = [self._add(name, "deny", rule) for rule, name in (new["deny"] | old["deny"]).items()]
        common = old["allow"].keys() & new["allow"].keys()
        found += [self._add(name, "allow", rule) for rule, name in old["allow"].items() if rule in common]
        ones = {rule: name for rule, name in old["allow"].items() if rule not in common}
        others = [rule for rule in new["allow"] if rule not in common]
        self._work -= sum(rule.work for rule in ones) * sum(rule.work for rule in others)
        if self._work >= 0:
            for one, name in ones.items():
                for other in others:
                    found += [self._add(name, "allow", rule) for rule in self._meet(one, other)]
        return sorted(set(found))

    def _meet(self, one: _Rule, other: _Rule) -> Iterable[_Rule]:
        not_before, expires = max(one.not_before, other.not_before), min(one.expires, other.expires)
        if not_before >= expires:
            return
        for version in (4, 6):
            to = self._narrower(one.to, other.to, version)
            ports = _ports(one.ports, other.ports, version) if to else frozenset()
            if ports:
                yield _Rule(to, ports, not_before, expires)

    def _narrower(self, ones: Iterable[str], others: Iterable[str], version: int) -> frozenset[str]:
        found = set()
        mine, theirs = (
            [(text, prefix) for text in texts if (prefix := self._prefix(text)).version == version]
            for texts in (ones, others)
        )
        for text, prefix in mine:
            for other, covering in theirs:
                if covering.holds(prefix):
                    found.add(text)
                elif prefix.holds(covering):
                    found.add(other)
        return frozenset(found)

    def _prefix(self, text: str) -> _Prefix:
        if text not in self._prefixes:
            self._prefixes[text] = _Prefix.of(text)
        return self._prefixes[text]

    def _add(self, name: str, action: str, rule: _Rule) -> int:
        number = self._index.setdefault((name + action, rule), len(self._rules))
        if number == len(self._rules):
            document: dict[str, Any] = {
                "policy": name,
                "action": action,
                "to": sorted(rule.to),
                "ports": sorted(rule.ports),
            }
            if rule.not_before > -FAR_FUTURE:
                document["not_before"] = int(rule.not_before)
            if rule.expires < FAR_FUTURE:
                document["expires"] = int(rule.expires)
            self._rules.append(document)
        return number


def _named(document: Mapping[str, Any], numbers: Iterable[int], action: str) -> dict[_Rule, str]:
    """Return the rules of one action, each with a name; of those that mean the same the first one's."""
    found: dict[_Rule, str] = {}
    for number in numbers:
        rule = document["rules"][number]
        if rule["action"] == action:
            times = (rule.get("not_before", -FAR_FUTURE), rule.get("expires", FAR_FUTURE))
            key = _Rule(frozenset(rule["to"]), frozenset(rule["ports"]), *times)
            found.setdefault(key, rule["policy"])
    return found


def _ports(ones: Iterable[str], others: Iterable[str], version: int) -> frozenset[str]:
    theirs = [parse_ports(text, version) for text in others]
    met: list[PortRange | None] = [
        parse_ports(text, version).intersect(other) for text in ones for other in theirs
    ]
    return frozenset(str(ports) for ports in met if ports is not None)


def kept_within(document: Mapping[str, Any] | None, not_after: int) -> Mapping[str, Any] | None:
    """Return a policy that allows nothing from Unix second `not_after` on that it did not allow just before.

    An allow rule that would begin then, or later, never counts; a deny rule that would end then never ends. So a
    release that is past its end widens nothing. Rules keep their numbers.
    """
    if document is None:
        return None
    rules = [_kept_within(rule, not_after) for rule in document["rules"]]
    if all(one is other for one, other in zip(rules, document["rules"], strict=True)):
        return document
    return {**document, "rules": rules}


def _kept_within(rule: Mapping[str, Any], not_after: int) -> Mapping[str, Any]:
    if rule["action"] == "allow" and rule.get("not_before", -1) >= not_after:
        return {**rule, "expires": rule["not_before"]}
    if rule["action"] == "deny" and rule.get("expires", -1) >= not_after:
        return {name: value for name, value in rule.items() if name != "expires"}
    return rule
