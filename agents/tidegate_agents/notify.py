"""Tell the service manager how the agent is: datagrams of `NAME=value` lines to $NOTIFY_SOCKET (sd_notify(3)).

    READY=1      the start is done: what was there to be applied is applied, and the loop runs
    WATCHDOG=1   the main loop has come round; nothing else sends it, so a loop that hangs is started again
    STATUS=…     one line for `systemctl status`
    STOPPING=1   it was told to end

Without NOTIFY_SOCKET, as under runit or in a terminal, nothing is sent. A manager that is deaf holds up nothing.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_STATUS_MOST = 200  # characters; systemd shows one line
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_SPARING = 4.0  # so many times more often than asked for the watchdog is told; systemd recommends twice


class Notifier:
    """The service manager's socket, if there is one."""

    def __init__(self, address: str = "", watchdog_seconds: float = 0.0) -> None:
        """`address` is a path, or begins with @ for an abstract name (unix(7)); "" is nobody.

        `watchdog_seconds` is the time after which a silent agent is taken for hanging; 0 when nobody looks.
        """
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._watchdog_every = watchdog_seconds / _SPARING
        self._watchdog_due = 0.0
        self._is_ready = False
        self._said = ""

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> Notifier:
        """Take the manager's variables out of the environment, so that no child can speak for the agent."""
        address, microseconds, pid = (environment.pop(name, "") for name in _VARIABLES)
        is_ours = pid in ("", str(os.getpid()))
        seconds = int(microseconds) / 1e6 if microseconds.isdecimal() and is_ours else 0.0
        return cls(address if address.startswith(("/", "@")) else "", seconds)

    def turned(self, status: str = "") -> None:
        """Say that the loop has come round, and what `systemctl status` is to show; at first, that it is ready."""
        words = [] if self._is_ready else ["READY=1"]
        line = "".join(char if char.isprintable() else "?" for char in status[:_STATUS_MOST])
        if line != self._said:
            words.append(f"STATUS={line}")
        words += self._watchdog()
        if self._send(words):
            self._is_ready, self._said = True, line

    def alive(self) -> None:
        """Say in the middle of a long step that it goes on; for steps only that have an end of their own."""
        self._send(self._watchdog())

    def stopping(self) -> None:
        """Say that the agent is about to end because it was told to."""
        self._send(["STOPPING=1", "STATUS=stopping"])

    def _watchdog(self) -> list[str]:
        now = time.monotonic()
        if not self._watchdog_every or now < self._watchdog_due:
            return []
        self._watchdog_due = now + self._watchdog_every
        return ["WATCHDOG=1"]

    def _send(self, words: list[str]) -> bool:
        """Send; False when it did not arrive, which is never a reason to stop."""
        if not self._address or not words:
            return True
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.setblocking(False)
            manager.sendto("\n".join(words).encode(), self._address)
            return True
        return False
