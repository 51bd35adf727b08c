"""The files of a client's keys: killed between any two steps, the host has one key that works, or both."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents import files, host
from tidegate_agents.client import keyfiles
from tidegate_agents.client.keyfiles import CURRENT, NEXT, PREVIOUS
from tidegate_agents.host import HostError, Places

KILLED = 9


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places("client", tmp_path / "etc", tmp_path / "state", tmp_path / "run")
    made.etc.mkdir()
    put(made.key)
    return made


def put(path: Path) -> bytes:
    key = base64.b64encode(os.urandom(32)) + b"\n"
    path.write_bytes(key)
    path.chmod(0o600)
    return key


def test_the_public_keys_are_those_that_wg_makes(places: Places) -> None:
    for which in (CURRENT, NEXT, PREVIOUS):
        private = put(keyfiles.path(places, which))
        made = subprocess.run(["wg", "pubkey"], input=private, capture_output=True, check=True).stdout
        assert keyfiles.public_keys(places)[which] == made.decode().strip()
    assert keyfiles.public_keys(places)[CURRENT] == host.public_key(places)


def test_the_next_key_is_made_once_and_is_nobody_else_s_to_read(places: Places) -> None:
    first = keyfiles.make_next(places)
    assert first == keyfiles.make_next(places) != keyfiles.public_keys(places)[CURRENT]
    assert keyfiles.path(places, NEXT).stat().st_mode & 0o777 == 0o600


def test_forward_and_back_and_forward(places: Places) -> None:
    old = keyfiles.public_keys(places)[CURRENT]
    new = keyfiles.make_next(places)
    keyfiles.take_up_next(places)
    assert keyfiles.public_keys(places) == {CURRENT: new, PREVIOUS: old}
    keyfiles.go_back(places)
    assert keyfiles.public_keys(places) == {CURRENT: old, NEXT: new}
    keyfiles.take_up_next(places)
    assert keyfiles.destroy(places, PREVIOUS)
    assert keyfiles.public_keys(places) == {CURRENT: new}
    assert not keyfiles.destroy(places, PREVIOUS)
    with pytest.raises(HostError, match=r"client\.next\.key: is gone"):
        keyfiles.take_up_next(places)
    with pytest.raises(HostError, match=r"client\.previous\.key: is gone"):
        keyfiles.go_back(places)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda path: path.chmod(0o640), "others may read the private key"),
        (lambda path: path.write_bytes(b"no key"), "not a WireGuard private key"),
        (lambda path: path.write_bytes(b"\xff" * 44), "not a WireGuard private key"),
        (lambda path: path.write_bytes(b"A" * 5000), "5000 bytes"),
        (lambda path: (path.unlink(), path.symlink_to("client.key")), "links"),
    ],
)
def test_a_key_file_that_is_not_in_order_is_refused(
    places: Places, damage: Callable[[Path], Any], said: str
) -> None:
    keyfiles.make_next(places)
    damage(keyfiles.path(places, NEXT))
    with pytest.raises((HostError, files.FileRefused), match=said):
        keyfiles.public_keys(places)


def steps(killed_at: int, verb: Callable[[], Any]) -> bool:
    """Run this in a child that ends before its n-th step on the file system; tell whether it got that far."""
    child = os.fork()
    if not child:
        count = 0

        def counting(real: Callable[..., Any]) -> Callable[..., Any]:
            def step(*words: Any, **more: Any) -> Any:
                nonlocal count
                count += 1
                if count == killed_at:
                    os._exit(KILLED)
                return real(*words, **more)

            return step

        for module, name in ((os, "open"), (os, "fsync"), (os, "fchmod"), (os, "rename"), (os, "replace")):
            setattr(module, name, counting(getattr(module, name)))
        try:
            verb()
        finally:
            os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, KILLED)
    return status == KILLED


def each_step(
    places: Places, verb: Callable[[], Any], prepare: Callable[[], Any]
) -> Iterator[dict[str, str]]:
    """Yield what keys there are after a kill before each step of `verb`."""
    number, killed = 0, True
    while killed:
        number += 1
        for path in places.etc.iterdir():
            path.unlink()
        put(places.key)
        prepare()
        killed = steps(number, verb)
        yield dict(keyfiles.public_keys(places))
    assert number > 8  # it was cut at several places


@pytest.mark.parametrize("back", [False, True])
def test_killed_at_any_step_the_host_has_both_keys_and_one_of_them_in_use(places: Places, back: bool) -> None:
    known: list[str] = []

    def prepare() -> None:
        known[:] = [keyfiles.public_keys(places)[CURRENT], keyfiles.make_next(places)]
        if back:
            keyfiles.take_up_next(places)

    verb = keyfiles.go_back if back else keyfiles.take_up_next
    seen = set()
    for keys in each_step(places, lambda: verb(places), prepare):
        assert sorted(keys.values()) == sorted(known)
        seen.add(tuple(sorted(keys)))
        # Tried again, it goes on where it was.
        if (PREVIOUS if back else NEXT) in keys:
            verb(places)
        assert keyfiles.public_keys(places)[CURRENT] == known[0 if back else 1]
    assert seen == {(CURRENT, NEXT), (CURRENT, PREVIOUS)}
