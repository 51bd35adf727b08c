"""Sessions: random, kept as hashes, ended by disuse, by age and by hand, bounded."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from tidegate_control.access import privatefiles
from tidegate_control.access import sessions as module
from tidegate_control.access.sessions import PER_TOKEN, Sessions, csrf_of
from unit.control.door.doorkit import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def opened(state: Path, clock: Clock) -> Sessions:
    return Sessions(state, idle=100, end=250, clock=clock)


@pytest.fixture
def sessions(tmp_path: Path, clock: Clock) -> Sessions:
    return opened(tmp_path, clock)


def test_a_session_is_found_by_its_id_alone(sessions: Sessions) -> None:
    identifier = sessions.begin("1f0c2a9b")
    found = sessions.find(identifier)
    assert found is not None
    assert found.token == "1f0c2a9b"
    for wrong in ("", identifier[:-1], identifier + "A", found.sha256, "A" * 43, "../../etc", "é" * 43):
        assert sessions.find(wrong) is None


def test_only_the_hash_is_kept(sessions: Sessions, tmp_path: Path) -> None:
    identifier = sessions.begin("1f0c2a9b")
    file = tmp_path / "sessions.json"
    assert identifier not in file.read_text()
    assert csrf_of(identifier) not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_session_that_is_not_used_ends(sessions: Sessions, clock: Clock) -> None:
    identifier = sessions.begin("t")
    clock.now += 99
    assert sessions.find(identifier) is not None
    clock.now += 99
    assert sessions.find(identifier) is not None
    clock.now += 100
    assert sessions.find(identifier) is None


def test_a_session_that_is_used_all_the_time_ends_too(sessions: Sessions, clock: Clock) -> None:
    identifier = sessions.begin("t")
    for _ in range(4):
        clock.now += 60
        assert sessions.find(identifier) is not None
    clock.now += 10
    assert sessions.find(identifier) is None


def test_a_clock_that_was_set_back_makes_none_longer(sessions: Sessions, clock: Clock) -> None:
    identifier = sessions.begin("t")
    clock.now -= 3600
    assert sessions.find(identifier) is None


def test_a_session_that_was_finished_is_gone_also_after_a_restart(
    sessions: Sessions, tmp_path: Path, clock: Clock
) -> None:
    kept, ended = sessions.begin("t"), sessions.begin("t")
    sessions.finish(ended)
    sessions.finish("never there")
    again = opened(tmp_path, clock)
    assert (again.find(kept) is not None, again.find(ended)) == (True, None)


def test_the_last_use_survives_an_orderly_end(sessions: Sessions, tmp_path: Path, clock: Clock) -> None:
    identifier = sessions.begin("t")
    clock.now += 50
    sessions.find(identifier)
    sessions.close()
    clock.now += 99
    assert opened(tmp_path, clock).find(identifier) is not None


def test_one_token_has_so_many_sessions_and_the_server_so_many(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 60)
    monkeypatch.setattr(module.privatefiles, "write_private", lambda path, data: None)
    sessions = opened(tmp_path, clock)
    others = sessions.begin("other")
    mine = [sessions.begin("mine") for _ in range(PER_TOKEN + 1)]
    assert [sessions.find(one) is not None for one in mine] == [False, *[True] * PER_TOKEN]
    assert sessions.find(others) is not None
    for n in range(60):
        sessions.begin(f"t{n}")
    assert sessions.find(others) is None
    assert len(sessions._open) == 60


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{}", "x", '{"format":1,"sessions":[{"a":1}]}', '{"format":1,"sessions":7}'),
        '{"format":1,"sessions":[{"sha256":[],"token":"t","created":1,"used":1}]}',
    ],
)
def test_a_damaged_file_ends_every_session(tmp_path: Path, clock: Clock, content: str) -> None:
    identifier = opened(tmp_path, clock).begin("t")
    (tmp_path / "sessions.json").write_text(content)
    again = opened(tmp_path, clock)
    assert again.find(identifier) is None
    assert again.find(again.begin("t")) is not None


def test_a_full_disk_keeps_nobody_from_logging_in_or_out(
    sessions: Sessions, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, kept = sessions.begin("t"), sessions.begin("t")

    def full(_path: Path, _data: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as disk:
        disk.setattr(privatefiles, "write_private", full)
        sessions.finish(gone)
        assert sessions.find(gone) is None
        assert sessions.find(sessions.begin("t")) is not None
    clock.now += 1
    assert sessions.find(kept) is not None  # with room again, the next use writes at once
    after = opened(tmp_path, clock)
    assert after.find(gone) is None
    assert after.find(kept) is not None


def test_the_token_of_forms_is_each_session_s_own() -> None:
    assert csrf_of("a") != csrf_of("b")
    assert csrf_of("a") == csrf_of("a")
    assert len(csrf_of("a")) == 43
