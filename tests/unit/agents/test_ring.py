"""The ring: nothing torn, nothing twice, nothing out of order, and every loss counted."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import stat
import struct
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_agents.events import ring as ring_module
from tidegate_agents.events.ring import (
    HEADER_BYTES,
    MAGIC,
    Ring,
    RingError,
    create,
    forget_if_resized,
    open_or_replace,
)
from tidegate_schema import event
from unit.agents.kit import Batch, fields, unpacked

RECORD = event.RECORD_BYTES


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "events.ring"


def made(path: Path, records: int = 8) -> Ring:
    create(path, records)
    return Ring(path)


def produce(ring: Ring, *numbers: int) -> None:
    batch = Batch(ring)
    for number in numbers:
        batch.put(*fields(number))
    batch.publish()


def read(ring: Ring, limit: int = 10**6) -> list[tuple[int, int]]:
    """Return (sequence number, number) of what waits."""
    events = unpacked(ring.peek(limit))
    return [(one.seq, one.length) for one in events]


@pytest.mark.parametrize(
    ("records", "capacity"), [(1, 2), (2, 2), (3, 4), (64, 64), (65, 128), (100, 128), (128, 128)]
)
def test_a_new_ring_is_empty_private_and_a_power_of_two(path: Path, records: int, capacity: int) -> None:
    ring = made(path, records)
    assert (ring.capacity, ring.pending(), ring.dropped(), ring.peek(5)) == (capacity, 0, 0, b"")
    info = path.stat()
    assert stat.S_IMODE(info.st_mode) == 0o600
    assert info.st_size == HEADER_BYTES + capacity * RECORD
    assert info.st_blocks * 512 >= info.st_size  # allocated now, so that a full disk is told now


def test_every_ring_has_an_epoch_of_its_own(path: Path) -> None:
    epochs = {made(path).epoch for _ in range(20)}
    assert len(epochs) == 20
    assert all(len(epoch) == 16 for epoch in epochs)


def test_records_come_out_as_they_went_in(path: Path) -> None:
    ring = made(path)
    one = fields(77, client_id=bytes(range(16)), verdict=0, rule=event.NO_RULE, wall_ns=2**63)
    batch = Batch(ring)
    batch.put(*one)
    batch.publish()
    assert unpacked(ring.peek(9)) == [event.Event(0, *one)]


def test_what_is_not_published_is_not_seen(path: Path) -> None:
    ring = made(path)
    consumer = Ring(path)
    batch = Batch(ring)
    for number in range(5):
        batch.put(*fields(number))
    assert (consumer.pending(), consumer.peek(9)) == (0, b"")
    batch.publish()
    assert consumer.pending() == 5
    assert len(unpacked(consumer.peek(9))) == 5


def test_a_peek_takes_nothing_away(path: Path) -> None:
    ring = made(path)
    produce(ring, *range(5))
    assert read(ring, 3) == [(0, 0), (1, 1), (2, 2)]
    assert read(ring, 3) == [(0, 0), (1, 1), (2, 2)]
    ring.free(2)
    assert read(ring) == [(2, 2), (3, 3), (4, 4)]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 20), st.integers(0, 8), st.integers(0, 10), st.integers(0, 10))
def test_a_peek_can_begin_behind_the_oldest(
    path: Path, before: int, there: int, skip: int, limit: int
) -> None:
    ring = made(path)
    for number in range(before):
        produce(ring, number)
        ring.free(1)
    produce(ring, *range(100, 100 + there))
    found = [one.length for one in unpacked(ring.peek(limit, skip))]
    assert found == list(range(100, 100 + there))[skip : skip + limit]


def test_it_wraps_around(path: Path) -> None:
    producer, consumer = made(path), Ring(path)
    for number in range(100):
        produce(producer, 3 * number, 3 * number + 1, 3 * number + 2)
        assert [n for _, n in read(consumer)] == [3 * number, 3 * number + 1, 3 * number + 2]
        consumer.free(3)
    assert (consumer.pending(), consumer.dropped()) == (0, 0)


def test_a_full_ring_drops_the_new_and_counts_it(path: Path) -> None:
    producer, consumer = made(path), Ring(path)
    produce(producer, *range(11))
    assert read(consumer) == [(n, n) for n in range(8)]
    assert consumer.dropped() == 3
    consumer.free(8)
    produce(producer, 11, 12)
    assert read(consumer) == [(11, 11), (12, 12)]  # the gap in the sequence numbers is what was dropped
    assert consumer.dropped() == 3


@settings(deadline=None, max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["append", "publish", "free", "restart producer", "restart consumer"]),
            st.integers(1, 9),
        ),
        max_size=40,
    )
)
def test_any_order_of_steps_keeps_the_promise(path: Path, steps: list[tuple[str, int]]) -> None:
    producer, consumer = made(path), Ring(path)
    batch = Batch(producer)
    written: dict[int, int] = {}  # by sequence number, of this and earlier producers
    number = 0
    seen: list[tuple[int, int]] = []
    published = 0
    for step, count in steps:
        if step == "append":
            for _ in range(count):
                seq = batch.put(*fields(number))
                if seq is not None:
                    written[seq] = number
                number += 1
        elif step == "publish":
            batch.publish()
            published = producer._head
        elif step == "restart producer":
            producer = Ring(path)  # what it had not published is as if it had never been
            batch = Batch(producer)
            assert producer._head == published
        elif step == "restart consumer":
            consumer = Ring(path)
        else:
            waiting = read(consumer, count)
            seen += waiting
            consumer.free(len(waiting))
    seen += read(consumer)
    assert [seq for seq, _ in seen] == sorted({seq for seq, _ in seen})
    assert all(written[seq] == value for seq, value in seen)
    assert len(seen) == published
    if seen:
        gaps = seen[-1][0] + 1 - len(seen)
        assert gaps <= consumer.dropped()


def test_a_restarted_producer_goes_on_where_it_was(path: Path) -> None:
    first = made(path)
    produce(first, *range(10))
    Batch(first).put(*fields(99))
    first.close()
    second = Ring(path)
    consumer = Ring(path)
    consumer.free(8)
    produce(second, 10)
    assert read(consumer) == [(10, 10)]
    assert consumer.dropped() == 2


def test_a_restarted_consumer_sees_again_what_it_had_not_freed(path: Path) -> None:
    ring = made(path)
    produce(ring, *range(6))
    consumer = Ring(path)
    consumer.free(2)
    assert len(unpacked(consumer.peek(9))) == 4
    consumer.close()
    assert [n for _, n in read(Ring(path))] == [2, 3, 4, 5]


# Files that are no rings --------------------------------------------------------------------------------------


def header(**changes: Any) -> bytes:
    values: dict[str, Any] = {"magic": MAGIC, "size": RECORD, "zero": 0, "capacity": 8, "epoch": bytes(8)}
    return struct.pack("<8sIIQ8s", *(values | changes).values())


FULL = HEADER_BYTES + 8 * RECORD


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        header()[:-1],
        header(),
        header().ljust(FULL - 1, b"\0"),
        header().ljust(FULL + 1, b"\0"),
        header(magic=b"TGRING\x00\x01").ljust(FULL, b"\0"),
        header(magic=b"SQLite f").ljust(FULL, b"\0"),
        header(size=64).ljust(FULL, b"\0"),
        header(capacity=0).ljust(HEADER_BYTES, b"\0"),
        header(capacity=1).ljust(HEADER_BYTES + RECORD, b"\0"),
        header(capacity=7).ljust(HEADER_BYTES + 7 * RECORD, b"\0"),
        header(capacity=2**63).ljust(FULL, b"\0"),
        header(capacity=16).ljust(FULL, b"\0"),
        bytes(FULL),
        os.urandom(FULL),
    ],
)
def test_a_foreign_or_truncated_file_is_refused_and_set_aside(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(RingError) as caught:
        Ring(path)
    assert "\n" not in str(caught.value)
    problem = open_or_replace(path, 4)
    assert problem == str(caught.value)
    assert path.with_name("events.ring.unusable").read_bytes() == content
    assert Ring(path).capacity == 4


@pytest.mark.parametrize(
    ("head", "tail"), [(0, 1), (9, 0), (2**64 - 1, 0), (5, 6), (0, 2**64 - 1), (2**64 - 1, 2**64 - 1)]
)
def test_indices_that_contradict_each_other_are_refused(path: Path, head: int, tail: int) -> None:
    data = bytearray(header().ljust(FULL, b"\0"))
    data[64:72], data[128:136] = head.to_bytes(8, "little"), tail.to_bytes(8, "little")
    path.write_bytes(data)
    with pytest.raises(RingError, match="contradict"):
        Ring(path)


def test_indices_at_their_limits_are_accepted(path: Path) -> None:
    data = bytearray(header().ljust(FULL, b"\0"))
    data[64:72], data[128:136] = (16).to_bytes(8, "little"), (8).to_bytes(8, "little")
    path.write_bytes(data)
    assert Ring(path).pending() == 8


def test_a_link_is_refused(path: Path, tmp_path: Path) -> None:
    create(tmp_path / "elsewhere", 8)
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Ring(path)
    assert open_or_replace(path, 8) is not None
    assert not path.is_symlink()
    assert Ring(tmp_path / "elsewhere").pending() == 0


def test_a_pipe_and_a_directory_are_refused_without_waiting(path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises((RingError, OSError)):
        Ring(path)
    path.unlink()
    path.mkdir()
    with pytest.raises((RingError, OSError)):
        Ring(path)


def test_no_ring_is_made_through_a_planted_link(path: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    path.with_name("events.ring.new").symlink_to(victim)
    create(path, 8)
    assert victim.read_bytes() == b"precious"
    assert Ring(path).capacity == 8


def test_what_was_set_aside_makes_room_for_a_new_ring(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"of another version")
    aside = path.with_name("events.ring.unusable")
    room = os.posix_fallocate

    def is_full(fd: int, start: int, size: int) -> None:
        if aside.exists():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        room(fd, start, size)

    monkeypatch.setattr(os, "posix_fallocate", is_full)
    assert open_or_replace(path, 8) is not None
    assert Ring(path).capacity == 8


@pytest.mark.parametrize(("records", "waits", "is_kept"), [(8, 0, True), (16, 0, False), (16, 1, True)])
def test_an_empty_ring_of_another_size_is_forgotten(
    path: Path, records: int, waits: int, is_kept: bool
) -> None:
    produce(made(path), *range(waits))
    forget_if_resized(path, records)
    assert path.exists() is is_kept
    forget_if_resized(path.with_name("none"), records)
    path.write_bytes(b"no ring")
    forget_if_resized(path, records)
    assert path.exists()


def test_a_usable_ring_is_left_as_it_is(path: Path) -> None:
    assert open_or_replace(path, 8) is None
    ring = Ring(path)
    produce(ring, 1, 2)
    assert open_or_replace(path, 64) is None
    assert (Ring(path).epoch, Ring(path).pending()) == (ring.epoch, 2)


# Machines -----------------------------------------------------------------------------------------------------


def test_on_other_machines_a_fence_of_libatomic_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    fences: list[int] = []
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: types.SimpleNamespace(atomic_thread_fence=fences.append))
    ring_module._fence()()
    assert fences == [4]  # acquire and release: memory_order_acq_rel (stdatomic.h)


def test_without_libatomic_they_say_what_to_install(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    create(path, 8)
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(RingError, match="apt install libatomic1") as caught:
        Ring(path)
    assert open_or_replace(path, 8) == str(caught.value)
    assert not path.with_name("events.ring.unusable").exists()  # the file is not to blame


def test_libatomic_s_fence_can_be_called(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        ctypes.CDLL("libatomic.so.1")
    except OSError:
        pytest.skip("libatomic1 is not installed")
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    ring = made(path)
    produce(ring, 1, 2)
    assert read(ring) == [(0, 1), (1, 2)]


# Two processes ------------------------------------------------------------------------------------------------

PRODUCER = """
import sys
import types
from pathlib import Path
from tidegate_agents.events.ring import Ring
from unit.agents.kit import Batch
ring, count, kill_at = Ring(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
batch = Batch(ring)
for n in range(count):
    mark = (n * 2654435761) & 0xFFFFFFFFFFFFFFFF
    who = mark.to_bytes(16, "big"), mark.to_bytes(16, "little"), bytes(16)
    batch.put(mark, n, n & 0xFFFFFFFF, 0, *who, n & 0xFFFF, 1, 1, 1, 1, 1, 6, 2, 3, 2, 0, mark, n, 0, 0, 0)
    if n % 37 == 0:
        batch.publish()
    if n == kill_at:
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
batch.publish()
"""


def check(one: event.Event) -> None:
    """Every part of the record must be of the same event."""
    mark = (one.length * 2654435761) & 0xFFFFFFFFFFFFFFFF
    assert (one.monotonic_ns, one.wall_ns, one.packets) == (mark, one.length, mark)
    assert (one.client_id, one.source) == (mark.to_bytes(16, "big"), mark.to_bytes(16, "little"))
    assert one.source_port == one.length & 0xFFFF


def producer(path: Path, count: int, kill_at: int = -1) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PRODUCER, str(path), str(count), str(kill_at)]
    return subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})


def test_a_killed_producer_leaves_nothing_half_made(path: Path) -> None:
    ring = made(path, 1 << 14)
    process = producer(path, 20_000, kill_at=7000)
    assert process.wait() == -signal.SIGKILL
    events = unpacked(ring.peek(10_000))
    for one in events:
        check(one)
    ring.free(len(events))
    assert [(one.seq, one.length) for one in events] == [
        (n, n) for n in range(6994)
    ]  # up to its last publish at 189 * 37
    successor = Ring(path)
    produce(successor, 1)
    assert read(ring) == [(6994, 1)]


def test_a_killed_consumer_s_successor_sees_the_records_again(path: Path) -> None:
    ring = made(path, 64)
    produce(ring, *range(10))
    script = (
        "import sys,os,signal; from pathlib import Path; from tidegate_agents.events.ring import Ring\n"
        "ring = Ring(Path(sys.argv[1])); ring.free(4); ring.peek(6); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert (
        subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == -signal.SIGKILL
    )
    assert [n for _, n in read(Ring(path))] == [4, 5, 6, 7, 8, 9]
