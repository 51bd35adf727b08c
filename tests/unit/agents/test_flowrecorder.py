"""The recorder's thread in trouble: what it has not recorded is told of, whatever comes between, and nothing leaks."""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents.events.ring import Ring
from tidegate_agents.gateway import flowrecorder, flowsession
from tidegate_agents.gateway.connections import Flow
from tidegate_agents.gateway.flowrecorder import FlowRecorder
from tidegate_agents.gateway.judgements import attribute
from tidegate_agents.host import Places
from tidegate_schema.event import Kind
from tidegate_schema.policy import PolicyTable
from unit.agents.kit import unpacked, until

S = 10**9
ON = {
    "logging_enabled": True,
    "log_granularity": "flow",
    "flow_update_interval": 300,
    "ring_records": 64,
}
OFF = ON | {"logging_enabled": False}
FULL = OSError(errno.ENOBUFS, "no room")


class QuietNews:
    """No connection ends."""

    def __init__(self, room: int) -> None:
        pass

    def wait(self, seconds: float, wake: int) -> None:
        time.sleep(0.005)

    def read(self, most: int) -> Iterator[bytes]:
        return iter(())

    def close(self) -> None:
        pass


class Kernel:
    """Looks at a table without connections, and the trouble that they are in."""

    def __init__(self) -> None:
        self.trouble: Exception | None = None
        self.looks = self.pieces = 0
        self.is_last = True

    def __call__(self) -> Kernel:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return self

    def piece(self) -> tuple[list[bytes], int, bool]:
        self.pieces += 1
        return [], 0, self.is_last

    def lasts(self) -> float:
        return 0.0

    def close(self) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(flowrecorder, "News", QuietNews)
    monkeypatch.setattr(flowsession, "Look", made)
    monkeypatch.setattr(flowrecorder, "_REST_SECONDS", 0.01)
    return made


class SetBack:
    """The clocks, the one of them set back by an hour."""

    monotonic, monotonic_ns = staticmethod(time.monotonic), staticmethod(time.monotonic_ns)

    @staticmethod
    def time_ns() -> int:
        return time.time_ns() - 3600 * S


class Kept:
    """A recorder that has a judgement, and its files."""

    def __init__(self, run: Path) -> None:
        self.places = Places("gateway", run_directory=run)
        self.places.run.mkdir(parents=True, exist_ok=True)
        self.note = self.places.run / "flows.recording"
        self.begin()

    def begin(self) -> None:
        """As another agent does."""
        self.recorder = FlowRecorder(self.places)
        self.judge(1)

    def judge(self, generation: int) -> None:
        self.recorder.judged(generation, True, {}, PolicyTable(None), 0.0, set())

    def missing_since(self, seconds: float) -> int:
        """Leave the note of an agent that was killed so long ago."""
        self.note.touch()
        since = time.time_ns() - int(seconds * S)
        os.utime(self.note, ns=(since, since))
        return since

    def record(self) -> None:
        self.recorder.keep(ON)
        until("flows are recorded", lambda: self.recorder.status()["recording"])

    def be_in_trouble(self) -> str:
        self.recorder.keep(ON)
        return str(until("it is in trouble", lambda: self.recorder.status()["problem"]))

    def gaps(self) -> list[int]:
        """Return since when."""
        with contextlib.closing(Ring(self.recorder.ring)) as made:
            return [one.start_ns for one in unpacked(made.peek(64)) if one.kind == Kind.GAP]


@pytest.fixture
def kept(tmp_path: Path, kernel: Kernel) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.recorder.stop()


def test_a_gap_of_an_earlier_agent_is_told_once_the_first_look_succeeds_and_once_only(
    kept: Kept, kernel: Kernel
) -> None:
    since = kept.missing_since(600)
    kernel.trouble = FULL
    assert "no room" in kept.be_in_trouble()
    tried = kernel.looks
    until("it has been tried often", lambda: kernel.looks > tried + 5)
    assert kept.gaps() == []
    assert kept.note.stat().st_mtime_ns == since  # should it be killed now, the next one still knows
    kernel.trouble = None
    kept.record()
    assert kept.gaps() == [since]
    assert kept.note.stat().st_mtime_ns > since + 590 * S
    assert kept.recorder.status()["problem"] is None


def test_of_a_gap_that_cannot_be_told_yet_the_note_stays_at_a_kill(kept: Kept, kernel: Kernel) -> None:
    """What is on disk at each moment from the first step on: the old moment, or the gap."""
    since = kept.missing_since(600)
    steps: list[tuple[int, int]] = []

    class Watched(flowsession.Session):
        def gap(self, since_ns: int) -> None:
            steps.append((kept.note.stat().st_mtime_ns, len(kept.gaps())))
            super().gap(since_ns)
            steps.append((kept.note.stat().st_mtime_ns, len(kept.gaps())))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flowrecorder, "Session", Watched)
        kept.record()
    assert steps == [(since, 0), (since, 1)]


@pytest.mark.parametrize("is_off", [True, False])
@pytest.mark.parametrize("place", ["news", "look"])
def test_what_was_missed_in_trouble_is_told_also_when_it_was_stopped_in_order_meanwhile(
    kept: Kept, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, place: str, is_off: bool
) -> None:
    def fails(_room: int) -> QuietNews:
        raise FULL

    before = time.time_ns()
    with monkeypatch.context() as patch:
        if place == "news":
            patch.setattr(flowrecorder, "News", fails)
        else:
            kernel.trouble = FULL
        kept.be_in_trouble()
        if is_off:
            kept.recorder.keep(OFF)
        else:
            kept.recorder.stop()
            kept.begin()
    assert kept.recorder.status()["problem"] is None
    after, kernel.trouble = time.time_ns(), None
    kept.record()
    (since,) = kept.gaps()
    assert before <= since <= after


def test_a_start_that_fails_half_way_leaves_the_gap_to_the_next_one(kept: Kept) -> None:
    since = kept.missing_since(600)
    kept.recorder.stop()
    kept.begin()
    kept.record()
    assert kept.gaps() == [since]
    kept.recorder.stop()
    assert not kept.note.exists()  # all is told
    kept.record()
    assert kept.gaps() == [since]


def test_an_end_before_the_first_look_tells_what_an_earlier_agent_missed(
    kept: Kept, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flowrecorder, "_MOMENT_NS", 0)
    since, kernel.is_last = kept.missing_since(600), False
    kept.recorder.keep(ON)
    until("it looks", lambda: kernel.pieces > 2)
    assert kept.note.stat().st_mtime_ns == since
    kept.recorder.stop()
    assert kept.gaps() == [since]
    assert not kept.note.exists()


def test_without_a_judgement_nothing_is_begun(tmp_path: Path, kernel: Kernel) -> None:
    recorder = FlowRecorder(Places("gateway", run_directory=tmp_path))
    recorder.keep(ON)
    assert recorder.status()["recording"] is False
    assert not [one for one in threading.enumerate() if one.name == "flows"]


def test_where_no_thread_can_be_started_that_is_its_problem_and_nothing_leaks_or_gets_lost(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fails(self: threading.Thread) -> None:
        tries.append(self.name)
        raise RuntimeError("no thread")

    before, descriptors = time.time_ns(), len(list(Path("/proc/self/fd").iterdir()))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fails)
        for _ in range(200):
            kept.recorder.keep(ON)
    assert 1 <= len(tries) < 5
    assert len(list(Path("/proc/self/fd").iterdir())) == descriptors
    assert kept.recorder.status() | {"problem": "no thread", "recording": False} == kept.recorder.status()
    after = time.time_ns()

    def is_recording() -> Any:
        kept.recorder.keep(ON)
        return kept.recorder.status()["recording"]

    until("it has rested, and records", is_recording)
    (since,) = kept.gaps()
    assert before - S // 10 <= since <= after  # a file's times are those of the last tick
    assert kept.recorder.status()["problem"] is None


def test_without_a_descriptor_to_be_had_it_is_in_trouble_and_raises_nothing(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> int:
        raise OSError(errno.EMFILE, "no descriptors")

    with monkeypatch.context() as patch:
        patch.setattr(os, "eventfd", fails)
        kept.recorder.keep(ON)
    assert "no descriptors" in kept.recorder.status()["problem"]


def test_a_trouble_of_any_kind_is_named_and_tried_again_after_a_rest_by_the_same_thread(
    kept: Kept, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kernel.trouble = ValueError("strange")
    assert kept.be_in_trouble() == "strange"
    (thread,) = (one for one in threading.enumerate() if one.name == "flows")
    tried = kernel.looks
    until("it has been tried again", lambda: kernel.looks > tried + 3)
    kept.recorder.keep(ON)
    assert [one for one in threading.enumerate() if one.name == "flows"] == [thread]
    assert (
        caplog.text.count("strange") == caplog.text.count("ValueError: strange") + 1 == 2
    )  # once, and where
    kernel.trouble = None
    until("flows are recorded", lambda: kept.recorder.status()["recording"])
    assert len(kept.gaps()) == 1


@pytest.mark.parametrize("is_in_trouble", [False, True])
def test_judgements_that_another_one_has_followed_are_forgotten_in_trouble_too(
    kept: Kept, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, is_in_trouble: bool
) -> None:
    monkeypatch.setattr(flowrecorder, "_MOMENT_NS", 0)
    if is_in_trouble:
        kernel.trouble = FULL
        kept.be_in_trouble()
    else:
        kept.record()
    for generation in range(2, 50):
        kept.judge(generation)

    def generations() -> list[int]:
        kept.recorder.keep(ON)
        return [one.generation for one in kept.recorder._shared.judgements]

    assert generations() == list(range(1, 50))  # there may be news of their time
    monkeypatch.setattr(flowrecorder, "_KEPT_NS", 0)
    until("only the last one is known", lambda: generations() == [49])


def test_in_observe_a_flow_from_before_the_clock_was_set_back_and_its_address_moved_is_never_the_new_owner_s(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also not once the clock shows again what it showed when the flow began."""
    recorder, address = FlowRecorder(Places("gateway", run_directory=tmp_path)), bytes(4)
    recorder.judged(1, False, {address: "aa" * 16}, PolicyTable(None), 0.0, set())
    began = time.time_ns()
    for module in (flowrecorder, flowsession):
        monkeypatch.setattr(module, "time", SetBack)
    recorder.judged(2, False, {address: "bb" * 16}, PolicyTable(None), 0.0, {address})
    last = recorder._shared.judgements[-1:]

    def owner(start_ns: int, at_ns: int) -> str:
        flow = Flow(address, address, 17, 1, 2)
        return attribute(last, flow, start_ns, at_ns, last[0].clock_ns).client_id.hex()

    assert owner(began, SetBack.time_ns()) == owner(began, began + 600 * S) == "00" * 16
    assert owner(began + 300 * S, began + 600 * S) == "bb" * 16


def test_the_clock_s_being_set_before_the_first_look_is_over_begins_a_session_with_a_gap(
    kept: Kept, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel.is_last = False
    kept.recorder.keep(ON)
    until("it looks", lambda: kernel.looks)

    monkeypatch.setattr(flowsession, "time", SetBack)
    until("another session looks", lambda: kernel.looks > 1)
    assert kept.recorder.status()["problem"] == "the clock was set"
    kernel.is_last = True
    until("flows are recorded", lambda: kept.recorder.status()["recording"])
    until("gaps are told", kept.gaps)


def test_a_ring_that_is_none_is_set_aside_and_named(
    kept: Kept, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    kept.recorder.ring.write_bytes(b"of another version")
    kept.record()
    assert "ring of flows set aside" in caplog.text
    assert kept.recorder.ring.with_name("flows.ring.unusable").read_bytes() == b"of another version"


def test_who_stops_a_recorder_in_trouble_does_not_wait_for_its_rest(
    kept: Kept, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flowrecorder, "_REST_SECONDS", 200.0)
    kernel.trouble = FULL
    kept.be_in_trouble()
    kept.recorder.stop()  # and no test lasts so long
