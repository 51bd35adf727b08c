"""The forwarder: one process per generation that reads the TUN, judges, and writes allowed packets back unchanged.

    load tables ─► say "L" ─► wait for the lock ─► give up privileges, say "A" ─► read, judge, write ─► drain, exit

One mechanism changes everything (policy, peers, mode, logging): a new process with new tables takes the TUN over.
The one in charge holds a file lock, which the kernel hands on when it stops, and also when it is killed; packets wait
in the TUN's queue meanwhile. SIGTERM sets a flag only, so that no packet already read is lost. Whoever waits for the
charge dies with its supervisor; whoever has it outlives the supervisor, which finds it again by the lock. No I/O but
the TUN while packets move, and one poll per batch.

This module stays small at import: a restart must be quick.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import io
import math
import os
import select
import signal
import sys
import time
from pathlib import Path

from tidegate_agents.clock import Clock
from tidegate_agents.datapath.counters import REASONS, Counters
from tidegate_agents.datapath.flowlog import FlowLog
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
from tidegate_agents.events.ring import Ring, RingError
from tidegate_agents.process import die_with, drop_privileges, outlive_parent
from tidegate_schema import event
from tidegate_schema.policy import Reason, Verdict

LOADED, ACTIVE = b"L", b"A"
BATCH = 64
DRAIN_MAX = (
    8192  # twice the TUN's queue (gateway.network.QUEUE_LENGTH): a flood cannot keep an old generation alive
)
CUTS_MOST = 2048
"""Lengths of packets of which a view of the buffer is kept; some 0.5 MB."""
_OBSERVED = Verdict(True, Reason.OBSERVED, None)
_PLACES = tuple(range(0, BATCH * event.RECORD_BYTES, event.RECORD_BYTES))
"""Where the records of a batch begin."""
_NO_EVENT: event.Template = (b"", b"")


class Forwarder:
    """Moves packets of one TUN; `step` handles what is there and returns how many reads that was.

    What is read is a virtio_net_hdr and a packet, or a super-packet (`datapath.offload`), into the same buffer each
    time.
    """

    def __init__(
        self,
        tun: int,
        tables: Tables,
        counters: Counters,
        log: Ring | FlowLog | None = None,
        denied: int | None = None,
    ) -> None:
        """`log`: a ring for an event of each packet, or what makes those of flows.

        `denied`: a second TUN, for packets whose like the kernel is to drop by itself.
        """
        self._tun = tun
        self._denied = denied
        self._tables = tables
        self._counters = counters
        self._ring = log if isinstance(log, Ring) else None
        self._flow_log = log if isinstance(log, FlowLog) else None
        self._clock = Clock(tables.not_earlier_than)
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._into = self._view[:ZERO_AT]
        # Of a file readinto is cheaper than readv, and tells that nothing waits without an exception.
        self._read = io.FileIO(tun, closefd=False).readinto
        self._cuts: dict[int, memoryview] = {}
        # Observe has no judge at all: it runs no authorization code (design §1).
        self._judge = Judge(tables).judge if tables.enforce else None
        self._flows = Flows()
        # Records are packed here, where they stay in the processor's cache, and go into the ring a batch at a time.
        self._records = memoryview(bytearray(BATCH * event.RECORD_BYTES))

    def step(self, limit: int = BATCH) -> int:
        """Read, judge and write back at most `limit` and BATCH packets; returns how many there were.

        With fewer than `limit` none waits any more.
        """
        unseen = self._judge is None and self._ring is None and self._flow_log is None
        return self._pass(limit) if unseen else self._move(limit)

    def patience(self) -> float | None:
        """Return the seconds after which a `step` is wanted though no packet comes, None for never."""
        if self._flow_log is None or self._flow_log.due == math.inf:
            return None
        return max(0.0, self._flow_log.due - time.monotonic())

    def close(self) -> None:
        """Tell what is still being counted."""
        if self._flow_log is not None:
            self._flow_log.publish(time.monotonic_ns(), int(self._tick() * 1e9), final=True)

    def _pass(self, limit: int) -> int:
        """Write everything back: what nobody judges or logs is not even looked at."""
        packets = octets = moved = 0
        while moved < limit:
            length = self._read(self._into)
            if length is None:
                break
            if not length:
                raise _gone()
            moved += 1
            packets += segments(self._buffer, length) if self._buffer[GSO_TYPE] else 1
            octets += length - HEADER_BYTES
            self._write(length)
        self._counters.add(Reason.OBSERVED, packets, octets)
        return moved

    def _move(self, limit: int) -> int:
        # The hot loop: a packet costs what stands in it. So of a flow that is known it calls nothing but the kernel
        # and `struct`, and everything has a local name.
        tun, read, buffer, into, cut = self._tun, self._read, self._buffer, self._into, self._cuts.get
        denied, ring, log = self._denied, self._ring, self._flow_log
        known, name4, name6 = self._flows.get, NAME4.unpack_from, NAME6.unpack_from
        packets, octets = [0] * REASONS, [0] * REASONS
        now = self._tick()
        monotonic, wall = time.monotonic_ns(), int(now * 1e9)
        number = 0 if ring is None else ring.claim()[-1]
        pack, records, times = event.STAMPED.pack_into, self._records, event.TIMES.pack(monotonic, wall)
        moved = 0
        for at in _PLACES[:limit]:
            length = read(into)
            if length is None:
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
            least, flags_at, allow, reason, same, known_bits = flow
            if allow:
                try:
                    os.write(tun, cut(length) or self._cut(length))
                except OSError as error:
                    self._not_taken(error)
            elif least and denied is not None:
                with contextlib.suppress(OSError):  # then the next one comes here too
                    os.write(denied, cut(length) or self._cut(length))
            count = segments(buffer, length) if buffer[GSO_TYPE] else 1
            length -= HEADER_BYTES
            packets[reason] += count
            octets[reason] += length
            if ring is not None:
                pack(records, at, number, times, same, buffer[flags_at], known_bits, count, length)
                number += 1
            elif log is not None:
                log.saw((same, known_bits), allow, buffer[flags_at], count, length, monotonic / 1e9)
            moved += 1
        if moved:
            for reason, count in enumerate(packets):
                if count:
                    self._counters.add(reason, count, octets[reason])
            if ring is not None:
                ring.write(records[: moved * event.RECORD_BYTES])
                ring.publish(moved)
        if log is not None:
            log.publish(monotonic, wall)
        return moved

    def _write(self, length: int) -> None:
        try:
            os.write(self._tun, self._view[:length])
        except OSError as error:
            self._not_taken(error)

    def _cut(self, length: int) -> memoryview:
        """Return so much of the buffer; to look a view up costs a third of making it, and few lengths are frequent."""
        if len(self._cuts) >= CUTS_MOST:
            self._cuts.clear()
        return self._cuts.setdefault(length, self._view[:length])

    def _tick(self) -> float:
        """Return the time that counts, Unix seconds, and let nothing that was remembered outlive a rule."""
        now = self._clock.now()
        if self._judge is not None and now >= self._flows.until:
            self._flows.renew(self._tables.policy.next_change(now))
        return now

    def _meet(self, name: Name, length: int, now: float) -> Flow:
        """Judge the packet in the buffer, of which nothing is remembered."""
        if not length:
            raise _gone()
        packet = parse(bytes(self._view[HEADER_BYTES:length]))
        verdict = self._judge(packet, now) if self._judge is not None else _OBSERVED
        is_told = self._ring is not None or self._flow_log is not None
        template = self._template(packet, verdict) if is_told else _NO_EVENT
        shaped = shape(name) if name and packet is not None else None
        if shaped is None:
            self._buffer[FLAGS_AT] = packet.tcp_flags if packet is not None else 0
            return 0, FLAGS_AT, verdict.allow, int(verdict.reason), *template
        flow = *shaped, verdict.allow, int(verdict.reason), *template
        self._flows.remember(name, flow)
        return flow

    def _template(self, packet: Packet | None, verdict: Verdict) -> event.Template:
        """Return what is the same in all events of a flow."""
        text = self._tables.clients.get(packet.source) if packet is not None else None
        known = 0
        if packet is not None:
            known = event.KNOWN_ADDRESSES | (event.KNOWN_PORTS if packet.has_ports else 0)
        kind = event.Kind.FLOW_OPEN if verdict.allow else event.Kind.DENY
        return event.template(
            generation=self._tables.generation,
            rule=event.NO_RULE if verdict.rule is None else verdict.rule,
            client_id=bytes.fromhex(text) if text else event.NO_CLIENT,
            source=event.mapped(packet.source) if packet else bytes(16),
            destination=event.mapped(packet.destination) if packet else bytes(16),
            source_port=packet.source_port if packet else 0,
            destination_port=packet.port if packet else 0,
            kind=kind if self._ring is None else event.Kind.PACKET,
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


def _gone() -> OSError:
    """Return the error for an end of file, which no TUN has: who goes on reading there would never end."""
    return OSError(errno.EBADFD, os.strerror(errno.EBADFD))


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


def main(argv: list[str] | None = None) -> int:
    """Run one forwarder; started by the supervisor."""
    parser = argparse.ArgumentParser(prog="tidegate-forwarder", description=__doc__)
    parser.add_argument("--tun", type=int, required=True, help="descriptor of the TUN, non-blocking")
    parser.add_argument("--denied", type=int, help="descriptor of the TUN that denied packets are written to")
    parser.add_argument("--report", type=int, required=True, help="descriptor that is told L and A")
    parser.add_argument("--parent", type=int, required=True, help="process ID of the supervisor")
    parser.add_argument("--user", type=int, required=True, help="user and group to become")
    parser.add_argument("--lock", type=Path, required=True, help="whoever holds its lock is in charge")
    parser.add_argument("--tables", type=Path, required=True)
    parser.add_argument("--counters", type=Path, required=True)
    parser.add_argument("--ring", type=Path, help="event ring; without it no event is made")
    parser.add_argument(
        "--flows",
        type=float,
        metavar="SECONDS",
        help="events of flows, not packets; a flow that was silent for so long is told of again",
    )
    options = parser.parse_args(argv)
    try:
        return _run(options)
    except OSError as error:
        print(f"forwarder: {error.filename or 'TUN or supervisor'}: {error.strerror}", file=sys.stderr)
        return 1


def _ring(path: Path) -> Ring | None:
    try:
        return Ring(path)
    except RingError as error:  # the next generation gets a new one; packets do not wait for it
        print(f"forwarder: no events: {error}", file=sys.stderr)
        return None


def _run(options: argparse.Namespace) -> int:
    die_with(options.parent)
    lock = os.open(options.lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    known = Tables.parse(options.tables.read_bytes())
    os.write(options.report, LOADED)
    fcntl.lockf(lock, fcntl.LOCK_EX)
    stop = _StopFlag()
    outlive_parent()
    # Mapped only now: until here somebody else is the ring's one producer.
    counters = Counters(options.counters)
    ring = _ring(options.ring) if options.ring is not None else None
    # And privileges go only now: the one before has the same user, and what it was handed by its packets must not
    # reach the one that is to follow it. From here on there are packets, and nothing is opened any more.
    drop_privileges(options.user, processes=0, empty=options.lock.parent / "empty")
    log = ring if ring is None or options.flows is None else FlowLog(ring, options.flows)
    forwarder = Forwarder(options.tun, known, counters, log, options.denied)
    os.write(options.report, ACTIVE)
    poller = select.poll()
    poller.register(options.tun, select.POLLIN)
    poller.register(stop.readable, select.POLLIN)
    while not stop.set:
        patience = forwarder.patience()
        poller.poll(None if patience is None else math.ceil(patience * 1000))
        while forwarder.step() == BATCH and not stop.set:
            pass
    # What waits in the queue arrived under this generation, and belongs to the clients it knew.
    drained = 0
    while drained < DRAIN_MAX and (moved := forwarder.step()):
        drained += moved
    forwarder.close()
    os.close(lock)  # before the interpreter tears down a hundred thousand clients
    return 0


if __name__ == "__main__":
    sys.exit(main())
