"""kill -9 at every step of a publish and of a receive: a host has the old release or the new one, never half of one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from natskit import Fleet
from tidegate_agents.receive.fetch import Me
from tidegate_compiler.output import Output
from unit.nats import killed, kit

PLACE = ("gateway", "gw1")
STEPS_MOST = 80


def bundle(text: str) -> dict[str, bytes]:
    """A bundle of two parts and one."""
    return {"peers.json": kit.peers(700_000) + text.encode(), "policy.json": text.encode()}


def held(place: Path) -> dict[str, bytes]:
    return dict(kit.accepted(place / "bundles", *PLACE).files)


Do = Callable[[killed.Publisher | killed.Receive], bool]


@pytest.fixture(scope="module")
def do() -> Iterator[Do]:
    with killed.forking() as found:
        yield found


def publisher(do: Do, fleet: Fleet, out: Output, step: int) -> bool:
    return do(killed.Publisher(fleet.address, fleet.publisher(), out, step))


def receiver(do: Do, fleet: Fleet, place: Path, step: int) -> bool:
    me = Me(fleet.fleet, *PLACE)
    return do(killed.Receive(fleet.address, fleet.host(*PLACE), me, place / "bundles", step))


@pytest.mark.parametrize("first", [False, True], ids=["update", "first"])
def test_a_publisher_killed_at_any_step_leaves_the_old_release_or_the_new_one(
    do: Do, fleet: Fleet, tmp_path: Path, first: bool
) -> None:
    kind, host = ("client", "carol") if first else PLACE
    seen = set()
    for step in range(2, STEPS_MOST):
        old, new = bundle(f"old {step}"), bundle(f"new {step}")
        if not first:
            assert kit.push(fleet, kit.output({PLACE: old})).is_complete
            done = publisher(do, fleet, kit.output({PLACE: new}), step)
            killed.receive(fleet, tmp_path, *PLACE)
            seen.add("new" if held(tmp_path) == new else "old")
            assert held(tmp_path) in (old, new), f"step {step}"
            again = kit.push(fleet, kit.output({PLACE: new}))
        else:
            done = publisher(do, fleet, kit.clients([host], first=step), step)
            killed.receive(fleet, tmp_path, kind, host)
            again = kit.push(fleet, kit.clients([host], first=step))
        assert again.is_complete
        killed.receive(fleet, tmp_path, kind, host)
        wanted = kit.wg0(step) if first else new["peers.json"]
        assert wanted in kit.accepted(tmp_path / "bundles", kind, host).files.values()
        if done:
            break
    else:
        pytest.fail(f"it takes more than {STEPS_MOST} steps")
    assert first or seen == {"old", "new"}


def test_a_receiver_killed_at_any_step_leaves_the_old_release_or_the_new_one(
    do: Do, fleet: Fleet, tmp_path: Path
) -> None:
    old, new = bundle("old"), bundle("new")
    kit.push(fleet, kit.output({PLACE: old}))
    killed.receive(fleet, tmp_path / "start", *PLACE)
    kit.push(fleet, kit.output({PLACE: new}))
    seen = []
    for step in range(1, STEPS_MOST):
        place = tmp_path / str(step)
        shutil.copytree(tmp_path / "start", place, symlinks=True)
        done = receiver(do, fleet, place, step)
        seen.append("new" if held(place) == new else "old")
        assert held(place) in (old, new), f"step {step}"
        killed.receive(fleet, place, *PLACE)
        assert held(place) == new
        names = sorted(entry.name for entry in (place / "bundles/gateway/gw1/releases").iterdir())
        assert len(names) == 2
        assert not [name for name in names if name.startswith(".")], "nothing is left lying about"
        if done:
            break
    else:
        pytest.fail(f"it takes more than {STEPS_MOST} steps")
    assert {"old", "new"} <= set(seen[:-1]), "it died before the link moved, and after it"


def test_a_renewal_killed_at_any_step_leaves_a_release_that_is_accepted(
    do: Do, fleet: Fleet, tmp_path: Path
) -> None:
    """The same files under a new envelope: the directory is the same, and files in it are replaced."""
    files = bundle("same")
    kit.push(fleet, kit.output({PLACE: files}))
    killed.receive(fleet, tmp_path / "start", *PLACE)
    serial = kit.accepted(tmp_path / "start/bundles", *PLACE).release.serial
    kit.push(fleet, kit.output({PLACE: bundle("between")}))
    kit.push(fleet, kit.output({PLACE: files}))
    for step in range(1, STEPS_MOST):
        place = tmp_path / str(step)
        shutil.copytree(tmp_path / "start", place, symlinks=True)
        done = receiver(do, fleet, place, step)
        assert kit.accepted(place / "bundles", *PLACE).release.serial in (serial, serial + 2)
        killed.receive(fleet, place, *PLACE)
        assert kit.accepted(place / "bundles", *PLACE).release.serial == serial + 2
        if done:
            return
    pytest.fail(f"it takes more than {STEPS_MOST} steps")
