"""Events as NDJSON: a line for each record, in meaning what `event.to_json` says of it.

Nearly all of a line is the same in all events of a client and rule, and the rest is numbers. So a line is put together
from text that is kept, and no dict is made of it:

    {"@timestamp":…,"tidegate.monotonic_ns":…,"event.sequence":  7  ,"event.action":…  ,"source.bytes":  1420  }
    the same in a batch of the forwarder                    a number   the same in a flow              a number

What is kept is made by `to_json` itself, of a record with nothing in the places of what varies, so which fields there
are, and under which names, stands in one place only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable
from typing import Any

from tidegate_agents.events.names import PolicyNames
from tidegate_schema import event, hostevent
from tidegate_schema.event import Kind

_FLOWS_MOST = 1 << 14
_FORMS_MOST = 1 << 12
_TAILS_MOST = 1 << 14
_PLACES_MOST = 1 << 14
_PACKET = struct.Struct("<Q16s72s16s32x")
"""A packet's record: sequence number, both times, all that is the same in its flow, packets and bytes."""
_TWO = struct.Struct("<QQ")
_RECORD = struct.Struct("<QQQ40s16sHH12sQQQQQ8x")
"""Any: sequence number, monotonic, wall, who and by which rule, destination address, ports, what, counts, start."""
assert _PACKET.size == _RECORD.size == event.RECORD_BYTES
_KIND_AT = 84
_OWN = ("@timestamp", "observer.name", "tidegate.epoch", "tidegate.monotonic_ns", "event.sequence")
"""Every event's own fields, which stand first."""
_ENDS, _COUNTS = (
    ("destination.address", "source.port", "destination.port"),
    ("source.packets", "source.bytes"),
)
_VARYING_ONE_WAY = (*_ENDS, *_COUNTS)
_VARYING = (*_ENDS, "destination.packets", "destination.bytes", "event.start", "event.end", *_COUNTS)
"""Fields that differ within a form, in the order in which `%` is given their values."""
_THOUSAND = 1000
_DIGITS = [b"%03d" % number for number in range(_THOUSAND)]
"""The last digits of a number that has more."""
_EPOCH = event.timestamp(0).encode()
_ONE_WAY = bytes((Kind.PACKET, Kind.FLOW_OPEN, Kind.DENY))
"""Kinds of which only `source.*` is counted."""


class Ndjson:
    """Encodes the records of one ring of packets and flows."""

    content_type = "application/x-ndjson"
    overhead = 0

    def __init__(self, gateway: str, epoch: str, names: PolicyNames) -> None:
        self._names = names
        ring = f'"observer.name":{json.dumps(gateway)},"tidegate.epoch":{json.dumps(epoch)}'
        self._ring = ring.encode("ascii")
        self._forms: dict[tuple[bytes, bytes, bool], bytes] = {}
        self._places: dict[bytes, bytes] = {}
        self._flows: dict[bytes, bytes] = {}
        self._tails: dict[bytes, bytes] = {}

    def encode(self, records: bytes | memoryview) -> tuple[bytes, int]:
        """Return the lines of the records, which stand one after the other, and how many of them cannot be read."""
        # A ring has events of packets, or of flows, for as long as a setting says.
        return self._of_packets(records) if records[_KIND_AT] == Kind.PACKET else self._of_any(records)

    def wrap(self, parts: Iterable[bytes]) -> Iterable[bytes]:
        """Return what is posted for these lines."""
        return parts

    def _of_packets(self, records: bytes | memoryview) -> tuple[bytes, int]:
        # The loop that each packet goes through: what it does costs as much as it says here.
        found: list[bytes] = []
        flows, tails, digits = self._flows.get, self._tails.get, _DIGITS
        last, begun = b"", -_THOUSAND
        for number, times, flow, counts in _PACKET.iter_unpack(records):
            low = number - begun
            if times != last or not 0 <= low < _THOUSAND:  # the forwarder gives a whole batch one time
                last, low = times, number % _THOUSAND
                begun = number - low
                head = self._head_of(times, begun // _THOUSAND)
            same = flows(flow) or self._meet(flow)
            if not same:
                return self._of_any(records)  # there is something else among them
            found += (head, digits[low] if begun else b"%d" % low, same, tails(counts) or self._tail(counts))
        return b"".join(found), 0

    def _head_of(self, times: bytes, thousands: int) -> bytes:
        """Return what a line begins with, up to the last three digits of its number."""
        monotonic, wall = _TWO.unpack(times)
        return self._head(_stamp(wall), monotonic) + (b"%d" % thousands if thousands else b"")

    def _meet(self, flow: bytes) -> bytes:
        """Return, and keep, what is the same in all packets of a flow; b"" when it is no flow's packet."""
        line, _ = self._of_any(bytes(24) + flow + bytes(48))
        if flow[_KIND_AT - 24] != Kind.PACKET or not line:
            return b""
        if len(self._flows) >= _FLOWS_MOST:
            self._flows.clear()
        start = len(self._head(_EPOCH, 0)) + 1  # behind the number 0
        same = self._flows[flow] = line[start : line.rindex(b',"source.packets"')]
        return same

    def _tail(self, counts: bytes) -> bytes:
        if len(self._tails) >= _TAILS_MOST:
            self._tails.clear()
        packets, octets = _TWO.unpack(counts)
        tail = self._tails[counts] = b',"source.packets":%d,"source.bytes":%d}\n' % (packets, octets)
        return tail

    def _of_any(self, records: bytes | memoryview) -> tuple[bytes, int]:
        # Bytes, not text: of those `%` finds the next conversion eight times as fast.
        found: list[bytes] = []
        unreadable = 0
        forms, places = self._forms.get, self._places.get
        monotonic = wall = -1
        # fmt: off
        for (
            number, booted, when, who, destination, source_port, destination_port, what,
            packets, octets, back, octets_back, start,
        ) in _RECORD.iter_unpack(records):
            # fmt: on
            if when != wall or booted != monotonic:
                wall, monotonic = when, booted
                stamp = _stamp(wall)
                head = self._head(stamp, monotonic)
            form = forms((who, what, start != 0))
            if form is None:
                form = self._form(who, what, start)
            if not form:
                unreadable += 1
                continue
            place = places(destination) or self._place(destination)
            # fmt: off
            if what[0] in _ONE_WAY:
                line = form % (number, place, source_port, destination_port, packets, octets)
            else:
                began = _stamp(start) if start else _EPOCH
                line = form % (
                    number, place, source_port, destination_port, back, octets_back, began, stamp, packets, octets
                )
            # fmt: on
            found += (head, line)
        return b"".join(found), unreadable

    def _head(self, stamp: bytes, monotonic: int) -> bytes:
        own = (stamp, self._ring, monotonic)
        return b'{"@timestamp":"%b",%b,"tidegate.monotonic_ns":%d,"event.sequence":' % own

    def _place(self, address: bytes) -> bytes:
        if len(self._places) >= _PLACES_MOST:
            self._places.clear()
        place = self._places[address] = event.address_text(address).encode("ascii")
        return place

    def _form(self, who: bytes, what: bytes, start: int) -> bytes:
        """Return the format of what follows the head in such records' lines; b"" when they cannot be read."""
        if len(self._forms) >= _FORMS_MOST:
            self._forms.clear()
        form = self._forms[who, what, start != 0] = self._made(who, what, start)
        return form

    def _made(self, who: bytes, what: bytes, start: int) -> bytes:
        try:
            one = event.unpack(_RECORD.pack(0, 0, 0, who, bytes(16), 0, 0, what, 0, 0, 0, 0, start))
        except ValueError:
            return b""
        fields = event.to_json(one, "", "", self._names.of(one.generation))
        for name in _OWN:
            del fields[name]
        names = _VARYING_ONE_WAY if what[0] in _ONE_WAY else _VARYING
        varying = "".join(_conversion(name, fields.pop(name, None)) for name in names)
        same = json.dumps(fields, separators=(",", ":"))[1:-1].replace("%", "%%")
        return f"%d,{same}{varying}}}\n".encode("ascii")


def _stamp(wall_ns: int) -> bytes:
    return event.timestamp(wall_ns).encode("ascii")


def _conversion(name: str, example: Any) -> str:
    """Return the format of a field; one that is not there takes its value, too, and prints nothing."""
    if example is None:
        return "%.0a"
    return f',"{name}":"%b"' if isinstance(example, str) else f',"{name}":%d'


class HostNdjson:
    """Encodes the records of the ring of what happens to the gateway itself; a few an hour, so none is kept."""

    content_type = Ndjson.content_type
    overhead = 0

    def __init__(self, gateway: str, epoch: str, names: PolicyNames) -> None:
        self._gateway, self._epoch = gateway, epoch

    def encode(self, records: bytes | memoryview) -> tuple[bytes, int]:
        """Return the lines of the records, which stand one after the other, and how many of them cannot be read."""
        size = hostevent.RECORD_BYTES
        made = [self._line(records[at : at + size]) for at in range(0, len(records), size)]
        return b"".join(made), made.count(b"")

    def wrap(self, parts: Iterable[bytes]) -> Iterable[bytes]:
        """Return what is posted for these lines."""
        return parts

    def _line(self, record: bytes | memoryview) -> bytes:
        try:
            told = hostevent.to_json(hostevent.unpack(record), self._gateway, self._epoch)
        except ValueError:
            return b""
        return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"
