"""Has the kernel count what connections carry, note when they began and tell when they end; and back to what was.

It does each only for connections that begin while the switch is on: so these are on as long as the agent runs, whether
events are made or not.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from tidegate_agents.gateway import conntrack, network

log = logging.getLogger("tidegate.gateway")

_NAMES = ("nf_conntrack_acct", "nf_conntrack_timestamp", "nf_conntrack_events")
_ON = "1"
_VALUES = ("0", "1", "2")  # 2, of events: on while anybody listens, which is too late for older connections


class Accounting:
    """The switches of the connection table. Without them the gateway does all but tell how much flows have carried."""

    def __init__(self) -> None:
        self.were: dict[str, str] = {}
        """The switches that were not on before the agent, with what they were."""
        self._problem = ""

    def look(self, noted: object) -> None:
        """Find out what is not on, and believe an earlier agent's note; OSError without a connection table."""
        conntrack.ready()
        found = {name: network.read_sysctl(f"netfilter/{name}") for name in _NAMES}
        self.were = {name: value for name, value in found.items() if value in _VALUES and value != _ON}
        if isinstance(noted, Mapping):
            self.were |= {name: noted[name] for name in _NAMES if noted.get(name) in _VALUES}

    def enable(self) -> None:
        """Switch on what is not."""
        try:
            for name in self.were:
                network.sysctl(f"netfilter/{name}", _ON)
            self._problem = ""
        except OSError as error:  # a container may be allowed everything else
            if self._problem != str(error):
                log.error("what flows carry is not counted: %s", error)
            self._problem = str(error)

    def restore(self) -> None:
        """Put back what was."""
        try:
            for name, value in self.were.items():
                network.sysctl(f"netfilter/{name}", value)
        except OSError as error:
            log.error("not as it was before: %s", error)
