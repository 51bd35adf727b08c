"""What the forwarder remembers of a flow, so that only its first packet is parsed and judged.

A flow is told by bytes that stand at fixed places of a packet without options, extension headers and fragments:
addresses, protocol and ports. Of two such packets with the same ones `parse` and `Judge` say the same, as long as no
rule begins or ends. A packet that is told in no such way is parsed and judged each time.

    bytes of a packet ──name──► flow known ──► allow, reason, template of its event
                                └──► parse, judge ──► remember
"""

from __future__ import annotations

import struct
from typing import Any, TypeAlias

from tidegate_agents.datapath.offload import HEADER_BYTES

BUFFER_BYTES = HEADER_BYTES + 65535 + 2
"""What the forwarder reads into: a virtio_net_hdr, the largest packet, and two bytes that no read reaches."""
ZERO_AT, FLAGS_AT = BUFFER_BYTES - 2, BUFFER_BYTES - 1
"""A zero, and the TCP flags of the packet that was parsed last."""
MOST = 65536
"""Flows; some 30 MB with their templates. A flood of new ones makes room by forgetting all."""
PLAIN4 = 0x45
"""The first byte of an IPv4 packet without options."""

Name: TypeAlias = tuple[Any, ...]
"""What tells a flow; a name of IPv4 never equals one of IPv6."""
NO_NAME: Name = ()
NAME4 = struct.Struct("!6xHxB2x12s")
"""Of an IPv4 packet: fragment bits, protocol; addresses and ports."""
NAME6 = struct.Struct("!6xBx36s")
"""Of an IPv6 packet: next header; addresses and ports."""
_TCP = 6
_LEAST = {_TCP: 20, 17: 8, 132: 12}
"""The bytes of a TCP, UDP or SCTP header: with fewer, a name's ports may be those of the packet before."""
_FRAGMENT = 0x3FFF  # more fragments, or an offset


Flow: TypeAlias = tuple[int, int, bool, int, bytes, bytes]
"""What happens to the packets of a flow: a plain tuple and plain numbers, which Python takes apart quickest.

    least       the bytes a read must have for its name to tell the flow; 0 where none does
    flags_at    where in the buffer the TCP flags are, or else a zero
    allow       whether they are written back
    reason      the number of their reason
    same, known what is the same in all of their events (`tidegate_schema.event.Template`)
"""


class Flows:
    """The remembered flows: at most MOST, and none past the next begin or end of a rule."""

    def __init__(self) -> None:
        self._known: dict[Name, Flow] = {}
        self.get = self._known.get
        self.until = 0.0
        """Until when, Unix seconds, what is remembered holds."""

    def renew(self, until: float) -> None:
        """Forget everything; what comes holds until then."""
        self._known.clear()
        self.until = until

    def remember(self, name: Name, flow: Flow) -> None:
        """Remember a flow."""
        if len(self._known) >= MOST:
            self._known.clear()
        self._known[name] = flow


def shape(name: Name) -> tuple[int, int] | None:
    """Return how long a read must be for its name to tell a flow, and where its TCP flags would stand.

    None for a name that tells none: of a fragment or another protocol, say.
    """
    at, protocol = (20, name[1]) if len(name) == 3 else (40, name[0])
    header = _LEAST.get(protocol)
    if header is None or (len(name) == 3 and name[0] & _FRAGMENT):
        return None
    start = HEADER_BYTES + at
    return start + header, start + 13 if protocol == _TCP else ZERO_AT
