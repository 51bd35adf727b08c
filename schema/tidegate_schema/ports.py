"""Protocols and port ranges: what a rule admits beyond an address.

Written forms: `tcp/N`, `tcp/N-M`, `udp/…`, `sctp/…`, `icmp`, `proto/N`, `any`. A form is read for one
address family, because `icmp` is protocol 1 in IPv4 and 58 in IPv6 (IANA protocol numbers).
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

ANY_PROTOCOL = -1
ICMP = {4: 1, 6: 58}
PORTED = {"tcp": 6, "udp": 17, "sctp": 132}
PORTED_NUMBERS = {number: name for name, number in PORTED.items()}
LAST_PORT = 65535

_PORTED_FORM = re.compile(r"(tcp|udp|sctp)/([0-9]{1,5})(?:-([0-9]{1,5}))?")
_PROTO_FORM = re.compile(r"proto/([0-9]{1,3})")


class PortRange(NamedTuple):
    """One protocol and an inclusive range of destination ports.

    `protocol` is an IP protocol number or ANY_PROTOCOL. A protocol without ports has the full range, so that
    ranges compare and intersect alike.
    """

    protocol: int
    first: int = 0
    last: int = LAST_PORT

    def intersect(self, other: PortRange) -> PortRange | None:
        """Return what both admit, or None when that is nothing."""
        if self.protocol == ANY_PROTOCOL:
            return other
        if other.protocol == ANY_PROTOCOL:
            return self
        first, last = max(self.first, other.first), min(self.last, other.last)
        if self.protocol != other.protocol or first > last:
            return None
        return PortRange(self.protocol, first, last)

    def __str__(self) -> str:
        """Return the canonical written form; reading it back for the same family gives an equal value."""
        if self.protocol == ANY_PROTOCOL:
            return "any"
        name = PORTED_NUMBERS.get(self.protocol)
        if name is None or (self.first, self.last) == (0, LAST_PORT):
            return f"proto/{self.protocol}"
        return f"{name}/{self.first}" if self.first == self.last else f"{name}/{self.first}-{self.last}"


@functools.lru_cache(1 << 14)  # many policies name one resource
def parse_ports(text: str, family: int) -> PortRange:
    """Read a written form for address family 4 or 6; ValueError with a one-line reason."""
    if text == "any":
        return PortRange(ANY_PROTOCOL)
    if text == "icmp":
        return PortRange(ICMP[family])
    if match := _PORTED_FORM.fullmatch(text):
        first = int(match[2])
        last = int(match[3]) if match[3] else first
        if not 0 <= first <= last <= LAST_PORT:
            raise ValueError(f"ports go upwards from 0 to {LAST_PORT}, not {match[2]}-{match[3] or match[2]}")
        return PortRange(PORTED[match[1]], first, last)
    if (match := _PROTO_FORM.fullmatch(text)) and int(match[1]) <= 255:
        return PortRange(int(match[1]))
    raise ValueError("write tcp/N, tcp/N-M, udp/…, sctp/…, icmp, proto/N (0 to 255) or any")
