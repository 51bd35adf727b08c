"""What happens to a host apart from packets: the events there are, and a gateway's records of them for a log endpoint.

    offset  size  field                        (little-endian, 1024 bytes, version 1)
         0     8  sequence number              counts every record made, also those dropped at a full ring
         8     8  monotonic time, ns           CLOCK_MONOTONIC, when the record was made
        16     8  wall time, ns                CLOCK_REALTIME, when it happened
        24     8  number                       of the entry in the host's journal, from 1 on
        32     1  version                      1
        33     1  zero
        34     2  length                       bytes of the text
        36   988  text                         canonical JSON (`tidegate_schema.jsonfile`), then zero

The text is an object of the keys of FIELDS, `event` always. What a field may hold is closed: whatever else an entry of
the journal has stays on the host.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from tidegate_schema import jsonfile
from tidegate_schema.event import timestamp

VERSION = 1
RECORD_BYTES = 1024
_HEAD = struct.Struct("<QQQQBxH")
TEXT_MAX_BYTES = RECORD_BYTES - _HEAD.size
MESSAGE_MOST = 501
"""Characters of a message."""
ACTION = "host"
"""`event.action` of all of them."""
_NUMBER_MOST = (1 << 63) - 1
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})\.([0-9]{9})Z", re.ASCII)


class HostEvent(enum.StrEnum):
    """Every event there is; the names do not change."""

    RELEASE_OFFERED = "release-offered"
    """A release was accepted, and is on trial."""
    RELEASE_APPLIED = "release-applied"
    """A release is in force, and confirmed."""
    RELEASE_REFUSED = "release-refused"
    """What is offered is refused, by this name; nothing has changed."""
    RELEASE_FAILED = "release-failed"
    """A release lost its trial; it is not tried again."""
    ROLLED_BACK = "rolled-back"
    """The release before is in force again, without what the failed one had taken away."""
    RELEASE_STALE = "release-stale"
    """The release in force is past its end."""
    DRIFT_FOUND = "drift-found"
    """Something of the agent's was changed by somebody else."""
    DRIFT_REPAIRED = "drift-repaired"
    """It is again as it should be."""
    KEY_SET_CHANGED = "key-set-changed"
    """Other keys are trusted from here on."""
    FAILOVER = "failover"
    """A client's networks are served by another gateway from here on."""
    KEY_ROTATED = "key-rotated"
    """The host's own key was replaced by a new one."""


GRAVE = frozenset(
    {
        HostEvent.RELEASE_REFUSED,
        HostEvent.RELEASE_FAILED,
        HostEvent.ROLLED_BACK,
        HostEvent.RELEASE_STALE,
        HostEvent.DRIFT_FOUND,
    }
)
"""Those that somebody should look at."""
_EVENTS = frozenset(event.value for event in HostEvent)


def _is_event(value: Any) -> bool:
    return isinstance(value, str) and value in _EVENTS


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and _DIGEST.fullmatch(value) is not None


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _NUMBER_MOST


def _is_message(value: Any) -> bool:
    return isinstance(value, str) and value.isprintable() and len(value) <= MESSAGE_MOST


FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "event": ("tidegate.host.event", _is_event),
    "name": ("tidegate.host.name", _is_name),
    "message": ("message", _is_message),
    "serial": ("tidegate.release.serial", _is_number),
    "digest": ("tidegate.release.digest", _is_digest),
    "failed": ("tidegate.release.failed", _is_number),
    "not_after": ("tidegate.release.not_after", _is_number),
    "version": ("tidegate.keys.version", _is_number),
    "threshold": ("tidegate.keys.threshold", _is_number),
    "keys": ("tidegate.keys.count", _is_number),
}
"""Each key of a record's text: the field of the event that it becomes, and what it may hold."""
_MESSAGES = ("reason", "what")
"""Keys of a journal's entry that say in words what happened."""


class Entry(NamedTuple):
    """One entry of a host's journal."""

    number: int
    wall_ns: int
    told: Mapping[str, Any]
    """`event`, and what it tells."""


class Record(NamedTuple):
    """One record, read."""

    seq: int
    monotonic_ns: int
    wall_ns: int
    number: int
    told: Mapping[str, Any]
    """By the keys of FIELDS."""


def entry(line: Mapping[str, Any]) -> Entry | None:
    """Return a line of a journal as an entry; None when it has no number, as in a journal of the version before."""
    number, when, event = line.get("number"), _TIME.fullmatch(str(line.get("time"))), line.get("event")
    if not _is_number(number) or not number or when is None or not _is_event(event):
        return None
    try:
        second = int(datetime.fromisoformat(when[1]).replace(tzinfo=UTC).timestamp())
    except ValueError:
        return None
    wall_ns = second * 1_000_000_000 + int(when[2])
    if not 0 <= wall_ns <= _NUMBER_MOST:
        return None
    told = {key: value for key, value in line.items() if key not in ("number", "time")}
    return Entry(int(line["number"]), wall_ns, told)


def pack(seq: int, monotonic_ns: int, made: Entry) -> bytes:
    """Return the record of an entry: of what it tells only what FIELDS allow, and of its words as many as fit."""
    said = {**made.told}
    for key in _MESSAGES:
        if key in said:
            said["message"] = said.pop(key)
    told = {key: said[key] for key, (_, may_be) in FIELDS.items() if key in said and may_be(said[key])}
    text = jsonfile.canonical(told)
    while len(text) > TEXT_MAX_BYTES:  # letters beyond ASCII take six bytes each
        message = told["message"]
        told["message"] = message[: len(message) * 3 // 4] + "…"
        text = jsonfile.canonical(told)
    head = _HEAD.pack(seq, monotonic_ns, made.wall_ns, made.number, VERSION, len(text))
    return (head + text).ljust(RECORD_BYTES, b"\0")


def unpack(record: bytes | memoryview) -> Record:
    """Read one record of RECORD_BYTES bytes; ValueError when it is of another version, or says nothing known."""
    if len(record) != RECORD_BYTES:
        raise ValueError(f"a host event's record of {len(record)} bytes")
    seq, monotonic_ns, wall_ns, number, version, length = _HEAD.unpack_from(record)
    if version != VERSION:
        raise ValueError(f"a host event's record of version {version}, this reader knows {VERSION}")
    if length > TEXT_MAX_BYTES or number > _NUMBER_MOST:
        raise ValueError("a host event's record that cannot be")
    told = jsonfile.parse(bytes(record[_HEAD.size : _HEAD.size + length]))
    if not isinstance(told, dict) or "event" not in told:
        raise ValueError("a host event's record without an event")
    for key, value in told.items():
        if key not in FIELDS or not FIELDS[key][1](value):
            raise ValueError("a host event's record with an unknown field or value")
    return Record(seq, monotonic_ns, wall_ns, number, told)


def to_json(record: Record, gateway: str, epoch: str) -> dict[str, Any]:
    """Return a record that `unpack` has read as `event.schema.json` describes it."""
    return {
        "@timestamp": timestamp(record.wall_ns),
        "observer.name": gateway,
        "tidegate.epoch": epoch,
        "event.sequence": record.seq,
        "tidegate.monotonic_ns": record.monotonic_ns,
        "event.action": ACTION,
        "tidegate.host.number": record.number,
        **{name: record.told[key] for key, (name, _) in FIELDS.items() if key in record.told},
    }
