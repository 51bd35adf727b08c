"""The benches' floods and probes send what they say, and the benches' gateway treats it as they say."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from bench import crossing, enqueue
from bench.crossing import FLOW_SET, KERNEL_ONLY, OTHER_SOURCE, UNLIMITED, Crossing
from bench.flood import DESTINATION
from bench.probe import EVERY, GIVEN
from bench.tunnels import NEBULA, WIREGUARD, Tunnels
from netns.lab import PYTHON, REPOSITORY, until

MISSING = [name for name in ("iperf3", "wireguard-go", "nebula-cert", "nebula") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.netns,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(autouse=True)
def _found_by_what_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY / "tests"))


def test_each_packet_of_a_flood_is_of_another_flow_and_is_allowed_or_denied(tmp_path: Path) -> None:
    with closing(Crossing(tmp_path)) as path, path.as_gateway(UNLIMITED, clients=10):
        sent = int(path.client.sh(*path.flood_words("new", 10, 0.2)))
        delivered = path.settled()
        listed = path.gateway.sh("nft", "-j", "list", "set", "inet", "tidegate", "flows4")
        flows = [one["elem"]["val"]["concat"] for one in json.loads(listed)["nftables"][1]["set"]["elem"]]
        assert sent >= len(flows) == delivered > 0
        assert len({source for source, *_ in flows}) == 10
        assert int(path.client.sh(*path.flood_words("denied", 1, 0.2))) > 0
        assert path.settled() == delivered


def test_each_new_flow_is_waited_for_and_one_without_an_answer_for_as_long_as_it_is_given(
    tmp_path: Path,
) -> None:
    words = (PYTHON, "-m", "bench.probe", OTHER_SOURCE, "0.2")
    with closing(Crossing(tmp_path)) as path, path.as_gateway(FLOW_SET):
        unanswered = json.loads(path.client.sh(*words))
        assert unanswered == [GIVEN * 1e3] * int(0.2 / EVERY)
        path.service.start(PYTHON, "-m", "bench.probe", "serve")
        until("the service answers", lambda: ":7 " in path.service.sh("ss", "-lnu"))
        waits = json.loads(path.client.sh(*words))
        assert len(waits) == len(unanswered)
        assert all(0 < wait < GIVEN * 1e3 for wait in waits)


def test_what_an_event_takes_is_more_than_nothing_and_less_than_its_packet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(crossing, "SECONDS", 1.0)
    with closing(Crossing(tmp_path)) as path:
        found = enqueue.event(path, 1)
    assert 0 < found["event"] < found["silent"]


@pytest.mark.parametrize("tunnel", [WIREGUARD, NEBULA])
def test_a_tunnel_carries_what_tidegate_s_policy_and_nebula_s_firewall_allow(
    tmp_path: Path, tunnel: str
) -> None:
    def connect(path: Tunnels, port: int) -> bool:
        return path.client.ok("timeout", "1", "bash", "-c", f": </dev/tcp/{DESTINATION}/{port}")

    settings = FLOW_SET if tunnel == WIREGUARD else KERNEL_ONLY
    with closing(Tunnels(tmp_path)) as path:
        path.service.start(PYTHON, "-m", "http.server", "8080")
        until("a port that nobody may reach listens", lambda: ":8080 " in path.service.sh("ss", "-ltn"))
        assert path.through(tunnel, settings, lambda: connect(path, 5201))
        assert not path.through(tunnel, settings, lambda: connect(path, 8080))
