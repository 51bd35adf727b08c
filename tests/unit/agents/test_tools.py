"""What the host's own programs print is data, whatever it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tidegate_agents import wireguard
from tidegate_agents.client import interface
from tidegate_agents.gateway import nft
from tidegate_agents.host import HostError


@pytest.fixture
def stray(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make nft, wg and ip programs that fail with bytes that are no UTF-8, as nft 1.0.6 did once."""
    for name in ("nft", "wg", "ip"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\nprintf 'Error: \\330 refused\\n' >&2\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


@pytest.mark.usefixtures("stray")
@pytest.mark.parametrize(
    "act",
    [nft.listing, lambda: nft.load(""), lambda: wireguard.show("x"), lambda: interface._run("ip", "link")],
    ids=["nft list", "nft load", "wg", "ip"],
)
def test_a_message_that_is_no_utf8_is_the_failure_of_that_call_and_no_crash(act: object) -> None:
    """A supervisor that ends of it would take the gateway down for a message."""
    assert callable(act)
    with pytest.raises(HostError, match=r"\\xd8 refused"):
        act()
