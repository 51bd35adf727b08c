"""Tells the service manager that the server is ready, lives and ends: sd_notify(3), without a library."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping

_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class Manager:
    """The service manager's socket; without one nothing is sent, and one that is deaf holds up nothing."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        """Take the manager's variables out of the environment: git and hooks must not speak for the server."""
        address = {name: environment.pop(name, "") for name in _VARIABLES}["NOTIFY_SOCKET"]
        self._address = "\0" + address[1:] if address.startswith("@") else address

    def say(self, *words: str) -> None:
        """Send assignments such as READY=1."""
        if not self._address:
            return
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto("\n".join(words).encode(), self._address)


def manager() -> Manager:
    """Return this process's service manager."""
    return Manager(os.environ)
