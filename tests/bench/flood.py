"""Send small UDP packets as fast as one core can: `python -m bench.flood HOW LINK GATEWAY-MAC NUMBER SECONDS`.

NUMBER flows, each with a source port of its own: `sockets` sends as programs do, from a UDP socket per flow, a call of
send(2) a packet. `frames` makes them once and hands them to the link a thousand a call of sendmmsg(2), on a packet
socket, so that next to nothing but the gateway's work is measured.

Every packet of another flow, from NUMBER clients in turn, as frames that are written anew each time: `new` to where the
policy allows, `denied` to random ports that it does not. Prints how many were sent.
"""

from __future__ import annotations

import ctypes
import errno
import ipaddress
import os
import random
import resource
import socket
import struct
import sys
import time

SOURCE, DESTINATION, PORT = "10.64.0.11", "10.20.0.80", 9
BEHIND = "10.20.128.0/17"
"""These addresses lead to the service as well."""
IP_BYTES = 64
FIRST_PORT = 10000
AT_ONCE = 1000  # sendmmsg(2) takes up to 1,024 messages
_NEW = struct.Struct("!HIIHH")
_NEW_AT = 24  # in a frame: the checksum of the header, addresses and ports


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):  # struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Message(ctypes.Structure):  # struct mmsghdr
    _fields_ = (("header", _Header), ("sent", ctypes.c_uint32))


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def frame(link: bytes, gateway: bytes, source_port: int) -> bytes:
    """Return an Ethernet frame with a UDP packet (its checksum left out, as RFC 768 allows)."""
    udp = struct.pack("!HHHH", source_port, PORT, IP_BYTES - 20, 0).ljust(IP_BYTES - 20, b"x")
    addresses = socket.inet_aton(SOURCE) + socket.inet_aton(DESTINATION)
    header = struct.pack("!BBHHHBBH", 0x45, 0, IP_BYTES, 0, 0x4000, 64, 17, 0) + addresses
    header = header[:10] + struct.pack("!H", checksum(header)) + header[12:]
    return gateway + link + b"\x08\x00" + header + udp


class Frames:
    """Frames with source ports of their own that go to a link all at once; what stands in them may be changed."""

    def __init__(self, link: str, gateway: str, count: int) -> None:
        self._packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        self._packets.bind((link, 0))
        own, far = self._packets.getsockname()[4], bytes.fromhex(gateway.replace(":", ""))
        every = [frame(own, far, FIRST_PORT + number) for number in range(count)]
        self.buffers = [ctypes.create_string_buffer(one, len(one)) for one in every]
        self._vectors = [_Iovec(ctypes.addressof(one), len(one)) for one in self.buffers]
        messages = [_Message(_Header(iov=ctypes.pointer(one), iov_count=1)) for one in self._vectors]
        self._messages, self._next = (_Message * count)(*messages), 0
        self._send = ctypes.CDLL(None, use_errno=True).sendmmsg

    def send(self) -> int:
        """Send the next AT_ONCE of them, or all that are left, and return how many the link has taken."""
        most = min(len(self._messages) - self._next, AT_ONCE)
        count: int = self._send(self._packets.fileno(), ctypes.byref(self._messages[self._next]), most, 0)
        if count < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.ENOBUFS):
            sys.exit(os.strerror(ctypes.get_errno()))
        self._next = (self._next + max(count, 0)) % len(self._messages)
        return max(count, 0)


def frames(link: str, gateway: str, flows: int, seconds: float) -> int:
    """Send the same frames for some time; returns how many."""
    ready, sent = Frames(link, gateway, flows), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        sent += ready.send()
    return sent


def new_flows(link: str, gateway: str, clients: int, seconds: float, *, allowed: bool) -> int:
    """Send frames that are each of a flow of its own for some time; returns how many."""
    ready, sent, number = Frames(link, gateway, AT_ONCE), 0, 0
    first, service = int(ipaddress.IPv4Address(SOURCE)), int(ipaddress.IPv4Address(DESTINATION))
    behind, own = ipaddress.IPv4Network(BEHIND), first + service
    # Of the headers' sum only the addresses change. Modulo 0xFFFF is what folding does (RFC 1071).
    others = 0xFFFF - int.from_bytes(bytes(ready.buffers[0][24:26])) - (own >> 16) - (own & 0xFFFF)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        to = int(behind[number // AT_ONCE % behind.num_addresses]) if allowed else service
        for own_port, buffer in enumerate(ready.buffers, FIRST_PORT):
            source = first + number % clients
            port = PORT if allowed else 20000 + int(random.random() * 40000)
            total = others + (source >> 16) + (source & 0xFFFF) + (to >> 16) + (to & 0xFFFF)
            _NEW.pack_into(buffer, _NEW_AT, 0xFFFF - total % 0xFFFF, source, to, own_port, port)
            number += 1
        sent += ready.send()  # what it does not take is written anew as well
    return sent


def sockets(flows: int, seconds: float) -> int:
    """Send from sockets for some time; returns how many."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (flows + 100, flows + 100))
    every = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(flows)]
    for port, one in enumerate(every, FIRST_PORT):
        one.bind((SOURCE, port))
        one.connect((DESTINATION, PORT))
    sends, payload, sent = [one.send for one in every], bytes(IP_BYTES - 28), 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for send in sends:
            send(payload)
        sent += flows
    return sent


def main() -> None:
    how, link, gateway, number, seconds = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
    if how == "sockets":
        print(sockets(number, seconds))
    elif how == "frames":
        print(frames(link, gateway, number, seconds))
    else:
        print(new_flows(link, gateway, number, seconds, allowed=how == "new"))


if __name__ == "__main__":
    main()
