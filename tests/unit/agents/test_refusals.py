"""Each attack on a running agent, by name: in its status, as an event and as a metric, and nothing else has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tidegate_agents import files, host, hostevents, inbox, metricpage, trial
from tidegate_agents.client.agent import read_bundle as read_client
from tidegate_agents.client.common import common as common_client
from tidegate_agents.gateway.desired import common as common_gateway
from tidegate_agents.gateway.desired import read_bundle as read_gateway
from tidegate_agents.host import Memory, Places
from tidegate_agents.inbox import Inbox
from tidegate_schema import jsonfile, keyset
from tidegate_schema.keyset import KEYS_FILE, KeySet
from unit.agents.attacks import ATTACKS, OTHER_PUBLIC, OTHER_SIGNER, SERIAL, Stage
from unit.agents.kit import CONF, NOW, PEERS, PUBLIC, SIGNER, key, peers

KINDS: dict[str, tuple[Any, Any, dict[str, bytes], dict[str, bytes]]] = {
    "client": (
        read_client,
        common_client,
        {"wg0.conf": CONF},
        {"wg0.conf": CONF.replace(b"10.20.0.0/16", b"10.21.0.0/16")},
    ),
    "gateway": (
        read_gateway,
        common_gateway,
        {"peers.json": PEERS},
        {"peers.json": jsonfile.canonical(peers(alice=["10.64.0.12/32"]))},
    ),
}


class Scene:
    """An agent's inbox with a good release in force, and the directory it follows."""

    def __init__(self, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(host, "public_key", lambda _places: key("own"))
        self.now = float(NOW)
        monkeypatch.setattr(inbox.Clock, "now", lambda _clock: self.now)
        self.read, self.common, good, other = KINDS[kind]
        self.places = Places(kind, tmp_path / "etc", tmp_path / "state", tmp_path / "run")
        self.places.etc.mkdir()
        identity = {"format": 1, "fleet": "example", "kind": kind, "host": "one"}
        self.places.identity.write_text(json.dumps(identity | {"trusted_keys": [PUBLIC.decode()]}))
        directory = tmp_path / "bundles" / kind / "one"
        directory.mkdir(parents=True)
        self.stage = Stage(directory, "example", kind, "one", SIGNER, good, other, NOW)
        self.stage.publish(good, serial=SERIAL)
        self.inbox = self.start()
        self.inbox.look()
        self.inbox.succession.confirm()
        assert self.inbox.refusal is None

    def start(self) -> Inbox[Any]:
        return Inbox(self.places, self.stage.directory.parents[1], self.read, self.common)

    def state(self) -> tuple[object, ...]:
        """Return all that a refusal must not change."""
        one = self.inbox
        kept = {path: path.read_bytes() for path in self.places.state_directory.rglob("*") if path.is_file()}
        kept = {path: data for path, data in kept.items() if "events" not in path.name}
        return one.content, one.release, one.memory, one.succession.on_trial, kept

    def refused(self, name: str) -> None:
        """Assert that what is offered is refused by this name, everywhere where it should say so."""
        status = self.inbox.status()
        assert status["refusal"]["name"] == name
        told = [one for one in hostevents.read(self.places) if one["event"] == "release-refused"]
        assert [one["name"] for one in told] == [name]
        samples = metricpage.of_agent({**status, "release": self.inbox.release, "trouble": None}, 0.0)
        page = metricpage.page(metricpage.COMMON, samples).decode()
        found = {
            sample.labels["name"]: sample.value
            for family in text_string_to_metric_families(page)
            for sample in family.samples
            if sample.name == "tidegate_release_refusals_total"
        }
        assert found == {name: 1}


@pytest.fixture(params=KINDS)
def scene(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(request.param, tmp_path, monkeypatch)


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_is_refused_by_name_and_nothing_has_changed(scene: Scene, attack: str) -> None:
    name, deed = ATTACKS[attack]
    before = scene.state()
    deed(scene.stage)
    for _ in range(3):
        scene.inbox.look()
    scene.refused(name)
    assert scene.state() == before
    # And at a start it is no other: what was in force is found again.
    scene.inbox = scene.start()
    scene.inbox.look()
    assert scene.inbox.refusal is not None
    assert (scene.inbox.refusal.name, scene.inbox.release) == (name, before[1])


def test_one_signature_of_two_is_refused_by_name_and_the_key_set_stays(scene: Scene) -> None:
    """The set itself is a good one, and counts whatever becomes of the release beside it."""
    two = KeySet("example", 1, 2, (PUBLIC.decode(), OTHER_PUBLIC.decode()))
    chain = keyset.write([keyset.sign(two, [SIGNER, OTHER_SIGNER])])
    content, current = scene.inbox.content, scene.inbox.release
    scene.stage.hidden(lambda folder: (folder / KEYS_FILE).write_bytes(chain))
    for _ in range(3):
        scene.inbox.look()
    scene.refused("too-few-signatures")
    assert (scene.inbox.content, scene.inbox.release, scene.inbox.memory.serial) == (content, current, SERIAL)
    # What was in force runs on over a restart: it was accepted under the keys of its time.
    scene.inbox = scene.start()
    scene.inbox.look()
    assert (scene.inbox.release, scene.inbox.trust.version) == (current, 1)


def test_the_good_release_is_taken_up_where_nothing_is_wrong_with_it(scene: Scene) -> None:
    """The control of the table: what the attacks start from is no attack."""
    scene.stage.publish()
    scene.inbox.look()
    assert scene.inbox.refusal is None
    assert scene.inbox.succession.on_trial == trial.Name(SERIAL + 1, str(scene.inbox.release["digest"]))  # type: ignore[index]


def test_a_clock_set_back_makes_no_release_young_again(scene: Scene) -> None:
    scene.now = NOW + 1000.0
    scene.inbox.memory = Memory(SERIAL, scene.now, scene.inbox.memory.digest)
    host.save_memory(scene.places, scene.inbox.memory)
    before = scene.state()
    scene.stage.publish(not_after=NOW + 500)
    scene.inbox.look()  # the clock says NOW, and the highest time that was seen counts
    scene.refused("expired")
    assert scene.state() == before


def test_no_byte_of_a_huge_file_is_read(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its size is looked at first: of a file of 4 TiB nothing is asked for."""
    opened: list[int] = []
    real = open

    class Watched:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> Any:
            self._file.__enter__()
            return self

        def __exit__(self, *what: object) -> None:
            self._file.__exit__(*what)

        def read(self, size: int) -> bytes:
            opened.append(size)
            data: bytes = self._file.read(size)
            return data

    monkeypatch.setattr(files, "open", lambda *words, **more: Watched(real(*words, **more)), raising=False)
    ATTACKS["huge-file"][1](scene.stage)
    scene.inbox.look()
    asked = list(opened)
    scene.refused("bad-file")
    # The envelope alone was read, and nothing was asked for of the file.
    assert asked == [64 * 1024 + 1]


def test_the_same_serial_with_the_same_files_is_no_replay(scene: Scene) -> None:
    scene.stage.publish(scene.stage.good, serial=SERIAL, not_after=NOW + 90000)
    scene.inbox.look()
    assert scene.inbox.refusal is None
    assert scene.inbox.memory.serial == SERIAL
