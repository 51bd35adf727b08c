"""The kernel's notices of changed links, addresses and routes (rtnetlink(7)): that there are any, not what they say."""

from __future__ import annotations

import contextlib
import errno
import socket

# linux/rtnetlink.h: RTMGRP_LINK, _IPV4_IFADDR, _IPV4_ROUTE, _IPV6_IFADDR, _IPV6_ROUTE
_GROUPS = 0x1 | 0x10 | 0x40 | 0x100 | 0x400


class LinkNews:
    """The kernel's notices of changed links, addresses and routes. A file descriptor to wait on; close it."""

    def __init__(self) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, flags, socket.NETLINK_ROUTE)
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        """Return the descriptor, readable when there is news."""
        return self._socket.fileno()

    def any(self) -> bool:
        """Tell whether there was news since the last call; what it says is not read."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self._socket.recv(1 << 16)
                except OSError as error:
                    if error.errno != errno.ENOBUFS:  # more news than fits: news all the same
                        raise
                found = True
        return found

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()
