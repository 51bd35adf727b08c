"""The client: the file it renders is its own, and a refused release changes nothing."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings

from tidegate_agents import host
from tidegate_agents.client import agent as module
from tidegate_agents.client import dryrun, interface, probe, render
from tidegate_agents.client.agent import ClientAgent
from tidegate_agents.files import FileRefused
from tidegate_agents.host import HostError, Places
from tidegate_agents.settings import defaults
from tidegate_agents.wireguard import PeerConfig, PeerState
from tidegate_schema.wgquick import ClientConfig, parse
from unit.agents.kit import CLIENT, CONF, PUBLIC, key, publish
from unit.schema.test_wgquick import configs

KEY = Path("/etc/tidegate/client.key")
PREFIX = r"[0-9a-f:.]{2,45}/[0-9]{1,3}"
LINES = [
    r"# Written by 'tidegate client run' at every change; edit /etc/tidegate/client\.yaml instead\.",
    r"",
    r"\[Interface\]",
    r"\[Peer\]",
    rf"Address = {PREFIX}(, {PREFIX})*",
    r"MTU = [0-9]{4,5}",
    r"ListenPort = [0-9]{1,5}",
    r"PostUp = wg set %i private-key /etc/tidegate/client\.key",
    r"PublicKey = [A-Za-z0-9+/]{43}=",
    r"Endpoint = ([0-9.]{7,15}|\[[0-9a-f:.]{2,45}\]):[0-9]{1,5}",
    rf"AllowedIPs = {PREFIX}(, {PREFIX})*",
    r"PersistentKeepalive = [0-9]{1,5}",
]


@settings(deadline=None)
@given(configs())
def test_the_rendered_file_has_no_line_but_its_own(config: ClientConfig) -> None:
    for chosen in (
        defaults("client"),
        defaults("client") | {"listen_port": 51820, "persistent_keepalive": 25},
    ):
        text = render.wg_quick_file(config, chosen, KEY)
        assert text.endswith("\n")
        for line in text.split("\n"):
            assert any(re.fullmatch(pattern, line) for pattern in LINES), line
        assert text.isascii()
        assert "PrivateKey" not in text
        assert text.count("PostUp") == 1
        assert text.count("[Interface]") == 1
        assert text.count("[Peer]") == len(config.peers)


@settings(deadline=None)
@given(configs())
def test_the_rendered_file_says_what_the_bundle_says(config: ClientConfig) -> None:
    text = render.wg_quick_file(config, defaults("client"), KEY)
    found = parse(text.partition("\n")[2].encode())  # but for the comment it is a bundle itself
    assert found.addresses == config.addresses
    assert found.mtu == (config.mtu or defaults("client")["mtu"])
    assert [(p.public_key, p.endpoint, set(p.allowed_ips)) for p in found.peers] == [
        (p.public_key, p.endpoint, set(p.allowed_ips)) for p in config.peers
    ]
    assert render.networks(config) == {prefix for peer in config.peers for prefix in peer.allowed_ips}


def test_local_settings_go_before_the_bundle_s_keepalive() -> None:
    config = parse(CONF + b"PersistentKeepalive = 15\n")
    assert render.peers(config, defaults("client"))[key("fra1")].persistent_keepalive == 15
    chosen = defaults("client") | {"persistent_keepalive": 25}
    assert render.peers(config, chosen)[key("fra1")].persistent_keepalive == 25


def test_routes_of_both_families_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "-4": '[{"dst":"default","table":"51820"},{"dst":"10.20.0.0/16"},{"dst":"10.64.0.1"}]',
        "-6": '[{"dst":"fd20::/48"},{"dst":"fd21::/48","table":"7"}]',
    }
    monkeypatch.setattr(interface, "_run", lambda *command: answers[command[1]])
    assert interface._routes("wg0") == {"0.0.0.0/0", "10.20.0.0/16", "10.64.0.1/32", "fd20::/48"}


# The agent ----------------------------------------------------------------------------------------------------


class Applied:
    """Stands in for the interface: keeps what was applied, and fails when told to."""

    def __init__(self) -> None:
        self.configs: list[ClientConfig] = []
        self.error: Exception | None = None

    def apply(self, _places: Places, config: ClientConfig, _settings: Mapping[str, Any]) -> None:
        if self.error is not None:
            raise self.error
        self.configs.append(config)


@pytest.fixture
def applied(monkeypatch: pytest.MonkeyPatch) -> Applied:
    made = Applied()
    monkeypatch.setattr(interface, "apply", made.apply)
    monkeypatch.setattr(interface, "exists", lambda _name: bool(made.configs))
    monkeypatch.setattr(module.Upkeep, "look", lambda *_: False)
    monkeypatch.setattr(host, "public_key", lambda _places: key("alice"))
    return made


@pytest.fixture
def places(tmp_path: Path) -> Places:
    made = Places("client", tmp_path / "etc", tmp_path / "state", tmp_path / "run")
    made.etc.mkdir()
    made.run.mkdir(parents=True)
    identity = {"format": 1, "fleet": "example", "kind": "client", "host": "alice-laptop"}
    made.identity.write_text(json.dumps(identity | {"trusted_keys": [PUBLIC.decode()]}))
    return made


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    directory = tmp_path / "bundles" / "client" / "alice-laptop"
    directory.mkdir(parents=True)
    return directory


FOREVER = 4_000_000_000


def started(places: Places, bundle: Path) -> ClientAgent:
    return ClientAgent(places, bundle.parents[1])


def status(places: Places) -> dict[str, Any]:
    found = host.read_status(places)
    assert found is not None
    return found


def test_a_release_is_applied_once_and_told(places: Places, bundle: Path, applied: Applied) -> None:
    publish(bundle, CLIENT, not_after=FOREVER)
    agent = started(places, bundle)
    for _ in range(3):
        agent._turn()
    assert applied.configs == [parse(CONF)]
    assert status(places)["applied"] is True
    assert status(places)["release"]["serial"] == 5
    assert host.load_memory(places).serial == 5


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (CONF + b"PostUp = id\n", "invalid-bundle: wg0.conf: line 8: PostUp in [Peer]"),
        (CONF.replace(b"[Peer]", b"PostUp = id\n[Peer]"), "PostUp is refused"),
        (CONF.replace(b"[Peer]", b"PrivateKey = x\n[Peer]"), "PrivateKey in [Interface] is refused"),
        (b"\x00", "invalid-bundle"),
    ],
)
def test_a_command_in_a_bundle_is_refused_by_name_even_signed(
    places: Places, bundle: Path, applied: Applied, content: bytes, name: str
) -> None:
    publish(bundle, CLIENT, not_after=FOREVER)
    agent = started(places, bundle)
    agent._turn()
    publish(bundle, CLIENT, {"wg0.conf": content}, serial=6, not_after=FOREVER)
    agent._turn()
    assert applied.configs == [parse(CONF)]
    assert name in status(places)["refusal"]["reason"]
    assert status(places)["release"]["serial"] == 5
    assert host.load_memory(places).serial == 5


def test_the_time_is_written_down_while_nothing_happens(
    places: Places, bundle: Path, applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill -9, a clock set back by days has been no more than a minute ahead."""
    publish(bundle, CLIENT, not_after=FOREVER)
    agent = started(places, bundle)
    agent._turn()
    before = host.load_memory(places).time
    monkeypatch.setattr(time, "time", lambda: before + 61)
    agent._turn()
    assert host.load_memory(places).time == before + 61


def test_a_replay_is_refused_also_after_a_restart(places: Places, bundle: Path, applied: Applied) -> None:
    publish(bundle, CLIENT, serial=9, not_after=FOREVER)
    started(places, bundle)._turn()
    publish(bundle, CLIENT, {"wg0.conf": CONF + b"\n"}, serial=8, not_after=FOREVER)
    agent = started(places, bundle)
    agent._turn()
    assert applied.configs == [parse(CONF)] * 2  # what was in force before, from the host's own copy
    assert "replayed" in status(places)["refusal"]["reason"]


def test_a_clock_set_back_revives_no_release(
    places: Places, bundle: Path, applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.save_memory(places, host.Memory(0, FOREVER + 1))
    publish(bundle, CLIENT, not_after=FOREVER)
    started(places, bundle)._turn()
    assert applied.configs == []
    assert "expired" in status(places)["refusal"]["reason"]


def test_a_refusal_ends_when_what_is_offered_is_good_again(
    places: Places, bundle: Path, applied: Applied
) -> None:
    publish(bundle, CLIENT, host="bob-laptop", not_after=FOREVER)
    agent = started(places, bundle)
    agent._turn()
    assert "other-host" in status(places)["refusal"]["reason"]
    publish(bundle, CLIENT, not_after=FOREVER)
    agent._turn()
    assert status(places)["refusal"] is None
    assert len(applied.configs) == 1


def test_what_cannot_be_remembered_is_not_applied(
    places: Places, bundle: Path, applied: Applied, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(bundle, CLIENT, not_after=FOREVER)
    agent = started(places, bundle)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(host, "save_memory", full)
        agent._turn()
        assert applied.configs == []
        assert "No space" in status(places)["trouble"]
    agent._turn()
    assert len(applied.configs) == 1


@pytest.mark.parametrize("error", [HostError("ip: no"), OSError(28, "No space left on device")])
def test_what_could_not_be_applied_is_tried_again(
    places: Places, bundle: Path, applied: Applied, error: Exception
) -> None:
    publish(bundle, CLIENT, not_after=FOREVER)
    agent = started(places, bundle)
    applied.error = error
    agent._turn()
    assert status(places)["applied"] is False
    assert status(places)["trouble"]
    applied.error = None
    agent._turn()
    assert status(places)["applied"] is True
    assert status(places)["trouble"] is None


def test_invalid_settings_keep_those_that_run(places: Places, bundle: Path, applied: Applied) -> None:
    places.settings.write_text("mtu: 1380\n")
    publish(bundle, CLIENT, not_after=FOREVER)
    agent = started(places, bundle)
    agent._turn()
    places.settings.write_text("mtu: [\n")
    agent._turn()
    assert agent._settings["mtu"] == 1380
    assert "client.yaml" in status(places)["settings_problem"]
    assert status(places)["pid"] == os.getpid()
    assert len(applied.configs) == 1


class Device:
    """Stands in for what wg(8) says of the interface, and of the way to its gateways."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.shaken: dict[str, int] = {}
        self.is_online = True
        self.nudged: list[str] = []
        self.now = 0.0
        monkeypatch.setattr(probe, "peers", lambda _name: self.peers())
        monkeypatch.setattr(probe, "is_online", lambda _config: self.is_online)
        monkeypatch.setattr(probe, "nudge", lambda _name, wanted, *_: self.nudged.extend(wanted))
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)

    def peers(self) -> dict[str, PeerState]:
        config = PeerConfig(frozenset(), "203.0.113.10:51820")
        return {name: PeerState(config, then, 0, 0) for name, then in self.shaken.items()}


MOVED = CONF.replace(b"203.0.113.10", b"203.0.113.99").replace(b"10.20.0.0/16", b"10.20.1.0/24, 10.30.0.0/16")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Device:
    return Device(monkeypatch)


def confirmed(places: Places, bundle: Path, device: Device) -> ClientAgent:
    """Return an agent whose first release a handshake has confirmed just now."""
    publish(bundle, CLIENT, not_after=FOREVER)
    agent = started(places, bundle)
    agent._turn()
    assert status(places)["trial"]["serial"] == 5
    device.shaken = {key("fra1"): int(time.time()) - 1}
    agent._turn()
    assert status(places)["trial"] is None
    return agent


def test_without_a_handshake_in_time_the_client_goes_back_as_far_as_both_lead(
    places: Places, bundle: Path, applied: Applied, device: Device
) -> None:
    agent = confirmed(places, bundle, device)
    publish(bundle, CLIENT, {"wg0.conf": MOVED}, serial=6, not_after=FOREVER)
    for device.now in (100.0, 129.0):
        agent._turn()
        assert applied.configs[-1] == parse(MOVED)
    assert key("fra1") in device.nudged
    device.now = 130.0
    agent._turn()
    assert applied.configs[-1] == parse(CONF.replace(b"10.20.0.0/16", b"10.20.1.0/24"))
    assert status(places)["rolled_back"]["serial"] == 6
    assert status(places)["release"]["serial"] == 5


@pytest.mark.parametrize("why", ["offline", "no session before"])
def test_silence_that_is_no_fault_of_the_release_is_waited_out(
    places: Places, bundle: Path, applied: Applied, device: Device, why: str
) -> None:
    agent = confirmed(places, bundle, device)
    if why == "offline":
        device.is_online = False
    else:
        device.shaken = {key("fra1"): int(time.time()) - 200}
    publish(bundle, CLIENT, {"wg0.conf": MOVED}, serial=6, not_after=FOREVER)
    for device.now in (100.0, 200.0, 10000.0):
        agent._turn()
        assert status(places)["trial"]["serial"] == 6
    device.shaken = {key("fra1"): int(time.time())}
    agent._turn()
    assert status(places)["trial"] is None
    assert applied.configs[-1] == parse(MOVED)


def test_a_session_with_a_gateway_that_has_not_changed_is_proof_enough(
    places: Places, bundle: Path, applied: Applied, device: Device
) -> None:
    agent = confirmed(places, bundle, device)
    changed = CONF.replace(b"10.20.0.0/16", b"10.21.0.0/16")
    publish(bundle, CLIENT, {"wg0.conf": changed}, serial=6, not_after=FOREVER)
    agent._turn()
    assert applied.configs[-1] == parse(changed)
    assert status(places)["trial"] is None


def test_with_no_gateway_in_common_there_is_no_way_back(
    places: Places, bundle: Path, applied: Applied, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = confirmed(places, bundle, device)
    other = CONF.replace(key("fra1").encode(), key("fra2").encode())
    publish(bundle, CLIENT, {"wg0.conf": other}, serial=6, not_after=FOREVER)
    asked: list[str] = []
    fail = agent._inbox.succession.fail
    monkeypatch.setattr(agent._inbox.succession, "fail", lambda why: asked.append(why) or fail(why))
    for device.now in (100.0, 130.0, 131.0, 132.0, 200.0):
        agent._turn()
        assert applied.configs[-1] == parse(other)
        assert status(places)["trial"]["serial"] == 6
    assert len(asked) == 2  # which reads and verifies both: not at every turn


@pytest.mark.parametrize("on_stale", ["keep", "deny"])
def test_past_the_end_of_its_release_a_client_does_as_it_was_told(
    places: Places, bundle: Path, applied: Applied, device: Device, on_stale: str
) -> None:
    places.settings.write_text(f"on_stale: {on_stale}\n")
    agent = confirmed(places, bundle, device)
    agent._inbox._clock = SimpleNamespace(now=lambda: float(FOREVER))  # type: ignore[assignment]
    agent._turn()
    assert status(places)["stale"] is True
    assert bool(applied.configs[-1].peers) is (on_stale == "keep")
    assert applied.configs[-1].addresses == parse(CONF).addresses
    assert status(places)["applied"] is True


def test_a_release_that_goes_stale_on_trial_and_is_to_lead_nowhere_has_not_failed(
    places: Places, bundle: Path, applied: Applied, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "is_online", lambda config: bool(config.peers))
    places.settings.write_text("on_stale: deny\n")
    agent = confirmed(places, bundle, device)
    before = len(applied.configs)
    publish(bundle, CLIENT, {"wg0.conf": MOVED}, serial=6, not_after=FOREVER)
    device.now = 100.0
    agent._turn()
    agent._inbox._clock = SimpleNamespace(now=lambda: float(FOREVER))  # type: ignore[assignment]
    for device.now in (120.0, 200.0, 300.0):
        agent._turn()
    assert len(applied.configs) == before + 2
    assert status(places)["trial"]["serial"] == 6


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), FileRefused("/run/tidegate: others may write it")]
)
def test_a_trouble_of_the_host_fails_no_release_and_ends_no_agent(
    places: Places, bundle: Path, applied: Applied, device: Device, error: Exception
) -> None:
    agent = confirmed(places, bundle, device)
    publish(bundle, CLIENT, {"wg0.conf": MOVED}, serial=6, not_after=FOREVER)
    applied.error = error
    for device.now in (100.0, 200.0, 300.0):
        agent._turn()
        assert str(error) in status(places)["trouble"]
    applied.error = None
    agent._turn()
    assert status(places)["trial"]["serial"] == 6
    assert applied.configs[-1] == parse(MOVED)


def test_a_dry_run_says_what_an_agent_does_past_the_end_of_its_release(
    places: Places, bundle: Path, applied: Applied, device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    confirmed(places, bundle, device)
    monkeypatch.setattr("tidegate_agents.clock.Clock.now", lambda _clock: float(FOREVER))
    planned: list[ClientConfig] = []
    monkeypatch.setattr(interface, "wanted", lambda _places, config, _settings: planned.append(config))
    monkeypatch.setattr(interface, "observe", lambda _name: None)
    monkeypatch.setattr(dryrun, "plan", lambda *_: [])
    for on_stale in ("keep", "deny"):
        places.settings.write_text(f"on_stale: {on_stale}\n")
        assert dryrun.actions(places, bundle.parents[1])[0] == []
    assert [bool(config.peers) for config in planned] == [True, False]


def test_the_module_never_hands_transported_bytes_on() -> None:
    assert "wg-quick" not in Path(module.__file__).read_text()


# A clock that is set ahead and back ------------------------------------------------------------------------

DAY = 86400


class Wall:
    """The clock that somebody sets, beside the one that only goes on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, device: Device) -> None:
        self.real, self.ahead, self._device = float(int(time.time())), 0.0, device
        monkeypatch.setattr(time, "time", self.now)

    def now(self) -> float:
        return self.real + self._device.now + self.ahead


@pytest.fixture
def wall(monkeypatch: pytest.MonkeyPatch, device: Device) -> Wall:
    return Wall(monkeypatch, device)


@pytest.mark.parametrize("ahead", [DAY, -DAY, 3, -3])
def test_a_jump_and_its_end_change_nothing(
    places: Places,
    bundle: Path,
    applied: Applied,
    device: Device,
    wall: Wall,
    ahead: float,
) -> None:
    agent = confirmed(places, bundle, device)
    for device.now, wall.ahead in ((10.0, ahead), (20.0, ahead), (30.0, 0.0), (200.0, 0.0)):
        agent._turn()
        told = status(places)
        assert (told["applied"], told["trial"], told["rolled_back"], told["stale"]) == (
            True,
            None,
            None,
            False,
        )
    assert applied.configs == [parse(CONF)]


@pytest.mark.parametrize("ahead", [DAY, -DAY])
def test_a_trial_lasts_as_long_as_it_should_whatever_the_clock_does(
    places: Places,
    bundle: Path,
    applied: Applied,
    device: Device,
    wall: Wall,
    ahead: float,
) -> None:
    agent = confirmed(places, bundle, device)
    publish(bundle, CLIENT, {"wg0.conf": MOVED}, serial=6, not_after=FOREVER)
    for device.now, wall.ahead in ((100.0, 0.0), (101.0, ahead), (115.0, 0.0), (129.0, ahead)):
        agent._turn()
        assert applied.configs[-1] == parse(MOVED)
    device.now, wall.ahead = 130.0, 0.0
    agent._turn()
    assert status(places)["rolled_back"]["serial"] == 6


@pytest.mark.parametrize("ahead", [DAY, -DAY])
def test_a_handshake_confirms_by_whatever_clock_it_is_told(
    places: Places,
    bundle: Path,
    applied: Applied,
    device: Device,
    wall: Wall,
    ahead: float,
) -> None:
    agent = confirmed(places, bundle, device)
    publish(bundle, CLIENT, {"wg0.conf": MOVED}, serial=6, not_after=FOREVER)
    device.now = 100.0
    agent._turn()
    wall.ahead = ahead
    device.shaken = {key("fra1"): int(wall.now())}
    agent._turn()
    assert (status(places)["trial"], status(places)["release"]["serial"]) == (None, 6)


@pytest.mark.parametrize("ahead", [DAY, -DAY])
def test_no_release_is_blamed_for_a_session_that_only_the_clock_has_ended(
    places: Places,
    bundle: Path,
    applied: Applied,
    device: Device,
    wall: Wall,
    ahead: float,
) -> None:
    agent = confirmed(places, bundle, device)
    wall.ahead = ahead
    publish(bundle, CLIENT, {"wg0.conf": MOVED}, serial=6, not_after=FOREVER)
    for device.now in (100.0, 200.0, 1000.0):
        agent._turn()
        assert status(places)["trial"]["serial"] == 6
    assert applied.configs[-1] == parse(MOVED)


def test_what_ended_while_the_clock_was_ahead_stays_ended(
    places: Places,
    bundle: Path,
    applied: Applied,
    device: Device,
    wall: Wall,
) -> None:
    places.settings.write_text("on_stale: deny\n")
    end = int(wall.real) + 3600
    publish(bundle, CLIENT, not_after=end)
    agent = started(places, bundle)
    agent._turn()
    assert applied.configs[-1] == parse(CONF)
    for device.now, wall.ahead in ((10.0, 7200.0), (20.0, 0.0)):
        agent._turn()
        assert status(places)["stale"] is True
        assert applied.configs[-1].peers == ()
    publish(bundle, CLIENT, serial=6, not_after=end + 3000)  # over by then, too
    agent._turn()
    assert status(places)["refusal"]["name"] == "expired"
    assert host.load_memory(places).serial == 5
    agent = started(places, bundle)
    agent._turn()
    assert applied.configs[-1].peers == ()
    publish(bundle, CLIENT, serial=7, not_after=end + DAY)
    agent._turn()
    assert (status(places)["refusal"], status(places)["stale"]) == (None, False)
    assert applied.configs[-1] == parse(CONF)


@pytest.mark.parametrize(
    ("ago", "lives"),
    [(1, True), (179, True), (181, False), (-3, True), (-179, True), (-181, False), (-DAY, False)],
)
def test_a_session_outlives_a_clock_that_is_set_a_little(ago: int, lives: bool) -> None:
    found = {"A": PeerState(PeerConfig(frozenset()), 1_800_000_000 - ago, 0, 0)}
    assert probe.has_session(found, 1_800_000_000.0) is lives


def test_without_a_handshake_there_is_no_session_also_at_the_beginning_of_time() -> None:
    """A host without a clock of its own starts in 1970, where "never" is a moment ago."""
    assert not probe.has_session({"A": PeerState(PeerConfig(frozenset()), 0, 0, 0)}, 50.0)
