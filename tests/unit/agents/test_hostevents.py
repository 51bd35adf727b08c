"""The journal of what happens to a host: bounded, for its user alone, and nobody waits for it."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from tidegate_agents import hostevents
from tidegate_agents.host import Places
from tidegate_agents.hostevents import HostEvent, HostEvents
from tidegate_schema.cli import tidegate


@pytest.fixture
def places(tmp_path: Path) -> Places:
    return Places("client", tmp_path / "etc", tmp_path / "state", tmp_path / "run")


def test_what_is_told_is_written_logged_and_counted(places: Places, caplog: pytest.LogCaptureFixture) -> None:
    events = HostEvents(places)
    with caplog.at_level("INFO"):
        events.tell("release-refused", name="replayed", reason="serial 4 is older than 5")
        events.tell(HostEvent.RELEASE_APPLIED, serial=5)
    first, second = hostevents.read(places)
    assert (first["event"], first["name"]) == ("release-refused", "replayed")
    assert second["serial"] == 5
    assert first["time"] <= second["time"]
    assert events.counts == {("release-refused", "replayed"): 1, ("release-applied", ""): 1}
    assert "release-refused name=replayed" in caplog.text
    assert stat.S_IMODE(hostevents.journal(places).stat().st_mode) == 0o600


def test_an_event_that_is_in_no_list_is_a_mistake(places: Places) -> None:
    with pytest.raises(ValueError, match="made-up"):
        HostEvents(places).tell("made-up")


def test_a_flood_of_one_event_does_not_wash_others_away_and_is_counted(places: Places) -> None:
    now = [0.0]
    events = HostEvents(places, lambda: now[0])
    events.tell("release-applied", serial=1)
    for _ in range(1000):
        events.tell("release-refused", name="bad-link")
    events.tell("release-refused", name="expired")
    assert len(list(hostevents.read(places))) == 22
    assert events.counts["release-refused", "bad-link"] == 1000
    now[0] = 60.0
    events.tell("release-refused", name="bad-link")
    assert len(list(hostevents.read(places))) == 23


def test_the_journal_is_bounded_and_one_old_one_is_kept(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hostevents, "JOURNAL_MAX_BYTES", 1000)
    monkeypatch.setattr(hostevents, "_BURST", 10**6)
    events = HostEvents(places)
    for serial in range(100):
        events.tell("release-applied", serial=serial)
    files = sorted(path.name for path in places.state_directory.iterdir())
    assert files == ["client-events.ndjson", "client-events.ndjson.old"]
    assert all(path.stat().st_size <= 1000 for path in places.state_directory.iterdir())
    serials = [one["serial"] for one in hostevents.read(places)]
    assert serials == list(range(serials[0], 100))


def test_text_from_outside_is_one_short_line(places: Places) -> None:
    HostEvents(places).tell("release-refused", name="bad-file", reason="a\x1b[2J\n" + "x" * 10**6)
    (one,) = hostevents.read(places)
    assert one["reason"].startswith("a?[2J?xxx")
    assert len(one["reason"]) <= 501


def test_what_cannot_be_written_holds_nobody_up(places: Places, caplog: pytest.LogCaptureFixture) -> None:
    places.state_directory.mkdir(mode=0o700)
    hostevents.journal(places).mkdir()
    events = HostEvents(places)
    events.tell("release-applied", serial=1)
    assert events.counts["release-applied", ""] == 1
    assert "not written" in caplog.text


def test_a_link_in_its_place_is_not_followed(places: Places, tmp_path: Path) -> None:
    places.state_directory.mkdir(mode=0o700)
    (tmp_path / "elsewhere").touch()
    hostevents.journal(places).symlink_to(tmp_path / "elsewhere")
    HostEvents(places).tell("release-applied", serial=1)
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_history_shows_them_and_leaves_out_what_a_crash_has_cut(places: Places) -> None:
    events = HostEvents(places)
    for serial in (1, 2, 3):
        events.tell("release-applied", serial=serial)
    with hostevents.journal(places).open("ab") as file:
        file.write(b'{"time": "2026-')
    words = ["--state-dir", str(places.state_directory), "--etc", str(places.etc)]
    shown = CliRunner().invoke(tidegate, ["client", "history", "--last", "2", *words])
    assert [line.split()[1:] for line in shown.output.splitlines()] == [
        ["release-applied", "serial=2"],
        ["release-applied", "serial=3"],
    ]
    listed = CliRunner().invoke(tidegate, ["client", "history", "--json", *words])
    assert [json.loads(line)["serial"] for line in listed.output.splitlines()] == [1, 2, 3]


def test_history_of_a_host_without_any_is_empty(places: Places) -> None:
    words = ["--state-dir", str(places.state_directory)]
    done = CliRunner().invoke(tidegate, ["gateway", "history", *words])
    assert (done.exit_code, done.stdout) == (0, "")
