"""Cut connections that a new generation no longer allows: conntrack entries are judged, refused ones deleted.

Without this a server could go on sending to a client that may no longer ask: its replies never cross the TUN.
After the deletion its next packet starts a new connection towards the client, which enforce drops.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterator
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, NFCTSocket

from tidegate_agents.gateway.ruleset import APPROVED

Allowed = Callable[[bytes, bytes, int, int], bool]
"""(source, destination, protocol, destination port) of a connection's first packet -> may it go on?"""

_ENOENT = 2


def revoke(allowed: Allowed) -> int:
    """Delete every approved connection that `allowed` refuses; returns how many there were."""
    revoked = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        with NFCTSocket(nfgen_family=family) as conntrack:
            refused = [entry for entry in _approved(conntrack, family) if not allowed(*_key(entry))]
            for entry in refused:
                try:
                    conntrack.entry("del", tuple_orig=entry)
                except NetlinkError as error:
                    if error.code != _ENOENT:  # it ended by itself meanwhile
                        raise
                revoked += 1
    return revoked


def _approved(conntrack: Any, family: int) -> Iterator[Any]:
    for message in conntrack.dump(mark=APPROVED):
        original = message.get_attr("CTA_TUPLE_ORIG")
        entry = NFCTAttrTuple.from_netlink(family, original)
        # pyroute2 0.9 reads ports of TCP and UDP only; SCTP carries them in the same attributes.
        protocol = original.get_attr("CTA_TUPLE_PROTO")
        entry.sport = protocol.get_attr("CTA_PROTO_SRC_PORT")
        entry.dport = protocol.get_attr("CTA_PROTO_DST_PORT")
        yield entry


def _key(entry: Any) -> tuple[bytes, bytes, int, int]:
    return (
        ipaddress.ip_address(entry.saddr).packed,
        ipaddress.ip_address(entry.daddr).packed,
        entry.proto,
        entry.dport or 0,
    )
