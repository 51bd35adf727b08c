"""One nats-server for a module: with TLS, the permissions that `tidegate nats permissions` prints, and some hosts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import natskit
import sandbox

HOSTS = [("client", "alice"), ("client", "bob"), ("client", "carol"), ("gateway", "gw1")]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[natskit.Fleet]:
    if sandbox.missing_tools("nats-server"):
        pytest.skip("needs nats-server (not installed)")
    with natskit.one(tmp_path_factory.mktemp("nats"), "my-fleet", HOSTS) as found:
        yield found
