"""Which connections may go on: those that a change of policy, or of an address's client, has ended are cut.

Knows whose an address was when connections were last judged, and when that is due again by itself, as a rule begins or
ends. In observe nothing is cut: there it is noted which connections are nobody's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tidegate_agents.gateway import conntrack
from tidegate_agents.gateway.desired import Desired
from tidegate_agents.gateway.flowrecorder import FlowRecorder
from tidegate_schema.policy import FAR_FUTURE

log = logging.getLogger("tidegate.gateway")


class Revoker:
    """Judges every approved connection whenever it has to be; times are those of grants, Unix seconds."""

    def __init__(self, flows: FlowRecorder) -> None:
        """`flows` is told of each judgement, and stands back for it."""
        self._flows = flows
        # Whose an address was when connections were last judged; "" when it has changed hands since, in observe.
        self._owners: dict[bytes, str] = {}
        self._owners_unknown = False
        self._next_change = self._look_again = FAR_FUTURE

    def remember(self, owners: Mapping[bytes, str] | None) -> None:
        """Take up whose the addresses were in an earlier agent's time, None where nobody knows."""
        self._owners, self._owners_unknown = dict(owners or {}), owners is None

    def seconds_left(self, now: float) -> float:
        """Return after how many seconds the next judgement is due; one that is over is due still."""
        return min(self._next_change, self._look_again) - now

    def is_due(self, now: float) -> bool:
        """Tell whether it is, of whoever then judges."""
        if self.seconds_left(now) > 0:
            return False
        # Once more a second later: the forwarder reads the clock once a batch, and may have let a last packet of the
        # old time pass behind the first look.
        self._look_again = now + 1 if now >= self._next_change else FAR_FUTURE
        return True

    def judge(self, desired: Desired, generation: int, now: float) -> None:
        """Cut connections that are no longer allowed, or whose client's address is another's now.

        Notes when that may next be due; when it fails, with OSError, it is due still.
        """
        bundle = desired.bundle
        if not desired.enforce:
            self._next_change = FAR_FUTURE
            moved = self.moved(desired)
            self._flows.judged(generation, False, bundle.clients, bundle.policy, now, moved)
            self._owners |= {a: "" if a in moved else c for a, c in bundle.clients.items()}
            return
        self._next_change = min(self._next_change, now)
        moved = self.moved(desired)

        def allowed(source: bytes, destination: bytes, protocol: int, port: int) -> bool:
            return source not in moved and bundle.allows(source, destination, protocol, port, now)

        with self._flows.standing_back() as cutting:
            revoked = conntrack.revoke(allowed, cutting)
        self._flows.judged(generation, True, bundle.clients, bundle.policy, now, moved)
        if revoked:
            log.info("cut %d connections that are no longer allowed", revoked)
        self._owners, self._owners_unknown = dict(bundle.clients), False
        self._next_change = bundle.policy.next_change(now)

    def moved(self, desired: Desired) -> set[bytes]:
        """Return the addresses that are not whose they were: connections of the one are none of the other's."""
        clients = desired.bundle.clients
        if self._owners_unknown:
            return set(clients)
        return {address for address, client in clients.items() if self._owners.get(address, client) != client}
