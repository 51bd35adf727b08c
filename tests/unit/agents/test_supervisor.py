"""The supervisor's own arithmetic of time; what it does to a host is shown in tests/netns."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from tidegate_agents.gateway import supervisor
from tidegate_agents.gateway.desired import GatewayBundle
from tidegate_agents.watch import POLL_SECONDS
from tidegate_schema.policy import FAR_FUTURE
from unit.agents.kit import NOW


def test_a_cut_that_fails_stays_due_and_is_tried_again_after_a_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    one: Any = object.__new__(supervisor.Supervisor)
    one._inbox = SimpleNamespace(now=lambda: NOW)
    one._applied, one._next_change, one._trouble = None, FAR_FUTURE, None
    desired: Any = SimpleNamespace(enforce=True, bundle=GatewayBundle())

    def fails(_allowed: object) -> int:
        raise OSError("conntrack")

    monkeypatch.setattr(supervisor.conntrack, "revoke", fails)
    with pytest.raises(OSError, match="conntrack"):
        one._revoke(desired)
    assert one._next_change <= NOW
    assert one._patience() == 0
    one._trouble = "conntrack"
    assert one._patience() == POLL_SECONDS
    monkeypatch.setattr(supervisor.conntrack, "revoke", lambda _allowed: 0)
    one._revoke(desired)
    assert one._next_change == FAR_FUTURE
