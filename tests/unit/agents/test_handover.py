"""The forwarder as the process it is: reports, hand-over, SIGTERM, kill -9."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents.datapath import counters
from tidegate_agents.datapath.forwarder import ACTIVE, BATCH, LOADED
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import ring
from tidegate_agents.events.ring import Ring
from tidegate_agents.gateway import generation
from tidegate_agents.gateway.processes import Forwarder, ProcessError, replace_forwarder
from tidegate_agents.host import Places
from tidegate_schema import event
from tidegate_schema.policy import PolicyTable
from unit.agents.kit import UDP, VNET, descriptors, id_of, ip4, policy, raw, udp, until

ALICE, WEB = "10.64.0.11", "10.20.0.80"
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
        generation.directory(self.places).mkdir(parents=True)
        self.counters = directory / "counters"
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
            self.now, self.tun.fileno(), tables, self.counters, self.ring if logging else None
        )

    def stop(self) -> int:
        assert self.now is not None
        self.now.child.stop()
        self.now.close()
        status: int = self.now.child.popen.returncode
        self.now = None
        return status

    def close(self) -> None:
        if self.now is not None:
            self.stop()
        self.kernel.close()
        self.tun.close()


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
    one = Forwarder(bench.tun.fileno(), bench.tables(), bench.counters, None, None)
    one.expect(LOADED, 20)
    one.expect(ACTIVE, 20)
    two = Forwarder(bench.tun.fileno(), bench.tables(), bench.counters, None, one)
    two.expect(LOADED, 20)
    with pytest.raises(ProcessError, match="did not get as far as A"):
        two.expect(ACTIVE, 0.2)  # the first one is still in charge
    assert one.child.popen.poll() is None
    one.child.stop()
    two.expect(ACTIVE, 20)
    bench.kernel.send(packet(1))
    assert number(bench.kernel.recv(2000)) == 1
    two.child.stop()
    assert (one.child.popen.returncode, two.child.popen.returncode) == (0, 0)
    one.close()
    two.close()


def test_the_waiting_one_touches_nothing_and_can_be_called_off(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    assert bench.now is not None
    waiting = Forwarder(bench.tun.fileno(), bench.tables(allow=False), bench.counters, None, bench.now)
    waiting.expect(LOADED, 20)
    for n in range(50):
        bench.kernel.send(packet(n))
    assert [number(bench.kernel.recv(2000)) for _ in range(50)] == list(range(50))
    waiting.child.stop()
    assert waiting.child.popen.returncode == 0
    waiting.close()


def test_twenty_hand_overs_at_full_speed_lose_and_duplicate_nothing(bench: Bench) -> None:
    before = descriptors()
    ring.create(bench.ring, 1 << 18)
    bench.hand_over(bench.tables(), logging=True)
    traffic = Traffic(bench.kernel)
    for turn in range(20):
        reached = len(traffic.back)
        until("traffic flows", lambda reached=reached: len(traffic.back) > reached + 200)
        bench.hand_over(bench.tables(enforce=turn % 3 != 0), logging=True)
    traffic.end()
    assert bench.stop() == 0
    assert traffic.sent > 4000
    assert traffic.back == list(range(traffic.sent))
    found = counters.read(bench.counters)
    assert found.write_errors == 0
    assert found.packets["allowed"] + found.packets["observed"] == traffic.sent + 1
    reader = Ring(bench.ring)
    assert (reader.pending(), reader.dropped()) == (traffic.sent + 1, 0)
    events = [event.unpack(record) for record in reader.peek(1 << 18)]
    reader.close()
    assert [one.seq for one in events] == list(range(traffic.sent + 1))
    generations = [one.generation for one in events]
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
    assert bench.now.child.popen.wait(20) == 0
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
        bench.now.child.popen.wait()
        bench.hand_over(bench.tables())
    traffic.end()
    assert traffic.back == sorted(set(traffic.back))
    assert traffic.sent - len(traffic.back) <= 3  # at most the packet in the hands of the one that was killed


def test_a_waiting_one_takes_over_when_its_predecessor_is_killed(bench: Bench) -> None:
    bench.hand_over(bench.tables())
    assert bench.now is not None
    old = bench.now
    new = Forwarder(bench.tun.fileno(), bench.tables(), bench.counters, None, old)
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


def test_a_forwarder_dies_with_its_supervisor(bench: Bench) -> None:
    pid = os.fork()
    if pid == 0:  # a supervisor that is killed
        try:
            bench.hand_over(bench.tables())
            os.kill(os.getpid(), signal.SIGKILL)
        finally:
            os._exit(1)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    deadline = time.monotonic() + 10
    bench.tun.close()
    bench.kernel.settimeout(0.1)
    while time.monotonic() < deadline:  # the twin's end is closed once no process holds it
        try:
            if bench.kernel.recv(10) == b"":
                return
        except TimeoutError:
            continue
        except ConnectionResetError:
            return
    raise AssertionError("somebody still holds the TUN")
