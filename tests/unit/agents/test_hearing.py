"""The trial of a release, as both agents hold it: what begins, what is held against it, and what follows."""

from __future__ import annotations

from pathlib import Path

import pytest

from tidegate_agents.hearing import Evidence, Hearing, Outcome
from unit.agents.test_refusals import Scene
from unit.agents.test_trial import offer, settled, who

WORKS = Evidence(works=True, counts=True, seconds=30, settle=2.0)
SILENT = Evidence(works=False, counts=True, seconds=30, settle=2.0)


class Court:
    """A release on trial behind a good one, and a clock."""

    def __init__(self, scene: Scene, *, was_well: bool = True) -> None:
        self.scene, self.now = scene, 1000.0
        settled(scene, "alice", "bob")
        scene.inbox._was_well = lambda: was_well
        self.hearing = Hearing(scene.inbox.succession)
        assert not self.hearing.begins()
        offer(scene, 11, "alice", "carol")

    def judge(self, evidence: Evidence, seconds: float = 0.0) -> Outcome:
        self.now += seconds
        return self.hearing.judge(self.now, evidence, "too bad")


@pytest.fixture
def court(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Court:
    return Court(Scene("gateway", tmp_path, monkeypatch))


def test_it_begins_once_for_each_release_and_when_none_is_on_trial_any_more(court: Court) -> None:
    assert not court.hearing.is_on
    assert court.hearing.begins()
    assert court.hearing.is_on
    assert not court.hearing.begins()
    offer(court.scene, 12, "alice")
    assert not court.hearing.is_on  # its deadline has not begun
    assert court.hearing.begins()
    court.scene.inbox.succession.confirm()
    assert not court.hearing.is_on
    assert court.hearing.begins()
    assert not court.hearing.begins()


def test_what_works_for_long_enough_is_confirmed(court: Court) -> None:
    court.hearing.begins()
    assert [court.judge(WORKS), court.judge(WORKS, 1.9), court.judge(WORKS, 0.1)] == [
        *(Outcome.OPEN, Outcome.OPEN, Outcome.CONFIRMED)
    ]
    assert court.scene.inbox.succession.on_trial is None
    assert who(court.scene) == {"alice", "carol"}


def test_what_does_not_work_in_time_is_taken_back(court: Court) -> None:
    court.hearing.begins()
    assert [court.judge(SILENT), court.judge(SILENT, 29.9), court.judge(SILENT, 0.1)] == [
        *(Outcome.OPEN, Outcome.OPEN, Outcome.TAKEN_BACK)
    ]
    assert who(court.scene) == {"alice"}
    assert court.scene.inbox.status()["rolled_back"]["reason"] == "too bad"


def test_the_host_s_own_trouble_is_held_against_no_release(court: Court) -> None:
    court.hearing.begins()
    hosts = Evidence(works=False, counts=False, seconds=30)
    assert [court.judge(hosts), court.judge(hosts, 1000)] == [Outcome.OPEN, Outcome.OPEN]
    assert [court.judge(SILENT), court.judge(SILENT, 29)] == [Outcome.OPEN, Outcome.OPEN]


def test_where_what_ran_before_did_not_work_no_release_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    court = Court(Scene("gateway", tmp_path, monkeypatch), was_well=False)
    court.hearing.begins()
    assert [court.judge(SILENT), court.judge(SILENT, 1000)] == [Outcome.OPEN, Outcome.OPEN]
    assert who(court.scene) == {"alice", "carol"}


def test_without_anything_to_go_back_to_it_stays_and_that_is_not_asked_at_every_turn(
    court: Court, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(court.scene.inbox.succession, "fail", lambda why: asked.append(why))
    court.hearing.begins()
    court.judge(SILENT)
    assert [court.judge(SILENT, 10) for _ in range(6)] == [Outcome.OPEN] * 6
    assert asked == ["too bad"]
