"""What happens to a gateway, on its way into the ring: each entry once, also over kills, reboots and full rings."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tidegate_agents import hostevents
from tidegate_agents.events.ring import HEADER_BYTES, Ring, RingError
from tidegate_agents.gateway import hostnews
from tidegate_agents.gateway.hostnews import HostNews
from tidegate_agents.host import Places
from tidegate_agents.hostevents import HostEvents
from tidegate_schema import hostevent

ON, OFF = {"logging_enabled": True}, {"logging_enabled": False}


class Gateway:
    """An agent as far as it tells, its directories, and a flusher's side of the ring."""

    def __init__(self, directory: Path) -> None:
        self.places = Places("gateway", directory / "etc", directory / "state", directory / "run")
        self.places.run.mkdir(parents=True)
        self.path = self.places.rings.host
        self.begin()

    def begin(self) -> None:
        """Start an agent; of the one before nothing is left but files, as after kill -9."""
        self.events = HostEvents(self.places)
        self.news = HostNews(self.places, self.events)

    def reboot(self) -> None:
        """Lose what is in /run."""
        for path in self.places.run.iterdir():
            path.unlink()
        self.begin()

    def tell(self, *serials: int) -> None:
        for serial in serials:
            # Each of another name: of one, only so many are written at once.
            self.events.tell("release-applied", serial=serial, name=f"n{serial}")

    def keep(self, *, on: bool = True) -> None:
        self.news.keep(ON if on else OFF)

    @contextlib.contextmanager
    def ring(self) -> Iterator[Ring]:
        with contextlib.closing(Ring(self.path, (hostevent.RECORD_BYTES,))) as made:
            yield made

    def records(self) -> list[hostevent.Record]:
        with self.ring() as made:
            data, size = made.peek(10**6), made.record_bytes
        return [hostevent.unpack(data[at : at + size]) for at in range(0, len(data), size)]

    def serials(self) -> list[int]:
        """Return the releases that the records which wait tell of."""
        return [int(one.told["serial"]) for one in self.records()]

    def free(self) -> None:
        """Do as a flusher whose endpoint took everything."""
        with self.ring() as made:
            made.free(made.pending())

    def noted(self) -> int | None:
        try:
            return int(json.loads(hostnews.note(self.places).read_bytes())["number"])
        except FileNotFoundError:
            return None


@pytest.fixture
def gateway(tmp_path: Path) -> Gateway:
    return Gateway(tmp_path)


def test_what_is_told_comes_into_the_ring_with_the_time_at_which_it_happened(gateway: Gateway) -> None:
    gateway.keep()
    gateway.events.tell("release-refused", name="replayed", reason="serial 4 is older than 5")
    gateway.keep()
    (one,) = gateway.records()
    (line,) = hostevents.read(gateway.places)
    assert one.told == {"event": "release-refused", "name": "replayed", "message": "serial 4 is older than 5"}
    assert (one.seq, one.number) == (0, line["number"]) == (0, 1)
    assert hostevent.entry(line) == (1, one.wall_ns, {k: line[k] for k in ("event", "name", "reason")})
    assert gateway.path.stat().st_mode & 0o777 == 0o600


def test_what_is_told_before_the_first_turn_comes_too(gateway: Gateway) -> None:
    gateway.tell(1, 2)
    gateway.keep()
    assert gateway.serials() == [1, 2]


def test_while_logging_is_off_nothing_is_sent_then_or_later_and_the_journal_has_it(gateway: Gateway) -> None:
    gateway.tell(1)
    gateway.keep(on=False)
    assert not gateway.path.exists()
    gateway.keep()
    gateway.tell(2)
    gateway.keep()
    gateway.keep(on=False)
    gateway.tell(3)
    gateway.keep(on=False)
    gateway.begin()  # killed while it was off, and turned on meanwhile
    gateway.tell(4)
    gateway.keep()
    assert gateway.serials() == [2, 4]
    assert [one["serial"] for one in hostevents.read(gateway.places)] == [1, 2, 3, 4]


def test_after_a_kill_what_only_the_journal_has_is_sent_and_nothing_twice(gateway: Gateway) -> None:
    gateway.keep()
    gateway.tell(1, 2)
    gateway.keep()
    gateway.tell(3)  # killed before its turn ends
    gateway.begin()
    gateway.tell(4)
    gateway.keep()
    assert gateway.serials() == [1, 2, 3, 4]
    assert [one.seq for one in gateway.records()] == [0, 1, 2, 3]
    gateway.free()
    gateway.begin()  # killed before it notes that they have gone
    gateway.keep()
    assert gateway.serials() == []


def test_after_a_reboot_it_goes_on_where_the_note_says(gateway: Gateway) -> None:
    gateway.keep()
    gateway.tell(1, 2)
    gateway.keep()
    gateway.free()
    gateway.keep()
    assert gateway.noted() == 2
    gateway.tell(3)
    gateway.keep()
    gateway.reboot()  # the third was in a ring that is gone: sent or not, nobody knows
    gateway.tell(4)
    gateway.keep()
    assert gateway.serials() == [3, 4]
    assert [one.number for one in gateway.records()] == [3, 4]


def test_what_is_not_acknowledged_is_not_noted(gateway: Gateway) -> None:
    gateway.keep()
    gateway.tell(1)
    gateway.keep()
    gateway.keep()
    assert gateway.noted() == 0


def test_a_full_ring_drops_and_counts_and_after_a_kill_not_again(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostnews, "RECORDS", 4)
    gateway.keep()
    gateway.tell(*range(7))
    gateway.keep()
    with gateway.ring() as made:
        assert (made.pending(), made.dropped()) == (4, 3)
    gateway.free()
    gateway.begin()
    gateway.tell(7)
    gateway.keep()
    (one,) = gateway.records()
    assert (one.told["serial"], one.seq) == (7, 7)


def test_numbers_go_on_over_a_restart_a_full_journal_and_lines_that_a_power_cut_took(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostevents, "JOURNAL_MAX_BYTES", 300)
    gateway.tell(*range(9))
    gateway.begin()
    assert gateway.events.number == 9
    gateway.keep()
    gateway.tell(9)
    gateway.keep()
    gateway.free()
    gateway.keep()
    for path in gateway.places.state_directory.glob("*.ndjson*"):
        path.unlink()
    gateway.begin()
    gateway.tell(10)
    gateway.keep()
    assert [one.number for one in gateway.records()] == [11]


def test_a_journal_of_the_version_before_is_read_and_nothing_of_it_is_sent(gateway: Gateway) -> None:
    gateway.places.state_directory.mkdir(mode=0o700)
    line = b'{"event":"release-applied","serial":1,"time":"2026-11-30T00:00:00.000000000Z"}\n'
    hostevents.journal(gateway.places).write_bytes(line)
    gateway.begin()
    gateway.tell(2)
    gateway.keep()
    assert gateway.serials() == [2]
    assert [one["serial"] for one in hostevents.read(gateway.places)] == [1, 2]


def test_while_there_is_no_room_for_a_ring_it_is_told_and_then_all_of_it_comes(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.places.run.rmdir()
    monkeypatch.setattr(hostnews, "_WAITING_MOST", 2)
    for serial in range(5):
        gateway.tell(serial)
        gateway.keep()
    assert gateway.news.problem is not None
    assert caplog.text.count("is not sent as the settings say") == 1
    gateway.places.run.mkdir(parents=True)
    gateway.keep()
    assert gateway.news.problem is None
    assert gateway.serials() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("note", [b"", b"{", b"[]", b'{"format":2,"number":1}', b'{"format":1,"number":"1"}'])
def test_an_unreadable_note_is_as_none(
    gateway: Gateway, note: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    gateway.tell(1)
    hostnews.note(gateway.places).write_bytes(note)
    gateway.begin()
    gateway.tell(2)
    gateway.keep()
    assert gateway.serials() == [2]
    assert "gateway-events.sent" in caplog.text


def test_a_note_that_is_a_link_is_not_followed(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b'{"format":1,"number":1}')
    gateway.tell(1, 2)
    hostnews.note(gateway.places).symlink_to(tmp_path / "elsewhere")
    gateway.begin()
    gateway.keep()
    assert gateway.records() == []
    assert (tmp_path / "elsewhere").read_bytes() == b'{"format":1,"number":1}'


def test_a_flusher_that_lies_about_the_last_record_hides_no_later_entry(gateway: Gateway) -> None:
    gateway.keep()
    gateway.tell(1)
    gateway.keep()
    forged = hostevent.pack(0, 0, hostevent.Entry((1 << 63) - 1, 0, {"event": "rolled-back"}))
    with gateway.path.open("r+b") as file:
        os.pwrite(file.fileno(), forged, HEADER_BYTES)
    gateway.begin()
    gateway.tell(2)
    gateway.keep()
    assert [one.told.get("serial") for one in gateway.records()] == [None, 2]


def test_a_ring_of_packets_is_none_of_host_events(gateway: Gateway) -> None:
    gateway.tell(1)
    gateway.keep()
    with pytest.raises(RingError, match="not an event ring of this version"):
        Ring(gateway.path)


STEPS = st.lists(st.sampled_from(["tell", "keep", "free", "kill", "reboot"]), max_size=25)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_whatever_comes_between_nothing_is_lost_in_silence_and_only_a_reboot_sends_twice(
    tmp_path_factory: pytest.TempPathFactory, steps: list[str]
) -> None:
    gateway = Gateway(tmp_path_factory.mktemp("gateway"))
    gateway.keep()
    told = 0
    sent: list[int] = []
    reboots = 0

    def receive() -> None:
        sent.extend(gateway.serials())
        gateway.free()

    for step in steps:
        if step == "tell":
            gateway.tell(told)
            told += 1
        elif step == "keep":
            gateway.keep()
        elif step == "free" and gateway.path.exists():
            receive()
        elif step == "kill":
            gateway.begin()
        elif step == "reboot":
            gateway.reboot()
            reboots += 1
    gateway.keep()
    receive()
    assert set(sent) == set(range(told))
    if not reboots:
        assert sent == list(range(told))
