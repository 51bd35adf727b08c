"""Events as NDJSON: a line for each record, in meaning what `event.to_json` says of it.

Lines of one layout, as those of all packets that have ports, are one matrix of bytes (`events.columns`):

    {"@timestamp":…,"tidegate.monotonic_ns":…,"event.sequence": 7 ,"event.action":… ,"source.port": 443,… }
                                              a number             a text            a number

The text holds all that is the same in the events of a client and rule. It is kept, and made by `to_json` itself, of a
record with nothing in the places of what varies, so which fields there are, and under which names, stands in one place
only.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from tidegate_agents.events.batches import Part
from tidegate_agents.events.columns import Column, Lines, Number, Places, Text, Texts, Time
from tidegate_agents.events.names import PolicyNames
from tidegate_schema import event, hostevent

_FORMS_MOST = 1 << 12
_ADDRESSES_MOST = 1 << 14
_RECORD = np.dtype(
    [
        *(("seq", "<u8"), ("monotonic_ns", "<u8"), ("wall_ns", "<u8")),
        ("who", "V40"),  # generation, rule, client, source address
        *(("destination", "V16"), ("source_port", "<u2"), ("destination_port", "<u2")),
        ("what", "V12"),  # from the kind on
        *(("packets", "<u8"), ("length", "<u8"), ("reply_packets", "<u8"), ("reply_length", "<u8")),
        *(("start_ns", "<u8"), ("", "V8")),
    ]
)
_KEY = np.dtype([("who", "V40"), ("what", "V12"), ("has_start", "<u4")])
_OF_KEY = struct.Struct("<24x40s20x12s32xQ8x")
"""A record with nothing but what is in a key."""
assert _RECORD.itemsize == _OF_KEY.size == event.RECORD_BYTES
_OWN = ("@timestamp", "observer.name", "tidegate.epoch", "tidegate.monotonic_ns", "event.sequence")
"""Every event's own fields, which stand first."""
_VARYING = {
    "destination.address": "destination",
    "source.port": "source_port",
    "destination.port": "destination_port",
    "destination.packets": "reply_packets",
    "destination.bytes": "reply_length",
    "event.start": "start_ns",
    "event.end": "wall_ns",
    "source.packets": "packets",
    "source.bytes": "length",
}
"""Fields that differ within what is kept, in the order in which they stand, and what they are in a record."""
_TIMES = ("event.start", "event.end")
_Layout = tuple[str, ...]
_UNREADABLE: _Layout = ()


class Ndjson:
    """Encodes the records of one ring of packets and flows."""

    content_type = "application/x-ndjson"
    overhead = 0

    def __init__(self, gateway: str, epoch: str, names: PolicyNames) -> None:
        self._names = names
        ring = f'"observer.name":{json.dumps(gateway)},"tidegate.epoch":{json.dumps(epoch)}'
        self._before_monotonic = f',{ring},"tidegate.monotonic_ns":'.encode("ascii")
        self._layouts = [_UNREADABLE]
        """Which of the varying fields a line has, by the number that goes with a form; some twenty there are."""
        self._forms = Texts(self._form, _KEY.itemsize, _FORMS_MOST)
        self._addresses = Texts(_address, 16, _ADDRESSES_MOST)
        self._text = Text()

    def encode(self, records: bytes | memoryview) -> tuple[Part, int]:
        """Return the lines of the records, which stand one after the other, and how many of them cannot be read."""
        every = np.frombuffer(records, _RECORD)
        keys = np.empty(len(every), _KEY)
        keys["who"], keys["what"], keys["has_start"] = every["who"], every["what"], every["start_ns"] != 0
        forms = self._forms.places(keys)
        layouts = self._forms.numbers(forms)
        parts: list[tuple[Places, Lines]] = []
        unreadable = 0
        for number, count in enumerate(np.bincount(layouts).tolist()):
            if self._layouts[number] == _UNREADABLE:
                unreadable = count
            elif count:
                places = np.flatnonzero(layouts == number)
                parts.append((places, self._lines(self._layouts[number], every.take(places), forms[places])))
        return self._text.of(parts, len(every)).data, unreadable

    def wrap(self, parts: Iterable[Part]) -> Iterable[Part]:
        """Return what is posted for these lines."""
        return parts

    def _lines(self, layout: _Layout, records: npt.NDArray[np.void], forms: Places) -> Lines:
        columns: list[tuple[bytes, Column]] = [
            (b'{"@timestamp":', Time(records["wall_ns"])),
            (self._before_monotonic, Number(records["monotonic_ns"])),
            (b',"event.sequence":', Number(records["seq"])),
            (b",", self._forms.column(forms)),
        ]
        for name in layout:
            column = self._column(name, records[_VARYING[name]])
            columns.append((f',"{name}":'.encode("ascii"), column))
        return Lines(columns, b"}\n")

    def _column(self, name: str, values: npt.NDArray[np.void]) -> Column:
        if name == "destination.address":
            return self._addresses.column(self._addresses.places(values))
        return Time(values) if name in _TIMES else Number(values)

    def _form(self, key: bytes) -> tuple[bytes, int]:
        """Return what is the same in all lines of a client, rule and kind, and the number of their layout."""
        try:
            one = event.unpack(_OF_KEY.pack(*np.frombuffer(key, _KEY)[0].item()))
        except ValueError:
            return b"", self._layouts.index(_UNREADABLE)
        fields = event.to_json(one, "", "", self._names.of(one.generation))
        for name in _OWN:
            del fields[name]
        layout = tuple(name for name in _VARYING if fields.pop(name, None) is not None)
        if layout not in self._layouts:
            self._layouts.append(layout)
        return json.dumps(fields, separators=(",", ":"))[1:-1].encode("ascii"), self._layouts.index(layout)


def _address(address: bytes) -> tuple[bytes, int]:
    return b'"%b"' % event.address_text(address).encode("ascii"), 0


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

    def wrap(self, parts: Iterable[Part]) -> Iterable[Part]:
        """Return what is posted for these lines."""
        return parts

    def _line(self, record: bytes | memoryview) -> bytes:
        try:
            told = hostevent.to_json(hostevent.unpack(record), self._gateway, self._epoch)
        except ValueError:
            return b""
        return json.dumps(told, separators=(",", ":")).encode("ascii") + b"\n"
