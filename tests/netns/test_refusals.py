"""Every attack on the releases of a running client and a running gateway, on real WireGuard."""

from __future__ import annotations

import collections
import json
import time
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from netns.lab import DEVICE, PLACES, PYTHON, WEB_RULES, Agent, Lab, ping, until
from tidegate_schema import jsonfile
from unit.agents.attacks import ATTACKS, SERIAL, Stage

pytestmark = pytest.mark.netns

SCRAPE = """
import socket, sys
s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b"GET /metrics HTTP/1.1\\r\\n\\r\\n")
while data := s.recv(65536): sys.stdout.write(data.decode())
"""


def kernel(agent: Agent) -> list[str]:
    """Return what the agent has made: peers, addresses, routes, and on a gateway its table and rules."""
    host = agent.host
    found = [
        # wireguard-go tells of its peers in another order each time.
        "".join(sorted(host.sh("wg", "show", DEVICE, "allowed-ips").splitlines(keepends=True))),
        host.sh("wg", "show", DEVICE, "endpoints") if agent.kind == "client" else "",
        host.sh("ip", "-o", "address", "show", "dev", DEVICE),
        host.sh("ip", "route", "show", "dev", DEVICE),
        host.sh("ip", "-6", "route", "show", "dev", DEVICE),
    ]
    if agent.kind == "gateway":
        found.append(host.sh("nft", "--stateless", "--terse", "list", "table", "inet", "tidegate"))
        found.append(host.sh("ip", "rule"))
    return found


def state(agent: Agent) -> dict[str, Any]:
    status = agent.status()
    assert status is not None
    kept = ("release", "trial", "rolled_back", "generation", "peers", "applied", "trouble")
    return {name: status.get(name) for name in kept}


def counted(agent: Agent) -> dict[str, float]:
    page = agent.host.sh(PYTHON, "-c", SCRAPE, f"/run/tidegate/{agent.kind}-metrics.sock")
    return {
        sample.labels["name"]: sample.value
        for family in text_string_to_metric_families(page.partition("\n\n")[2])
        for sample in family.samples
        if sample.name == "tidegate_release_refusals_total"
    }


@pytest.mark.never
def test_every_attack_is_refused_by_name_by_both_agents_and_changes_nothing(lab: Lab) -> None:
    lab.alice.host.sh("mkdir", "-p", "/run/etc")
    lab.alice.host.sh("sh", "-c", "echo 'metrics_listen: socket' > /run/etc/client.yaml")
    lab.publish(serial=SERIAL)
    lab.start(serial=SERIAL)
    goods: dict[str, tuple[dict[str, bytes], dict[str, bytes]]] = {
        "client": (
            {"wg0.conf": lab.client_file("10.64.0.11/32, fd64::11/128")},
            {"wg0.conf": lab.client_file("10.64.0.11/32, fd64::12/128")},
        ),
        "gateway": (
            {"peers.json": lab.everyone(), "policy.json": lab.policy_file(alice=WEB_RULES, bob=[])},
            {
                "peers.json": jsonfile.canonical({"format": 1, "peers": []}),
                "policy.json": lab.policy_file(alice=WEB_RULES),
            },
        ),
    }
    agents = (lab.alice, lab.gateway)
    stages = {
        agent.kind: Stage(
            lab.bundles / agent.kind / agent.name,
            *("example", agent.kind, agent.name, lab.signer.signer),
            *goods[agent.kind],
            int(time.time()),
        )
        for agent in agents
    }
    for agent in agents:
        until("it is confirmed", lambda agent=agent: (agent.status() or {"trial": 1})["trial"] is None)
    before = {agent.kind: (kernel(agent), state(agent)) for agent in agents}
    expected: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for attack, (name, deed) in ATTACKS.items():
        for agent in agents:
            deed(stages[agent.kind])
            expected[agent.kind][name] += 1
        for agent in agents:
            until(
                f"{attack}: {agent.kind} refuses it as {name}",
                lambda agent=agent, name=name: ((agent.status() or {})["refusal"] or {}).get("name") == name,
            )
            assert state(agent) == before[agent.kind][1], attack
        for agent in agents:
            end = before[agent.kind][1]["release"]["not_after"]
            stages[agent.kind].publish(stages[agent.kind].good, serial=SERIAL, not_after=end)
        for agent in agents:
            until("it is over", lambda agent=agent: (agent.status() or {"refusal": 1})["refusal"] is None)
    for agent in agents:
        assert kernel(agent) == before[agent.kind][0]
        told = [json.loads(line) for line in agent.tidegate("history", "--json", *PLACES).splitlines()]
        names = collections.Counter(one["name"] for one in told if one["event"] == "release-refused")
        assert names == expected[agent.kind]
        assert counted(agent) == expected[agent.kind]
    assert ping(lab.alice.host)
    assert not ping(lab.bob.host)
