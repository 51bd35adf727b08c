"""The forwarder as the process it is: reports, hand-over, SIGTERM, kill -9."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents.datapath import counters
from tidegate_agents.datapath.forwarder import ACTIVE, BATCH, LOADED
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_agents.gateway import generation
from tidegate_agents.gateway.processes import (
    Forwarder,
    Log,
    ProcessError,
    Station,
    replace_forwarder,
    survivor,
)
from tidegate_agents.host import Places
from tidegate_schema.policy import PolicyTable
from unit.agents.kit import (
    UDP,
    VNET,
    descriptors,
    id_of,
    ip4,
    policy,
    privileges,
    raw,
    udp,
    unpacked,
    unprivileged,
    until,
)

ALICE, WEB = "10.64.0.11", "10.20.0.80"
USER = 61001
WINDOW = 60  # packets under way at most: well below what the socket pair holds


def packet(number: int) -> bytes:
    return VNET + ip4(ALICE, WEB, UDP, udp(body=struct.pack(">Q", number)))


def number(data: bytes) -> int:
    return int(struct.unpack(">Q", data[-8:])[0])


class Bench:
    """A twin of the TUN, a supervisor's files, and the forwarder in charge."""

    def __init__(self, directory: Path) -> None:
        self.kernel, self.tun = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        for end in (self.kernel, self.tun):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 212992)
        self.tun.setblocking(False)
        self.kernel.settimeout(20)
        self.places = Places("gateway", run_directory=directory)
        self.places.run.mkdir()
        generation.prepare(self.places, USER)
        self.denied = os.open("/dev/null", os.O_WRONLY)
        self.station = Station(self.tun.fileno(), self.denied, directory, USER)
        self.counters = self.station.counters
        self.ring = directory / "events.ring"
        self.now: Forwarder | None = None
        self.generations = 0

    def tables(self, *, enforce: bool = True, allow: bool = True) -> Path:
        self.generations += 1
        rules: list[dict[str, Any]] = [{"to": ["10.20.0.0/16"], "ports": ["udp/53"]}] if allow else []
        table = PolicyTable(policy(alice=rules))
        written = Tables(self.generations, enforce, {raw(ALICE): id_of("alice")}, table)
        generation.write(self.places, written)
        return generation.file(self.places, self.generations)

    def hand_over(self, tables: Path, *, logging: bool = False) -> None:
        self.now = replace_forwarder(
            self.now, self.station, tables, Log(self.ring, None) if logging else None
        )

    def stop(self) -> int:
        assert self.now is not None
        self.now.child.stop()
        self.now.close()
        status: int = self.now.child.status
        self.now = None
        return status

    def close(self) -> None:
        if self.now is not None:
            self.stop()
        self.kernel.close()
        self.tun.close()
        os.close(self.denied)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


class Traffic:
    """Sends numbered packets as fast as they come back, and keeps the numbers of those that did."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._stop = threading.Event()
        self._room = threading.Semaphore(WINDOW)
        self.sent = 0
        self.back: list[int] = []
        self._threads = [threading.Thread(target=run) for run in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def _send(self) -> None:
        while not self._stop.is_set():
            if self._room.acquire(timeout=0.05):
                self._end.send(packet(self.sent))
                self.sent += 1
        self._end.send(packet(2**63))  # the last one

    def _receive(self) -> None:
        while (found := number(self._end.recv(2000))) != 2**63:
            self.back.append(found)
            self._room.release()

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive()


def test_a_forwarder_reports_what_it_has_reached(bench: Bench) -> None:
    one = Forwarder(bench.station, bench.tables(), None, tell_denied=False)
    one.expect(LOADED, 20)
    one.expect(ACTIVE, 20)
    two = Forwarder(bench.station, bench.tables(), None, tell_denied=False)
    two.expect(LOADED, 20)
    with pytest.raises(ProcessError, match="did not get as far as A"):
        two.expect(ACTIVE, 0.2)  # the first one is still in charge
    assert not one.child.ended()
    one.child.stop()
    two.expect(ACTIVE, 20)
    bench.kernel.send(packet(1))
    assert number(bench.kernel.recv(2000)) == 1
    two.child.stop()
    assert (one.child.status, two.child.status) == (0, 0)
    one.close()
    two.close()


def test_the_waiting_one_touches_nothing_and_can_be_called_off(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    assert bench.now is not None
    waiting = Forwarder(bench.station, bench.tables(allow=False), None, tell_denied=False)
    waiting.expect(LOADED, 20)
    for n in range(50):
        bench.kernel.send(packet(n))
    assert [number(bench.kernel.recv(2000)) for _ in range(50)] == list(range(50))
    waiting.child.stop()
    assert waiting.child.status == -signal.SIGTERM
    waiting.close()


def taken(reader: Ring) -> list[tuple[int, int]]:
    """Take what waits out of a ring: sequence numbers and generations."""
    events = unpacked(reader.peek(reader.pending()))
    reader.free(len(events))
    return [(one.seq, one.generation) for one in events]


def test_twenty_hand_overs_at_full_speed_lose_and_duplicate_nothing(bench: Bench) -> None:
    before = descriptors()
    ring.create(bench.ring, 1 << 18)
    bench.hand_over(bench.tables(), logging=True)
    reader, events = Ring(bench.ring), []
    traffic = Traffic(bench.kernel)
    for turn in range(20):
        reached = len(traffic.back)
        until("traffic flows", lambda reached=reached: len(traffic.back) > reached + 200)
        bench.hand_over(bench.tables(enforce=turn % 3 != 0), logging=True)
        events += taken(reader)
    traffic.end()
    assert bench.stop() == 0
    assert traffic.sent > 4000
    assert traffic.back == list(range(traffic.sent))
    found = counters.read(bench.counters)
    assert found.write_errors == 0
    assert found.packets["allowed"] + found.packets["observed"] == traffic.sent + 1
    events += taken(reader)
    assert (len(events), reader.dropped()) == (traffic.sent + 1, 0)
    reader.close()
    assert [seq for seq, _ in events] == list(range(traffic.sent + 1))
    generations = [generation for _, generation in events]
    assert generations == sorted(generations)
    assert len(set(generations)) == 21
    assert descriptors() == before


def test_a_new_generation_judges_every_packet_after_its_hand_over(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    bench.kernel.send(packet(1))
    assert number(bench.kernel.recv(2000)) == 1
    bench.hand_over(bench.tables(allow=False))
    for n in range(10):
        bench.kernel.send(packet(n))
    until("all are counted", lambda: counters.read(bench.counters).packets["no-rule"] == 10)
    bench.kernel.settimeout(0.1)
    with pytest.raises(TimeoutError):
        bench.kernel.recv(2000)


def test_sigterm_drains_what_waits(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    assert bench.now is not None
    pid = bench.now.child.pid
    os.kill(pid, signal.SIGSTOP)
    waiting = 3 * BATCH  # more than the step it is about to take
    bench.kernel.setblocking(False)
    for n in range(waiting):
        bench.kernel.send(packet(n))
    os.kill(pid, signal.SIGTERM)
    os.kill(pid, signal.SIGCONT)
    assert bench.now.child._ends_within(20)
    assert [number(bench.kernel.recv(2000)) for _ in range(waiting)] == list(range(waiting))
    assert counters.read(bench.counters).packets["allowed"] == waiting


def test_after_kill_9_the_new_one_goes_on(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    traffic = Traffic(bench.kernel)
    for _ in range(3):
        reached = len(traffic.back)
        until("traffic flows", lambda reached=reached: len(traffic.back) > reached + 200)
        assert bench.now is not None
        os.kill(bench.now.child.pid, signal.SIGKILL)
        bench.now.child._ends_within(20)
        bench.hand_over(bench.tables())
    traffic.end()
    assert traffic.back == sorted(set(traffic.back))
    assert traffic.sent - len(traffic.back) <= 3  # at most the packet in the hands of the one that was killed


def test_a_waiting_one_takes_over_when_its_predecessor_is_killed(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    assert bench.now is not None
    old = bench.now
    new = Forwarder(bench.station, bench.tables(), None, tell_denied=False)
    new.expect(LOADED, 20)
    os.kill(old.child.pid, signal.SIGKILL)
    new.expect(ACTIVE, 20)
    bench.kernel.send(packet(5))
    assert number(bench.kernel.recv(2000)) == 5
    old.child.stop()
    old.close()
    bench.now = new


@pytest.mark.parametrize("content", [b"", b"{}", b'{"generation": 1', b"\xff"])
def test_tables_that_cannot_be_loaded_leave_the_old_one_in_charge(
    bench: Bench, tmp_path: Path, content: bytes, capfd: pytest.CaptureFixture[str]
) -> None:
    bench.hand_over(bench.tables())
    before = descriptors()
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    with pytest.raises(ProcessError, match="did not get as far as L"):
        bench.hand_over(bad)
    bench.kernel.send(packet(1))
    assert number(bench.kernel.recv(2000)) == 1
    assert descriptors() == before


def _supervisor_that_is_killed(work: Callable[[], object]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL


def test_the_one_in_charge_outlives_its_supervisor_and_is_found_and_followed(bench: Bench) -> None:
    assert survivor(bench.station.directory) is None
    tables, follower = bench.tables(), bench.tables()
    _supervisor_that_is_killed(lambda: bench.hand_over(tables))
    bench.kernel.send(packet(1))
    assert number(bench.kernel.recv(2000)) == 1
    found = survivor(bench.station.directory)
    assert found is not None
    assert found.tun("no-such-tun") == -1
    bench.now = replace_forwarder(found, bench.station, follower, None)
    assert found.child.pid != bench.now.child.pid
    bench.kernel.send(packet(2))
    assert number(bench.kernel.recv(2000)) == 2
    assert bench.stop() == 0
    assert survivor(bench.station.directory) is None


def test_one_that_waits_dies_with_its_supervisor(bench: Bench) -> None:
    """Else it would come into charge, with tables of yesterday, after those of a new supervisor."""
    bench.hand_over(bench.tables())
    tables = bench.tables(allow=False)
    pids, told = os.pipe()

    def work() -> None:
        waiting = Forwarder(bench.station, tables, None, tell_denied=False)
        waiting.expect(LOADED, 20)
        os.write(told, str(waiting.child.pid).encode())

    _supervisor_that_is_killed(work)
    pid = int(os.read(pids, 20))
    until("it is gone", lambda: not Path(f"/proc/{pid}").exists() or _is_zombie(pid))
    os.close(pids)
    os.close(told)
    bench.kernel.send(packet(1))
    assert number(bench.kernel.recv(2000)) == 1


def _is_zombie(pid: int) -> bool:
    return ") Z " in Path(f"/proc/{pid}/stat").read_text()


def test_a_take_over_that_somebody_else_gets_is_none_and_whoever_got_it_is_ended(bench: Bench) -> None:
    """Another one in the queue, say of a supervisor that was killed: its tables must never come into force."""
    bench.hand_over(bench.tables())
    assert bench.now is not None
    stale = Forwarder(bench.station, bench.tables(), None, tell_denied=False)
    stale.expect(LOADED, 20)
    old = bench.now
    with pytest.raises(ProcessError, match="did not get as far as A"):
        bench.hand_over(bench.tables(allow=False))
    assert old.child.ended()
    until("it has been ended", stale.child.ended)
    stale.close()
    old.close()
    bench.now = None
    bench.hand_over(bench.tables(allow=False))
    bench.kernel.send(packet(1))
    until("it is judged by the new ones", lambda: counters.read(bench.counters).packets["no-rule"] == 1)


def test_a_spoilt_counter_page_and_a_ring_that_is_none_end_no_forwarder(bench: Bench) -> None:
    bench.counters.write_bytes(b"\xff" * 4096)
    bench.ring.write_bytes(b"no ring")
    bench.hand_over(bench.tables(), logging=True)
    for n in range(3):
        bench.kernel.send(packet(n))
        assert number(bench.kernel.recv(2000)) == n
    assert bench.stop() == 0


GIVE_UP = """
import ctypes, os, sys
from pathlib import Path
from tidegate_agents.process import drop_privileges
drop_privileges(61001, processes=0, empty=Path(sys.argv[1]))
def refused(work):
    try: work()
    except OSError: return True
libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
print(
    libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0,
    refused(os.fork),
    os.listdir("/") == [],
    refused(lambda: os.setuid(0)),
    refused(lambda: os.open("made", os.O_CREAT | os.O_WRONLY)),
)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_who_gave_up_privileges_reaches_no_file_makes_no_process_and_no_namespace(tmp_path: Path) -> None:
    command = [sys.executable, "-c", GIVE_UP, str(tmp_path / "empty")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"] * 5


def test_a_forwarder_has_no_privilege_left(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    assert bench.now is not None
    assert privileges(bench.now.child.pid) == unprivileged(USER)
