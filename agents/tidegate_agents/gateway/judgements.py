"""Whose a connection is and which rule allows it, as of when it was last judged. Pure.

    ──── since ─────────────────────── since ──────────────► CLOCK_REALTIME, the kernel's times of connections
          │ judgement 7: alice has .11   │ judgement 8: bob has .11
          ╰ every connection was judged  ╰ again; alice's had been cut before

Every connection is judged at each change of the policy, of an owner or of a rule's window: those refused are cut, and
only then is the moment taken. So what ended before it belongs to the judgement before, and whatever lives at it, or
begins later, to this one; no address is given to its next owner earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tidegate_agents.gateway.connections import Flow
from tidegate_schema import event
from tidegate_schema.policy import PolicyTable, Reason

_NS = 1_000_000_000
STEP_NS = _NS // 10
"""By how much CLOCK_REALTIME and CLOCK_MONOTONIC come apart when the first one is set; less is nobody's doing."""


class Attribution(NamedTuple):
    """What a record says of a flow's permission."""

    generation: int
    mode: int
    client_id: bytes
    rule: int
    reason: int


@dataclass(frozen=True)
class Judgement:
    """What every connection was judged by."""

    generation: int
    enforce: bool
    clients: Mapping[bytes, str]
    """Source address, 4 or 16 bytes -> client ID."""
    policy: PolicyTable
    at: float
    """The time of grants that was taken for it, Unix seconds."""
    since_ns: int
    """CLOCK_REALTIME, when it was done."""
    clock_ns: int
    """What CLOCK_REALTIME was ahead of CLOCK_MONOTONIC then."""
    moved: Mapping[bytes, int] = field(default_factory=dict)
    """In observe, which cuts nothing: the latest begin (CLOCK_REALTIME) that a connection of an address may have
    which was another's before."""

    def attribute(self, flow: Flow, start_ns: int) -> Attribution:
        """Return whose a flow is that began at `start_ns` and is allowed, and by what.

        The connection's mark says that it was allowed. Where no rule is found that would, none is named.
        """
        client = self.clients.get(flow.source)
        if not self.enforce:
            if start_ns <= self.moved.get(flow.source, -1):
                client = None
            return Attribution(self.generation, 0, _raw(client), event.NO_RULE, Reason.OBSERVED)
        rule = None
        if client is not None:
            judged = max(self.at, start_ns / _NS)
            verdict = self.policy.decide(client, flow.destination, flow.protocol, flow.port, judged)
            rule = verdict.rule if verdict.allow else None
        return Attribution(
            self.generation, 1, _raw(client), event.NO_RULE if rule is None else rule, Reason.ALLOWED
        )


def moved_since(
    last: Judgement | None, clients: Mapping[bytes, str], moved: Iterable[bytes], latest_ns: int
) -> dict[bytes, int]:
    """Return `Judgement.moved` for addresses that may have connections of an earlier owner.

    No connection that there is began later than `latest_ns`, by whatever clock.
    """
    if last is None:
        return dict.fromkeys(moved, latest_ns)
    return {
        address: last.moved.get(address, latest_ns)
        if last.clients.get(address) == clients.get(address)
        else latest_ns
        for address in moved
    }


def attribute(
    judgements: Sequence[Judgement], flow: Flow, start_ns: int, at_ns: int, clock_ns: int
) -> Attribution:
    """Return whose a flow is, and by what it is allowed, at the moment `at_ns`.

    `judgements` has at least one, oldest first; `clock_ns` is what CLOCK_REALTIME is ahead of CLOCK_MONOTONIC now.
    Where that was set since any of them, moments cannot be compared, and no client is named whom not all judgements
    name. And a begin that is still to come is of another clock: it counts as not known.
    """
    if start_ns > at_ns + STEP_NS:
        start_ns = 0
    chosen = judgements[0]
    for judgement in judgements[1:]:
        if judgement.since_ns <= at_ns:
            chosen = judgement
    attribution = chosen.attribute(flow, start_ns)
    is_set = any(abs(clock_ns - judgement.clock_ns) > STEP_NS for judgement in judgements)
    if is_set and len({judgement.clients.get(flow.source) for judgement in judgements}) > 1:
        return attribution._replace(client_id=event.NO_CLIENT, rule=event.NO_RULE)
    return attribution


def _raw(client: str | None) -> bytes:
    return bytes.fromhex(client) if client else event.NO_CLIENT
