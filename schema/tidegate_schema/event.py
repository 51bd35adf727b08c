"""The event: a fixed-size binary record in a gateway's ring, and the JSON object a log endpoint receives.

    offset  size  field                        (little-endian, 128 bytes, version 1)
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
        84     1  kind                         1 packet
        85     1  mode                         0 observe, 1 enforce
        86     1  verdict                      0 deny, 1 allow
        87     1  reason                       tidegate_schema.policy.Reason
        88     1  IP protocol
        89     1  TCP flags
        90     1  what is known                bit 0 addresses and protocol, bit 1 ports
        91     1  version                      1
        92     4  zero
        96     8  packets
       104     8  bytes                        of the inner packet or super-packet, with its IP header
       112    16  zero

No byte of a packet's payload is ever in a record.
"""

from __future__ import annotations

import ipaddress
import struct
import time
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from tidegate_schema.policy import Reason

VERSION = 1
RECORD_BYTES = 128
NO_RULE = 0xFFFFFFFF
NO_CLIENT = bytes(16)
KIND_PACKET = 1
KNOWN_ADDRESSES = 1
KNOWN_PORTS = 2
MODES = ("observe", "enforce")

LAYOUT = struct.Struct("<QQQII16s16s16sHHBBBBBBBB4xQQ16x")
assert LAYOUT.size == RECORD_BYTES
Template: TypeAlias = tuple[bytes, bytes]
"""What is the same in all events of a flow: the bytes 24 ‥ 88 and 90 ‥ 91 of its records."""
STAMPED = struct.Struct("<QQQ65sB2s4xQQ16x")
"""A record from a template: sequence number, monotonic, wall, template, TCP flags, template, packets, bytes."""
assert STAMPED.size == RECORD_BYTES
_V4_MAPPED = bytes(10) + b"\xff\xff"
_KINDS = {KIND_PACKET: "packet"}
_REASONS = {int(reason): reason.name.lower().replace("_", "-") for reason in Reason}


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
    packets: int
    length: int


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
    record = LAYOUT.pack(0, 0, 0, *flow, kind, mode, verdict, reason, protocol, 0, known, VERSION, 0, 0)
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
    ):
        raise ValueError("event record with an unknown kind, mode, verdict or reason")
    return event


def _text(address: bytes) -> str:
    if address.startswith(_V4_MAPPED):
        return str(ipaddress.IPv4Address(address[12:]))
    return str(ipaddress.IPv6Address(address))


def _timestamp(wall_ns: int) -> str:
    seconds, nanoseconds = divmod(wall_ns, 1_000_000_000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"


def to_json(event: Event, gateway: str, epoch: str, policies: Sequence[str]) -> dict[str, Any]:
    """Return an event that `unpack` has read as `event.schema.json` describes it.

    `policies[i]` names the policy of rule i in the event's generation; a rule past its end stays unnamed.
    """
    result: dict[str, Any] = {
        "gateway": gateway,
        "epoch": epoch,
        "seq": event.seq,
        "time": _timestamp(event.wall_ns),
        "monotonic_ns": event.monotonic_ns,
        "kind": _KINDS[event.kind],
        "mode": MODES[event.mode],
        "verdict": "allow" if event.verdict else "deny",
        "reason": _REASONS[event.reason],
        "generation": event.generation,
        "packets": event.packets,
        "length": event.length,
    }
    if event.client_id != NO_CLIENT:
        result["client_id"] = event.client_id.hex()
    if event.known & KNOWN_ADDRESSES:
        result |= {"src": _text(event.source), "dst": _text(event.destination), "protocol": event.protocol}
    if event.known & KNOWN_PORTS:
        result |= {"src_port": event.source_port, "dst_port": event.destination_port}
        if event.protocol == 6:
            result["tcp_flags"] = event.tcp_flags
    if event.rule < len(policies):
        result["policy"] = policies[event.rule]
    return result
