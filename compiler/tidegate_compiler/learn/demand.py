"""What people were seen to need: each client's destinations and ports, with the evidence. Pure.

    FlowGroup ──► the candidate's client ──► service (destination, protocol, port) ──► Use per client

Left out, and counted by reason: what no policy can admit (an unknown source, a client that is gone, no route, bytes
that are no packet), what a deny policy refuses on purpose, and, unless asked for, what was refused when recorded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_compiler.learn.flows import DAY, FlowGroup, TooManyFlowsError
from tidegate_compiler.learn.replay import NO_CLIENT, Candidate
from tidegate_schema.policy import Reason

REFUSED, FRAGMENT = "REFUSED", "FRAGMENT"
_NEVER = frozenset(
    {NO_CLIENT, "NO_ROUTE", Reason.UNKNOWN_SOURCE.name, Reason.UNPARSEABLE.name, Reason.DENIED.name}
)


class Service(NamedTuple):
    """What a packet is for; the destination as text in canonical form."""

    destination: str
    protocol: int
    port: int


@dataclass(slots=True)
class Use:
    """How one client used one service, or several: Unix seconds, days since the epoch."""

    flows: int = 0
    octets: int = 0
    first: float = float("inf")
    last: float = 0.0
    days: set[int] = field(default_factory=set)

    def add(self, other: Use) -> None:
        """Take another use in."""
        self.flows += other.flows
        self.octets += other.octets
        self.first, self.last = min(self.first, other.first), max(self.last, other.last)
        self.days |= other.days


@dataclass
class Demand:
    """All uses; `skipped` counts flows that no suggestion admits, by reason."""

    uses: dict[Service, dict[str, Use]] = field(default_factory=dict)
    """Service -> the client's name in the candidate -> how it was used."""
    skipped: Counter[str] = field(default_factory=Counter)
    flows: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    """Flows that a policy of the candidate decides already, by its name."""


USES_MOST = 4_000_000
"""More pairs of a client and a service than this are refused: some 2 GB."""


def demand(
    groups: Iterable[tuple[int, FlowGroup]], candidate: Candidate, at: float, with_refused: bool = False
) -> Demand:
    """Gather the uses of all groups; policies are asked at Unix second `at`. TooManyFlowsError past USES_MOST."""
    found, count = Demand(), 0
    for slot, group in groups:
        found.flows += group.flows
        judged = candidate.judge(group, at)
        if judged is not None and judged.policy is not None:
            found.hits[judged.policy] += group.flows
        why = FRAGMENT if judged is None else judged.reason if judged.reason in _NEVER else None
        if why is None and group.verdict != "allow" and not with_refused:
            why = REFUSED
        if why is not None:
            found.skipped[why] += group.flows
            continue
        client = candidate.names.current(group.client_id)
        assert client is not None
        service = Service(group.destination, group.protocol, group.port)
        uses = found.uses.setdefault(service, {})
        use = Use(group.flows, group.octets, group.first, group.last, {slot // DAY})
        known = uses.setdefault(candidate.names.called(client), use)
        if known is not use:
            known.add(use)
            continue
        count += 1
        if count > USES_MOST:
            raise TooManyFlowsError(USES_MOST)
    return found
