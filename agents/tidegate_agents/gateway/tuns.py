"""The gateway's two TUNs, as descriptors: each lives as long as somebody has one.

`tun` leads packets to the forwarder and back; `denied` takes those whose like the kernel is to drop by itself.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from tidegate_agents.gateway import network
from tidegate_agents.gateway.processes import Survivor

NAMES = ("tun", "denied_tun")
"""The settings that name their interfaces."""
# What must be as it was for them to be taken over from an earlier agent.
_TAKEN_OVER = (*NAMES, "mark", "table", "rule_priority")
_GET_NETWORK_NAMESPACE = 0x54E3  # TUNGETDEVNETNS of linux/if_tun.h: a descriptor of where it is


class Tuns:
    """Both of them, from `take_over` or `open` to `close`."""

    def __init__(self, fixed: Mapping[str, Any]) -> None:
        """Take the settings, which do not change."""
        self._fixed = fixed
        self.tun = self.denied = -1
        self.offloads = 0
        """Of `tun`, as `datapath.offload` has them."""

    def take_over(self, found: Survivor, before: Mapping[str, Any]) -> bool:
        """Take them from the forwarder that an earlier agent with settings `before` left; tells whether that can be."""
        if any(before.get(name) != self._fixed[name] for name in _TAKEN_OVER):
            return False
        self.tun, self.denied = (found.tun(self._fixed[name]) for name in NAMES)
        if all(fd >= 0 and is_here(fd) for fd in (self.tun, self.denied)):
            return True
        self.close()
        return False

    def open(self) -> None:
        """Make those that are not there, and set both up."""
        self.tun, self.offloads = network.open_tun(self._fixed, self.tun)
        self.denied = network.open_denied_tun(self._fixed, self.denied)

    def close(self, names: Collection[str] = NAMES) -> None:
        """Give up those of these settings."""
        if self.tun >= 0 and "tun" in names:
            os.close(self.tun)
            self.tun = -1
        if self.denied >= 0 and "denied_tun" in names:
            os.close(self.denied)
            self.denied = -1

    def gone(self) -> list[str]:
        """Return the interfaces that somebody has deleted."""
        return [self._fixed[name] for name in NAMES if network.index(self._fixed[name]) is None]

    def remake(self) -> None:
        """Make anew what somebody has deleted."""
        gone = self.gone()
        self.close([name for name in NAMES if self._fixed[name] in gone])
        self.open()

    def bring_up(self) -> None:
        """Bring both up."""
        for name in NAMES:
            network.bring_up(self._fixed[name], self._fixed["mtu"])


def is_here(tun: int) -> bool:
    """Tell whether a TUN is in this network namespace."""
    namespace = fcntl.ioctl(tun, _GET_NETWORK_NAMESPACE)
    try:
        return os.path.samestat(os.fstat(namespace), Path("/proc/thread-self/ns/net").stat())
    finally:
        os.close(namespace)
