"""A change of keys, step by step: real key files, and a device that answers when the test says so."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from tidegate_agents import host
from tidegate_agents.client import interface, keyfiles, rotatecli, rotation
from tidegate_agents.client.failover import Failover, Traffic
from tidegate_agents.client.keyfiles import CURRENT, NEXT, PREVIOUS
from tidegate_agents.client.reconcile import Link, Observed
from tidegate_agents.client.rotation import CONFIRM_SECONDS, FAST_SECONDS, SLOW_SECONDS, Rotation
from tidegate_agents.host import HostError, Places
from tidegate_agents.wireguard import DeviceState, PeerConfig, PeerState
from tidegate_schema.wgquick import parse
from unit.agents.kit import CONF, PUBLIC, key
from unit.agents.test_keyfiles import places, put  # noqa: F401 - a fixture

CONFIG = parse(CONF)
GATEWAY = key("fra1")


@dataclass
class Device:
    """Stands in for wg(8), ip(8) and wg-quick(8): which second interface is up, who was asked, who answers."""

    up: str | None = None
    asked: int = 0
    answers: bool = False
    set: list[tuple[str, ...]] = field(default_factory=list)
    refuses: str = ""
    foreign: bool = False

    def bring_up(self, _places: Places, name: str, text: str) -> None:
        if self.refuses:
            raise HostError(self.refuses)
        assert "Table = off" in text
        assert "PrivateKey" not in text
        assert "Address" not in text
        self.up = text

    def down(self, _places: Places, _name: str) -> None:
        self.up = None

    def shake(self, name: str, public_key: str, peer: PeerConfig) -> None:
        assert self.up
        assert (name, public_key, peer.allowed_ips) == ("tidegate-next", GATEWAY, frozenset())
        self.asked += 1

    def show(self, _name: str) -> DeviceState:
        moment = int(time.time()) if self.answers and self.asked else 0
        return DeviceState("", 0, 0, {GATEWAY: PeerState(PeerConfig(frozenset()), moment, 0, 0)})

    def run(self, *words: str, text: str | None = None) -> str:
        self.set.append(words)
        return ""


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    made = Device()
    monkeypatch.setattr(interface, "up", made.bring_up)
    monkeypatch.setattr(interface, "down", made.down)
    monkeypatch.setattr(interface, "shake", made.shake)
    monkeypatch.setattr(interface, "exists", lambda _name: made.foreign or bool(made.up))
    monkeypatch.setattr(interface, "is_ours", lambda _places, _name: not made.foreign)
    monkeypatch.setattr(rotation.wireguard, "show", made.show)
    monkeypatch.setattr(rotation.wireguard, "run", made.run)
    return made


class Client:
    """A client whose gateway answers, or has been silent for so many seconds."""

    def __init__(self, where: Places) -> None:
        self.places = where
        self.told: list[tuple[str, Mapping[str, Any]]] = []
        self.rotation = Rotation(where, "tidegate0", "tidegate-next", self._tell)
        self.failover = Failover()
        self.failover.follow(CONFIG)
        self.now = 1000.0
        self.handshake = 0.0

    def _tell(self, event: str, /, **fields: Any) -> None:
        self.told.append((event, fields))

    def look(self, seconds: float = 0.0, *, silent: bool = False) -> None:
        self.now += seconds
        health = self.failover.health[GATEWAY]
        health.traffic = Traffic(1, 0, 0)
        if not silent:
            health.data_since = None
        elif health.data_since is None:
            health.data_since = self.now
        peers = {
            GATEWAY: PeerState(PeerConfig(frozenset({"10.20.0.0/16"}), "", 7), int(self.handshake), 0, 0)
        }
        observed = Observed("", peers, Link(frozenset(), frozenset(), 1420, True))
        self.rotation.look(self.now, observed, CONFIG, self.failover)

    def kept(self) -> Mapping[str, str]:
        return keyfiles.public_keys(self.places)


@pytest.fixture
def client(places: Places, device: Device) -> Client:  # noqa: F811
    places.run.mkdir(parents=True)
    return Client(places)


def test_without_a_next_key_nothing_is_there(client: Client, device: Device) -> None:
    client.look()
    assert (device.up, device.asked, client.rotation.status()) == (None, 0, None)


def test_the_next_key_is_tried_now_and_then_and_every_second_in_silence(
    client: Client, device: Device
) -> None:
    keyfiles.make_next(client.places)
    for _ in range(60):
        client.look(1.0)
    assert device.asked == 60 / SLOW_SECONDS
    assert "client.next.key" in (device.up or "")
    asked = device.asked
    for _ in range(20):
        client.look(FAST_SECONDS / 2, silent=True)
    assert 9 <= device.asked - asked <= 11
    assert client.kept().keys() == {CURRENT, NEXT}


def switched(client: Client, device: Device) -> tuple[str, str]:
    old, new = client.kept()[CURRENT], keyfiles.make_next(client.places)
    client.look()
    device.answers = True
    client.look(0.2)
    device.answers = False
    assert client.kept() == {CURRENT: new, PREVIOUS: old}
    return old, new


def test_once_it_is_answered_it_is_in_use_and_the_keepalive_is_as_before(
    client: Client, device: Device
) -> None:
    _, new = switched(client, device)
    assert device.set[0] == ("set", "tidegate0", "private-key", str(client.places.key))
    assert [words[-1] for words in device.set[1:]] == ["0", "1", "7"]
    assert device.up is None
    assert client.told == [("key-rotated", {"public_key": new, "back": False})]
    assert host.public_key(client.places) == new


def test_the_old_key_goes_when_the_new_one_has_carried_and_not_before(client: Client, device: Device) -> None:
    old, new = switched(client, device)
    client.now = time.monotonic()
    client.look(CONFIRM_SECONDS + 1)
    assert PREVIOUS in client.kept()  # there was no handshake since
    client.handshake = time.time() + 1
    client.now = time.monotonic()
    client.look(CONFIRM_SECONDS - 5)
    assert PREVIOUS in client.kept()
    client.look(10)
    assert client.kept() == {CURRENT: new}
    assert client.told[-1] == ("key-rotated", {"public_key": new, "destroyed": old})
    assert client.rotation.status() is None
    assert device.up is None


def test_a_clock_that_is_set_back_neither_drops_the_old_key_unproven_nor_keeps_it_for_good(
    client: Client, device: Device
) -> None:
    """A device tells of handshakes by the clock of their time, which may have been a day ahead."""
    client.handshake = time.time() + 86400
    _, new = switched(client, device)
    client.now = time.monotonic()
    client.look(CONFIRM_SECONDS + 1)
    assert PREVIOUS in client.kept()  # that handshake was the old key's
    client.handshake = time.time() - 86400
    client.look(1.0)
    assert client.kept() == {CURRENT: new}


def test_the_previous_key_is_asked_of_in_silence_only_and_taken_back(client: Client, device: Device) -> None:
    old, new = switched(client, device)
    asked = device.asked
    for _ in range(60):
        client.look(1.0)
    assert device.asked == asked
    client.look(0.5, silent=True)
    assert device.asked == asked
    client.look(1.0, silent=True)
    assert device.asked == asked + 1
    device.answers = True
    client.look(0.2, silent=True)
    assert client.kept() == {CURRENT: old, NEXT: new}
    assert client.told[-1] == ("key-rotated", {"public_key": old, "back": True})


def test_a_change_that_is_cancelled_leaves_nothing(client: Client, device: Device) -> None:
    keyfiles.make_next(client.places)
    client.look()
    assert device.up
    keyfiles.destroy(client.places, NEXT)
    client.look(1.0)
    assert device.up is None


def test_another_next_key_is_tried_in_place_of_the_one_before(client: Client, device: Device) -> None:
    keyfiles.make_next(client.places)
    client.look()
    asked = device.asked
    put(keyfiles.path(client.places, NEXT))
    client.look(0.1)
    assert device.asked == asked + 1  # at once: it was never tried


def test_a_stranger_s_interface_is_left_alone_and_told(client: Client, device: Device) -> None:
    keyfiles.make_next(client.places)
    device.foreign = True
    client.look()
    assert device.up is None
    status = client.rotation.status()
    assert status is not None
    assert "name another 'probe_interface'" in status["problem"]


@pytest.mark.parametrize("damage", ["no key", ""])
def test_what_fails_is_told_and_tried_again(client: Client, device: Device, damage: str) -> None:
    keyfiles.make_next(client.places)
    if damage:
        keyfiles.path(client.places, NEXT).write_text(damage)
    else:
        device.refuses = "wg-quick up: no"
    client.look()
    status = client.rotation.status()
    assert status is not None
    assert status["problem"]
    put(keyfiles.path(client.places, NEXT))
    device.refuses = ""
    client.look(1.0)
    status = client.rotation.status()
    assert status is not None
    assert status["problem"] is None
    assert device.asked == 1


def test_two_in_a_row_need_a_confirmation_between_them(client: Client, device: Device) -> None:
    identity = '{"format":1,"fleet":"example","kind":"client","host":"alice","trusted_keys":[%s]}'
    client.places.identity.write_text(identity % repr(PUBLIC.decode()).replace("'", '"'))
    found, lines, advice = rotatecli.rotate(client.places)
    assert lines == [found["public_key"]]
    assert "'alice' in inventory/clients/" in advice
    assert rotatecli.rotate(client.places)[0] == found
    shown = rotatecli.status(client.places)[0]
    assert shown["next"]["client_id"] == found["client_id"]
    assert shown["previous"] is None
    rotatecli.cancel(client.places)
    with pytest.raises(HostError, match="no change of keys is pending"):
        rotatecli.cancel(client.places)
    switched(client, device)
    with pytest.raises(HostError, match="the key before is still kept"):
        rotatecli.rotate(client.places)
