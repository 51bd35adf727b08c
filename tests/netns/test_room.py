"""A host whose state directory takes nothing more: what runs goes on, what is left goes on, and a start comes up."""

from __future__ import annotations

import signal

import pytest

from netns.lab import Lab, ping, until
from netns.test_trial import confirmed

pytestmark = pytest.mark.netns

FILL = """cp -a /run/state /run/copy && mount -t tmpfs -o size=128k,mode=700 tmpfs /run/state
cp -a /run/copy/. /run/state; dd if=/dev/zero of=/run/state/fill bs=4k 2>/dev/null || true"""


def test_a_full_state_directory_ends_nothing_and_keeps_nobody_from_starting(lab: Lab) -> None:
    lab.publish()
    lab.start()
    for agent in (lab.gateway, lab.alice):
        until("the first release is confirmed", lambda agent=agent: confirmed(agent, 1))
        agent.host.sh("sh", "-c", FILL)
    assert ping(lab.alice.host)
    lab.alice.stop(signal.SIGTERM)
    lab.alice.start()
    until("alice gets through", lambda: ping(lab.alice.host))
    # Left as it runs, taken over, and started from nothing.
    assert lab.gateway.stop(signal.SIGUSR1) == 0
    assert ping(lab.alice.host)
    lab.gateway.start()
    assert ping(lab.alice.host)
    lab.gateway.stop()
    lab.gateway.start()
    lab.forget_session(lab.alice)
    until("alice gets through again", lambda: ping(lab.alice.host))
    assert not ping(lab.bob.host)
