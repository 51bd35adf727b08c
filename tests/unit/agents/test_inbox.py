"""What comes from outside: invalid settings and refused releases change nothing, and time only goes on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import tidegate_agents.clock
from tidegate_agents import host, inbox
from tidegate_agents.bundles import Accepted
from tidegate_agents.events import ring
from tidegate_agents.gateway import generation
from tidegate_agents.gateway.flushing import FlusherKeeper
from tidegate_agents.host import Memory, Places
from tidegate_agents.inbox import Inbox
from tidegate_agents.settings import defaults
from tidegate_agents.watch import Waker
from tidegate_schema.release import ReleaseError
from unit.agents.kit import GATEWAY, NOW, PEERS, PUBLIC, key, log_server, publish, status, until


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setattr(host, "public_key", lambda _places: key("fra1"))
    made = Places("gateway", tmp_path / "etc", tmp_path / "state", tmp_path / "run")
    made.etc.mkdir()
    identity = {"format": 1, "fleet": "example", "kind": "gateway", "host": "fra1"}
    made.identity.write_text(json.dumps(identity | {"trusted_keys": [PUBLIC.decode()]}))
    return made


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "bundles" / "gateway" / "fra1"
    made.mkdir(parents=True)
    return made


def read(accepted: Accepted) -> bytes:
    if accepted.files["peers.json"] != PEERS:
        raise ReleaseError("invalid-bundle", "not the one")
    return accepted.files["peers.json"]


def opened(places: Places, directory: Path) -> Inbox[bytes]:
    return Inbox(places, directory.parents[1], read, lambda _old, _new: None)


def clock(monkeypatch: pytest.MonkeyPatch, now: float) -> None:
    for module in (inbox, tidegate_agents.clock):
        monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda: now, monotonic=lambda: 0.0))


def test_time_never_goes_back(places: Places, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, NOW)
    one = opened(places, directory)
    assert one.now() == NOW
    clock(monkeypatch, NOW - 15)
    assert one.now() == NOW  # nor within the minute that is not written down yet
    clock(monkeypatch, NOW)
    one.remember_time(at_once=True)
    clock(monkeypatch, NOW - 1000)
    assert one.now() == NOW
    assert opened(places, directory).now() == NOW  # nor after a restart
    one.remember_time(at_once=True)
    assert host.load_memory(places).time == NOW


def test_time_is_written_down_now_and_then(
    places: Places, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, NOW)
    one = opened(places, directory)
    one.remember_time()
    clock(monkeypatch, NOW + 59)
    one.remember_time()
    assert host.load_memory(places).time == NOW
    clock(monkeypatch, NOW + 60)
    one.remember_time()
    assert host.load_memory(places).time == NOW + 60


def test_a_release_is_remembered_before_it_is_offered(
    places: Places, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, NOW)
    publish(directory, GATEWAY)
    one = opened(places, directory)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(host, "save_memory", full)
        with pytest.raises(OSError, match="No space"):
            one.look()
        assert (one.content, one.release) == (None, None)
    one.look()
    assert one.content == PEERS
    assert one.release is not None
    assert host.load_memory(places) == Memory(5, NOW, str(one.release["digest"]))


def test_a_refused_release_leaves_the_one_before(
    places: Places, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, NOW)
    one = opened(places, directory)
    one.look()
    assert (one.content, one.refusal) == (None, None)
    publish(directory, GATEWAY)
    one.look()
    for changes, name in (
        ({"serial": 4}, "replayed"),
        ({"host": "fra2"}, "other-host"),
        ({"fleet": "other"}, "other-fleet"),
        ({"not_after": NOW}, "expired"),
    ):
        publish(directory, GATEWAY, **{"serial": 6} | changes)
        one.look()
        assert one.refusal is not None
        assert one.refusal.name == name
        assert one.content == PEERS
        assert one.release is not None
        assert one.release["serial"] == 5
    publish(directory, GATEWAY, {"peers.json": b"other"}, serial=9)
    one.look()
    assert one.refusal is not None
    assert one.refusal.name == "invalid-bundle"
    assert host.load_memory(places).serial == 5  # what was not taken in counts for nothing
    publish(directory, GATEWAY, serial=6)
    one.look()
    assert (one.refusal, one.release["serial"]) == (None, 6)  # type: ignore[index]


def test_an_unchanged_offer_is_not_read_again(
    places: Places, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, NOW)
    publish(directory, GATEWAY)
    one = opened(places, directory)
    one.look()
    monkeypatch.setattr(inbox.bundles, "read_current", lambda *_: pytest.fail("read again"))
    one.look()
    assert one.content == PEERS


def test_invalid_settings_mean_those_that_run_and_at_start_the_defaults(
    places: Places, directory: Path
) -> None:
    one = opened(places, directory)
    assert one.settings() == defaults("gateway")
    places.settings.write_text("authz_mode: [\n")
    assert one.settings() == defaults("gateway")
    assert one.settings()["authz_mode"] == "enforce"
    assert one.settings_problem is not None
    running = defaults("gateway") | {"authz_mode": "observe"}
    assert one.settings(running) == running
    places.settings.write_text("authz_mode: observe\nauthz_mode: enforce\n")
    assert one.settings(running) == running
    places.settings.write_text("authz_mode: enforce\n")
    assert one.settings(running)["authz_mode"] == "enforce"
    assert one.settings_problem is None


# The flusher's life -------------------------------------------------------------------------------------------


@pytest.fixture
def waker(tmp_path: Path) -> Iterator[Waker]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    with Waker([tmp_path]) as made:
        yield made
    for number, handler in kept.items():
        signal.signal(number, handler)


def test_a_flusher_runs_while_it_has_work_and_follows_its_settings(tmp_path: Path, waker: Waker) -> None:
    with log_server(status(204)) as server:
        places = host.Places("gateway", run_directory=tmp_path)
        places.run.mkdir()
        generation.prepare(places, 61002)
        keeper = FlusherKeeper(places, "fra1", 61002)
        settings = defaults("gateway") | {"log_endpoint": server.url}
        try:
            keeper.keep(settings, waker)
            assert keeper.pid is None  # no ring yet
            ring.create(keeper.rings.events, 64)
            keeper.keep(defaults("gateway"), waker)
            assert keeper.pid is None  # no endpoint
            keeper.keep(settings, waker)
            first = keeper.pid
            assert first is not None
            keeper.keep(dict(settings), waker)
            assert keeper.pid == first
            settings["batch_records"] = 7
            until(
                "it is started anew",
                lambda: keeper.keep(settings, waker) or keeper.pid not in (None, first),
            )
            second = keeper.pid
            assert not Path(f"/proc/{first}").exists()
            assert second is not None
            os.kill(second, signal.SIGKILL)
            until(
                "it is started again",
                lambda: keeper.keep(settings, waker) or keeper.pid not in (None, second),
            )
            assert keeper.restarts == 1
            settings["log_endpoint"] = None
            until("it is ended", lambda: keeper.keep(settings, waker) or keeper.pid is None)
        finally:
            keeper.stop(waker)


def test_an_agent_without_a_release_says_once_where_it_waits(
    places: Places, directory: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock(monkeypatch, NOW)
    one = opened(places, directory)
    one.look()
    one.look()
    assert caplog.messages == [f"no release yet: waiting for one in {directory}"]
    publish(directory, GATEWAY)
    one.look()
    one.look()
    assert [said for said in caplog.messages if "waiting" in said] == caplog.messages[:1]
