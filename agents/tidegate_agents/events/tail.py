"""`tidegate gateway events`: what stands in the rings, shown as it comes; nobody else at the rings notices."""

from __future__ import annotations

import ipaddress
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidegate_agents.events.ring import ANY, Ring, RingError
from tidegate_schema import event, hostevent

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Names = Callable[[int], list[str]]
"""Generation -> the policy name of each of its rules."""

POLL_SECONDS = 0.2
_COLUMNS = "{:15} {:11} {:7} {:8} {:4} {:<22} {:<22} {:>8} {:>10}  {}"
HEADING = _COLUMNS.format(
    *(
        "time (UTC)",
        "event",
        "verdict",
        "client",
        "prot",
        "from",
        "to",
        "packets",
        "bytes",
        "policy or reason",
    )
)


@dataclass(frozen=True)
class Wanted:
    """Which events are shown. None: any."""

    client: str | None = None
    """What the client ID begins with."""
    verdict: str | None = None
    destination: Network | None = None
    port: int | None = None
    """The destination's."""

    def __call__(self, told: Mapping[str, Any]) -> bool:
        """Tell whether an event, as `event.to_json` gives it, is wanted.

        A gap belongs to every question; what happened to the gateway, which is no packet's, to none.
        """
        if told["event.action"] == "gap":
            return True
        if told["event.action"] == hostevent.ACTION:
            return self == Wanted()
        return (
            (self.client is None or told.get("tidegate.client.id", "").startswith(self.client))
            and (self.verdict is None or told["tidegate.verdict"] == self.verdict)
            and (self.port is None or told.get("destination.port") == self.port)
            and (self.destination is None or self._is_there(told.get("destination.address")))
        )

    def _is_there(self, address: str | None) -> bool:
        assert self.destination is not None
        return address is not None and ipaddress.ip_address(address) in self.destination


class Tail:
    """Reads the rings along, from the oldest records that are still there."""

    def __init__(self, paths: Sequence[Path], gateway: str, names: Names) -> None:
        self._paths, self._gateway, self._names = paths, gateway, names
        self._rings: dict[Path, tuple[int, Ring, int]] = {}
        self.missed = 0
        """Records that were overwritten before they were read."""
        self.unreadable = 0

    def read(self) -> list[dict[str, Any]]:
        """Return the events that came since the last call, of all rings, oldest first."""
        found = [one for path in self._paths for one in self._read(path)]
        return sorted(found, key=lambda one: str(one["@timestamp"]))

    def _read(self, path: Path) -> Iterator[dict[str, Any]]:
        is_first = path not in self._rings
        ring, since = self._open(path)
        if ring is None:
            return
        records, behind, missed = ring.look(since)
        self.missed += 0 if is_first else missed
        self._rings[path] = (self._rings[path][0], ring, behind)
        for at in range(0, len(records), ring.record_bytes):
            try:
                yield self._told(ring, records[at : at + ring.record_bytes])
            except ValueError:
                self.unreadable += 1

    def _told(self, ring: Ring, record: bytes) -> dict[str, Any]:
        if ring.record_bytes == hostevent.RECORD_BYTES:
            return hostevent.to_json(hostevent.unpack(record), self._gateway, ring.epoch)
        one = event.unpack(record)
        return event.to_json(one, self._gateway, ring.epoch, self._names(one.generation))

    def _open(self, path: Path) -> tuple[Ring | None, int]:
        """Return the ring that is there now, and from where to read."""
        try:
            inode = path.stat().st_ino
            before = self._rings.get(path)
            if before is not None and before[0] == inode:
                return before[1:]
            ring = Ring(path, ANY)
        except (FileNotFoundError, RingError):
            return None, 0
        if before is not None:
            _, old, read = before
            self.missed += old.published() - read
        self._rings[path] = (inode, ring, 0)
        return ring, 0


def line(told: Mapping[str, Any]) -> str:
    """Return an event as one line under HEADING."""
    when = told["@timestamp"][11:26]
    if told["event.action"] == "gap":
        return f"{when} gap: events of flows may be missing since {told['event.start'][11:26]}"
    if told["event.action"] == hostevent.ACTION:
        return _of_host(when, told)
    protocol = told.get("network.transport") or str(told.get("network.iana_number", ""))
    packets, octets = told["source.packets"], told["source.bytes"]
    back = (told.get("destination.packets"), told.get("destination.bytes"))
    shown = (f"{packets}/{back[0]}", f"{octets}/{back[1]}") if back[0] is not None else (packets, octets)
    return _COLUMNS.format(
        *(
            when,
            told["event.action"],
            told["tidegate.verdict"],
            told.get("tidegate.client.id", "unknown")[:8],
        ),
        *(protocol, _end(told, "source"), _end(told, "destination"), *shown),
        told.get("rule.name") or told["event.reason"],
    )


def _of_host(when: str, told: Mapping[str, Any]) -> str:
    facts = " ".join(
        f"{name.rpartition('.')[2]}={told[name]}" for name, _ in hostevent.FIELDS.values() if name in told
    )
    return f"{when} {told['event.action']:11} {facts.removeprefix('event=')}"


def _end(told: Mapping[str, Any], end: str) -> str:
    address, port = told.get(f"{end}.address", "?"), told.get(f"{end}.port")
    if port is None:
        return str(address)
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def follow(
    tail: Tail, wanted: Wanted, say: Callable[[str], None], *, last: int, as_json: bool, once: bool
) -> None:
    """Say every wanted event until interrupted, or with `once` those that are there; first the last `last` of them."""
    if not as_json:
        say(HEADING)
    found = [told for told in tail.read() if wanted(told)]
    found = found[max(len(found) - last, 0) :]
    while True:
        for told in found:
            say(json.dumps(told) if as_json else line(told))
        if once:
            return
        time.sleep(POLL_SECONDS)
        found = [told for told in tail.read() if wanted(told)]
