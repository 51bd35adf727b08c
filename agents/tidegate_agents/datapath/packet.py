"""Read an inner packet's headers: total, so any byte string is either a Packet or None, never an exception.

None means that its destination or its ports cannot be told for certain, which in enforce is a denial: truncated
headers, a length that lies, IPv4 source routing, an IPv6 routing header with segments left, too many extension
headers, a first fragment too short for its ports, a fragment that could rewrite them (RFC 1858, RFC 3128).
"""

from __future__ import annotations

from typing import NamedTuple

_TCP, _UDP, _SCTP, _ICMP, _ICMP6, _AH = 6, 17, 132, 1, 58, 51
_PORTED = frozenset({_TCP, _UDP, _SCTP})
_LEAST_TRANSPORT = {_TCP: 20, _UDP: 8, _SCTP: 12, _ICMP: 8, _ICMP6: 8}
_EXTENSIONS = frozenset({0, 43, 60})  # hop-by-hop, routing, destination options (RFC 8200)
_IP6_FRAGMENT = 44
_MAX_EXTENSIONS = 8
_SOURCE_ROUTES = frozenset({131, 137})  # loose and strict source route (RFC 791)
_ICMP_ERRORS = {
    (4, _ICMP): frozenset({3, 11, 12}),
    (16, _ICMP6): frozenset({1, 2, 3, 4}),
}  # by bytes of address

WHOLE, FIRST, LATER = 0, 1, 2


class Packet(NamedTuple):
    """What the judge and the event need of a packet.

    Addresses are 4 or 16 bytes; ports are 0 for protocols without them and for later fragments. `embedded` is the
    start of the packet that an ICMP error reports on, None for everything else.
    """

    source: bytes
    destination: bytes
    protocol: int
    source_port: int
    port: int
    tcp_flags: int
    fragment: int
    fragment_id: int
    embedded: bytes | None

    @property
    def has_ports(self) -> bool:
        """Tell whether the ports were in this packet."""
        return self.protocol in _PORTED and self.fragment != LATER


def parse(data: bytes) -> Packet | None:
    """Read one inner packet."""
    return _parse(data, whole=True)


def parse_embedded(data: bytes) -> Packet | None:
    """Read the start of a packet that an ICMP error quotes, which may end after 8 bytes of transport header."""
    return _parse(data, whole=False)


def _parse(data: bytes, *, whole: bool) -> Packet | None:
    if len(data) < 20:
        return None
    version = data[0] >> 4
    if version == 4:
        return _parse4(data, whole)
    if version == 6 and len(data) >= 40:
        return _parse6(data, whole)
    return None


def _parse4(data: bytes, whole: bool) -> Packet | None:
    header = (data[0] & 0xF) * 4
    total = int.from_bytes(data[2:4])
    if header < 20 or total < header or len(data) < header:
        return None
    if whole:
        if total > len(data):
            return None
        data = data[:total]
    if header > 20 and _has_source_route(data[20:header]):
        return None
    fragment_bits = int.from_bytes(data[6:8])
    offset, more = fragment_bits & 0x1FFF, fragment_bits & 0x2000
    fragment = LATER if offset else FIRST if more else WHOLE
    return _transport(
        data[12:16], data[16:20], data[9], data[header:], whole, fragment, offset, int.from_bytes(data[4:6])
    )


def _has_source_route(options: bytes) -> bool:
    at = 0
    while at < len(options) and options[at] != 0:
        if options[at] == 1:
            at += 1
            continue
        if options[at] in _SOURCE_ROUTES or at + 1 >= len(options) or options[at + 1] < 2:
            return True  # a malformed option hides what follows it
        at += options[at + 1]
    return False


def _parse6(data: bytes, whole: bool) -> Packet | None:
    end = 40 + int.from_bytes(data[4:6])
    if whole:
        if end > len(data):
            return None
        data = data[:end]
    protocol, at = data[6], 40
    fragment, offset, fragment_id = WHOLE, 0, 0
    for _ in range(_MAX_EXTENSIONS):
        if protocol in _EXTENSIONS:
            if at + 8 > len(data) or (protocol == 43 and data[at + 3] != 0):
                return None
            protocol, at = data[at], at + 8 + data[at + 1] * 8
        elif protocol == _AH:
            if at + 12 > len(data):
                return None
            protocol, at = data[at], at + 8 + data[at + 1] * 4
        elif protocol == _IP6_FRAGMENT:
            if at + 8 > len(data) or fragment != WHOLE:
                return None
            bits = int.from_bytes(data[at + 2 : at + 4])
            offset, fragment_id = bits >> 3, int.from_bytes(data[at + 4 : at + 8])
            fragment = LATER if offset else FIRST if bits & 1 else WHOLE
            protocol, at = data[at], at + 8
        else:
            return _transport(
                data[8:24], data[24:40], protocol, data[at:], whole, fragment, offset, fragment_id
            )
        if at > len(data):
            return None
        if fragment == LATER:  # what follows is the middle of a packet, not headers
            return _transport(data[8:24], data[24:40], protocol, b"", whole, fragment, offset, fragment_id)
    return None


def _transport(
    source: bytes,
    destination: bytes,
    protocol: int,
    body: bytes,
    whole: bool,
    fragment: int,
    offset: int,
    fragment_id: int,
) -> Packet | None:
    if fragment == LATER:
        if protocol == _TCP and offset == 1:  # would overwrite TCP flags of the first fragment
            return None
        return Packet(source, destination, protocol, 0, 0, 0, fragment, fragment_id, None)
    least = _LEAST_TRANSPORT.get(protocol, 0) if whole else 8
    if len(body) < least:
        return None
    if protocol in _PORTED:
        flags = body[13] if protocol == _TCP and len(body) > 13 else 0
        return Packet(
            source,
            destination,
            protocol,
            int.from_bytes(body[0:2]),
            int.from_bytes(body[2:4]),
            flags,
            fragment,
            fragment_id,
            None,
        )
    errors = _ICMP_ERRORS.get((len(source), protocol))
    embedded = body[8:] if errors and body[0] in errors and whole else None
    return Packet(source, destination, protocol, 0, 0, 0, fragment, fragment_id, embedded)
