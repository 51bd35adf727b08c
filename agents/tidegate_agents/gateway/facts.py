"""Gathers what a gateway's metrics are made of: from the kernel, from WireGuard, and from files of the agent's own.

No source holds up another, and a dear one is asked only after a rest, so that frequent scrapes cost little.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from tidegate_agents import wireguard
from tidegate_agents.datapath import counters
from tidegate_agents.files import read_bounded
from tidegate_agents.gateway import flowcount, nft
from tidegate_agents.gateway.metrics import Events, Facts, Rules, Told
from tidegate_agents.gateway.ruleset import TABLE
from tidegate_agents.host import Places
from tidegate_agents.metricserver import FAILURES, Answer, Sparing
from tidegate_schema import jsonfile
from tidegate_schema.keys import client_id, parse_public_key

SOURCES = ("links", "counters", "rules", "flow-set", "handshakes", "events")
"""The names that `tidegate_source_up` knows."""
_DEAR = 20
"""A dear source rests this many times as long as its answer took: at most a twentieth of a processor goes into it."""
_EVENTS_MAX_BYTES = 1 << 16
_TIME_END = 253402300800.0  # the year 10000
_REASON = re.compile(r"[a-z0-9-]{1,32}")
_NET_DEV = Path("/proc/net/dev")
_FAMILY = {name: family for family, name in flowcount.SETS.items()}
_LOOKED_INTO = [f"@{name}" for name in _FAMILY]


class Gatherer:
    """Where the facts of one gateway are."""

    def __init__(self, places: Places, interface: str, tun: str) -> None:
        self._places, self._interface, self._tun = places, interface, tun
        self._flows = Sparing(flowcount.flows, _DEAR)
        self._shaken = Sparing(lambda: wireguard.run("show", interface, "latest-handshakes"), _DEAR)
        self._clients: dict[str, str] = {}
        self._sources: dict[str, bool] = {}

    def gather(self, told: Told) -> Facts:
        """Return all that is known now."""
        self._sources = {}
        links = self._from("links", lambda: read_links(_NET_DEV.read_text())) or {}
        tun, tunnel = links.get(self._tun), links.get(self._interface)
        directions = {"received": tunnel.received, "sent": tunnel.sent} if tunnel is not None else {}
        return Facts(
            told,
            time.time(),
            counters=self._from("counters", lambda: counters.read(self._places.run / "counters")),
            rules=self._from("rules", lambda: read_rules(nft.listing())),
            flows=self._from("flow-set", self._flows) or {},
            queue_dropped=tun.not_sent if tun is not None else None,
            tunnel=directions,
            handshakes=self._from("handshakes", self._handshakes) or {},
            events=self._from("events", self._events),
            sources=self._sources,
        )

    def _from(self, source: str, ask: Callable[[], Answer]) -> Answer | None:
        self._sources[source] = True
        try:
            return ask()
        except FileNotFoundError:  # of a process that has not run yet: nothing is wrong
            return None
        except FAILURES:
            self._sources[source] = False
            return None

    def _handshakes(self) -> dict[str, int]:
        lines = (line.split("\t") for line in self._shaken().splitlines())
        shaken = {key: int(then) for key, then in lines if then != "0"}
        known = self._clients
        self._clients = {key: known.get(key) or client_id(parse_public_key(key)) for key in shaken}
        return {self._clients[key]: then for key, then in shaken.items()}

    def _events(self) -> Events:
        found = jsonfile.parse(read_bounded(self._places.flusher_status, _EVENTS_MAX_BYTES))
        reasons = {
            _reason(reason): _count(count) for reason, count in dict(found["dropped_by_reason"]).items()
        }
        dropped = {"ring-full": _count(found["dropped_ring_full"]), **reasons}
        return Events(
            _count(found["sent"]),
            dropped,
            _count(found["pending"]),
            _count(found["in_flight"]),
            _time(found["last_ack"]),
            _time(found["paused_until"]),
        )


def _reason(text: str) -> str:
    """Check a reason that the flusher wrote, which is not trusted."""
    if not _REASON.fullmatch(text) or text == "ring-full":
        raise ValueError("no reason")
    return text


def _count(value: object) -> int:
    """Check a number that the flusher wrote, which is not trusted."""
    if isinstance(value, int) and 0 <= value < 1 << 63:
        return value
    raise ValueError("no count")


def _time(value: object) -> float | None:
    """Check a time, or none, that the flusher wrote, which is not trusted."""
    if value is None or (isinstance(value, float) and 0 <= value < _TIME_END):
        return value
    raise ValueError("no time")


class Link(NamedTuple):
    """What the kernel counted on an interface: (packets, bytes) each way, and packets that it could not send."""

    received: tuple[int, int]
    sent: tuple[int, int]
    not_sent: int


def read_links(text: str) -> dict[str, Link]:
    """Read /proc/net/dev (net/core/net-procfs.c), which is this network namespace's, as /sys need not be."""
    links = {}
    for line in text.splitlines()[2:]:
        name, _, counts = line.partition(":")
        numbers = [int(number) for number in counts.split()]
        links[name.strip()] = Link((numbers[1], numbers[0]), (numbers[9], numbers[8]), numbers[11])
    return links


def read_rules(listing: str) -> Rules:
    """Read the counters of our table from a listing of the whole ruleset (libnftables-json(5))."""
    hits: dict[str, tuple[int, int]] = {}
    max_flows: dict[str, int] = {}
    dropped: dict[str, int] = {}
    limited: dict[str, int] = {}
    for kind, one in (item for entry in json.loads(listing)["nftables"] for item in entry.items()):
        if one.get("family") != "inet" or one.get("table") != TABLE:
            continue
        if kind == "set" and one["name"] in _FAMILY:
            max_flows[_FAMILY[one["name"]]] = int(one["size"])
        elif kind == "counter":
            limited[one["name"].replace("_", "-")] = int(one["packets"])
        elif kind == "rule":
            packets, octets = _counted(one["expr"])
            family = _remembered(one["expr"])
            if family is not None:
                before = hits.get(family, (0, 0))
                hits[family] = before[0] + packets, before[1] + octets
            elif {"drop": None} in one["expr"]:
                dropped[one["chain"]] = dropped.get(one["chain"], 0) + packets
    return Rules(hits, max_flows, dropped, limited)


def _counted(expressions: list[dict[str, Any]]) -> tuple[int, int]:
    """Return packets and bytes of a rule's own counter; a named one stands for itself."""
    for expression in expressions:
        counter = expression.get("counter")
        if isinstance(counter, dict):
            return int(counter["packets"]), int(counter["bytes"])
    return 0, 0


def _remembered(expressions: list[dict[str, Any]]) -> str | None:
    """Return the family of the flow set that a rule looks into, if it does."""
    for expression in expressions:
        match = expression.get("match")
        if match and match["right"] in _LOOKED_INTO:
            return _FAMILY[match["right"].removeprefix("@")]
    return None
