"""What the flusher costs: the real process, from its ring to a receiver that only reads, beside a JSON library alone.

The baseline makes text of ready dicts and throws it away: orjson, the fastest JSON library for Python that we know of.
"""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import orjson

from bench import enqueue
from bench.measure import in_turn
from bench.rows import Options, Row
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_agents.events.spsc import BATCH_MOST
from tidegate_agents.settings import defaults
from tidegate_schema import event, jsonfile
from tidegate_schema.event import End, Kind
from unit.agents.flusherkit import home, start
from unit.agents.kit import until

PART = "events"
EVENTS = 100_000
BATCH = 48
"""Packets that a forwarder reads before it looks at the clock again: about so many under load."""
FLOWS, CLIENTS, RULES = 1000, 250, 50
NAMES = [f"team-{n}-reads-service-{n}" for n in range(RULES)]
GENERATION = 3
RECEIVER = """
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(204); self.end_headers()
    def log_message(self, *_): pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"""


def packets() -> bytes:
    """Return records of packets of a thousand flows, as a forwarder makes them."""
    rng = random.Random(1)
    flows = [_flow(rng, Kind.PACKET) for _ in range(FLOWS)]
    lengths = (52, 52, 1420, 1420, *(rng.randrange(60, 1420) for _ in range(2)))
    made = bytearray(EVENTS * event.RECORD_BYTES)
    for n in range(EVENTS):
        monotonic = 10**15 + n // BATCH * 350_123
        one = rng.choice(flows)._replace(
            seq=n, monotonic_ns=monotonic, wall_ns=17 * 10**17 + monotonic, length=rng.choice(lengths)
        )
        event.LAYOUT.pack_into(made, n * event.RECORD_BYTES, *one)
    return bytes(made)


def flows() -> bytes:
    """Return records of flows that open and close, each event another flow's."""
    rng = random.Random(2)
    kinds = [_flow(rng, kind) for kind in (Kind.FLOW_OPEN, Kind.FLOW_CLOSE) for _ in range(FLOWS)]
    made = bytearray(EVENTS * event.RECORD_BYTES)
    for n in range(EVENTS):
        wall = 17 * 10**17 + n // 4 * 350_123
        one = rng.choice(kinds)
        closes = one.kind == Kind.FLOW_CLOSE
        changes: dict[str, Any] = {"seq": n, "monotonic_ns": wall, "wall_ns": wall}
        changes |= {"source_port": rng.randrange(30000, 60000), "packets": 0, "length": 0}
        if closes:
            changes |= {"packets": rng.randrange(9999), "length": rng.randrange(10**7), "end": End.ENDED}
            changes |= {"reply_packets": rng.randrange(9999), "reply_length": rng.randrange(10**8)}
            changes |= {"start_ns": wall - rng.randrange(10**11)}
        event.LAYOUT.pack_into(made, n * event.RECORD_BYTES, *one._replace(**changes))
    return bytes(made)


def _flow(rng: random.Random, kind: Kind) -> event.Event:
    client = rng.randrange(CLIENTS)
    return event.Event(
        *(0, 0, 0, GENERATION, rng.randrange(RULES), client.to_bytes(16)),
        event.mapped(bytes((10, 64, 0, client))),
        event.mapped(bytes((10, 20, 0, rng.randrange(100)))),
        *(rng.randrange(30000, 60000), 443, kind, 1, 1, 1, 6, 16, 3, event.VERSION, 0, 1, 0, 0, 0, 0),
    )


def dicts(records: bytes) -> list[dict[str, Any]]:
    size = event.RECORD_BYTES
    every = (event.unpack(records[n * size : (n + 1) * size]) for n in range(EVENTS))
    return [event.to_json(one, "fra1", "0123456789abcdef", NAMES) for one in every]


class Sending:
    """A flusher that is ready, its ring, and a receiver."""

    def __init__(self, undo: ExitStack, **settings: Any) -> None:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(dir="/dev/shm")))
        directory.chmod(0o755)
        (directory / f"{GENERATION}.json").write_bytes(jsonfile.canonical(NAMES))
        self._path = directory / "events.ring"
        ring.create(self._path, EVENTS)
        self._ring = Ring(self._path)
        receiver = subprocess.Popen([sys.executable, "-c", RECEIVER], stdout=subprocess.PIPE)
        undo.callback(receiver.kill)
        assert receiver.stdout is not None
        url = f"http://127.0.0.1:{int(receiver.stdout.readline())}/v1/logs"
        shipped = {name: defaults("gateway")[name] for name in ("batch_records", "flush_interval")}
        self._process = start(self._path, url, post_timeout=60.0, **shipped, **settings)
        undo.callback(self._process.kill)
        self._status = home(self._path) / "status.json"
        until("the flusher is ready", self._status.exists)
        undo.callback(self._ring.close)

    def rate(self, records: bytes) -> float:
        """Return events a second of its processor time, from when they are in the ring until they are freed."""
        before = self._cpu()
        size = BATCH_MOST * event.RECORD_BYTES
        for at in range(0, len(records), size):
            self._put(records[at : at + size])
        until("everything is sent", lambda: self._ring.pending() == 0, 120)
        rate = EVENTS / (self._cpu() - before)
        until("it has told so", lambda: self._told()["pending"] == 0)
        assert self._told()["dropped_by_reason"] == {}
        return rate

    def _put(self, records: bytes) -> None:
        memory, first, room, mask, number = self._ring.claim()
        size = event.RECORD_BYTES
        count = len(records) // size
        assert room >= count
        for n in range(count):
            at = ring.HEADER_BYTES + (first + n & mask) * size
            memory[at : at + size] = records[n * size : (n + 1) * size]
            memory[at : at + 8] = (number + n).to_bytes(8, "little")
        self._ring.publish(count)

    def _told(self) -> dict[str, Any]:
        told: dict[str, Any] = jsonfile.parse(self._status.read_bytes())
        return told

    def _cpu(self) -> float:
        """Return the processor time of its one thread at work, user and system, in seconds."""
        return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[0]) / 1e9


def _dumping(ready: list[dict[str, Any]], dumps: Callable[[Any], object]) -> float:
    before = time.process_time()
    for one in ready:
        dumps(one)
    return EVENTS / (time.process_time() - before)


def rows(options: Options) -> list[Row]:
    """Return the rows of this part."""
    with ExitStack() as undo:
        ndjson, otlp = Sending(undo), Sending(undo, log_format="otlp")
        of = {"packets": packets(), "flows": flows()}
        ready = {name: dicts(records) for name, records in of.items()}
        tasks: dict[str, Callable[[], float]] = {}
        for name, records in of.items():
            tasks[f"orjson, {name}"] = lambda name=name: _dumping(ready[name], orjson.dumps)
            tasks[f"ndjson, {name}"] = lambda records=records: ndjson.rate(records)
        tasks["otlp, packets"] = lambda: otlp.rate(of["packets"])
        values = {name: statistics.median(found) for name, found in in_turn(tasks, options.rounds).items()}
    found = []
    told = {"packets": "packets of 1,000 flows", "flows": "flows that open and close, each another one"}
    for name, what in told.items():
        base = values[f"orjson, {name}"] / 1e3
        row = f"flusher, NDJSON and gzip to a receiver: {what}; baseline orjson.dumps alone"
        found.append(Row(PART, row, values[f"ndjson, {name}"] / 1e3, "k/s a core", base, base / 2, True))
    row = "flusher, OTLP and gzip to a receiver: packets of 1,000 flows"
    base = values["orjson, packets"] / 1e3
    found.append(Row(PART, row, values["otlp, packets"] / 1e3, "k/s a core", base))
    return found + enqueue.rows(PART, options.rounds)
