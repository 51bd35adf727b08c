"""A WireGuard process that hangs is no reason for its gateway to end."""

from __future__ import annotations

import os
import signal
import time

import pytest

from netns.lab import Lab, until
from netns.test_trial import confirmed

pytestmark = pytest.mark.netns


@pytest.mark.whole
def test_a_wireguard_that_hangs_while_a_release_is_on_trial_does_not_end_the_gateway(lab: Lab) -> None:
    lab.publish()
    lab.start("confirm_timeout=120")
    until("the first release is confirmed", lambda: confirmed(lab.gateway, 1))
    process = (lab.gateway.status() or {})["wireguard_go"]
    if process is None:
        pytest.skip("WireGuard is in this kernel, which does not hang")
    policy = lab.policy_file(alice=[], bob=[])
    lab.republish(2, policy=policy)
    os.kill(process, signal.SIGSTOP)
    time.sleep(25)  # wg(8) is given up after 20 s
    os.kill(process, signal.SIGCONT)
    assert lab.gateway.process is not None
    until("it is confirmed", lambda: confirmed(lab.gateway, 2), seconds=30)
    assert lab.gateway.process.poll() is None
