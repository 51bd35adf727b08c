"""Raw netlink to the kernel's packet filter, for questions that pyroute2 or a tool would answer much slower.

A message is `struct nlmsghdr`, `struct nfgenmsg` and attributes (linux/netlink.h, linux/netfilter/nfnetlink.h).
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator

ERROR, DONE = 2, 3
"""Types of messages: an answer with a code, 0 for none; the end of a dump."""
REQUEST, ACK, DUMP = 1, 4, 0x300
"""Flags of a message."""
_NETLINK_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_unpack = _ATTRIBUTE.unpack_from
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_RECEIVE_BYTES = 1 << 20
_SECONDS = 10.0


def open_netfilter() -> socket.socket:
    """Return a socket to the packet filter of this network namespace, which gives up after 10 s of silence."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    netlink.settimeout(_SECONDS)
    netlink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BYTES)
    return netlink


def message(kind: int, flags: int, number: int, family: int, attributes: bytes) -> bytes:
    """Return one message."""
    body = struct.pack("=BBH", family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, number, 0) + body


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded."""
    return header(kind, len(value)) + value + bytes(-len(value) % 4)


def header(kind: int, size: int) -> bytes:
    """Return what stands before the value of an attribute, which has so many bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + size, kind)


def pieces(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, value) of the attributes that stand one behind the other."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[at + _ATTRIBUTE.size : at + length]
        at += length + (-length % 4)


def attributes(data: bytes) -> dict[int, bytes]:
    """Return attributes by their type."""
    found: dict[int, bytes] = {}
    at, last = 0, len(data) - _ATTRIBUTE.size
    while at <= last:  # as `pieces` does, in half the time
        length, kind = _unpack(data, at)
        if length < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + length]
        at += length + (-length % 4)
    return found


def messages(netlink: socket.socket) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of the messages that one receive brings."""
    for kind, _, body in split(netlink.recv(_RECEIVE_BYTES)):
        yield kind, body


def split(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Yield (type, port, body) of the messages in data; the port is of the socket that asked for it, 0 for none."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, _, port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size:
            return
        yield kind, port, data[at + _HEADER.size : at + length]
        at += length + (-length % 4)


def check(body: bytes, what: str, *tolerated: int) -> None:
    """Raise OSError for the code in the body of an ERROR, if there is one that is not tolerated."""
    code = -int.from_bytes(body[:4], "little" if struct.pack("=H", 1)[0] else "big", signed=True)
    if code and code not in tolerated:
        raise OSError(code, f"{what}: {os.strerror(code)}")


def answered(body: bytes) -> int:
    """Return the number of the message that an ERROR answers; its header stands behind the code."""
    number: int = _HEADER.unpack_from(body, 4)[3]
    return number
