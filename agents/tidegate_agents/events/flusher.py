"""The flusher: a resident process that takes events out of the ring and posts them; it never holds anyone up.

    poll ─► usage >= threshold, or the oldest event has waited long enough? ─► batch ─► POST ─► free

Any 2xx is an ACK and frees the batch. Whatever else happens (refused, timeout, 4xx, 5xx, a redirect), the batch is
dropped, a counter with the reason tells, and the next batch goes on. Nothing the receiver answers has any other
effect, and a POST ends at its deadline whatever the receiver keeps dripping. A record that cannot be read is counted
and skipped. A killed flusher has freed nothing of what it was sending: its successor sends it again, under the same
identity (gateway, epoch, seq), by which a receiver drops duplicates.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Any

import httpx

from tidegate_agents.events.ring import Ring
from tidegate_agents.files import write_atomic
from tidegate_agents.process import die_with
from tidegate_schema import event

POLL_SECONDS = 0.05
_ANSWER_MAX_BYTES = 64 * 1024  # no more of an answer is ever read
_STATUS_SECONDS = 0.5


@dataclass(frozen=True)
class Conditions:
    """When to flush: usage OR time."""

    usage: float
    """Share of the ring in use, 0 to 1."""
    interval: float
    """Seconds the oldest event may wait."""

    def due(self, pending: int, capacity: int, waited: float) -> bool:
        """Tell whether a flush is due for `pending` events of which the oldest was seen `waited` seconds ago."""
        return pending > 0 and (pending >= self.usage * capacity or waited >= self.interval)


class PolicyNames:
    """Names of the rules of a generation, read from the supervisor's files when first needed."""

    def __init__(self, generations: Path) -> None:
        self._generations = generations
        self._known: collections.OrderedDict[int, list[str]] = collections.OrderedDict()

    def of(self, generation: int) -> list[str]:
        """Return the policy name of each rule; empty when the generation's file is gone."""
        if generation not in self._known:
            names: list[str] = []
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                document = json.loads((self._generations / f"{generation}.json").read_bytes())
                names = [rule["policy"] for rule in document["policy"]["rules"]]
            self._known[generation] = names
            if len(self._known) > 64:
                self._known.popitem(last=False)
        return self._known[generation]


def readable(records: Sequence[bytes]) -> list[event.Event]:
    """Return the events of those records that can be read, in their order."""
    events = []
    for record in records:
        with contextlib.suppress(ValueError):
            events.append(event.unpack(record))
    return events


def encode(events: Sequence[event.Event], gateway: str, epoch: str, names: PolicyNames) -> bytes:
    """Return a batch as NDJSON."""
    return b"".join(
        json.dumps(
            event.to_json(one, gateway, epoch, names.of(one.generation)), separators=(",", ":")
        ).encode()
        + b"\n"
        for one in events
    )


class Sender:
    """Posts batches; answers with None for an ACK, else with the reason it was none."""

    def __init__(self, endpoint: str, timeout: float) -> None:
        self._endpoint = endpoint
        self._timeout = timeout
        self._client = httpx.Client(
            timeout=timeout,
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # a receiver leaves nothing behind
            limits=httpx.Limits(max_connections=1),
        )
        self._late = threading.Event()
        self._stream: Any = None

    def post(self, body: bytes, headers: dict[str, str]) -> str | None:
        """Send one batch; never raises for anything the network or the receiver does.

        httpx's timeouts are for one read each, which a receiver that drips bytes never exceeds: so at the deadline
        of the whole POST the connection is cut.
        """
        self._late.clear()
        timer = threading.Timer(self._timeout, self._cut)
        timer.daemon = True
        timer.start()
        try:
            reason = self._post(body, headers)
        finally:
            timer.cancel()
        return "timeout" if self._late.is_set() else reason

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _post(self, body: bytes, headers: dict[str, str]) -> str | None:
        try:
            with self._client.stream(
                "POST", self._endpoint, content=body, headers=headers, extensions={"trace": self._trace}
            ) as answer:
                read = 0
                for piece in answer.iter_raw():  # to the end, so that the connection can serve the next batch
                    read += len(piece)
                    if read > _ANSWER_MAX_BYTES:
                        return "endless-answer"
                return None if answer.is_success else f"http-{answer.status_code}"
        except httpx.TimeoutException:
            return "timeout"
        except httpx.ConnectError:
            return "connect"
        except (
            httpx.HTTPError,
            httpx.InvalidURL,
            ValueError,
        ):  # ValueError: a host name that IDNA cannot encode
            return "protocol"

    def _trace(self, name: str, info: Mapping[str, Any]) -> None:
        """Note the connection in use (https://www.python-httpx.org/advanced/extensions/#trace)."""
        if name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._stream = info["return_value"]
            if self._late.is_set():
                self._stream.close()
                raise httpx.ReadTimeout("the deadline passed while connecting")

    def _cut(self) -> None:
        self._late.set()
        if self._stream is not None:
            with contextlib.suppress(OSError):
                # Not SSLSocket's own, which would take the TLS object away from under the reader.
                socket.socket.shutdown(self._stream.get_extra_info("socket"), socket.SHUT_RDWR)


class Flusher:
    """Moves events from a ring to a sender, and counts."""

    def __init__(
        self, ring: Ring, sender: Sender, conditions: Conditions, batch: int, gateway: str, names: PolicyNames
    ) -> None:
        self._ring, self._sender, self._conditions = ring, sender, conditions
        self._batch, self._gateway, self._names = batch, gateway, names
        self._since: float | None = None
        self.sent = 0
        self.failed: collections.Counter[str] = collections.Counter()
        self.last_ack: float | None = None

    def step(self, now: float, *, final: bool = False) -> bool:
        """Flush if it is due at monotonic time `now` (or `final`); tells whether a batch went out."""
        pending = self._ring.pending()
        if pending == 0:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        if not final and not self._conditions.due(pending, self._ring.capacity, now - self._since):
            return False
        records = self._ring.peek(self._batch)
        events = readable(records)
        if len(events) < len(records):
            self.failed["unreadable-record"] += len(records) - len(events)
        if events:
            self._send(events)
        self._ring.free(len(records))
        if self._ring.pending() == 0:
            self._since = None
        return True

    def _send(self, events: Sequence[event.Event]) -> None:
        headers = {
            "content-type": "application/x-ndjson",
            "user-agent": "tidegate",
            "tidegate-gateway": self._gateway,
            "tidegate-epoch": self._ring.epoch,
            "tidegate-sequence": f"{events[0].seq}-{events[-1].seq}",
            "tidegate-dropped": str(self._ring.dropped()),
        }
        reason = self._sender.post(encode(events, self._gateway, self._ring.epoch, self._names), headers)
        if reason is None:
            self.sent += len(events)
            self.last_ack = time.time()
        else:
            self.failed[reason] += len(events)

    def status(self) -> dict[str, Any]:
        """Return what `tidegate gateway status` shows of the events."""
        return {
            "pid": os.getpid(),
            "epoch": self._ring.epoch,
            "capacity": self._ring.capacity,
            "pending": self._ring.pending(),
            "dropped_ring_full": self._ring.dropped(),
            "sent": self.sent,
            "dropped_by_reason": dict(self.failed),
            "last_ack": self.last_ack,
        }


def main(argv: list[str] | None = None) -> int:
    """Run the flusher; started by the supervisor."""
    parser = argparse.ArgumentParser(prog="tidegate-flusher", description=__doc__)
    parser.add_argument("--ring", type=Path, required=True)
    parser.add_argument("--generations", type=Path, required=True)
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--status", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument(
        "--settings", type=Path, required=True, help="JSON: the local settings that it follows"
    )
    options = parser.parse_args(argv)
    die_with(options.parent)
    settings = json.loads(options.settings.read_bytes())
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    sender = Sender(settings["log_endpoint"], settings["post_timeout"])
    flusher = Flusher(
        Ring(options.ring),
        sender,
        Conditions(settings["flush_usage"], settings["flush_interval"]),
        settings["batch_records"],
        options.gateway,
        PolicyNames(options.generations),
    )
    told = 0.0
    while not stopping:
        went = flusher.step(time.monotonic())
        if time.monotonic() - told >= _STATUS_SECONDS:
            _tell(options.status, flusher)
            told = time.monotonic()
        if not went:
            time.sleep(POLL_SECONDS)  # the producer makes no system call to wake anyone (design §7)
    flusher.step(time.monotonic(), final=True)
    sender.close()
    _tell(options.status, flusher)
    return 0


def _tell(path: Path, flusher: Flusher) -> None:
    with contextlib.suppress(OSError):  # a full /run costs the status, not the events
        write_atomic(path, json.dumps(flusher.status()).encode())


if __name__ == "__main__":
    sys.exit(main())
