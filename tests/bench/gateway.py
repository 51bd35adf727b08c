"""A gateway without WireGuard: the real rules, TUN and forwarder behind a link of any kind, until SIGTERM.

`python -m bench.gateway LINK OUT DIRECTORY CLIENTS RULES [WORD…] [SETTING=VALUE…]` prints a line of JSON when it
forwards: the offloads of its TUN, its forwarder's process ID, and the most memory that this has had, MiB. With the word
`bare` or `turns`, `bench.bareloop` or `bench.turns` stands where the forwarder would; with `unlimited`, clients have no
limits of their own.
"""

from __future__ import annotations

import ipaddress
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import NFCTSocket

from tidegate_agents import settings
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import ring
from tidegate_agents.gateway import generation, network, nft, ruleset
from tidegate_agents.gateway.accounting import Accounting
from tidegate_agents.gateway.flowrecorder import FlowRecorder
from tidegate_agents.gateway.flushing import FlusherKeeper
from tidegate_agents.gateway.processes import Child, Station, log_of, replace_forwarder
from tidegate_agents.host import Places
from tidegate_agents.watch import Waker
from tidegate_schema.policy import PolicyTable

FIRST = int(ipaddress.IPv4Address("10.64.0.11"))


def policy(clients: list[str], rules: int) -> dict[str, Any]:
    """Return a policy of so many rules, all of every client; one of them allows what the bench sends."""
    every = [
        {
            "policy": "wide",
            "action": "allow",
            "to": ["10.20.0.0/16"],
            "ports": ["udp/9", "udp/7", "tcp/5201"],
        },
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


def start_instead(module: str, tun: int, *words: Path) -> Child:
    """Start what stands where the forwarder would; returns when it moves packets."""
    report, reports = os.pipe2(os.O_CLOEXEC)
    command = [sys.executable, "-m", module, str(tun), str(reports), *map(str, words)]
    process = Child(command, pass_fds=[tun, reports])
    os.close(reports)
    os.read(report, 1)
    return process


def consume(paths: Sequence[Path]) -> None:
    """Free what is recorded until SIGTERM: in a ring that is full no more would be written."""
    rings: dict[Path, ring.Ring] = {}
    while signal.sigtimedwait({signal.SIGTERM}, 0.05) is None:
        for path in paths:
            if path not in rings and path.exists():
                rings[path] = ring.Ring(path, ring.ANY)
        for one in rings.values():
            one.free(one.pending())


@contextmanager
def flushing(places: Places, settings: dict[str, Any]) -> Iterator[int]:
    """Run a flusher, and give its process ID."""
    keeper = FlusherKeeper(places, "bench", settings["flusher_uid"])
    with Waker([]) as waker:
        keeper.keep(settings, waker)
        assert keeper.pid is not None
        try:
            yield keeper.pid
        finally:
            keeper.stop(waker)


@contextmanager
def recording(
    places: Places, settings: dict[str, Any], clients: dict[bytes, str], table: PolicyTable
) -> Iterator[None]:
    """Record flows as a supervisor does, where they are logged."""
    accounting, recorder = Accounting(), FlowRecorder(places)
    accounting.look(None)
    accounting.enable()
    recorder.judged(1, settings["authz_mode"] == "enforce", clients, table, time.time(), set())
    recorder.keep(settings)
    try:
        yield
    finally:
        recorder.stop()


def main() -> None:
    link, out, directory, clients, rules = *sys.argv[1:3], Path(sys.argv[3]), *map(int, sys.argv[4:6])
    words = {word for word in sys.argv[6:] if "=" not in word}
    chosen = settings.defaults("gateway") | {"interface": link, "mtu": 1500, "masquerade": [out]}
    if "unlimited" in words:
        chosen |= {name: 0 for name in chosen if name.startswith("client_")}
    for assignment in sys.argv[6:]:
        if assignment in words:
            continue
        name, _, text = assignment.partition("=")
        chosen[name] = settings.parse_value("gateway", name, text)
    enforce = chosen["authz_mode"] == "enforce"
    places = Places("gateway", run_directory=directory)
    places.run.mkdir(parents=True, exist_ok=True)
    generation.prepare(places, chosen["flusher_uid"])
    ids = [f"{number:032x}" for number in range(clients)]
    table = PolicyTable(policy(ids, rules))
    addresses = {(FIRST + number).to_bytes(4): one for number, one in enumerate(ids)}
    generation.write(places, Tables(1, enforce, addresses, table))
    events = places.run / "events.ring" if chosen["logging_enabled"] else None
    if events:
        ring.open_or_replace(events, chosen["ring_records"])
    network.leave_sources_to_wireguard(link)
    nft.load(ruleset.render(chosen, enforce=enforce))
    tun, offloads = network.open_tun(chosen)
    network.lead_into_tun(chosen, enforce=enforce)
    if "bare" in words:
        process = start_instead("bench.bareloop", tun)
    elif "turns" in words:
        process = start_instead("bench.turns", tun, generation.file(places, 1), directory)
    else:
        denied = network.open_denied_tun(chosen)
        station = Station(tun, denied, places.run, chosen["forwarder_uid"])
        log = log_of(events, chosen) if events else None
        limits = ruleset.has_limits(chosen, enforce=enforce)
        process = replace_forwarder(None, station, generation.file(places, 1), log, tell_denied=limits).child
    status = Path(f"/proc/{process.pid}/status").read_text()
    memory = int(status.split("VmHWM:")[1].split()[0]) / 1024
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    told = {"offloads": offloads, "pid": process.pid, "memory": memory}
    with ExitStack() as running:
        if events:
            running.enter_context(recording(places, chosen, addresses, table))
        if events and "log_endpoint" in chosen:
            told["flusher"] = running.enter_context(flushing(places, chosen))
        print(json.dumps(told), flush=True)
        if events and "log_endpoint" not in chosen:
            consume(places.rings)
        else:
            signal.sigwait({signal.SIGTERM})
    process.stop()
    network.lead_nowhere(chosen)
    network.sysctl(f"ipv4/conf/{link}/accept_local", "0")  # the kernel alone is measured as it comes
    nft.remove()
    with NFCTSocket() as conntrack:  # what is new in one round is new in the next
        conntrack.flush()


if __name__ == "__main__":
    main()
