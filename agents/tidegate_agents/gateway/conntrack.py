"""Cut connections that a new generation no longer allows: conntrack entries are judged, refused ones deleted.

Without this a server could go on sending to a client that may no longer ask: its replies never cross the TUN.
After the deletion its next packet starts a new connection towards the client, which enforce drops.

Raw netlink, many messages to a system call (linux/netfilter/nfnetlink_conntrack.h): one client may hold a hundred
thousand entries, and pyroute2's own calls take about a millisecond each, which would delay the revocation by minutes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Callable, Iterator

from tidegate_agents.gateway.ruleset import APPROVED

Allowed = Callable[[bytes, bytes, int, int], bool]
"""(source, destination, protocol, destination port) of a connection's first packet -> may it go on?"""

_NETLINK_NETFILTER = 12
_NEW, _GET, _DELETE = 0x100, 0x101, 0x102  # NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_*
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP = 1, 4, 0x300
_TUPLE_ORIG, _MARK, _MARK_MASK = 1, 8, 21
_TUPLE_IP, _TUPLE_PROTO = 1, 2
_SOURCE: dict[int, int] = {socket.AF_INET: 1, socket.AF_INET6: 3}
_DESTINATION: dict[int, int] = {socket.AF_INET: 2, socket.AF_INET6: 4}
_PROTO_NUMBER, _PROTO_DESTINATION_PORT = 1, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_AT_ONCE = 200
_RECEIVE_BYTES = 1 << 20
_SECONDS = 10.0


def revoke(allowed: Allowed) -> int:
    """Delete every approved connection that `allowed` refuses; returns how many there were. OSError when it cannot."""
    revoked = 0
    for family in (socket.AF_INET, socket.AF_INET6):
        with socket.socket(
            socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER
        ) as netlink:
            netlink.settimeout(_SECONDS)
            netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
            refused = [entry for entry in _approved(netlink, family) if not allowed(*_key(entry, family))]
            for start in range(0, len(refused), _AT_ONCE):
                _delete(netlink, family, refused[start : start + _AT_ONCE])
            revoked += len(refused)
    return revoked


def _message(kind: int, flags: int, number: int, family: int, attributes: bytes) -> bytes:
    body = struct.pack("=BBH", family, 0, 0) + attributes  # struct nfgenmsg
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def _attribute(kind: int, value: bytes) -> bytes:
    padding = bytes(-len(value) % 4)
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), kind) + value + padding


def _attributes(data: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += length + (-length % 4)
    return found


def _messages(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of the messages that one receive brings."""
    data, at = netlink.recv(_RECEIVE_BYTES), 0
    while at + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, at)
        yield kind, data[at + _HEADER.size : at + length]
        at += length + (-length % 4)


def _approved(netlink: socket.socket, family: int) -> list[bytes]:
    """Return the original tuple of every connection with our mark, as the kernel wrote it."""
    mark = struct.pack(">I", APPROVED)
    wanted = _attribute(_MARK, mark) + _attribute(_MARK_MASK, b"\xff\xff\xff\xff")
    netlink.send(_message(_GET, _REQUEST | _DUMP, 1, family, wanted))
    found: list[bytes] = []
    while True:
        for kind, body in _messages(netlink):
            if kind == _NEW:
                found.append(_attributes(body[4:])[_TUPLE_ORIG])
            elif kind == _ERROR:
                _check(body)
            elif kind == _DONE:
                return found


def _delete(netlink: socket.socket, family: int, entries: list[bytes]) -> None:
    netlink.send(
        b"".join(
            _message(_DELETE, _REQUEST | _ACK, number, family, _attribute(_TUPLE_ORIG | 0x8000, entry))
            for number, entry in enumerate(entries, 2)
        )
    )
    answers = 0
    while answers < len(entries):
        for kind, body in _messages(netlink):
            if kind == _ERROR:
                _check(body, errno.ENOENT)  # it ended by itself meanwhile
                answers += 1


def _check(body: bytes, *tolerated: int) -> None:
    code = -int.from_bytes(body[:4], "little" if struct.pack("=H", 1)[0] else "big", signed=True)
    if code and code not in tolerated:
        raise OSError(code, f"conntrack: {os.strerror(code)}")


def _key(entry: bytes, family: int) -> tuple[bytes, bytes, int, int]:
    parts = _attributes(entry)
    addresses, protocol = _attributes(parts[_TUPLE_IP]), _attributes(parts[_TUPLE_PROTO])
    port = int.from_bytes(protocol.get(_PROTO_DESTINATION_PORT, b""))
    return addresses[_SOURCE[family]], addresses[_DESTINATION[family]], protocol[_PROTO_NUMBER][0], port
