"""Send small UDP packets as fast as one core can: `python -m bench.flood HOW LINK GATEWAY-MAC FLOWS SECONDS`.

Each flow has a source port of its own. `sockets` sends as programs do, from a UDP socket per flow, eight packets a call
of sendmmsg(2). `frames` makes them once and hands them to the link a thousand a call, on a packet socket, so that
next to nothing but the gateway's work is measured. Prints how many were sent.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import socket
import struct
import sys
import time
from collections.abc import Iterator
from typing import Any

SOURCE, DESTINATION, PORT = "10.64.0.11", "10.20.0.80", 9
IP_BYTES = 64
AT_ONCE = 1000
FIRST_PORT = 10000


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):  # struct mmsghdr, which begins with a struct msghdr
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_Iovec)),
        ("iov_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint32),
    )


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


def messages(parts: list[bytes]) -> Any:
    """Return an array of messages for sendmmsg, one of each; it holds on to what it points to."""
    buffers = [ctypes.create_string_buffer(part, len(part)) for part in parts]
    vectors = [_Iovec(ctypes.addressof(one), len(one)) for one in buffers]
    array = (_Message * len(parts))(*[_Message(iov=ctypes.pointer(v), iov_count=1) for v in vectors])
    KEPT.append((buffers, vectors))
    return array


KEPT: list[Any] = []


def frames(link: str, gateway: str, flows: int) -> Iterator[tuple[int, Any]]:
    """Yield (descriptor, messages) that are all flows once, as frames for a link."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    packets.bind((link, 0))
    KEPT.append(packets)
    own, far = packets.getsockname()[4], bytes.fromhex(gateway.replace(":", ""))
    for start in range(0, flows, AT_ONCE):
        ports = range(FIRST_PORT + start, FIRST_PORT + min(start + AT_ONCE, flows))
        yield packets.fileno(), messages([frame(own, far, port) for port in ports])


def sockets(flows: int) -> Iterator[tuple[int, Any]]:
    """Yield (descriptor, messages) that are all flows, from a socket each."""
    for port in range(FIRST_PORT, FIRST_PORT + flows):
        one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        one.bind((SOURCE, port))
        one.connect((DESTINATION, PORT))
        KEPT.append(one)
        yield one.fileno(), messages([bytes(IP_BYTES - 28)] * 8)


def main() -> None:
    how, link, gateway, flows, seconds = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
    resource.setrlimit(resource.RLIMIT_NOFILE, (flows + 100, flows + 100))
    batches = list(frames(link, gateway, flows) if how == "frames" else sockets(flows))
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    sent, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for descriptor, array in batches:
            count = send(descriptor, array, len(array), 0)
            if count < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.ENOBUFS):
                sys.exit(os.strerror(ctypes.get_errno()))
            sent += max(count, 0)
    print(sent)


if __name__ == "__main__":
    main()
