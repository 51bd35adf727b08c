"""What the crash test kills and counts with: a producer that keeps a journal, the real flusher, a receiver.

    python -m stress.victims RING JOURNAL WHO

is the producer; it makes events until it is killed.
"""

from __future__ import annotations

import array
import contextlib
import gzip
import http.server
import json
import mmap
import os
import random
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidegate_agents.events.ring import HEADER_BYTES, Ring
from tidegate_schema import event
from unit.agents import flusherkit

TESTS = Path(__file__).parents[1]
BATCH = 64
WHO_MOST = 1 << 16
REFUSED = 0.2  # of all requests
_JOURNAL = struct.Struct("<QQQ")
_TIMES = event.TIMES.pack(1, 1)


# The producer -------------------------------------------------------------------------------------------------


class Journal:
    """What a producer was about to do, in memory that outlives it: made so far, this batch, and what of it fits."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_JOURNAL.size))
        with path.open("r+b") as file:
            self._words = memoryview(mmap.mmap(file.fileno(), _JOURNAL.size)).cast("Q")

    def publishing(self, made: int, fit: int) -> None:
        self._words[1], self._words[2] = made, fit

    def made(self, total: int) -> None:
        self._words[0] = total

    def totals(self) -> set[int]:
        """Return how many events there may be, a producer having been killed anywhere: a batch counts as a whole, or
        what fitted of it, or not at all."""
        total, made, fit = self._words
        return {total, total + fit, total + made}


def produce(ring: Ring, journal: Journal, who: int) -> None:
    """Make events, now slower than they are sent and now faster, until killed. Their source port is `who`."""
    chance = random.Random(who)
    same, known = event.template(
        generation=1,
        rule=event.NO_RULE,
        client_id=bytes(range(16)),
        source=event.mapped(bytes([10, 64, 0, 11])),
        destination=event.mapped(bytes([10, 20, 0, 80])),
        source_port=who,
        destination_port=443,
        kind=event.Kind.PACKET,
        mode=1,
        verdict=1,
        reason=1,
        protocol=6,
        known=event.KNOWN_ADDRESSES | event.KNOWN_PORTS,
    )
    while True:
        for _ in range(chance.choice((1,) * 19 + (100,))):
            made = chance.randint(1, BATCH)
            octets, first, room, mask, seq = ring.claim()
            journal.made(seq)
            fit = min(made, room)
            for n in range(fit):
                at = HEADER_BYTES + (first + n & mask) * event.RECORD_BYTES
                event.STAMPED.pack_into(octets, at, seq + n, _TIMES, same, 2, known, 1, seq + n)
            journal.publishing(made, fit)
            ring.publish(made)
            journal.made(seq + made)
        time.sleep(chance.uniform(0, 0.1))


def start_producer(ring: Path, journal: Path, who: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "stress.victims", str(ring), str(journal), str(who)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(TESTS)})


# The flusher --------------------------------------------------------------------------------------------------


def start_flusher(ring: Path, url: str) -> subprocess.Popen[bytes]:
    """Start the flusher as the supervisor does; it sends small batches that can be read as they are."""
    chosen = {"flush_interval": 0.05, "batch_records": 200, "post_timeout": 30.0}
    return subprocess.Popen(flusherkit.command(ring, url, log_compression="none", **chosen))


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it, which must not have ended by itself."""
    process.kill()
    assert process.wait() == -signal.SIGKILL


# The receiver -------------------------------------------------------------------------------------------------


class Receiver:
    """Takes events in, a little late, and knows who made which; one that has come whole counts, answered or not.

    Now and then it refuses a request unread, and the flusher drops it. It refuses none of which anything came before:
    that would have arrived and be dropped.
    """

    def __init__(self, epoch: str) -> None:
        self.connections = self.requests = self.refused = self.again = self.distinct = 0
        self.wrong: list[str] = []
        self._epoch = epoch
        self._who = array.array("H")  # of each sequence number, 0 for one that has not come
        self._lock = threading.Lock()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 60

            def do_POST(self) -> None:
                length = int(self.headers["content-length"])
                body = self.rfile.read(length)
                if len(body) < length:
                    return  # its sender was killed
                time.sleep(random.uniform(0, 0.005))
                first, last = map(int, self.headers["tidegate-sequence"].split("-"))
                is_refused = random.random() < REFUSED and outer._refuses(first, last)
                if not is_refused:
                    outer._take(gzip.decompress(body) if self.headers["content-encoding"] == "gzip" else body)
                try:
                    self.send_response(500 if is_refused else 204)
                    self.send_header("content-length", "0")
                    self.end_headers()
                except OSError:
                    self.close_connection = True

            def log_message(self, format: str, *words: Any) -> None:
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def process_request_thread(self, request: Any, address: Any) -> None:
                with outer._serving():
                    super().process_request_thread(request, address)

            def handle_error(self, request: Any, address: Any) -> None:
                if not isinstance(sys.exception(), OSError):
                    outer.wrong.append(repr(sys.exception()))

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def _refuses(self, first: int, last: int) -> bool:
        with self._lock:
            may = not any(self._who[first : last + 1])
            self.refused += may
            return may

    def _take(self, body: bytes) -> None:
        events = [json.loads(line) for line in body.splitlines()]
        with self._lock:
            for one in events:
                number, who = one["event.sequence"], one["source.port"]
                if (one["tidegate.epoch"], one["source.bytes"]) != (self._epoch, number):
                    self.wrong.append(f"a mixture: {one}")
                if number >= len(self._who):
                    self._who.extend([0] * (number + 1 - len(self._who)))
                before, self._who[number] = self._who[number], who
                self.distinct += before == 0
                self.again += before == who
                if before not in (0, who):
                    self.wrong.append(f"number {number} is an event of {before} and one of {who}")
            self.requests += 1

    @contextlib.contextmanager
    def _serving(self) -> Iterator[None]:
        with self._lock:
            self.connections += 1
        try:
            yield
        finally:
            with self._lock:
                self.connections -= 1

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


if __name__ == "__main__":
    produce(Ring(Path(sys.argv[1])), Journal(Path(sys.argv[2])), int(sys.argv[3]))
