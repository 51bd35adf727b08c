"""How many flows the kernel remembers.

Newer kernels tell the number of a set's elements with the set itself, in no time whatever its size (6.18 does, the
headers of 6.1 do not know of it). Of an older one the elements have to be fetched and counted, which the kernel takes
4 s for when there are 200,000; so whoever asks must not ask too often.
"""

from __future__ import annotations

import errno
import socket

from tidegate_agents.gateway.netlink import (
    DONE,
    DUMP,
    ERROR,
    REQUEST,
    attribute,
    attributes,
    check,
    message,
    messages,
    open_netfilter,
    pieces,
)
from tidegate_agents.gateway.ruleset import TABLE

# linux/netfilter/nf_tables.h: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_*
_GET_SET, _SET, _GET_ELEMENTS, _ELEMENTS = 0xA0A, 0xA09, 0xA0D, 0xA0C
_SET_TABLE, _SET_NAME, _SET_COUNT = 1, 2, 20
_ELEMENTS_LIST = 3
_INET = 1  # NFPROTO_INET
SETS = {"ipv4": "flows4", "ipv6": "flows6"}
"""The sets of flows, by family (`ruleset`)."""


def flows() -> dict[str, int]:
    """Return the number of flows by family, ipv4 and ipv6; of no family while none are remembered. OSError."""
    with open_netfilter() as netlink:
        counts = {family: _count(netlink, name) for family, name in SETS.items()}
    return {family: count for family, count in counts.items() if count is not None}


def _count(netlink: socket.socket, name: str) -> int | None:
    """Return the number of elements of one of our sets, None when there is no such set."""
    netlink.send(message(_GET_SET, REQUEST, 1, _INET, _named(name)))
    for kind, body in messages(netlink):
        if kind == _SET:
            count = attributes(body[4:]).get(_SET_COUNT)
            return int.from_bytes(count) if count is not None else counted(netlink, name)
        if kind == ERROR:
            check(body, name, errno.ENOENT)
    return None


def counted(netlink: socket.socket, name: str) -> int:
    """Fetch the elements of one of our sets and count them."""
    netlink.send(message(_GET_ELEMENTS, REQUEST | DUMP, 2, _INET, _named(name)))
    found = 0
    while True:
        for kind, body in messages(netlink):
            if kind == _ELEMENTS:
                found += sum(1 for _ in pieces(attributes(body[4:]).get(_ELEMENTS_LIST, b"")))
            elif kind == ERROR:
                check(body, name)
            elif kind == DONE:
                return found


def _named(name: str) -> bytes:
    return attribute(_SET_TABLE, f"{TABLE}\0".encode()) + attribute(_SET_NAME, f"{name}\0".encode())
