"""A release's trial: what is recorded, when it is judged, and what is in force afterwards."""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents import files, hostevents, kept, trial
from tidegate_agents.host import HostError, Places
from tidegate_agents.trial import Deadline, Name, Record
from tidegate_schema import jsonfile, keyset
from tidegate_schema.keyset import KEYS_FILE, KeySet
from unit.agents.attacks import OTHER_PUBLIC, SERIAL
from unit.agents.kit import NOW, PUBLIC, SIGNER, key, peers
from unit.agents.test_refusals import Scene

ONE, TWO, THREE = (Name(serial, str(serial) * 64) for serial in (1, 2, 3))


# The record -------------------------------------------------------------------------------------------------------


def test_a_confirmed_release_is_the_good_one_and_whatever_failed_before_is_forgotten() -> None:
    record = Record(good=ONE, failed=TWO).offered(THREE, was_well=True)
    assert (record.good, record.trial, record.failed, record.was_well) == (ONE, THREE, TWO, True)
    assert record.confirmed() == Record(good=THREE)


def test_a_lost_release_is_remembered_and_the_good_one_stays() -> None:
    assert Record(good=ONE).offered(TWO, was_well=True).lost() == Record(good=ONE, failed=TWO)
    assert Record(good=ONE, failed=TWO).offered(THREE, was_well=True).lost() == Record(good=ONE, failed=THREE)


def test_a_trial_that_a_crash_has_cut_off_is_tried_again_once() -> None:
    record = Record(good=ONE).offered(TWO, was_well=True)
    record = record.started()
    assert not record.is_crash_loop
    assert record.started().is_crash_loop
    assert record.stopped().started() == record  # an end in order is no crash
    assert Record(good=ONE).started() == Record(good=ONE)
    assert (
        not Record().offered(TWO, was_well=False).started().started().is_crash_loop
    )  # nothing to go back to


def test_the_record_survives_and_what_is_unreadable_is_named(tmp_path: Path) -> None:
    places = Places("client", tmp_path, tmp_path / "state", tmp_path)
    assert trial.load(places) == Record()
    record = Record(ONE, TWO, THREE, was_well=True, crashes=1, ended=True)
    trial.save(places, record)
    assert trial.load(places) == record
    good = jsonfile.parse(trial.file(places).read_bytes())
    for bad in (
        b"", b"{", b"[]", jsonfile.canonical(good | {"format": 2}), jsonfile.canonical(good | {"good": {"serial": 1}}),
        jsonfile.canonical(good | {"trial": {"serial": 1, "digest": "../x"}}),
    ):  # fmt: skip
        trial.file(places).write_bytes(bad)
        with pytest.raises(HostError, match=r"client-trial\.json: unreadable"):
            trial.load(places)


# The deadline -----------------------------------------------------------------------------------------------------


def judge(deadline: Deadline, now: float, **more: Any) -> bool | None:
    return deadline.judge(now, **{"ok": False, "counts": True, "seconds": 30.0} | more)


def test_silence_fails_at_the_deadline_and_not_before() -> None:
    deadline = Deadline()
    assert [judge(deadline, now) for now in (0.0, 15.0, 29.9, 30.0)] == [None, None, None, False]


def test_silence_that_does_not_count_never_fails_and_the_deadline_begins_anew() -> None:
    deadline = Deadline()
    assert judge(deadline, 0.0) is None
    assert judge(deadline, 1000.0, counts=False) is None
    assert [judge(deadline, now) for now in (1001.0, 1030.0, 1031.0)] == [None, None, False]


def test_it_is_confirmed_once_it_has_worked_for_a_while_without_a_break() -> None:
    deadline = Deadline()
    assert judge(deadline, 0.0, ok=True) is True
    deadline = Deadline()
    assert judge(deadline, 0.0, ok=True, settle=2.0) is None
    assert judge(deadline, 1.0, settle=2.0) is None
    assert judge(deadline, 1.5, ok=True, settle=2.0) is None
    assert judge(deadline, 3.0, ok=True, settle=2.0) is None
    assert judge(deadline, 3.5, ok=True, settle=2.0) is True


def test_what_works_now_and_then_fails_too() -> None:
    deadline = Deadline()
    for now in range(30):
        assert judge(deadline, float(now), ok=now % 2 == 1, settle=2.0) is None
    assert judge(deadline, 30.0, settle=2.0) is False


# What is in force -------------------------------------------------------------------------------------------------


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene("gateway", tmp_path, monkeypatch)


def release(*who: str) -> dict[str, bytes]:
    addresses = {"alice": "10.64.0.11/32", "bob": "10.64.0.12/32", "carol": "10.64.0.13/32"}
    return {"peers.json": jsonfile.canonical(peers(**{name: [addresses[name]] for name in who}))}


def offer(scene: Scene, serial: int, *who: str) -> None:
    scene.stage.publish(release(*who), serial=serial)
    scene.inbox.look()


def who(scene: Scene) -> set[str]:
    names = {key(name): name for name in ("alice", "bob", "carol")}
    return {names[one] for one in scene.inbox.content.peers}


def events(scene: Scene) -> list[str]:
    return [one["event"] for one in hostevents.read(scene.places)]


def again(scene: Scene) -> None:
    """Start the agent anew, after a crash."""
    scene.inbox = scene.start()
    scene.inbox.look()


def settled(scene: Scene, *names: str) -> None:
    offer(scene, 10, *names)
    scene.inbox.succession.confirm()


def test_a_release_on_trial_is_in_force_and_confirmed_it_is_the_good_one(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    assert who(scene) == {"alice", "carol"}
    assert scene.inbox.status()["trial"]["serial"] == 11
    scene.inbox.succession.confirm()
    assert scene.inbox.status()["trial"] is None
    assert len(list(kept.directory(scene.places).iterdir())) == 1
    again(scene)
    assert who(scene) == {"alice", "carol"}


def test_after_a_rollback_nothing_runs_that_the_failed_release_has_not(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    assert scene.inbox.succession.fail("too bad")
    assert who(scene) == {"alice"}
    status = scene.inbox.status()
    assert (status["rolled_back"]["serial"], status["rolled_back"]["reason"]) == (11, "too bad")
    assert scene.inbox.release is not None
    assert scene.inbox.release["serial"] == 10
    assert scene.inbox.memory.serial == 11  # and an older one is a replay for ever
    assert events(scene)[-2:] == ["release-failed", "rolled-back"]


def test_a_rollback_is_told_and_counted_once_whatever_is_started_afterwards(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    scene.inbox.succession.fail("too bad")
    for _ in range(3):
        again(scene)
        status = scene.inbox.status()
        assert (status["rolled_back"]["serial"], status["rolled_back"]["reason"]) == (11, "too bad")
        assert "rolled-back" not in status["happened"]
    assert events(scene).count("rolled-back") == 1


def test_a_rollback_of_which_the_journal_knows_nothing_is_told_at_the_next_start(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    scene.inbox.succession.fail("too bad")
    hostevents.journal(scene.places).unlink()  # as if killed before that was written
    again(scene)
    assert scene.inbox.status()["happened"]["rolled-back"] == {"": 1}
    again(scene)
    assert events(scene).count("rolled-back") == 1


@pytest.mark.parametrize("directory", ["stays", "goes"])
def test_a_failed_release_is_not_tried_again_and_a_newer_one_is(scene: Scene, directory: str) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    scene.inbox.succession.fail("too bad")
    for _ in range(3):
        scene.inbox.look()
    if directory == "goes":
        (scene.stage.directory / "current").unlink()
    for _ in range(3):
        again(scene)
        assert who(scene) == {"alice"}
        assert scene.inbox.succession.on_trial is None
    if directory == "stays":
        assert scene.inbox.refusal is not None
        assert scene.inbox.refusal.name == "failed-trial"
    assert events(scene).count("release-failed") == 1
    offer(scene, 12, "bob", "carol")
    assert who(scene) == {"bob", "carol"}
    scene.inbox.succession.confirm()
    assert scene.inbox.status()["rolled_back"] is None


def test_after_a_second_failure_the_newest_word_counts(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    scene.inbox.succession.fail("too bad")
    offer(scene, 12, "bob", "carol")
    scene.inbox.succession.fail("worse")
    assert who(scene) == {"bob"}


def test_a_trial_goes_on_after_a_crash_and_after_a_second_one_it_has_failed(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    again(scene)
    assert who(scene) == {"alice", "carol"}
    assert scene.inbox.succession.on_trial is not None
    again(scene)
    assert who(scene) == {"alice"}
    assert scene.inbox.refusal is not None
    assert scene.inbox.refusal.name == "failed-trial"
    assert events(scene)[-3:-1] == ["release-failed", "rolled-back"]


class Killed(BaseException):
    """As kill -9 and a power cut: nothing catches it."""


@pytest.mark.parametrize("directory", ["stays", "goes"])
def test_killed_at_any_step_of_a_rollback_nothing_withdrawn_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, directory: str
) -> None:
    """Bob was withdrawn by the release that fails: whatever of it is on disk by then, he is not in force again."""
    ends = set()
    for at in itertools.count(1):
        (tmp_path / str(at)).mkdir()
        scene = Scene("gateway", tmp_path / str(at), monkeypatch)
        settled(scene, "alice", "bob")
        offer(scene, 11, "alice", "carol")
        left = at
        with monkeypatch.context() as patch:

            def step(real: Any) -> Any:
                def counted(*words: Any, **more: Any) -> Any:
                    nonlocal left
                    left -= 1
                    if left == 0:
                        raise Killed
                    return real(*words, **more)

                return counted

            for name in ("replace", "rename", "fsync", "write", "unlink"):
                patch.setattr(os, name, step(getattr(os, name)))
            with contextlib.suppress(Killed):
                scene.inbox.succession.fail("too bad")
        if left > 0:
            break
        shutil.rmtree(scene.places.run, ignore_errors=True)  # a reboot
        if directory == "goes":
            (scene.stage.directory / "current").unlink()
        again(scene)
        ends.add(frozenset(who(scene)))
        assert scene.inbox.memory.serial == 11
        for _ in range(2):
            again(scene)
            assert "bob" not in who(scene)
        assert who(scene) == {"alice"}  # taken back, or cut off by a crash too often
    assert at > 3
    assert ends == {frozenset({"alice", "carol"}), frozenset({"alice"})}


def test_ends_in_order_are_held_against_no_release(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    for _ in range(5):
        scene.inbox.succession.end()
        again(scene)
        assert who(scene) == {"alice", "carol"}


def test_a_trial_goes_on_from_the_host_s_own_copy_when_the_directory_is_gone(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice", "carol")
    (scene.stage.directory / "current").unlink()
    again(scene)
    assert who(scene) == {"alice", "carol"}
    assert scene.inbox.succession.on_trial is not None


def test_without_a_good_release_the_one_on_trial_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tidegate_agents.succession.Succession.confirm", lambda _self: None)
    scene = Scene("gateway", tmp_path, monkeypatch)
    assert not scene.inbox.succession.fail("too bad")
    for _ in range(4):
        again(scene)
        assert scene.inbox.release is not None
        assert scene.inbox.release["serial"] == SERIAL


def test_what_was_kept_is_verified_as_if_it_came_from_outside(scene: Scene) -> None:
    settled(scene, "alice")
    (scene.stage.directory / "current").unlink()
    (folder,) = kept.directory(scene.places).iterdir()
    good = (folder / "peers.json").read_bytes()
    (folder / "peers.json").write_bytes(good.replace(b"10.64.0.11", b"10.64.0.19"))
    again(scene)
    assert (scene.inbox.content, scene.inbox.release) == (None, None)


def test_the_failed_release_that_cannot_be_read_lets_nothing_back(scene: Scene) -> None:
    """Else whoever spoils the copy on disk would get back what it had withdrawn."""
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice")
    scene.inbox.succession.fail("too bad")
    for folder in kept.directory(scene.places).glob("11-*"):
        (folder / "release.json").unlink()
    again(scene)
    assert scene.inbox.content is None


def test_a_release_on_trial_that_cannot_be_read_lets_nothing_back_and_is_not_confirmed(scene: Scene) -> None:
    """The good one before it still has what it has withdrawn."""
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice")
    for folder in kept.directory(scene.places).glob("11-*"):
        (folder / "release.json").unlink()
    current = (scene.stage.directory / "current").readlink()
    (scene.stage.directory / "current").unlink()
    again(scene)
    assert (scene.inbox.content, scene.inbox.release) == (None, None)
    scene.inbox.succession.confirm()
    assert scene.inbox.succession.on_trial is not None
    scene.stage.link(str(current))
    scene.inbox.look()
    assert who(scene) == {"alice"}
    scene.inbox.succession.confirm()
    assert scene.inbox.succession.on_trial is None


def test_a_renewal_is_no_trial(scene: Scene) -> None:
    settled(scene, "alice")
    offer(scene, 11, "alice")
    assert scene.inbox.succession.on_trial is None
    assert scene.inbox.release is not None
    assert scene.inbox.release["serial"] == 11
    (scene.stage.directory / "current").unlink()
    again(scene)
    assert scene.inbox.release is not None
    assert scene.inbox.release["serial"] == 11


def test_a_stale_release_goes_on_and_is_told_of_once(scene: Scene) -> None:
    settled(scene, "alice")
    scene.now = NOW + 86400.0
    for _ in range(3):
        scene.inbox.look()
        assert scene.inbox.status()["stale"]
    assert events(scene).count("release-stale") == 1
    assert who(scene) == {"alice"}
    again(scene)  # what is offered is refused as expired, and what the host kept is in force
    assert who(scene) == {"alice"}
    assert scene.inbox.refusal is not None
    assert scene.inbox.refusal.name == "expired"


def test_copies_of_releases_that_are_never_confirmed_do_not_pile_up(scene: Scene) -> None:
    settled(scene, "alice", "bob")
    for serial in range(11, 20):
        offer(scene, serial, *(("alice",) if serial % 2 else ("bob",)))
    assert len(list(kept.directory(scene.places).iterdir())) == 2


# A host without room ----------------------------------------------------------------------------------------------


def fill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing be written any more."""
    real = os.open

    def refuses(path: Any, flags: int, *more: Any, **named: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        return real(path, flags, *more, **named)

    monkeypatch.setattr(files.os, "open", refuses)


@pytest.mark.parametrize("on_trial", [False, True])
def test_a_start_without_room_puts_in_force_what_was(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, on_trial: bool
) -> None:
    settled(scene, "alice", "bob")
    if on_trial:
        offer(scene, 11, "alice")
    with monkeypatch.context() as patch:
        fill(patch)
        again(scene)
        assert who(scene) == ({"alice"} if on_trial else {"alice", "bob"})
        offered = scene.inbox.release
        scene.stage.publish(release("bob"), serial=12)
        with pytest.raises(OSError, match="No space"):  # what could be forgotten is not taken up
            scene.inbox.look()
        assert scene.inbox.release == offered
    scene.inbox.look()
    assert who(scene) == {"bob"}


def test_an_end_without_room_is_an_end_all_the_same(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that leaves everything at work would otherwise take it down for that."""
    settled(scene, "alice", "bob")
    offer(scene, 11, "alice")
    fill(monkeypatch)
    scene.inbox.end()
    assert [one.getMessage()[:30] for one in caplog.records[-2:]] == ["the end is not written down: ["] * 2


def test_what_is_wrong_with_a_copy_is_told_once(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    settled(scene, "alice")
    (scene.stage.directory / "current").unlink()
    (folder,) = kept.directory(scene.places).iterdir()
    (folder / "peers.json").write_bytes(b"{}")
    again(scene)
    for _ in range(5):
        scene.inbox.look()
    assert len([one for one in caplog.records if "cannot be used" in one.getMessage()]) == 1


def test_on_a_host_that_was_set_up_anew_nothing_of_its_earlier_life_is_in_force(scene: Scene) -> None:
    """Not what was accepted under a key set that led on from keys which the host no longer trusts."""
    chain = keyset.write([keyset.sign(KeySet("example", 1, 1, (PUBLIC.decode(),)), [SIGNER])])
    for serial in (11, 12):
        scene.stage.publish(release("alice", *(["bob"] * (serial - 11))), serial=serial)
        folder = scene.stage.directory / (scene.stage.directory / "current").readlink()
        (folder / KEYS_FILE).write_bytes(chain)
        scene.inbox.look()
        scene.inbox.succession.confirm()
    again(scene)
    assert who(scene) == {"alice", "bob"}
    identity = json.loads(scene.places.identity.read_text())
    scene.places.identity.write_text(json.dumps(identity | {"trusted_keys": [OTHER_PUBLIC.decode()]}))
    again(scene)
    assert (scene.inbox.content, scene.inbox.release) == (None, None)
