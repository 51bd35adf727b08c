"""The flusher: a resident process that takes events out of the rings and posts them; it never holds anyone up.

    poll ─► usage >= threshold, or the oldest event has waited long enough? ─► batches ─► POSTs ─► count ─► free

Any 2xx is an ACK and frees the batch. Whatever else happens (refused, timeout, TLS, 4xx, 5xx, a redirect), the batch is
dropped, a counter with the reason tells, and the next batch goes on. Nothing the receiver answers has any other
effect, but that it may ask to be left alone for a while that a setting bounds; what comes meanwhile waits in the ring,
or is dropped there. A killed flusher has freed nothing of what it was sending: its successor sends it again, under the
same identity (gateway, epoch, sequence), by which a receiver drops duplicates. A flusher that is to end posts what
waits, and at the first failure leaves the rest to its successor.

Memory: the bodies of the batches in flight, of a size that settings bound, and what the codecs keep, which is bounded.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import json
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from isal import isal_zlib

from tidegate_agents.events import endpoint, otlp
from tidegate_agents.events.batches import Batch, Codec, Conditions, Limits, Outbox, Part
from tidegate_agents.events.ledger import Ledger
from tidegate_agents.events.names import PolicyNames
from tidegate_agents.events.ndjson import HostNdjson, Ndjson
from tidegate_agents.events.ring import ANY, Ring, RingError
from tidegate_agents.events.sender import Sender
from tidegate_agents.files import FileRefused, read_bounded, write_atomic
from tidegate_agents.process import die_with, drop_privileges
from tidegate_agents.seccomp import forbid_holes
from tidegate_schema import hostevent, jsonfile

POLL_SECONDS = 0.05
STATUS_MAX_BYTES = 1 << 16
_STATUS_SECONDS = 0.5
_REST_LEAST, _REST_MOST = 0.1, 1.0
_THREADS = 64  # asyncio looks names up in threads, at most 32
_GZIP_LEVEL, _GZIP_FORMAT = (
    1,
    31,
)  # of ISA-L, which takes a fifth of zlib's time for the same size; 31 as in zlib


class Flusher:
    """Moves events from rings to a sender, and counts."""

    def __init__(
        self,
        outboxes: Sequence[Outbox],
        sender: Sender,
        ledger: Ledger,
        gateway: str,
        *,
        most: int,
        retry_after_max: float,
        is_gzip: bool,
        save: Callable[[Mapping[str, Any]], bool],
    ) -> None:
        """`most` batches in flight at once; `save` writes the status where a successor finds it, or tells it cannot."""
        self._outboxes = collections.deque(outboxes)
        self._sender, self._ledger, self._gateway = sender, ledger, gateway
        self._most, self._retry_after_max, self._is_gzip, self._save = most, retry_after_max, is_gzip, save
        self._posts: set[asyncio.Task[None]] = set()
        self._not_before = 0.0
        self._rest = 0.0
        """Seconds without a batch where nobody would take one: packets have better use for the processor."""
        self._failures = 0
        self._is_saved = True
        """Whether the status that is saved counts all that is lost."""

    async def run(self, stopping: asyncio.Event) -> None:
        """Flush until told to stop, then post what waits."""
        told = 0.0
        stop = asyncio.create_task(stopping.wait())
        while not stopping.is_set():
            self.start(time.monotonic())
            if time.monotonic() - told >= _STATUS_SECONDS:
                self.save()
                told = time.monotonic()
            # The producer makes no system call to wake anyone (design §7).
            await self._wait(stop, timeout=POLL_SECONDS)
        await self.drain()
        self.save()

    def start(self, now: float, *, final: bool = False) -> None:
        """Begin to post what is due at monotonic time `now` (or `final`: all that waits), as far as may be."""
        has_begun = True
        while has_begun:
            has_begun = False
            for _ in range(len(self._outboxes)):
                if len(self._posts) >= self._most or now < self._not_before:
                    return
                outbox = self._outboxes[0]
                self._outboxes.rotate(-1)  # no ring keeps another one waiting
                if outbox.is_due(now) or (final and outbox.waiting() > 0):
                    self._begin(outbox)
                    has_begun = True

    async def drain(self) -> None:
        """Post all that waits, or up to the first failure, and wait for what is in flight."""
        failures = self._failures
        while True:
            if self._failures == failures:
                self.start(time.monotonic(), final=True)
            if not self._posts:
                return
            await self._wait()

    def status(self) -> dict[str, Any]:
        """Return what `tidegate gateway status` shows of the events."""
        paused = self._not_before - time.monotonic()
        rings = [outbox.ring for outbox in self._outboxes]
        return {
            "pid": os.getpid(),
            "pending": sum(ring.pending() for ring in rings),
            "in_flight": len(self._posts),
            "sent": self._ledger.sent,
            "rate": round(self._ledger.rate(), 1),
            "last_ack": self._ledger.last_ack,
            "paused_until": time.time() + paused if paused > 0 else None,
            "dropped_ring_full": sum(ring.dropped() for ring in rings),
            "dropped_by_reason": dict(self._ledger.lost),
            "rings": [self._told(outbox) for outbox in self._outboxes],
        }

    def _told(self, outbox: Outbox) -> dict[str, Any]:
        ring, settled = outbox.ring, self._ledger.settled.get(outbox.ring.epoch)
        told = {"epoch": ring.epoch, "capacity": ring.capacity, "pending": ring.pending()}
        return told | ({"settled": settled} if settled is not None else {})

    async def _wait(self, *others: asyncio.Task[Any], timeout: float | None = None) -> None:
        done, _ = await asyncio.wait(
            {*self._posts, *others}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED
        )
        for task in done:
            task.result()

    def _begin(self, outbox: Outbox) -> None:
        batch = outbox.take()
        if not batch.body:
            self._settle(outbox, batch)
            return
        task = asyncio.create_task(self._deliver(outbox, batch))
        self._posts.add(task)
        task.add_done_callback(self._posts.discard)

    async def _deliver(self, outbox: Outbox, batch: Batch) -> None:
        headers = {
            "content-type": outbox.content_type,
            "tidegate-gateway": self._gateway,
            "tidegate-epoch": outbox.ring.epoch,
            "tidegate-sequence": f"{batch.first}-{batch.last}",
            "tidegate-dropped": str(outbox.ring.dropped()),
        }
        if self._is_gzip:
            headers["content-encoding"] = "gzip"
        answer = await self._sender.post(batch.body, headers)
        self._rest = min(max(self._rest * 2, _REST_LEAST), _REST_MOST) if answer.reason == "connect" else 0.0
        if answer.reason is not None:
            batch.fail(answer.reason)
            self._failures += 1
        elif answer.rejected:
            batch.lost["rejected"] += min(answer.rejected, batch.delivered)
        if answer.reason is None:
            self._ledger.acknowledged(batch.delivered)
        pause = max(min(answer.pause, self._retry_after_max), self._rest)
        if pause > 0:
            self._not_before = max(self._not_before, time.monotonic() + pause)
        self._settle(outbox, batch)

    def _settle(self, outbox: Outbox, batch: Batch) -> None:
        """Count what is done up to the first batch that is not, then free it: in this order (`events.ledger`)."""
        batch.is_done, batch.body = True, b""
        if self._ledger.count(outbox.ring.epoch, outbox.done()):
            self._is_saved = False
        if self._is_saved:
            outbox.free()
        else:
            self.save()

    def save(self) -> None:
        """Save the status. What is lost stays in its ring until that was possible, and with it all that comes later."""
        self._is_saved = self._save(self.status()) or self._is_saved
        if self._is_saved:
            for outbox in self._outboxes:
                outbox.free()


def main(argv: list[str] | None = None) -> int:
    """Run the flusher; started by the supervisor."""
    parser = argparse.ArgumentParser(prog="tidegate-flusher", description=__doc__)
    parser.add_argument(
        "--ring",
        type=Path,
        action="append",
        required=True,
        help="may be repeated; one that is not there is left out",
    )
    parser.add_argument("--names", type=Path, required=True, help="directory of the names of rules")
    parser.add_argument("--gateway", required=True)
    parser.add_argument("--status", type=Path, required=True, help="what to write, in a directory of its own")
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--user", type=int, required=True, help="user and group to become")
    parser.add_argument(
        "--settings", type=Path, required=True, help="JSON: the local settings that it follows"
    )
    options = parser.parse_args(argv)
    # Everything that only root may open is open before the privileges go.
    settings = json.loads(options.settings.read_bytes())
    try:
        tls = tls_context(settings)
    except FileRefused as error:
        print(f"flusher: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"flusher: log_ca_file, log_cert_file or log_key_file: {error}", file=sys.stderr)
        return 1
    rings = _rings(options.ring)
    names = PolicyNames(os.open(options.names, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    os.chdir(options.status.parent)  # from here it is reached without a way through root's directories
    shown = Path(options.status.name)
    drop_privileges(options.user, processes=_THREADS)
    forbid_holes()
    die_with(options.parent)
    asyncio.run(_run(settings, tls, rings, names, options.gateway, shown))
    return 0


def gzip(parts: Iterable[Part]) -> bytes:
    """Compress parts, each as it comes."""
    compressor = isal_zlib.compressobj(_GZIP_LEVEL, isal_zlib.DEFLATED, _GZIP_FORMAT)
    return b"".join([*map(compressor.compress, parts), compressor.flush()])


def joined(parts: Iterable[Part]) -> bytes:
    """Join parts, each as it comes."""
    return b"".join(map(bytes, parts))


def tls_context(settings: Mapping[str, Any]) -> ssl.SSLContext:
    """Return what TLS is spoken with; FileRefused or OSError when a file cannot be read, or holds something else."""
    with contextlib.ExitStack() as stack:

        def checked(name: str) -> str | None:
            path = settings[name]
            return path and f"/proc/self/fd/{stack.enter_context(endpoint.opened(name, path))}"

        context = ssl.create_default_context(cafile=checked("log_ca_file"))
        if certificate := checked("log_cert_file"):
            # A password is given, so that nobody is asked for one: a key that has one cannot be used.
            context.load_cert_chain(certificate, checked("log_key_file"), password="")
        return context


def _rings(paths: Sequence[Path]) -> list[Ring]:
    rings = []
    for path in paths:
        try:
            rings.append(Ring(path, ANY))
        except FileNotFoundError:
            pass
        except RingError as error:  # its producer sets it aside when it starts
            print(f"flusher: {error}", file=sys.stderr)
    return rings


def codec_of(*, is_otlp: bool) -> Callable[[Ring, str, PolicyNames], Codec]:
    """Return what makes a ring's codec in a format: (ring, gateway, names) -> codec. The size of its records tells."""
    of_packets: Callable[[str, str, PolicyNames], Codec] = otlp.Otlp if is_otlp else Ndjson
    of_hosts: Callable[[str, str, PolicyNames], Codec] = otlp.HostOtlp if is_otlp else HostNdjson

    def made(ring: Ring, gateway: str, names: PolicyNames) -> Codec:
        is_host_s = ring.record_bytes == hostevent.RECORD_BYTES
        return (of_hosts if is_host_s else of_packets)(gateway, ring.epoch, names)

    return made


async def _run(
    settings: Mapping[str, Any],
    tls: ssl.SSLContext,
    rings: Sequence[Ring],
    names: PolicyNames,
    gateway: str,
    shown: Path,
) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    is_otlp = settings["log_format"] == "otlp"
    codec = codec_of(is_otlp=is_otlp)
    conditions = Conditions(settings["flush_usage"], settings["flush_interval"])
    limits = Limits(settings["batch_records"], settings["batch_bytes"])
    is_gzip = settings["log_compression"] == "gzip"
    pack = gzip if is_gzip else joined
    outboxes = [Outbox(ring, conditions, limits, codec(ring, gateway, names), pack) for ring in rings]
    ledger = Ledger()
    with contextlib.suppress(OSError, FileRefused, ValueError, KeyError, TypeError):
        ledger.go_on_from(jsonfile.parse(read_bounded(shown, STATUS_MAX_BYTES)))
    for outbox in outboxes:
        if outbox.ring.epoch in ledger.settled:
            outbox.skip(ledger.settled[outbox.ring.epoch])
    authorization = settings["authorization"]
    sender = Sender(
        settings["log_endpoint"],
        settings["post_timeout"],
        tls=tls,
        headers={"authorization": authorization} if authorization is not None else {},
        rejected=otlp.rejected if is_otlp else None,
    )

    def save(status: Mapping[str, Any]) -> bool:
        with contextlib.suppress(OSError):  # a full /run
            write_atomic(shown, json.dumps(status).encode())
            return True
        return False

    flusher = Flusher(
        outboxes,
        sender,
        ledger,
        gateway,
        most=settings["batches_in_flight"],
        retry_after_max=settings["retry_after_max"],
        is_gzip=is_gzip,
        save=save,
    )
    await flusher.run(stopping)
    sender.close()


if __name__ == "__main__":
    sys.exit(main())
