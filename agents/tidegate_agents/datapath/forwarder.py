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
import errno
import os
import select
import signal
import sys
import time
from pathlib import Path

from tidegate_agents.datapath.counters import REASONS, Counters
from tidegate_agents.datapath.flows import (
    BUFFER_BYTES,
    FLAGS_AT,
    NAME4,
    NAME6,
    NO_NAME,
    PLAIN4,
    ZERO_AT,
    Flow,
    Flows,
    Name,
    shape,
)
from tidegate_agents.datapath.judge import Judge, Tables
from tidegate_agents.datapath.offload import GSO_TYPE, HEADER_BYTES, segments, set_offloads
from tidegate_agents.datapath.packet import Packet, parse
from tidegate_agents.events.ring import HEADER_BYTES as RING_HEADER_BYTES
from tidegate_agents.events.ring import Ring
from tidegate_agents.process import die_with
from tidegate_schema import event
from tidegate_schema.policy import Reason, Verdict

LOADED, ACTIVE = b"L", b"A"
BATCH = 64
DRAIN_MAX = (
    8192  # twice the TUN's queue (gateway.network.QUEUE_LENGTH): a flood cannot keep an old generation alive
)
_OBSERVED = Verdict(True, Reason.OBSERVED, None)
_NO_EVENT: event.Template = (b"", b"")


class Forwarder:
    """Moves packets of one TUN; `step` handles what is there and returns how many reads that was.

    What is read is a virtio_net_hdr and a packet, or a super-packet (`datapath.offload`), into the same buffer each
    time.
    """

    def __init__(self, tun: int, tables: Tables, counters: Counters, ring: Ring | None) -> None:
        self._tun = tun
        self._tables = tables
        self._counters = counters
        self._ring = ring
        self._now = tables.not_earlier_than
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._into = (self._view[:ZERO_AT],)
        # Observe has no judge at all: it runs no authorization code (design §1).
        self._judge = Judge(tables).judge if tables.enforce else None
        self._flows = Flows()

    def step(self, limit: int = BATCH) -> int:
        """Read, judge and write back at most `limit` packets; returns how many there were (0: none waits)."""
        return self._pass(limit) if self._judge is None and self._ring is None else self._move(limit)

    def _pass(self, limit: int) -> int:
        """Write everything back: what nobody judges or logs is not even looked at."""
        packets = octets = moved = 0
        while moved < limit:
            try:
                length = os.readv(self._tun, self._into)
            except BlockingIOError:
                break
            moved += 1
            packets += segments(self._buffer, length) if self._buffer[GSO_TYPE] else 1
            octets += length - HEADER_BYTES
            self._write(length)
        self._counters.add({Reason.OBSERVED: (packets, octets)})
        return moved

    def _move(self, limit: int) -> int:
        # The hot loop: a packet costs what stands in it. So of a flow that is known it calls nothing but the kernel
        # and `struct`, and everything has a local name.
        tun, buffer, into, view, ring = self._tun, self._buffer, self._into, self._view, self._ring
        known, name4, name6 = self._flows.get, NAME4.unpack_from, NAME6.unpack_from
        packets, octets = [0] * REASONS, [0] * REASONS
        now = self._tick()
        monotonic, wall = time.monotonic_ns(), int(now * 1e9)
        if ring is not None:
            records, head, room, mask, seq = ring.claim()
            record = event.STAMPED.pack_into
        else:
            room = 0
        moved = 0
        while moved < limit:
            try:
                length = os.readv(tun, into)
            except BlockingIOError:
                break
            first = buffer[HEADER_BYTES]
            if first == PLAIN4:
                name = name4(buffer, HEADER_BYTES)
                end = HEADER_BYTES + (buffer[12] << 8 | buffer[13])
            elif first >> 4 == 6:
                name = name6(buffer, HEADER_BYTES)
                end = HEADER_BYTES + 40 + (buffer[14] << 8 | buffer[15])
            else:
                name, end = NO_NAME, 0
            flow = known(name)
            if flow is None or length != end or length < flow[0]:
                flow = self._meet(name, length, now)
            _, flags_at, allow, reason, (same, known_bits) = flow
            if allow:
                try:
                    os.write(tun, view[:length])
                except OSError as error:
                    self._not_taken(error)
            count = segments(buffer, length) if buffer[GSO_TYPE] else 1
            length -= HEADER_BYTES
            packets[reason] += count
            octets[reason] += length
            if moved < room:
                at = RING_HEADER_BYTES + (head + moved & mask) * event.RECORD_BYTES
                flags = buffer[flags_at]
                record(records, at, seq + moved, monotonic, wall, same, flags, known_bits, count, length)
            moved += 1
        if moved:
            self._counters.add(dict(enumerate(zip(packets, octets, strict=True))))
            if ring is not None:
                ring.publish(moved)
        return moved

    def _write(self, length: int) -> None:
        try:
            os.write(self._tun, self._view[:length])
        except OSError as error:
            self._not_taken(error)

    def _tick(self) -> float:
        """Return the time that counts, Unix seconds, and let nothing that was remembered outlive a rule."""
        now = self._now = max(time.time(), self._now)  # a clock set back revives no grant
        if self._judge is not None and now >= self._flows.until:
            self._flows.renew(self._tables.policy.next_change(now))
        return now

    def _meet(self, name: Name, length: int, now: float) -> Flow:
        """Judge the packet in the buffer, of which nothing is remembered."""
        packet = parse(bytes(self._view[HEADER_BYTES:length]))
        verdict = self._judge(packet, now) if self._judge is not None else _OBSERVED
        template = self._template(packet, verdict) if self._ring is not None else _NO_EVENT
        shaped = shape(name) if name and packet is not None else None
        if shaped is not None:
            self._flows.remember(name, Flow(*shaped, verdict.allow, verdict.reason, template))
        self._buffer[FLAGS_AT] = packet.tcp_flags if packet is not None else 0
        return Flow(0, FLAGS_AT, verdict.allow, verdict.reason, template)

    def _template(self, packet: Packet | None, verdict: Verdict) -> event.Template:
        """Return what is the same in all events of a flow."""
        text = self._tables.clients.get(packet.source) if packet is not None else None
        known = 0
        if packet is not None:
            known = event.KNOWN_ADDRESSES | (event.KNOWN_PORTS if packet.has_ports else 0)
        return event.template(
            generation=self._tables.generation,
            rule=event.NO_RULE if verdict.rule is None else verdict.rule,
            client_id=bytes.fromhex(text) if text else event.NO_CLIENT,
            source=event.mapped(packet.source) if packet else bytes(16),
            destination=event.mapped(packet.destination) if packet else bytes(16),
            source_port=packet.source_port if packet else 0,
            destination_port=packet.port if packet else 0,
            kind=event.KIND_PACKET,
            mode=int(self._tables.enforce),
            verdict=int(verdict.allow),
            reason=verdict.reason,
            protocol=packet.protocol if packet else 0,
            known=known,
        )

    def _not_taken(self, error: OSError) -> None:
        """Count a packet that the kernel did not take; one that refuses super-packets is given none from here on."""
        self._counters.count_write_error()
        if error.errno == errno.EINVAL and self._buffer[GSO_TYPE]:
            self._counters.count_refused_super_packet()
            set_offloads(self._tun, 0)


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
