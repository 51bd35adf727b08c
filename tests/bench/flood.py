"""Send small UDP packets as fast as one core can: `python -m bench.flood HOW LINK GATEWAY-MAC FLOWS SECONDS`.

Each flow has a source port of its own. `sockets` sends as programs do: from a UDP socket per flow, a call of send(2) a
packet. `frames` makes them once and hands them to the link a thousand a call of sendmmsg(2), on a packet socket, so
that next to nothing but the gateway's work is measured. Prints how many were sent.
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

SOURCE, DESTINATION, PORT = "10.64.0.11", "10.20.0.80", 9
IP_BYTES = 64
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


def frames(link: str, gateway: str, flows: int, seconds: float) -> int:
    """Send frames on a link for some time; returns how many."""
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    packets.bind((link, 0))
    own, far = packets.getsockname()[4], bytes.fromhex(gateway.replace(":", ""))
    every = [frame(own, far, FIRST_PORT + number) for number in range(flows)]
    buffers = [ctypes.create_string_buffer(one, len(one)) for one in every]
    vectors = [_Iovec(ctypes.addressof(one), len(one)) for one in buffers]
    messages = (_Message * flows)(*[_Message(iov=ctypes.pointer(one), iov_count=1) for one in vectors])
    send, sent = ctypes.CDLL(None, use_errno=True).sendmmsg, 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        count = send(packets.fileno(), messages, flows, 0)
        if count < 0 and ctypes.get_errno() not in (errno.EAGAIN, errno.ENOBUFS):
            sys.exit(os.strerror(ctypes.get_errno()))
        sent += max(count, 0)
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
    how, link, gateway, flows, seconds = *sys.argv[1:4], int(sys.argv[4]), float(sys.argv[5])
    print(frames(link, gateway, flows, seconds) if how == "frames" else sockets(flows, seconds))


if __name__ == "__main__":
    main()
