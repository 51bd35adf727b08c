"""Super-packets: what the TUN may hand over in one read, and how many packets on the wire that stands for.

With IFF_VNET_HDR each packet comes behind a `struct virtio_net_hdr` (linux/virtio_net.h), which the forwarder
writes back as it came, so that it never makes a segment or a checksum itself:

    byte 0  flags     byte 1  gso_type     byte 2  u16 hdr_len     byte 4  u16 gso_size     byte 6  u16 csum_start
    byte 8  u16 csum_offset                                                                 native byte order

`hdr_len` is the kernel's guess and is never used: the length of the headers is read from the headers.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from collections.abc import Callable

HEADER_BYTES = 10
GSO_TYPE = 1
"""The offset of gso_type; 0 there means a packet of its own."""
_GSO_SIZE = struct.Struct("=4xH")
_SET_OFFLOAD = 0x400454D0  # TUNSETOFFLOAD, linux/if_tun.h
_CSUM, _TSO4, _TSO6, _ECN, _USO4, _USO6 = 1, 2, 4, 8, 0x20, 0x40
_TSO = _CSUM | _TSO4 | _TSO6

LADDERS: dict[str, tuple[int, ...]] = {
    "auto": (_TSO | _ECN | _USO4 | _USO6, _TSO, 0),
    "tso": (_TSO, 0),
    "off": (0,),
}
"""By the setting `offloads`: what to ask a TUN for, best first. A kernel refuses bits it does not know, all at once."""
NAMES = {LADDERS["auto"][0]: "tso+uso", _TSO: "tso", 0: "none"}


def set_offloads(tun: int, bits: int) -> None:
    """Ask a TUN, by its descriptor, for these offloads and no others. OSError when the kernel refuses."""
    fcntl.ioctl(tun, _SET_OFFLOAD, bits)


def negotiate(tun: int, setting: str, set_them: Callable[[int, int], None] = set_offloads) -> int:
    """Set the best offloads that the kernel takes, and return them."""
    *wishes, last = LADDERS[setting]
    for bits in wishes:
        try:
            set_them(tun, bits)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            return bits
    set_them(tun, last)
    return last


def segments(data: bytearray | bytes, length: int) -> int:
    """Return how many packets a read of `length` bytes, virtio_net_hdr first, stands for on the wire: 1 or more."""
    size: int = _GSO_SIZE.unpack_from(data)[0]
    if not data[GSO_TYPE] or not size:
        return 1
    headers = _headers(data, length)
    return max(1, -(-(length - headers) // size))


def _headers(data: bytearray | bytes, length: int) -> int:
    """Return where the payload begins of a TCP or UDP packet, as far as its headers tell."""
    at = HEADER_BYTES
    if length < at + 40:
        return at
    version, protocol = data[at] >> 4, 0
    if version == 4:
        protocol, at = data[at + 9], at + (data[at] & 0xF) * 4
    elif version == 6:
        protocol, at = data[at + 6], at + 40
    if protocol == 6 and at + 12 < length:
        return at + (data[at + 12] >> 4) * 4
    return at + 8 if protocol == 17 else at
