"""The one meaning of a policy bundle: (client, destination, protocol, port, time) -> verdict and reason.

Default deny; allow rules add up; any matching deny wins; order never matters. IPv4 and IPv6 never meet,
because an address of one family is never inside a prefix of the other. The forwarder, `explain`, `test` and
`replay` all call this module, so there is exactly one implementation of a verdict.

    policy.json
    {"format": 1,
     "rules":   [{"policy": NAME, "action": "allow" | "deny", "to": [PREFIX, …], "ports": [PORTS, …],
                  "not_before": SECONDS, "expires": SECONDS}, …],     times optional, end exclusive, Unix, UTC
     "sets":    [[rule index, …], …],                                 clients with equal rights share a set
     "clients": {CLIENT ID: set index, …}}                            a client that is not here has no rule

How a decision stays flat in the number of clients and rules: a client has one set; a set keeps, for every
prefix length that occurs in it, a dict from network to its port intervals; intervals are disjoint and found
by bisection. The rules of *every* covering prefix count, not only those of the longest.
"""

from __future__ import annotations

import enum
import ipaddress
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tidegate_schema.ports import ANY_PROTOCOL, parse_ports

FAR_FUTURE = float("inf")


class Reason(enum.IntEnum):
    """Why a verdict is what it is; event records carry the number, so it never changes meaning."""

    OBSERVED = 0
    """Observe mode: forwarded without asking anybody."""
    ALLOWED = 1
    """An allow rule matches and no deny rule does."""
    DENIED = 2
    """A deny rule matches."""
    NO_RULE = 3
    """No rule matches: default deny."""
    OUT_OF_TIME = 4
    """Only rules outside their time window match."""
    NO_POLICY = 5
    """The bundle has no policy."""
    UNKNOWN_SOURCE = 6
    """The source address belongs to no client of this gateway."""
    UNPARSEABLE = 7
    """The bytes are not an IP packet whose destination and ports can be told."""
    FRAGMENT = 8
    """A later fragment whose first fragment was not seen, or not allowed."""


class Verdict(NamedTuple):
    """A decision, its reason, and the index in `rules` of the rule that decided (None when none did)."""

    allow: bool
    reason: Reason
    rule: int | None


class _Rule(NamedTuple):
    deny: bool
    not_before: float
    expires: float
    number: int


_NO_RULE = Verdict(False, Reason.NO_RULE, None)
_NO_POLICY = Verdict(False, Reason.NO_POLICY, None)


class _Intervals:
    """Disjoint port intervals of one protocol at one prefix, each with the rules that cover it."""

    __slots__ = ("rules", "starts")

    def __init__(self, ranges: Sequence[tuple[int, int, _Rule]]) -> None:
        self.starts = sorted({0, *(first for first, _, _ in ranges), *(last + 1 for _, last, _ in ranges)})
        self.rules = [
            tuple(
                sorted(
                    {rule for first, last, rule in ranges if first <= start <= last}, key=lambda r: r.number
                )
            )
            for start in self.starts
        ]

    def at(self, port: int) -> tuple[_Rule, ...]:
        return self.rules[bisect_right(self.starts, port) - 1]


_ByNetwork = dict[int, dict[int, _Intervals]]  # network number -> protocol -> intervals


class _PolicySet:
    """The rules of one policy set, indexed by family, prefix length and network."""

    __slots__ = ("by_family",)

    def __init__(self, rules: Iterable[tuple[_Rule, Mapping[str, Any]]]) -> None:
        gathered: dict[int, dict[int, dict[int, dict[int, list[tuple[int, int, _Rule]]]]]] = {4: {}, 6: {}}
        for rule, document in rules:
            for prefix in document["to"]:
                network = ipaddress.ip_network(prefix)
                shift = network.max_prefixlen - network.prefixlen
                protocols = (
                    gathered[network.version]
                    .setdefault(shift, {})
                    .setdefault(int(network.network_address) >> shift, {})
                )
                for text in document["ports"]:
                    ports = parse_ports(text, network.version)
                    protocols.setdefault(ports.protocol, []).append((ports.first, ports.last, rule))
        self.by_family: dict[int, list[tuple[int, _ByNetwork]]] = {
            length: [
                (
                    shift,
                    {
                        number: {protocol: _Intervals(ranges) for protocol, ranges in protocols.items()}
                        for number, protocols in networks.items()
                    },
                )
                for shift, networks in sorted(gathered[family].items())
            ]
            for family, length in ((4, 4), (6, 16))
        }

    def matching(self, address: bytes, protocol: int, port: int) -> list[_Rule]:
        """Return every rule whose destination and ports match, whatever its time window."""
        number = int.from_bytes(address)
        found: list[_Rule] = []
        for shift, networks in self.by_family[len(address)]:
            protocols = networks.get(number >> shift)
            if protocols is None:
                continue
            for key in (protocol, ANY_PROTOCOL):
                intervals = protocols.get(key)
                if intervals is not None:
                    found.extend(intervals.at(port))
        return found


class PolicyTable:
    """A policy bundle made ready to judge; never changed after it is made, so a new policy is a new table."""

    def __init__(self, document: Mapping[str, Any] | None) -> None:
        """Index a policy.json that its schema accepted; None is a bundle without policy, which denies all.

        Raises ValueError when an index inside the document points nowhere.
        """
        self.document = document
        content = document or {"rules": [], "sets": [], "clients": {}}
        self._rules = [
            _Rule(
                rule["action"] == "deny",
                rule.get("not_before", -FAR_FUTURE),
                rule.get("expires", FAR_FUTURE),
                index,
            )
            for index, rule in enumerate(content["rules"])
        ]
        if any(not 0 <= index < len(self._rules) for indexes in content["sets"] for index in indexes):
            raise ValueError("a policy set names a rule that is not there")
        if any(not 0 <= number < len(content["sets"]) for number in content["clients"].values()):
            raise ValueError("a client names a policy set that is not there")
        sets = [
            _PolicySet((self._rules[index], content["rules"][index]) for index in indexes)
            for indexes in content["sets"]
        ]
        self._clients = {client: sets[number] for client, number in content["clients"].items()}

    def decide(self, client_id: str, address: bytes, protocol: int, port: int, now: float) -> Verdict:
        """Judge one packet of a client.

        `address` is the destination, 4 or 16 bytes; `protocol` an IP protocol number; `port` the destination
        port (0 for a protocol without ports); `now` Unix seconds. Never raises for any such values.
        """
        if self.document is None:
            return _NO_POLICY
        rights = self._clients.get(client_id)
        if rights is None:
            return _NO_RULE
        allowed: int | None = None
        denied: int | None = None
        out_of_time: int | None = None
        for deny, not_before, expires, index in rights.matching(address, protocol, port):
            if not not_before <= now < expires:
                if not deny:
                    out_of_time = index if out_of_time is None else min(out_of_time, index)
            elif deny:
                denied = index if denied is None else min(denied, index)
            else:
                allowed = index if allowed is None else min(allowed, index)
        if denied is not None:
            return Verdict(False, Reason.DENIED, denied)
        if allowed is not None:
            return Verdict(True, Reason.ALLOWED, allowed)
        if out_of_time is not None:
            return Verdict(False, Reason.OUT_OF_TIME, out_of_time)
        return _NO_RULE

    def next_change(self, now: float) -> float:
        """Return the first instant after `now` at which some rule begins or ends, or infinity."""
        instants = (time for rule in self._rules for time in (rule.not_before, rule.expires))
        return min((time for time in instants if time > now), default=FAR_FUTURE)
