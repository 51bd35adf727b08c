"""What the kernel's connection table says of one connection, as it writes it. Pure.

A message of conntrack's, behind its nlmsghdr (linux/netfilter/nfnetlink_conntrack.h):

    struct nfgenmsg
    CTA_TUPLE_ORIG   addresses, protocol and ports of the first packet, which no NAT changes
    CTA_COUNTERS_*   packets and bytes each way; there where the connection began with nf_conntrack_acct on
    CTA_TIMESTAMP    begin and, once it is over, end; there where it began with nf_conntrack_timestamp on
    CTA_MARK, CTA_ID

The kernel writes them; yet nothing here trusts a length, and whatever does not fit is a Malformed.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from tidegate_agents.gateway.netlink import attribute, attributes, header

NEW, GET, DELETE = 0x100, 0x101, 0x102
"""Types of messages: NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*; of the kernel's, a live and a destroyed one."""
TUPLE_ORIGINAL, MARK, MARK_MASK = 1, 8, 21
_COUNTERS_ORIGINAL, _COUNTERS_REPLY, _ID, _TIMESTAMP = 9, 10, 12, 20
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SOURCE4, _DESTINATION4, _SOURCE6, _DESTINATION6 = 1, 2, 3, 4
_PROTO_NUMBER, _PROTO_SOURCE_PORT, _PROTO_DESTINATION_PORT = 1, 2, 3
_PACKETS, _BYTES = 1, 2
_START, _STOP = 1, 2
_GENERIC_BYTES = 4  # struct nfgenmsg
_NESTED = 0x8000  # NLA_F_NESTED


class Malformed(ValueError):  # noqa: N818 - it names what the message is
    """A message that is none of conntrack's."""


class Connection(NamedTuple):
    """One connection, as far as it is read without need for more."""

    key: bytes
    """What no other connection has, now or later: the kernel's ID, the begin, and the original tuple."""
    original: bytes
    """The original tuple."""
    mark: int
    sent: bytes
    """Counters from the side that opened it, for `counted`; empty where nothing counts."""
    answered: bytes
    """The same of what came back."""
    start_ns: int
    """CLOCK_REALTIME; 0 where that is not known."""
    stop_ns: int
    """The same; 0 also while it lives."""


class Flow(NamedTuple):
    """Who opened a connection to what; ports are 0 where the protocol has none."""

    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    port: int


class _Usual(NamedTuple):
    """How the kernel writes most tuples: values between headers that are always the same."""

    layout: struct.Struct
    headers: tuple[bytes, ...]


def _usual(size: int, source: int, destination: int) -> _Usual:
    """Return the layout of a tuple with addresses of so many bytes, and ports."""
    return _Usual(
        struct.Struct(f">8s{size}s4s{size}s8sB7sH6sH2x"),
        (
            header(_TUPLE_IP | _NESTED, 2 * (4 + size)) + header(source, size),
            header(destination, size),
            header(_TUPLE_PROTO | _NESTED, 24) + header(_PROTO_NUMBER, 1),
            bytes(3) + header(_PROTO_SOURCE_PORT, 2),
            bytes(2) + header(_PROTO_DESTINATION_PORT, 2),
        ),
    )


# What is written so is read in a third of the time; everything else is read attribute by attribute.
_FLOWS = {
    one.layout.size: one for one in (_usual(4, _SOURCE4, _DESTINATION4), _usual(16, _SOURCE6, _DESTINATION6))
}
_COUNTERS = struct.Struct(">4sQ4sQ")
_COUNTERS_HEADERS = header(_PACKETS, 8), header(_BYTES, 8)


def read(body: bytes) -> Connection:
    """Read a message without its nlmsghdr; Malformed."""
    parts = attributes(body[_GENERIC_BYTES:])
    original, identity = parts.get(TUPLE_ORIGINAL), parts.get(_ID)
    if not original or identity is None or len(identity) != 4:
        raise Malformed("no connection")
    times = attributes(parts.get(_TIMESTAMP, b""))
    start, stop = times.get(_START, b""), times.get(_STOP, b"")
    if len(start) > 8 or len(stop) > 8:
        raise Malformed("no times")
    return Connection(
        identity + start.rjust(8, b"\0") + original,
        original,
        int.from_bytes(parts.get(MARK, b"")),
        parts.get(_COUNTERS_ORIGINAL, b""),
        parts.get(_COUNTERS_REPLY, b""),
        int.from_bytes(start),
        int.from_bytes(stop),
    )


def flow(original: bytes) -> Flow:
    """Read an original tuple; Malformed."""
    usual = _FLOWS.get(len(original))
    if usual is not None:
        one, source, two, destination, three, number, four, source_port, five, port = usual.layout.unpack(
            original
        )
        if (one, two, three, four, five) == usual.headers:
            return Flow(source, destination, number, source_port, port)
    parts = attributes(original)
    addresses, protocol = attributes(parts.get(_TUPLE_IP, b"")), attributes(parts.get(_TUPLE_PROTO, b""))
    source = addresses.get(_SOURCE4) or addresses.get(_SOURCE6, b"")
    destination = addresses.get(_DESTINATION4) or addresses.get(_DESTINATION6, b"")
    number = protocol.get(_PROTO_NUMBER, b"")
    source_port, port = (protocol.get(name, b"") for name in (_PROTO_SOURCE_PORT, _PROTO_DESTINATION_PORT))
    sound = len(source) in (4, 16) and len(destination) == len(source) and len(number) == 1
    if not sound or len(source_port) > 2 or len(port) > 2:
        raise Malformed("no addresses and protocol")
    return Flow(
        source, destination, protocol[_PROTO_NUMBER][0], int.from_bytes(source_port), int.from_bytes(port)
    )


def counted(counters: bytes) -> tuple[int, int]:
    """Return packets and bytes; 0 and 0 of an empty one. Malformed."""
    if len(counters) == _COUNTERS.size:
        one, packets, two, octets = _COUNTERS.unpack(counters)
        if (one, two) == _COUNTERS_HEADERS:
            return packets, octets
    return _counted(attributes(counters))


def _counted(parts: dict[int, bytes]) -> tuple[int, int]:
    packets, octets = parts.get(_PACKETS, b""), parts.get(_BYTES, b"")
    if len(packets) > 8 or len(octets) > 8:
        raise Malformed("no counters")
    return int.from_bytes(packets), int.from_bytes(octets)


def marked(mark: int) -> bytes:
    """Return the attributes of a GET that asks for the connections with this mark alone."""
    return attribute(MARK, mark.to_bytes(4)) + attribute(MARK_MASK, b"\xff\xff\xff\xff")
