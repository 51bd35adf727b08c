"""The event: a fixed-size binary record in a gateway's rings, and the JSON object a log endpoint receives.

    offset  size  field                        (little-endian, 144 bytes, version 2)
         0     8  sequence number              counts every event made, also those dropped at a full ring
         8     8  monotonic time, ns           CLOCK_MONOTONIC
        16     8  wall time, ns                CLOCK_REALTIME, Unix epoch
        24     4  generation
        28     4  rule                         index in policy.json of that generation; 0xffffffff = none
        32    16  client ID                    zero = unknown source
        48    16  source address               IPv4 as ::ffff:a.b.c.d (RFC 4291, section 2.5.5.2)
        64    16  destination address
        80     2  source port
        82     2  destination port
        84     1  kind                         1 packet, 2 flow-open, 3 flow-update, 4 flow-close, 5 deny, 6 gap
        85     1  mode                         0 observe, 1 enforce
        86     1  verdict                      0 deny, 1 allow
        87     1  reason                       tidegate_schema.policy.Reason
        88     1  IP protocol
        89     1  TCP flags                    of a packet; of a flow-open or deny, of its first packet
        90     1  what is known                bit 0 addresses and protocol, bit 1 ports
        91     1  version                      2
        92     1  end                          why a flow-close closes, see End
        93     3  zero
        96     8  packets                      from the source; of a flow, since its record before this one
       104     8  bytes                        the same; of a packet or super-packet, with its IP header
       112     8  reply packets                back to the source; only of a flow-update and flow-close
       120     8  reply bytes                  the same
       128     8  start, ns                    CLOCK_REALTIME: of a flow, its begin; of a gap, the last moment before it
       136     8  zero

No byte of a packet's payload is ever in a record.

A flow has a flow-open when the forwarder allows its first packet, with no packets, since the connection table counts
them; flow-updates while it lasts; and a flow-close. So packets and bytes of a flow are the sums over its records. A
deny stands for as many packets of one refused flow as it says. A gap says that records of flows may be missing which
would have come between `start` and its own time.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from tidegate_schema.policy import Reason

VERSION = 2
RECORD_BYTES = 144
NO_RULE = 0xFFFFFFFF
NO_CLIENT = bytes(16)
KNOWN_ADDRESSES = 1
KNOWN_PORTS = 2
MODES = ("observe", "enforce")


class Kind(enum.IntEnum):
    """What an event tells of."""

    PACKET = 1
    FLOW_OPEN = 2
    FLOW_UPDATE = 3
    FLOW_CLOSE = 4
    DENY = 5
    GAP = 6


class End(enum.IntEnum):
    """Why a flow is over."""

    NONE = 0
    """It is not, or that is not known."""
    ENDED = 1
    """It was closed by those who had it, or nothing of it came for so long that the kernel forgot it."""
    REVOKED = 2
    """It is no longer allowed, and was cut."""


LAYOUT = struct.Struct("<QQQII16s16s16sHHBBBBBBBBB3xQQQQQ8x")
assert LAYOUT.size == RECORD_BYTES
Template: TypeAlias = tuple[bytes, bytes]
"""What is the same in all events of a flow: the bytes 24 ‥ 88 and 90 ‥ 91 of its records."""
STAMPED = struct.Struct("<Q16s65sB2s4xQQ32x")
"""A record from a template: sequence number, times, template, TCP flags, template, packets, bytes."""
assert STAMPED.size == RECORD_BYTES
TIMES = struct.Struct("<QQ")
"""Monotonic and wall time, as they stand in a record: many have the same."""
_V4_MAPPED = bytes(10) + b"\xff\xff"
_KINDS = {int(kind): kind.name.lower().replace("_", "-") for kind in Kind}
_ENDS = {int(end): end.name.lower() for end in End}
_REASONS = {int(reason): reason.name.lower().replace("_", "-") for reason in Reason}
_TCP = 6
_TRANSPORTS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}


class Event(NamedTuple):
    """One record, field by field, in the order of the layout."""

    seq: int
    monotonic_ns: int
    wall_ns: int
    generation: int
    rule: int
    client_id: bytes
    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    kind: int
    mode: int
    verdict: int
    reason: int
    protocol: int
    tcp_flags: int
    known: int
    version: int
    end: int
    packets: int
    length: int
    reply_packets: int
    reply_length: int
    start_ns: int


def template(
    *,
    generation: int,
    rule: int,
    client_id: bytes,
    source: bytes,
    destination: bytes,
    source_port: int,
    destination_port: int,
    kind: int,
    mode: int,
    verdict: int,
    reason: int,
    protocol: int,
    known: int,
) -> Template:
    """Return what is the same in all events of a flow."""
    flow = (generation, rule, client_id, source, destination, source_port, destination_port)
    record = LAYOUT.pack(0, 0, 0, *flow, kind, mode, verdict, reason, protocol, 0, known, VERSION, *bytes(6))
    return record[24:89], record[90:92]


def mapped(address: bytes) -> bytes:
    """Return an address of 4 or 16 bytes as 16 bytes, IPv4 in its mapped form."""
    return _V4_MAPPED + address if len(address) == 4 else address


def unpack(record: bytes | memoryview) -> Event:
    """Read one record of RECORD_BYTES bytes; ValueError when it is of another version, or says nothing known."""
    event = Event(*LAYOUT.unpack(record))
    if event.version != VERSION:
        raise ValueError(f"event record of version {event.version}, this reader knows {VERSION}")
    if (
        event.kind not in _KINDS
        or event.mode >= len(MODES)
        or event.verdict > 1
        or event.reason not in _REASONS
        or event.end not in _ENDS
    ):
        raise ValueError("event record with an unknown kind, mode, verdict, reason or end")
    return event


def address_text(address: bytes) -> str:
    """Return an address of 16 bytes in canonical form, IPv4 as such."""
    if address.startswith(_V4_MAPPED):
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


def timestamp(wall_ns: int) -> str:
    """Return nanoseconds since the Unix epoch as RFC 3339 has them, in UTC."""
    return f"{_second(wall_ns // 1_000_000_000)}.{wall_ns % 1_000_000_000:09d}Z"


@functools.lru_cache(64)  # many events share a second, and strftime is most of an event's time
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def to_json(event: Event, gateway: str, epoch: str, policies: Sequence[str]) -> dict[str, Any]:
    """Return an event that `unpack` has read as `event.schema.json` describes it.

    `policies[i]` names the policy of rule i in the event's generation; a rule past its end stays unnamed.
    """
    result: dict[str, Any] = {
        "@timestamp": timestamp(event.wall_ns),
        "observer.name": gateway,
        "tidegate.epoch": epoch,
        "event.sequence": event.seq,
        "tidegate.monotonic_ns": event.monotonic_ns,
        "event.action": _KINDS[event.kind],
    }
    if event.kind == Kind.GAP:
        return result | {"event.start": timestamp(event.start_ns)}
    result |= {
        "tidegate.mode": MODES[event.mode],
        "tidegate.verdict": "allow" if event.verdict else "deny",
        "event.reason": _REASONS[event.reason],
        "tidegate.generation": event.generation,
        "source.packets": event.packets,
        "source.bytes": event.length,
    }
    if event.client_id != NO_CLIENT:
        result["tidegate.client.id"] = event.client_id.hex()
    if event.known & KNOWN_ADDRESSES:
        result["source.address"] = address_text(event.source)
        result["destination.address"] = address_text(event.destination)
        result["network.iana_number"] = event.protocol
        if event.protocol in _TRANSPORTS:
            result["network.transport"] = _TRANSPORTS[event.protocol]
    is_flow = event.kind in (Kind.FLOW_UPDATE, Kind.FLOW_CLOSE)
    if event.known & KNOWN_PORTS:
        result |= {"source.port": event.source_port, "destination.port": event.destination_port}
        if event.protocol == _TCP and not is_flow:
            result["tidegate.tcp.flags"] = event.tcp_flags
    if event.rule < len(policies):
        result["rule.name"] = policies[event.rule]
    if is_flow:
        result["destination.packets"] = event.reply_packets
        result["destination.bytes"] = event.reply_length
        if event.start_ns:
            result["event.start"] = timestamp(event.start_ns)
    if event.kind == Kind.FLOW_CLOSE:
        result["event.end"] = timestamp(event.wall_ns)
        result["tidegate.end"] = _ENDS[event.end]
    return result
