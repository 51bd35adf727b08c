"""Events as NDJSON, line by line, to flow groups. Pure: the lines come in, and every one of them may be hostile.

A line that is no event is counted and passed over. What one event says is taken as it stands; nothing here decides.
A flow is counted by its flow-open or its flow-close, whichever of both is there more often: a window may begin or end
in the middle of it. An event that stands in the input twice counts twice.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tidegate_compiler.learn.flows import NO_PORT, UNKNOWN, FlowGroup, Slots, TooManyFlowsError
from tidegate_schema.names import is_name
from tidegate_schema.policy import Reason
from tidegate_schema.ports import PORTED_NUMBERS

LINE_MAX_BYTES = 1 << 16
GROUPS_MOST = 4_000_000
"""More groups than this are refused: some 2 GB."""

END = (1 << 63) // 10**9
"""The Unix second of 2262 at which stores, which count nanoseconds in 63 bits, end. No event is of a later one."""

_REASONS = frozenset(reason.name.lower().replace("_", "-") for reason in Reason)
_OPENS, _CLOSES, _REFUSED = frozenset({"flow-open", "packet"}), frozenset({"flow-close"}), frozenset({"deny"})
_NO_FLOW = frozenset({"gap", "host"})
_KINDS = _OPENS | _CLOSES | _REFUSED | {"flow-update"}
_TIME = re.compile(r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(\.[0-9]{1,9})?Z")
_HEX = frozenset("0123456789abcdef")
_Key = tuple[int, str, str, str, int, int, str, str]


class Records:
    """Reads lines and counts what was wrong with some of them."""

    def __init__(self) -> None:
        self.events = 0
        self.unreadable = 0
        self.gaps = 0
        """Events that say that others may be missing."""
        self.others = 0
        """Events that are of no flow of the window: outside of it, or of the gateway itself."""

    def groups(self, lines: Iterable[bytes], slots: Slots) -> Iterator[tuple[int, FlowGroup]]:
        """Return each group with its slot, in the order of their first events; TooManyFlowsError past GROUPS_MOST."""
        found: dict[_Key, list[float]] = {}
        for line in lines:
            event = _parse(line)
            if event is None:
                self.unreadable += bool(line.strip())
                continue
            try:
                moment, kind = _moment(event["@timestamp"]), event["event.action"]
                if kind == "gap":
                    self.gaps += slots.of(moment) is not None
                if kind in _NO_FLOW:
                    self.others += 1
                    continue
                slot = slots.of(moment)
                if slot is None:
                    self.others += 1
                    continue
                key = _key(event, slot)
                size = _count(event["source.bytes"]) + _count(event.get("destination.bytes", 0))
                if kind not in _KINDS:
                    raise ValueError
            except (KeyError, ValueError, TypeError):
                self.unreadable += 1
                continue
            self.events += 1
            known = found.get(key)
            if known is None:
                if len(found) >= GROUPS_MOST:
                    raise TooManyFlowsError(GROUPS_MOST)
                known = found[key] = [moment, moment, 0, 0, 0]
            known[0] = min(known[0], moment)
            known[1] = max(known[1], moment)
            known[2] += kind in _OPENS or kind in _REFUSED
            known[3] += kind in _CLOSES
            known[4] += size
        for (slot, *same), (first, last, opens, closes, octets) in found.items():
            count = int(max(opens, closes, 1))
            yield slot, FlowGroup(*same, first, last, count, int(octets))  # type: ignore[call-arg, arg-type]


def _parse(line: bytes) -> dict[str, Any] | None:
    if len(line) > LINE_MAX_BYTES:
        return None
    try:
        event = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) else None


def _key(event: dict[str, Any], slot: int) -> _Key:
    gateway, client = event["observer.name"], event.get("tidegate.client.id", "")
    verdict, reason = event["tidegate.verdict"], event["event.reason"]
    if verdict not in ("allow", "deny") or reason not in _REASONS or not is_name(gateway):
        raise ValueError
    if not isinstance(client, str) or (client and (len(client) != 32 or not _HEX.issuperset(client))):
        raise ValueError
    destination, protocol, port = "", UNKNOWN, 0
    if "destination.address" in event:
        destination = address(event["destination.address"])
        protocol = _number(event["network.iana_number"], 255)
        if "destination.port" in event:
            port = _number(event["destination.port"], 65535)
        elif protocol in PORTED_NUMBERS:
            port = NO_PORT
    return slot, gateway, client, destination, protocol, port, verdict, reason


@functools.lru_cache(1 << 16)
def address(text: str) -> str:
    """Return an address in canonical form; ValueError, also for one with a zone, which may be any text."""
    if "%" in text:
        raise ValueError(text)
    return str(ipaddress.ip_address(text))


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError
    return int(value)


def _count(value: Any) -> int:
    return _number(value, 1 << 64)


def _moment(text: str) -> float:
    """Return the Unix second of RFC 3339 in UTC, with any fraction; ValueError outside of what a gateway can tell."""
    match = _TIME.fullmatch(text)
    if match is None:
        raise ValueError
    second = _second(match[1])
    if not 0 <= second < END:
        raise ValueError
    return second + float(f"0{match[2] or ''}")


@functools.lru_cache(1 << 12)
def _second(text: str) -> int:
    return int(datetime.datetime.fromisoformat(f"{text}+00:00").timestamp())
