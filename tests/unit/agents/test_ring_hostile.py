"""A ring whose other side is somebody else's now: it may write what it likes, and takes nobody down with it."""

from __future__ import annotations

import contextlib
import json
import resource
import signal
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stress.victims import start_flusher
from tidegate_agents.events.ring import HEADER_BYTES, Ring, RingError, create, open_or_replace
from tidegate_schema import event
from unit.agents import flusherkit
from unit.agents.kit import Batch, fields, log_server, unpacked, until
from unit.agents.kit import status as answer

HEAD, DROPPED, TAIL = 64, 72, 128
LARGEST = 2**64 - 1
NONSENSE = [0, 1, 7, 8, 9, 19, 21, 28, 29, 2**32, 2**62, 2**63, LARGEST - 1, LARGEST]
anything = st.one_of(st.integers(0, 40), st.integers(LARGEST - 40, LARGEST), st.integers(0, LARGEST))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A ring of 8 records, through which 20 have gone and in which 3 wait."""
    create(tmp_path / "events.ring", 8)
    ring = Ring(tmp_path / "events.ring")
    for number in range(20):
        produce(ring, number)
        ring.free(1)
    produce(ring, 20, 21, 22)
    return tmp_path / "events.ring"


def produce(ring: Ring, *numbers: int) -> None:
    batch = Batch(ring)
    for number in numbers:
        batch.put(*fields(number))
    batch.publish()


def overwrite(path: Path, at: int, value: int) -> None:
    """Write an index as somebody does who has the file mapped."""
    with path.open("r+b") as file:
        file.seek(at)
        file.write(struct.pack("<Q", value))


def index(path: Path, at: int) -> int:
    return int.from_bytes(path.read_bytes()[at : at + 8], "little")


# Indices ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", NONSENSE)
def test_a_producer_takes_any_tail(path: Path, tail: int) -> None:
    producer = Ring(path)
    overwrite(path, TAIL, tail)
    *_, room, _, _ = producer.claim()
    assert room == (8 - (23 - tail) if 15 <= tail <= 23 else 0)
    produce(producer, *range(100, 120))
    assert index(path, HEAD) == 23 + room
    assert producer.dropped() == 20 - room
    assert producer.claim()[4] == 23 + 20  # every event has been given a number


@pytest.mark.parametrize("head", NONSENSE)
def test_a_consumer_takes_any_head(path: Path, head: int) -> None:
    consumer = Ring(path)
    overwrite(path, HEAD, head)
    waiting = head - 20 if 20 <= head <= 28 else 0
    assert consumer.pending() == waiting
    assert len(consumer.peek(LARGEST)) == waiting * event.RECORD_BYTES
    consumer.free(waiting)
    assert consumer.pending() == 0


@pytest.mark.parametrize("tail", NONSENSE)
def test_a_consumer_takes_any_tail(path: Path, tail: int) -> None:
    consumer = Ring(path)
    overwrite(path, TAIL, tail)
    assert len(consumer.peek(100)) <= 8 * event.RECORD_BYTES
    consumer.free(8)
    assert consumer.pending() <= 8


@settings(deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([HEAD, DROPPED, TAIL]), anything, st.integers(0, 20), st.integers(0, 20), anything
        ),
        max_size=6,
    )
)
def test_whatever_stands_in_the_indices_nobody_stops_and_nothing_else_is_written(
    tmp_path: Path, steps: list[tuple[int, int, int, int, int]]
) -> None:
    path = tmp_path / "events.ring"
    create(path, 8)
    producer, consumer = Ring(path), Ring(path)
    fixed = path.read_bytes()[:HEAD]
    for at, value, made, count, skip in steps:
        overwrite(path, at, value)
        produce(producer, *range(made))
        assert 0 <= consumer.pending() <= 8
        assert len(consumer.peek(count, skip)) <= min(count, 8) * event.RECORD_BYTES
        consumer.free(count)
        consumer.dropped()
    content = path.read_bytes()
    assert content[:HEAD] == fixed
    used = {HEAD, DROPPED, TAIL}
    assert not any(any(content[at : at + 8]) for at in range(HEAD, HEADER_BYTES, 8) if at not in used)
    with contextlib.suppress(RingError):
        Ring(path)


def test_a_ring_with_nonsense_in_it_is_set_aside_when_it_is_next_opened(path: Path) -> None:
    overwrite(path, TAIL, LARGEST)
    content = path.read_bytes()
    assert "contradict" in (open_or_replace(path, 8) or "")
    assert path.with_name("events.ring.unusable").read_bytes() == content
    assert Ring(path).claim()[4] == 0


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, HEAD - 1), st.integers(1, 255))
def test_any_change_of_the_header_changes_the_epoch_or_is_refused(path: Path, at: int, change: int) -> None:
    epoch, content = Ring(path).epoch, path.read_bytes()
    with path.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[at] ^ change]))
    try:
        assert (Ring(path).epoch != epoch) == (24 <= at < 32)
        assert at >= 24 or 12 <= at < 16
    except RingError:
        assert at < 24
    path.write_bytes(content)


# Opening ------------------------------------------------------------------------------------------------------


def test_a_ring_that_cannot_be_opened_for_want_of_descriptors_is_not_given_up(path: Path) -> None:
    content = path.read_bytes()
    with pytest.raises(OSError, match="Too many open files"), no_descriptors():
        open_or_replace(path, 8)
    assert path.read_bytes() == content
    assert not path.with_name("events.ring.unusable").exists()


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


# The file -----------------------------------------------------------------------------------------------------


def is_open(path: Path, process: int | str) -> bool:
    """Tell whether a process has a descriptor of the file, by which it could be truncated."""
    links = Path(f"/proc/{process}/fd").iterdir()
    for link in links:
        with contextlib.suppress(FileNotFoundError):
            if link.stat().st_ino == path.stat().st_ino:
                return True
    return False


def test_an_open_ring_has_no_descriptor(path: Path) -> None:
    ring = Ring(path)
    assert not is_open(path, "self")
    assert len(unpacked(ring.peek(8))) == 3
    ring.close()
    with pytest.raises(ValueError, match="released"):
        ring.pending()


# What somebody would try who has taken the flusher over; each line that succeeds is printed.
TAKEN_OVER = """
import ctypes, mmap, os, sys
from pathlib import Path
from tidegate_agents.events.ring import Ring
from tidegate_agents.process import drop_privileges
from tidegate_agents.seccomp import forbid_holes
path = Path(sys.argv[1])
ring = Ring(path)
size = path.stat().st_size
drop_privileges(int(sys.argv[2]), processes=64)
forbid_holes()
is_another = os.geteuid() == int(sys.argv[2])  # where it can become that user; the file's owner may open it anyway
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
place = ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(ring._map)))
whole = ctypes.c_size_t(size)

def tried(what, done):
    try:
        if done():
            print(what)
    except (OSError, ValueError):
        pass

for number in range(3, 64):
    tried(f"descriptor {number}", lambda: os.ftruncate(number, 0) is None)
tried("truncate", lambda: is_another and os.truncate(path, 0) is None)
for entry in os.listdir("/proc/self/map_files") if is_another else ():
    tried("map_files", lambda: os.open(f"/proc/self/map_files/{entry}", os.O_RDWR))
tried("hole", lambda: libc.madvise(place, whole, 9) == 0)
parts = (ctypes.c_size_t * 2)(place.value, size)
tried("hole by pidfd", lambda: libc.syscall(440, os.pidfd_open(os.getpid()), parts, 1, 9, 0) >= 0)
tried("io_uring", lambda: libc.syscall(425, 8, (ctypes.c_char * 120)()) >= 0)
if os.uname().machine == "x86_64":
    tried("hole by x32", lambda: libc.syscall(0x40000000 + 28, place, whole, 9) == 0)
assert libc.madvise(place, whole, 3) == 0  # MADV_WILLNEED: all other advice is taken
ring._octets[:] = b"\\xff" * size  # this it can
"""


def test_who_has_taken_the_flusher_over_takes_no_page_from_a_producer(path: Path) -> None:
    producer = Ring(path)
    before = path.stat()
    done = subprocess.run(
        [sys.executable, "-c", TAKEN_OVER, str(path), str(flusherkit.USER)], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    after = path.stat()
    assert (after.st_size, after.st_blocks, stat.S_IMODE(after.st_mode)) == (
        before.st_size,
        before.st_blocks,
        0o600,
    )
    produce(producer, *range(20))
    assert producer.dropped() == 20


def test_the_flusher_has_no_descriptor_of_its_ring_and_is_filtered(path: Path) -> None:
    with log_server(answer(204)) as server:
        process = start_flusher(path, server.url)
        try:
            until("it is at work", lambda: server.requests)
            assert not is_open(path, process.pid)
            lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
            assert "Seccomp:\t2" in lines
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(10) == 0
    shown = json.loads((path.parent / "flusher" / "status.json").read_bytes())
    assert shown["pid"] == process.pid
