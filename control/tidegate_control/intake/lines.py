"""Events as NDJSON, read strictly: what comes out is text that a store may read again without a doubt.

    a line as gateways write it   one regular expression says that it is valid, and what is in it   ─┐
    any other                     json ─► event.schema.json ─► `wrong` ─► written anew               ─┴─► Batch

Both ways hold the same (`tests/unit/control/intake/test_lines.py` compares them); the first takes a tenth of the time.
Stricter than the schema: no member twice, addresses in canonical form, times that exist, and numbers that a signed
64-bit integer has room for. A line that is refused does not take others with it, but a line of another gateway's
refuses all: that is no mishap.
"""

from __future__ import annotations

import datetime
import functools
import ipaddress
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tidegate_control.intake.store import LINE_MOST, Batch
from tidegate_schema import validation
from tidegate_schema.names import NAME_PATTERN

LINES_MOST = 100_000
"""Of one body: the most that a gateway's settings let it send at once (`batch_records`)."""
TOLD_MOST = 20
"""Refused lines that an answer names."""
COUNT_MOST = (1 << 63) - 1
TRAFFIC_MOST = (1 << 53) - 1
"""Packets or bytes of one event: what a sum of some has room for, and no wire brings between two events."""
_MOST = {
    "tidegate.generation": (1 << 32) - 1,
    **dict.fromkeys(
        ("source.packets", "source.bytes", "destination.packets", "destination.bytes"), TRAFFIC_MOST
    ),
}
_TRANSPORTS = {1: "icmp", 6: "tcp", 17: "udp", 58: "ipv6-icmp", 132: "sctp"}
_TIMES = ("@timestamp", "event.start", "event.end")
_ADDRESSES = ("source.address", "destination.address")


class Foreign(Exception):  # noqa: N818 - it names what came
    """An event of another gateway than the one that sends it."""


class TooMany(Exception):  # noqa: N818 - it names what came
    """More lines than a body may have."""


@dataclass(frozen=True)
class Refusal:
    """A line that was not taken."""

    line: int
    """1 for the first."""
    why: str


@dataclass
class Reading:
    """What a body holds."""

    batches: list[Batch] = field(default_factory=list)
    """One for each ring."""
    refused: list[Refusal] = field(default_factory=list)


# The quick way ------------------------------------------------------------------------------------------------

_COUNT = "(?:[1-8][0-9]{0,18}|9[0-9]{0,17}|0)"
_TRAFFIC = "(?:[1-9][0-9]{0,14}|0)"
_PORT = "(?:[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]|[1-9][0-9]{0,3}|0)"
_BYTE = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_SECOND = "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
_FRACTION = r"\.[0-9]{9}Z"
_ADDRESS = "[0-9a-f:.]{2,45}"


def _words(member: str, *without: str) -> str:
    words = validation.schema("event")["properties"][member]["enum"]
    return f"(?:{'|'.join(word for word in words if word not in without)})"


def _proto() -> str:
    known = (f'{number},"network.transport":"{name}"' for number, name in _TRANSPORTS.items())
    return f"(?:{'|'.join(known)}|{_BYTE})"


_LINE = re.compile(
    rf'^{{"@timestamp":"((?P<second>{_SECOND}){_FRACTION})"'
    rf',"observer\.name":"({NAME_PATTERN})","tidegate\.epoch":"([0-9a-f]{{16}})"'
    rf',"tidegate\.monotonic_ns": *{_COUNT},"event\.sequence": *({_COUNT})'
    rf',"event\.action":"(?:(?P<close>flow-close)|{_words("event.action", "flow-close", "gap")})"'
    rf',"tidegate\.mode":"{_words("tidegate.mode")}","tidegate\.verdict":"{_words("tidegate.verdict")}"'
    rf',"event\.reason":"{_words("event.reason")}","tidegate\.generation":(?:[1-9][0-9]{{0,8}}|0)'
    rf'(?:,"tidegate\.client\.id":"[0-9a-f]{{32}}")?'
    rf'(?:,"source\.address":"({_ADDRESS})")?(?:,"network\.iana_number":{_proto()})?'
    rf'(?:,"tidegate\.tcp\.flags":{_BYTE})?(?:,"rule\.name":"{NAME_PATTERN}")?'
    rf'(?:,"tidegate\.end":"{_words("tidegate.end")}")? *(?:,"destination\.address":"({_ADDRESS})" *)?'
    rf'(?:,"source\.port": *{_PORT})?(?:,"destination\.port": *{_PORT})?'
    rf'(?:,"destination\.packets": *{_TRAFFIC})?(?:,"destination\.bytes": *{_TRAFFIC})?'
    rf'(?:,"event\.start":"({_SECOND}){_FRACTION}")?(?(close)(?:,"event\.end":"\1")?)'
    rf',"source\.packets": *{_TRAFFIC},"source\.bytes": *{_TRAFFIC}}}\n'.encode("ascii"),
    re.MULTILINE,
)
"""One line with its end, members in the order in which gateways write them, and blanks where they do.

Linear: no part can match in two ways.
"""


def read(body: bytes, gateway: str, *, dropped: int = 0) -> Reading:
    """Read a body of lines from `gateway`; Foreign, or TooMany, and then nothing of it counts.

    `dropped` is what the gateway says of the ring.
    """
    if body and not body.endswith(b"\n"):
        body += b"\n"
    count = body.count(b"\n")
    if count > LINES_MOST:
        raise TooMany(f"{count} lines, at most {LINES_MOST}: set batch_records on the gateway")
    quick = _of_one_ring(body, count, gateway, dropped) if body else None
    if quick is not None:
        return Reading([quick])
    sheet = Sheet(gateway, dropped)
    for number, line in enumerate(body.split(b"\n")[:-1], 1):
        sheet.put(number, line)
    return sheet.reading()


def _of_one_ring(body: bytes, count: int, gateway: str, dropped: int) -> Batch | None:
    """Return all lines of a body that gateways write; None when there is anything else in it.

    A match begins where a line does and ends where it does, so as many matches as lines are all there is.
    """
    found = _LINE.findall(body)
    if len(found) != count:
        return None
    _, seconds, gateways, epochs, numbers, _, sources, destinations, starts = zip(*found, strict=True)
    if len(set(epochs)) > 1 or not _are_real(seconds, starts, sources, destinations):
        return None
    for name in set(gateways):
        _check_owner(name.decode("ascii"), gateway)
    return Batch(gateway, epochs[0].decode("ascii"), tuple(map(int, numbers)), body, dropped)


def _are_real(
    seconds: Iterable[bytes], starts: Iterable[bytes], sources: Iterable[bytes], destinations: Iterable[bytes]
) -> bool:
    times = {*seconds, *starts} - {b""}
    addresses = {*sources, *destinations} - {b""}
    return all(_is_second(time.decode("ascii")) for time in times) and all(
        _is_address(address.decode("ascii")) for address in addresses
    )


# The careful way ----------------------------------------------------------------------------------------------


class Sheet:
    """Events of one gateway that are put together, one after the other, into a batch for each ring."""

    def __init__(self, gateway: str, dropped: int = 0) -> None:
        self._gateway, self._dropped = gateway, dropped
        self._rings: dict[str, tuple[list[int], list[bytes]]] = {}
        self._refused: list[Refusal] = []

    def put(self, number: int, line: bytes) -> None:
        """Read a line, the one with this number, which has no end."""
        one = _of_one_ring(line + b"\n", 1, self._gateway, 0) if len(line) < LINE_MOST else None
        if one is not None:
            self._keep(one.epoch, one.numbers[0], one.text)
            return
        try:
            event = _parsed(line)
        except ValueError as error:
            self._refused.append(Refusal(number, str(error)))
        else:
            self.put_event(number, event)

    def put_event(self, number: int, event: Any) -> None:
        """Take an event that has been read, whatever it is."""
        why = wrong(event, is_told=len(self._refused) < TOLD_MOST)
        if why is not None:
            self._refused.append(Refusal(number, why))
            return
        _check_owner(event["observer.name"], self._gateway)
        text = json.dumps(event, separators=(",", ":")).encode("ascii") + b"\n"
        self._keep(event["tidegate.epoch"], event["event.sequence"], text)

    def refuse(self, number: int, why: str) -> None:
        """Note that there is no event of this number."""
        self._refused.append(Refusal(number, why))

    def reading(self) -> Reading:
        """Return what has been put."""
        batches = [
            Batch(self._gateway, epoch, tuple(numbers), b"".join(lines), self._dropped)
            for epoch, (numbers, lines) in self._rings.items()
        ]
        if self._refused:
            batches.append(Batch(self._gateway, "", refused=len(self._refused)))
        return Reading(batches, self._refused)

    def _keep(self, epoch: str, number: int, text: bytes) -> None:
        numbers, lines = self._rings.setdefault(epoch, ([], []))
        numbers.append(number)
        lines.append(text)


def wrong(event: Any, *, is_told: bool = True) -> str | None:
    """Say in a line why a parsed value is no event; None when it is one.

    To find the reason takes a hundred times as long as to see that there is one, so it can be left out.
    """
    if not isinstance(event, dict):
        return "no JSON object"
    if not _is_quickly_valid(event):
        if not is_told:
            return "no event"
        problems = validation.errors("event", event)
        if problems:
            first = problems[0]
            where = f"{first.path[0]}: " if first.path else ""
            return _printable(f"{where}{first.message}")
    for member in _TIMES:
        if member in event and not _is_second(event[member][:19]):
            return f"{member}: no time from 1970 to 2105"
    for member in _ADDRESSES:
        if member in event and not _is_address(event[member]):
            return f"{member}: no address in canonical form"
    for member, value in event.items():
        most = _MOST.get(member, COUNT_MOST)
        if isinstance(value, int) and value > most:
            return f"{member}: more than {most}"
    transport = event.get("network.transport")
    if transport is not None and _TRANSPORTS.get(event.get("network.iana_number", -1)) != transport:
        return "network.transport: not the name of network.iana_number"
    end = event.get("event.end")
    if end is not None and (event["event.action"], event["@timestamp"]) != ("flow-close", end):
        return "event.end: not the @timestamp of a flow-close"
    return None


def _is_quickly_valid(event: Mapping[str, Any]) -> bool:
    # The quick validator takes 1.0 for an integer; no member of an event may be one.
    return not any(isinstance(value, float) for value in event.values()) and validation.is_valid(
        "event", event
    )


def _parsed(line: bytes) -> Any:
    if len(line) >= LINE_MOST:
        raise ValueError(f"longer than {LINE_MOST} bytes")
    try:
        text = line.decode("utf-8")
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_number)
    except UnicodeDecodeError:
        raise ValueError("not UTF-8") from None
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text[error.pos] == "{":  # what curl makes of a file with -d
            raise ValueError(
                f"a second event in the line, at column {error.colno}; each has a line of its own, "
                "and curl keeps line ends with --data-binary only"
            ) from None
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError("not JSON: too deep") from None


def _object(pairs: Sequence[tuple[str, Any]]) -> Mapping[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("a member stands twice")
    return made


def _no_number(_name: str) -> Any:
    raise ValueError("not JSON: NaN and Infinity are no numbers")


def _check_owner(name: str, gateway: str) -> None:
    if name != gateway:
        raise Foreign(f"observer.name is {name}, the token is {gateway}'s")


@functools.lru_cache(1 << 12)
def _is_second(text: str) -> bool:
    """Tell whether a second exists, and ClickHouse's unsigned 32 bits have room for it."""
    try:
        return 1970 <= datetime.datetime.strptime(text, "%Y-%m-%dT%H:%M:%S").year <= 2105  # noqa: DTZ007
    except ValueError:
        return False


@functools.lru_cache(1 << 16)
def _is_address(text: str) -> bool:
    try:
        return "%" not in text and str(ipaddress.ip_address(text)) == text
    except ValueError:
        return False


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:200]
