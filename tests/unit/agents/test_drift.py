"""Drift is told once, repaired when it is to be, and forgotten when it is gone."""

from __future__ import annotations

import re
from pathlib import Path

from docskit import read
from tidegate_agents import hostevents
from tidegate_agents.gateway.drift import Check, Drifts
from tidegate_agents.gateway.driftnames import NAMES
from tidegate_agents.host import Places
from tidegate_agents.hostevents import HostEvents


class Thing:
    """Something that others change."""

    def __init__(self, tmp_path: Path) -> None:
        self.places = Places("gateway", tmp_path, tmp_path / "state", tmp_path)
        self.drifts = Drifts(HostEvents(self.places))
        self.wrong: str | None = None

    def repair(self) -> None:
        self.wrong = None

    def look(self, *, repair: bool, always: bool = False) -> None:
        check = Check("rules", lambda: self.wrong, self.repair, always)
        self.drifts.go_through([check], repair=repair)

    def told(self) -> list[str]:
        return [one["event"] for one in hostevents.read(self.places)]


def test_what_is_repaired_is_told_of_twice_and_stands_no_more(tmp_path: Path) -> None:
    one = Thing(tmp_path)
    one.look(repair=True)
    assert one.told() == []
    one.wrong = "flushed"
    one.look(repair=True)
    assert (one.told(), one.wrong, one.drifts.standing) == (["drift-found", "drift-repaired"], None, {})


def test_what_is_only_reported_stands_and_is_told_of_once_until_it_is_gone(tmp_path: Path) -> None:
    one = Thing(tmp_path)
    one.wrong = "flushed"
    for _ in range(3):
        one.look(repair=False)
    assert (one.told(), one.drifts.standing) == (["drift-found"], {"rules": "flushed"})
    one.drifts.go_through([], repair=False)  # not looked at: it stands as it was found
    assert one.drifts.standing == {"rules": "flushed"}
    one.wrong = None
    one.look(repair=False)
    assert one.drifts.standing == {}
    one.wrong = "flushed"
    one.look(repair=False)
    assert one.told() == ["drift-found", "drift-found"]


def test_what_would_open_something_is_repaired_all_the_same(tmp_path: Path) -> None:
    one = Thing(tmp_path)
    one.wrong = "flushed"
    one.look(repair=False, always=True)
    assert one.wrong is None


def test_the_names_are_those_of_the_page() -> None:
    chapter = read("docs/gateway.md").partition("\n## Drift")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", chapter, re.M)
    assert {name for cell in cells for name in re.findall("`(.*?)`", cell)} == set(NAMES)
