"""The forwarder: one process per generation that reads the TUN, judges, and writes allowed packets back unchanged.

    load tables ─► say "L" ─► wait until the predecessor is gone ─► say "A" ─► read, judge, write ─► drain, exit

One mechanism changes everything (policy, peers, mode, logging): a new process with new tables takes the TUN over.
The predecessor alone holds the write end of its *token* pipe, so end-of-file on it means that it is gone, whether
it stopped or was killed; packets wait in the TUN's queue meanwhile. SIGTERM sets a flag only, so that no packet
already read is lost. No I/O but the TUN, no lock; one poll per batch.

This module stays small at import: a restart must be quick.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import sys
import time
from pathlib import Path

from tidegate_agents.datapath.counters import Counters
from tidegate_agents.datapath.judge import Judge, Tables
from tidegate_agents.datapath.packet import Packet, parse
from tidegate_agents.events.ring import Ring
from tidegate_agents.process import die_with
from tidegate_schema import event
from tidegate_schema.policy import Reason, Verdict

LOADED, ACTIVE = b"L", b"A"
BATCH = 64
DRAIN_MAX = (
    8192  # twice the TUN's queue (gateway.tun.QUEUE_LENGTH): a flood cannot keep an old generation alive
)
_READ_BYTES = 65535
_OBSERVED = Verdict(True, Reason.OBSERVED, None)


class Forwarder:
    """Moves packets of one TUN; `step` handles what is there and returns how many packets that was."""

    def __init__(self, tun: int, tables: Tables, counters: Counters, ring: Ring | None) -> None:
        self._tun = tun
        self._tables = tables
        self._counters = counters
        self._ring = ring
        self._now = tables.not_earlier_than
        # Observe has no judge at all: it runs no authorization code (design §1).
        self._judge = Judge(tables).judge if tables.enforce else None

    def step(self, limit: int = BATCH) -> int:
        """Read, judge and write back at most `limit` packets; returns how many there were (0: none waits)."""
        tun, judge, ring = self._tun, self._judge, self._ring
        now = self._now = max(time.time(), self._now)  # a clock set back revives no grant
        moved = 0
        while moved < limit:
            try:
                data = os.read(tun, _READ_BYTES)
            except BlockingIOError:
                break
            moved += 1
            packet = parse(data) if judge is not None or ring is not None else None
            verdict = judge(packet, now) if judge is not None else _OBSERVED
            if verdict.allow:
                try:
                    os.write(tun, data)
                except OSError:
                    self._counters.count_write_error()
            self._counters.count(verdict.reason, len(data))
            if ring is not None:
                self._record(ring, packet, verdict, len(data), now)
        if ring is not None and moved:
            ring.publish()
        return moved

    def _record(self, ring: Ring, packet: Packet | None, verdict: Verdict, length: int, now: float) -> None:
        rule = event.NO_RULE if verdict.rule is None else verdict.rule
        mode = int(self._tables.enforce)
        if packet is None:
            client, addresses, known = event.NO_CLIENT, (bytes(16), bytes(16)), 0
        else:
            text = self._tables.clients.get(packet.source)
            client = bytes.fromhex(text) if text else event.NO_CLIENT
            addresses = (event.mapped(packet.source), event.mapped(packet.destination))
            known = event.KNOWN_ADDRESSES | (event.KNOWN_PORTS if packet.has_ports else 0)
        ring.append(
            time.monotonic_ns(),
            int(now * 1e9),
            self._tables.generation,
            rule,
            client,
            *addresses,
            packet.source_port if packet else 0,
            packet.port if packet else 0,
            event.KIND_PACKET,
            mode,
            int(verdict.allow),
            verdict.reason,
            packet.protocol if packet else 0,
            packet.tcp_flags if packet else 0,
            known,
            event.VERSION,
            1,
            length,
        )


class _StopFlag:
    """SIGTERM and SIGINT as a flag and as a readable descriptor, so that a poll wakes and nothing is torn."""

    def __init__(self) -> None:
        self.readable, writable = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.set = False
        signal.set_wakeup_fd(writable, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)

    def _on_signal(self, _number: int, _frame: object) -> None:
        self.set = True


def _wait_for_end(token: int, stop: _StopFlag) -> None:
    poller = select.poll()
    poller.register(token, select.POLLIN)
    poller.register(stop.readable, select.POLLIN)
    while not stop.set:
        if any(fd == token for fd, _ in poller.poll()):
            return


def main(argv: list[str] | None = None) -> int:
    """Run one forwarder; started by the supervisor, which hands over every descriptor."""
    parser = argparse.ArgumentParser(prog="tidegate-forwarder", description=__doc__)
    parser.add_argument("--tun", type=int, required=True, help="descriptor of the TUN, non-blocking")
    parser.add_argument("--report", type=int, required=True, help="descriptor that is told L and A")
    parser.add_argument("--predecessor", type=int, help="descriptor that ends when the predecessor is gone")
    parser.add_argument("--parent", type=int, required=True, help="process ID of the supervisor")
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--counters", type=Path, required=True)
    parser.add_argument("--ring", type=Path, help="event ring; without it no event is made")
    options = parser.parse_args(argv)
    die_with(options.parent)
    stop = _StopFlag()
    try:
        return _run(options, stop)
    except OSError as error:
        print(f"forwarder: {error.filename or 'TUN or supervisor'}: {error.strerror}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace, stop: _StopFlag) -> int:
    tables = Tables.load(options.tables)
    os.write(options.report, LOADED)
    if options.predecessor is not None:
        _wait_for_end(options.predecessor, stop)
    if stop.set:
        return 0
    # Mapped only now: until the predecessor is gone, it is the ring's one producer.
    ring = Ring(options.ring) if options.ring is not None else None
    forwarder = Forwarder(options.tun, tables, Counters(options.counters), ring)
    os.write(options.report, ACTIVE)
    poller = select.poll()
    poller.register(options.tun, select.POLLIN)
    poller.register(stop.readable, select.POLLIN)
    while not stop.set:
        poller.poll()
        while forwarder.step() and not stop.set:
            pass
    # What waits in the queue arrived under this generation, and belongs to the clients it knew.
    forwarder.step(DRAIN_MAX)
    return 0


if __name__ == "__main__":
    sys.exit(main())
