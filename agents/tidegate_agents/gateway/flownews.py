"""The kernel's news of ended connections, and a look at the live ones: two sockets, of our connections alone."""

from __future__ import annotations

import ctypes
import errno
import select
import socket
import struct
import time
from collections.abc import Iterator

from tidegate_agents.gateway import connections
from tidegate_agents.gateway.netlink import (
    DONE,
    DUMP,
    ERROR,
    REQUEST,
    check,
    message,
    messages,
    open_netfilter,
)
from tidegate_agents.gateway.ruleset import APPROVED

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1  # linux/socket.h, linux/netlink.h
_SO_ATTACH_FILTER, _SO_RCVBUFFORCE = 26, 33  # asm-generic/socket.h
_DESTROYED = 3  # NFNLGRP_CONNTRACK_DESTROY of linux/netfilter/nfnetlink.h
_MESSAGE_BYTES = 8192  # of one connection; some 300 are used
_ACCEPT = 0xFFFFFFFF
# Classic BPF (linux/bpf_common.h, linux/filter.h): code, jump if true, jump if false, operand.
_OURS = (
    (0x00, 0, 0, 20),  # A = where attributes begin, behind nlmsghdr and nfgenmsg
    (0x01, 0, 0, connections.MARK),  # X = the one that is looked for
    (0x20, 0, 0, 0xFFFFF000 + 12),  # A = where it is; SKF_AD_OFF + SKF_AD_NLATTR
    (0x15, 4, 0, 0),  # nowhere: drop
    (0x07, 0, 0, 0),  # X = A
    (0x40, 0, 0, 4),  # A = its value
    (0x15, 0, 1, APPROVED),
    (0x06, 0, 0, _ACCEPT),
    (0x06, 0, 0, 0),
)


class Overrun(Exception):  # noqa: N818 - it names what happened
    """News has been lost for want of room, and goes on being lost until all that waits has been read."""


class News:
    """What the kernel tells of each connection of ours when it ends."""

    def __init__(self, room: int) -> None:
        """Listen from now on, with so many bytes of room for what waits, as the kernel counts them; OSError."""
        self._socket = open_netfilter()
        self._socket.setblocking(False)
        try:
            self._socket.setsockopt(
                socket.SOL_SOCKET, _SO_RCVBUFFORCE, room // 2
            )  # which it doubles: socket(7)
            code = b"".join(struct.pack("=HBBI", *one) for one in _OURS)
            program = ctypes.create_string_buffer(code, len(code))
            # struct sock_fprog: the rest of a busy host's connections take no room
            words = struct.pack("@HP", len(_OURS), ctypes.addressof(program))
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, words)
            self._socket.bind((0, 0))
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _DESTROYED)
        except OSError:
            self.close()
            raise

    def wait(self, seconds: float, wake: int) -> None:
        """Return when there is news, or `wake` is readable, at the latest after so many seconds."""
        poller = select.poll()
        poller.register(self._socket, select.POLLIN)
        poller.register(wake, select.POLLIN)
        poller.poll(seconds * 1000)

    def read(self, most: int) -> Iterator[bytes]:
        """Yield what waits, at most so many messages; Overrun, after which it can be called again."""
        for _ in range(most):
            try:
                data, (sender, _) = self._socket.recvfrom(_MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.ENOBUFS:
                    raise Overrun from None
                raise
            if sender == 0:  # the kernel
                yield data

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


class Look:
    """Every live connection of ours, piece by piece; the kernel waits between them."""

    def __init__(self) -> None:
        """Begin; OSError."""
        self._socket = open_netfilter()
        self._began = time.monotonic()
        self._asked_ns = time.time_ns()
        wanted = connections.marked(APPROVED)
        self._socket.send(message(connections.GET, REQUEST | DUMP, 1, socket.AF_UNSPEC, wanted))

    def piece(self) -> tuple[list[bytes], int, bool]:
        """Return the next messages, a moment (CLOCK_REALTIME) before they were made, and whether they are the last.

        The kernel makes a piece while it hands out the one before. OSError.
        """
        asked_ns, self._asked_ns = self._asked_ns, time.time_ns()
        found: list[bytes] = []
        for kind, body in messages(self._socket):
            if kind == DONE:
                return found, asked_ns, True
            if kind == ERROR:
                check(body, "conntrack")
            elif kind == connections.NEW:
                found.append(body)
        return found, asked_ns, False

    def lasts(self) -> float:
        """Return the seconds since it began."""
        return time.monotonic() - self._began

    def close(self) -> None:
        """End."""
        self._socket.close()
