"""A gateway without WireGuard: the real rules, TUN and forwarder behind a link of any kind, until SIGTERM.

`python -m bench.gateway LINK OUT DIRECTORY CLIENTS RULES [SETTING=VALUE…]` prints a line of JSON when it forwards: the
offloads of its TUN, and the most memory that its forwarder has had, MiB.
"""

from __future__ import annotations

import ipaddress
import json
import signal
import sys
from pathlib import Path
from typing import Any

from tidegate_agents import settings
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import ring
from tidegate_agents.gateway import generation, network, nft, ruleset
from tidegate_agents.gateway.processes import replace_forwarder
from tidegate_agents.host import Places
from tidegate_schema.policy import PolicyTable

FIRST = int(ipaddress.IPv4Address("10.64.0.11"))


def policy(clients: list[str], rules: int) -> dict[str, Any]:
    """Return a policy of so many rules, all of every client; one of them allows what the bench sends."""
    every = [
        {"policy": "wide", "action": "allow", "to": ["10.20.0.0/16"], "ports": ["udp/9", "tcp/5201"]},
        *(
            {
                "policy": f"rule-{number}",
                "action": "allow",
                "to": [f"10.{30 + number % 200}.{number // 200}.0/24"],
                "ports": [f"tcp/{1000 + number}"],
            }
            for number in range(rules - 1)
        ),
    ]
    return {
        "format": 1,
        "rules": every,
        "sets": [list(range(rules))],
        "clients": dict.fromkeys(clients, 0),
    }


def main() -> None:
    link, out, directory, clients, rules = *sys.argv[1:3], Path(sys.argv[3]), *map(int, sys.argv[4:6])
    chosen = settings.defaults("gateway") | {"interface": link, "mtu": 1500, "masquerade": [out]}
    for assignment in sys.argv[6:]:
        name, _, text = assignment.partition("=")
        chosen[name] = settings.parse_value("gateway", name, text)
    enforce = chosen["authz_mode"] == "enforce"
    places = Places("gateway", run_directory=directory)
    generation.directory(places).mkdir(parents=True, exist_ok=True)
    ids = [f"{number:032x}" for number in range(clients)]
    table = PolicyTable(policy(ids, rules))
    addresses = {(FIRST + number).to_bytes(4): one for number, one in enumerate(ids)}
    generation.write(places, Tables(1, enforce, addresses, table))
    events = places.run / "events.ring" if chosen["logging_enabled"] else None
    if events:
        ring.open_or_replace(events, chosen["ring_records"])
    nft.load(ruleset.render(chosen, enforce=enforce))
    tun, offloads = network.open_tun(chosen)
    network.lead_into_tun(chosen, enforce=enforce)
    counters = places.run / "counters"
    forwarder = replace_forwarder(None, tun, generation.file(places, 1), counters, events)
    status = Path(f"/proc/{forwarder.child.pid}/status").read_text()
    memory = int(status.split("VmHWM:")[1].split()[0]) / 1024
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    print(json.dumps({"offloads": offloads, "memory": memory}), flush=True)
    signal.sigwait({signal.SIGTERM})
    forwarder.child.stop()
    network.lead_nowhere(chosen)
    nft.remove()


if __name__ == "__main__":
    main()
