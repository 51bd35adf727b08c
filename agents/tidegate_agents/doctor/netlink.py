"""One question to the kernel's connection table, asked as conntrack(8) does and without any library."""

from __future__ import annotations

import os
import socket
import struct

# linux/netlink.h, linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h
_NETLINK_NETFILTER, _NLM_F_REQUEST, _NLMSG_ERROR = 12, 1, 2
_SUBSYSTEM_CTNETLINK, _GET_STATS = 1, 5
_HEADER, _NFGENMSG, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBH"), struct.Struct("=HH")
_STATS_GLOBAL_ENTRIES = 1
_SECONDS = 5.0


def count_connections() -> int:
    """Return the number of tracked connections; OSError when the kernel cannot list them."""
    size = _HEADER.size + _NFGENMSG.size
    kind = _SUBSYSTEM_CTNETLINK << 8 | _GET_STATS
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
    ) as kernel:
        kernel.settimeout(_SECONDS)
        kernel.sendto(_HEADER.pack(size, kind, _NLM_F_REQUEST, 1, 0) + _NFGENMSG.pack(0, 0, 0), (0, 0))
        answer = kernel.recv(8192)
    if _HEADER.unpack_from(answer)[1] == _NLMSG_ERROR:
        (number,) = struct.unpack_from("=i", answer, _HEADER.size)
        raise OSError(-number, os.strerror(-number))
    length, attribute = _ATTRIBUTE.unpack_from(answer, size)
    if attribute & 0x3FFF != _STATS_GLOBAL_ENTRIES or length != _ATTRIBUTE.size + 4:
        raise OSError(0, "the kernel gives an answer of another kind")
    (count,) = struct.unpack_from(">I", answer, size + _ATTRIBUTE.size)
    return int(count)
