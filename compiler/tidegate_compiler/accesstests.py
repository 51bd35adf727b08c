"""The inventory's own access tests: what every packet of a test gets, against what is expected of it.

A test is about a product: each client of it, to each address of its destination, on one port, at one moment. `allow`
means that all of these packets are allowed, `deny` that none is; both are judged exactly, and a failure shows one
packet. A test covers the policies that decided its packets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tidegate_compiler.judge import Judgement, Packet
from tidegate_compiler.model import AccessTest, Inventory, Network, Policy
from tidegate_compiler.reach import Reach, asked, packet_in
from tidegate_compiler.times import format_instant


@dataclass(frozen=True)
class Result:
    """One test for one client: a packet that shows the outcome, and the policies that decided any of its packets.

    The packet is one that is not as expected, if there is one.
    """

    test: AccessTest
    client: str
    at: int
    witness: Packet
    judgement: Judgement
    decided: frozenset[str]

    @property
    def passed(self) -> bool:
        """Tell whether every packet gets the expected verdict."""
        return self.judgement.allow == (self.test.expect == "allow")

    @property
    def title(self) -> str:
        """Return the packets in words."""
        return f"{self.client} -> {self.test.destination} {self.test.port} at {format_instant(self.at)}"

    @property
    def outcome(self) -> str:
        """Return the verdict in words, with the packet that got it where the test is about many."""
        verdict = "allow" if self.judgement.allow else "deny"
        by = f" by {self.judgement.policy}" if self.judgement.policy else ""
        one = str(self.witness.address)
        of = "" if one == self.test.destination else f" for {one}"
        return f"expected {self.test.expect}, got {verdict}{of} ({self.judgement.reason}{by})"


@dataclass(frozen=True)
class Report:
    """All results in order, and the policies that decided no packet of any test."""

    results: tuple[Result, ...]
    untested: tuple[Policy, ...]

    @property
    def failures(self) -> tuple[Result, ...]:
        """Return the results that are not as expected."""
        return tuple(result for result in self.results if not result.passed)


def run(inventory: Inventory, reach: Reach, now: int) -> Report:
    """Run every test; those without `at` are asked about `now`, Unix seconds."""
    results = tuple(
        _result(test, client, now if test.at is None else test.at, inventory, reach)
        for test in inventory.tests
        for client in _clients(test, inventory)
    )
    touched = {policy for result in results for policy in result.decided}
    return Report(results, tuple(one for name, one in inventory.policies.items() if name not in touched))


def _result(test: AccessTest, client: str, at: int, inventory: Inventory, reach: Reach) -> Result:
    pieces = reach.pieces(client, asked(_networks(test, inventory), test.port, at))
    wanted = test.expect == "allow"
    shown = next((piece for piece in pieces if piece.judgement.allow != wanted), pieces[0])
    decided = frozenset(piece.judgement.policy for piece in pieces if piece.judgement.policy is not None)
    return Result(test, client, at, packet_in(client, shown), shown.judgement, decided)


def _networks(test: AccessTest, inventory: Inventory) -> list[Network]:
    to = test.to.value
    if to.prefix is not None:
        return [to.prefix]
    return [one.value for one in inventory.resources[to.resource].addresses]


def _clients(test: AccessTest, inventory: Inventory) -> Iterator[str]:
    if test.source.value.kind == "group":
        yield from sorted(member.value for member in inventory.groups[test.source.value.name].members)
    else:
        yield test.source.value.name
