"""The supervisor's own arithmetic of time; what it does to a host is shown in tests/netns."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tidegate_agents.files import FileRefused
from tidegate_agents.gateway import drift, revoking, supervisor
from tidegate_agents.gateway.desired import GatewayBundle
from tidegate_agents.host import Places
from tidegate_agents.settings import defaults
from tidegate_agents.watch import POLL_SECONDS
from tidegate_agents.wireguard import PeerConfig, WireGuardError
from tidegate_schema.policy import FAR_FUTURE
from unit.agents.kit import NOW


class Flows:
    """Stands where the recorder does, and keeps what it is told."""

    def __init__(self) -> None:
        self.judged_by: list[tuple[Any, ...]] = []

    def standing_back(self) -> Any:
        return contextlib.nullcontext(lambda _port: None)

    def judged(self, *judgement: Any) -> None:
        self.judged_by.append(judgement)


def test_a_cut_that_fails_stays_due_and_is_tried_again_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    flows: Any = Flows()
    revoker = revoking.Revoker(flows)
    one: Any = object.__new__(supervisor.Supervisor)
    one._inbox, one._trouble, one._revoker = SimpleNamespace(now=lambda: NOW), None, revoker
    desired: Any = SimpleNamespace(enforce=True, bundle=GatewayBundle())

    def fails(_allowed: object, _cutting: object) -> int:
        raise OSError("conntrack")

    monkeypatch.setattr(revoking.conntrack, "revoke", fails)
    with pytest.raises(OSError, match="conntrack"):
        revoker.judge(desired, 3, NOW)
    assert revoker.is_due(NOW)
    assert flows.judged_by == []  # what has not been cut is not judged
    assert one._patience() == 0
    one._trouble = "conntrack"
    assert one._patience() == POLL_SECONDS
    monkeypatch.setattr(revoking.conntrack, "revoke", lambda _allowed, _cutting: 0)
    revoker.judge(desired, 3, NOW)
    assert not revoker.is_due(NOW)
    assert revoker.is_due(NOW + 1)  # once more: a packet may have passed behind the first look
    assert not revoker.is_due(NOW + 2)
    assert revoker.seconds_left(NOW) == FAR_FUTURE - NOW


def test_a_ring_that_cannot_be_made_is_named_and_holds_nothing_up(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one: Any = object.__new__(supervisor.Supervisor)
    one._places, one._ring_problem = Places("gateway", run_directory=tmp_path), None
    desired: Any = SimpleNamespace(settings=defaults("gateway"))
    (tmp_path / "gateway").mkdir()

    def is_full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", is_full)
        assert one._log(desired) is None
    assert one._ring_problem == f"{tmp_path}/gateway/events.ring: No space left on device"
    applied: list[Any] = []
    one._inbox = SimpleNamespace(look=lambda: None)
    one._applied, one._is_unsettled, one._desired = desired, False, lambda: desired
    one._new_generation = lambda again, _waker: applied.append(again)
    one._end_in_time = lambda *_: applied.append("nothing")
    one._follow(None)
    one._ring_due = 0.0
    one._follow(None)
    assert applied == ["nothing", desired]
    assert one._log(desired) is not None


def test_what_is_over_ends_before_anything_else_and_events_come_last(monkeypatch: pytest.MonkeyPatch) -> None:
    one: Any = object.__new__(supervisor.Supervisor)
    one._applied, one._trouble = SimpleNamespace(enforce=True, settings={}), None
    done: list[str] = []
    one._news = SimpleNamespace(keep=lambda _settings: done.append("news"))

    def fails(*_: object) -> None:
        raise OSError("nft")

    for name in ("_stay_live", "_end_in_time", "_mend_children", "_follow", "_keep_events", "_write_status"):
        setattr(one, name, lambda *_, name=name: done.append(name))
    one._inbox = SimpleNamespace(remember_time=lambda: done.append("remember_time"))
    one._mend_kernel, one._judge = fails, lambda: False
    one._turn(None)
    assert done == [
        "_stay_live",
        "_end_in_time",
        "_write_status",
        "news",
    ]  # what happened is told in trouble, too
    assert one._trouble == "nft"
    one._mend_kernel = one._stay_live = lambda *_: None
    done.clear()
    one._turn(None)
    assert done == [
        "_end_in_time",
        "_mend_children",
        "_follow",
        "_keep_events",
        "remember_time",
        "_write_status",
        "news",
    ]


def test_whose_address_changed_hands_is_known_also_when_it_did_in_observe_or_while_no_agent_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    flows: Any = Flows()
    one = revoking.Revoker(flows)
    monkeypatch.setattr(revoking.conntrack, "revoke", lambda _allowed, _cutting: 0)

    def state(enforce: bool, **clients: str) -> Any:
        addresses = {name.encode(): client for name, client in clients.items()}
        return SimpleNamespace(enforce=enforce, bundle=GatewayBundle(clients=addresses))

    def judge(desired: Any) -> None:
        one.judge(desired, 3, NOW)

    judge(state(True, a="alice", b="bob"))
    assert one.moved(state(True, a="alice", b="bob", c="carol")) == set()
    assert one.moved(state(True, a="bob", b="bob")) == {b"a"}
    judge(state(False, a="bob", b="bob"))
    judge(state(False, a="bob", b="bob", c="carol"))
    assert [judgement[5] for judgement in flows.judged_by] == [set(), {b"a"}, {b"a"}]
    assert one.moved(state(True, a="bob", b="bob", c="carol")) == {b"a"}
    judge(state(True, a="bob", b="bob", c="carol"))
    assert one.moved(state(True, a="bob", b="bob", c="carol")) == set()
    one.remember({b"a": "alice"})
    assert one.moved(state(True, a="bob", b="bob")) == {b"a"}
    one.remember(None)
    assert one.moved(state(True, a="bob", b="bob")) == {b"a", b"b"}


@pytest.mark.parametrize("wanted", [True, False])
def test_flows_are_recorded_before_a_forwarder_tells_of_the_first_one(
    monkeypatch: pytest.MonkeyPatch, wanted: bool
) -> None:
    """And no longer only once it tells of none: what opens meanwhile would close unheard, or with half its bytes."""
    done: list[str] = []
    one: Any = object.__new__(supervisor.Supervisor)
    one._is_unsettled, one._trouble = False, None
    one._applied = SimpleNamespace(bundle=GatewayBundle(), judgement=lambda: "before")
    one._device = SimpleNamespace(room_for=lambda _peers: None, name="tidegate0")
    one._flows = SimpleNamespace(keep=lambda _settings: done.append("recorder"))
    one._news = SimpleNamespace(keep=lambda _settings: done.append("news"))
    one._flusher = SimpleNamespace(keep=lambda _settings, _waker: done.append("flusher"))
    one._new_generation = lambda _desired, _waker: done.append("forwarder")
    monkeypatch.setattr(supervisor.wireguard, "remove_peers", lambda *_: None)
    monkeypatch.setattr(supervisor.wireguard, "set_peers", lambda *_: None)
    monkeypatch.setattr(supervisor.network, "is_up", lambda _name: False)
    settings = {"logging_enabled": wanted, "log_granularity": "flow"}
    desired: Any = SimpleNamespace(
        enforce=False, bundle=GatewayBundle(), settings=settings, judgement=lambda: "after"
    )
    one._apply(desired, SimpleNamespace())
    # A flusher that finds all rings need not be started again for one of them.
    assert done == [*(["recorder"] if wanted else []), "forwarder", "recorder", "news", "flusher"]


def test_a_state_directory_that_others_may_write_is_trouble_of_the_host_and_ends_nothing() -> None:
    one: Any = object.__new__(supervisor.Supervisor)
    one._applied, one._trouble = SimpleNamespace(enforce=False, settings={}), None
    one._news = SimpleNamespace(keep=lambda _settings: None)

    def fails(*_: object) -> None:
        raise FileRefused("/var/lib/tidegate: must be a directory of this user that nobody else may write")

    one._meanwhile = one._mend_kernel = one._mend_children = one._write_status = lambda *_: None
    one._follow = one._judge = fails
    one._turn(None)
    assert "nobody else may write" in one._trouble
    assert one._is_host_s


def test_a_device_that_does_not_answer_has_not_loaded_its_peers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in the middle of a trial, which asks at every turn: it is no reason for the gateway to end."""

    def fails(_name: str) -> None:
        raise WireGuardError("wg show: no answer within 20 s")

    monkeypatch.setattr(drift.wireguard, "show", fails)
    device: Any = SimpleNamespace(name="tidegate0")
    kernel = drift.Kernel({}, device, None, None)  # type: ignore[arg-type]
    assert not kernel.are_loaded(GatewayBundle(peers={"key": PeerConfig(frozenset())}))


def test_at_a_stop_what_the_flusher_got_rid_of_is_noted() -> None:
    """Else a reboot that follows would send it again."""
    done: list[str] = []
    one: Any = object.__new__(supervisor.Supervisor)
    one._forwarder, one._applied = None, SimpleNamespace(settings={})
    one._flows = SimpleNamespace(stop=lambda: done.append("recorder"))
    one._flusher = SimpleNamespace(stop=lambda _waker: done.append("flusher"))
    one._news = SimpleNamespace(keep=lambda _settings: done.append("news"))
    one._stop_children(None)
    assert done == ["recorder", "flusher", "news"]
    one._applied = None  # a start that failed before it had applied anything
    one._stop_children(None)
    assert done[3:] == ["recorder", "flusher"]
