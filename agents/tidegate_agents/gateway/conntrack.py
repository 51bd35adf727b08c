"""Cut connections that a new generation no longer allows: conntrack entries are judged, refused ones deleted.

Without this a server could go on sending to a client that may no longer ask: its replies never cross the TUN.
After the deletion its next packet starts a new connection towards the client, which enforce drops.

Raw netlink, many messages to a system call (linux/netfilter/nfnetlink_conntrack.h): one client may hold a hundred
thousand entries, and pyroute2's own calls take about a millisecond each, which would delay the revocation by minutes.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable

from tidegate_agents.gateway import connections
from tidegate_agents.gateway.netlink import (
    ACK,
    DONE,
    DUMP,
    ERROR,
    REQUEST,
    answered,
    attribute,
    attributes,
    check,
    message,
    messages,
    open_netfilter,
)
from tidegate_agents.gateway.ruleset import APPROVED

Allowed = Callable[[bytes, bytes, int, int], bool]
"""(source, destination, protocol, destination port) of a connection's first packet -> may it go on?"""

_GET_STATISTICS = 0x105  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET_STATS
_AT_ONCE = 1000  # some 100 kB, of the 208 kB that a socket may have on its way


def ready() -> None:
    """Have the kernel load its connection table, so that the sysctls of it are there; OSError when it has none."""
    with open_netfilter() as netlink:
        netlink.send(message(_GET_STATISTICS, REQUEST, 1, socket.AF_UNSPEC, b""))
        for kind, body in messages(netlink):
            if kind == ERROR:
                check(body, "conntrack")


def revoke(allowed: Allowed, cutting: Callable[[int], None]) -> int:
    """Delete every approved connection that `allowed` refuses; returns how many there were. OSError when it cannot.

    `cutting` is told the port of each socket before that deletes any: the kernel's news of a deletion carries it.
    """
    revoked = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        with open_netfilter() as netlink:
            refused = [entry for entry in _approved(netlink, family) if not allowed(*_key(entry))]
            if refused:
                cutting(netlink.getsockname()[0])
            for start in range(0, len(refused), _AT_ONCE):
                _delete(netlink, family, refused[start : start + _AT_ONCE])
            revoked += len(refused)
    return revoked


def _approved(netlink: socket.socket, family: int) -> list[bytes]:
    """Return the original tuple of every connection with our mark, as the kernel wrote it."""
    netlink.send(message(connections.GET, REQUEST | DUMP, 1, family, connections.marked(APPROVED)))
    found: list[bytes] = []
    while True:
        for kind, body in messages(netlink):
            if kind == connections.NEW:
                found.append(attributes(body[4:])[connections.TUPLE_ORIGINAL])
            elif kind == ERROR:
                check(body, "conntrack")
            elif kind == DONE:
                return found


def _delete(netlink: socket.socket, family: int, entries: list[bytes]) -> None:
    """Delete these. Only the last one is acknowledged; the kernel tells of each that it could not, in their order."""
    last = len(entries) - 1
    netlink.send(
        b"".join(
            message(
                connections.DELETE,
                REQUEST | (ACK if number == last else 0),
                number,
                family,
                attribute(connections.TUPLE_ORIGINAL | 0x8000, entry),
            )
            for number, entry in enumerate(entries)
        )
    )
    is_done = False
    while not is_done:
        for kind, body in messages(netlink):
            if kind == ERROR:
                check(body, "conntrack", errno.ENOENT)  # it ended by itself meanwhile
                is_done |= answered(body) == last


def _key(entry: bytes) -> tuple[bytes, bytes, int, int]:
    flow = connections.flow(entry)
    return flow.source, flow.destination, flow.protocol, flow.port
