"""What the log endpoint is told, on real WireGuard: events by flow, and logging switched on and off under traffic."""

from __future__ import annotations

import bisect
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from netns.lab import PLACES, PYTHON, TIDEGATE, WEB4, WEB6, Lab, LogEndpoint, get, until
from netns.test_flows import UDP_RULES, Stream
from tidegate_agents import settings

pytestmark = pytest.mark.netns

SWITCHES = 500 if "TIDEGATE_STRESS" in os.environ else 2
"""How often logging is switched on, and off again."""
QUICK = ("flush_interval=0.1", "logging_enabled=on")


def told(endpoint: LogEndpoint, *actions: str) -> list[dict[str, Any]]:
    """Return the events of these kinds."""
    return [event for event in endpoint.events() if event["event.action"] in actions]


def test_by_flow_the_first_packet_is_told_and_no_other(lab: Lab) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish()
    lab.start(f"log_endpoint={endpoint.url}", *QUICK)
    lab.alice.host.sh("ping", "-n", "-c5", "-i0.1", WEB4)
    assert get(lab.alice.host, WEB6) is not None
    assert get(lab.bob.host, seconds=1) is None
    until("the events arrive", lambda: len(told(endpoint, "flow-open")) >= 2 and told(endpoint, "deny"))
    opened = {
        (one["tidegate.client.id"], one["destination.address"], one["network.transport"], one["rule.name"])
        for one in told(endpoint, "flow-open")
    }
    assert opened == {
        (lab.alice.client_id, WEB4, "icmp", "p"),
        (lab.alice.client_id, WEB6, "tcp", "p"),
    }
    assert len(told(endpoint, "flow-open")) == 2
    denied = told(endpoint, "deny")
    assert {one["tidegate.client.id"] for one in denied} == {lab.bob.client_id}
    assert {(one["tidegate.verdict"], one["event.reason"]) for one in denied} == {("deny", "no-rule")}
    assert not told(endpoint, "packet")


def test_events_are_shown_on_the_gateway_while_they_are_sent(lab: Lab) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish()
    lab.start(f"log_endpoint={endpoint.url}", *QUICK)
    with (lab.directory / "shown").open("wb") as out:
        words = (*TIDEGATE, "gateway", "events", "--json", "--to", "10.20.0.0/16", "--last", "0", *PLACES)
        showing = lab.gateway.host.start(*words, stdout=out)
    until("it follows", lambda: "events.ring" in Path(f"/proc/{showing.pid}/maps").read_text())
    assert get(lab.alice.host) is not None
    assert get(lab.alice.host, WEB6) is not None
    assert get(lab.bob.host, seconds=1) is None
    until("the events arrive", lambda: told(endpoint, "flow-open")[1:] and told(endpoint, "deny"))

    def shown() -> list[dict[str, Any]]:
        return [json.loads(text) for text in (lab.directory / "shown").read_text().splitlines()]

    # The pings that the lab starts with came before.
    wanted = [
        one
        for one in told(endpoint, "flow-open", "deny")
        if one["destination.address"] == WEB4 and one["network.transport"] == "tcp"
    ]
    until("they are shown", lambda: len(shown()) >= len(wanted) == 2)
    assert [one for one in shown() if one["event.action"] != "flow-close"] == wanted
    table = lab.gateway.tidegate("events", "--once", "--verdict", "deny", *PLACES).splitlines()[1:]
    assert {tuple(text.split()[1:3]) for text in table} == {("deny", "deny")}
    showing.send_signal(signal.SIGINT)
    assert showing.wait(10) == 0


@pytest.mark.parametrize("mode", [pytest.param("observe", marks=pytest.mark.whole), "enforce"])
def test_turning_logging_on_gives_every_live_flow_its_open_event(lab: Lab, mode: str) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start(f"log_endpoint={endpoint.url}", f"authz_mode={mode}", "flush_interval=0.1")
    stream = Stream(lab, lab.alice.host, WEB4)

    def opened() -> list[dict[str, Any]]:
        # In observe the kernel's own reports of multicast groups cross the TUN, too.
        return [one for one in told(endpoint, "flow-open") if "tidegate.client.id" in one]

    lab.gateway.set("logging_enabled=on")
    until("the live flow is told of", opened)
    (one,) = opened()
    assert (one["tidegate.client.id"], one["destination.port"]) == (lab.alice.client_id, 8083)
    lab.gateway.set("logging_enabled=off")
    lab.gateway.set("logging_enabled=on")
    until("it is told of again", lambda: len(opened()) == 2)
    assert stream.arrived("client")


# A packet's number is told by its length, modulo LENGTHS; numbers that share one are LENGTHS / RATE seconds apart.
LENGTHS, RATE, FIRST_BYTES = 1200, 400, 36  # IP and UDP headers, and eight bytes for the number
IN_FLIGHT = 40  # packets, a tenth of a second
SENDER = f"""
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.connect(("{WEB4}", 8083))
moments = open(sys.argv[1], "w", buffering=1)
number, due = 0, time.monotonic()
while True:
    due += 1 / {RATE}
    time.sleep(max(0, due - time.monotonic()))
    moments.write(f"{{time.monotonic_ns()}}\\n")
    s.send(number.to_bytes(8, "big") + bytes(number % {LENGTHS}))
    number += 1
"""
RECEIVER = """
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: what waits here has not been lost on the way
s.bind(("::", 8083))
while True:
    print(int.from_bytes(s.recv(2000)[:8], "big"), flush=True)
"""


@pytest.mark.timeout(0)
def test_switching_logging_under_load_costs_no_packet_and_an_event_is_told_of_those_inside(lab: Lab) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish(policy=lab.policy_file(alice=UDP_RULES))
    lab.start(f"log_endpoint={endpoint.url}", "flush_interval=0.1", "log_granularity=packet")
    moments, arrived = lab.directory / "moments", lab.directory / "arrived"
    with arrived.open("wb") as out:
        lab.service.start(PYTHON, "-c", RECEIVER, stdout=out)
    until("the receiver listens", lambda: ":8083" in lab.service.sh("ss", "-lun"))
    sender = lab.alice.host.start(PYTHON, "-c", SENDER, str(moments))
    until("packets arrive", lambda: arrived.read_bytes().count(b"\n") > 50)

    assert lab.gateway.process is not None
    local = Path(f"/proc/{lab.gateway.process.pid}/root/run/etc/gateway.yaml")

    def switch(*, on: bool) -> tuple[int, int]:
        """Return the moments between which it was done."""
        asked = time.monotonic_ns()
        settings.change("gateway", local, {"logging_enabled": on})
        until("it is done", lambda: (lab.gateway.status() or {})["logging_enabled"] is on)
        return asked, time.monotonic_ns()

    windows = [(switch(on=True), switch(on=False)) for _ in range(SWITCHES)]
    sender.kill()
    sender.wait()
    sent = [int(line) for line in moments.read_text().split("\n")[:-1]]
    until("the last packet has arrived", lambda: arrived.read_text().endswith(f"\n{len(sent) - 1}\n"))
    arrivals = [int(line) for line in arrived.read_text().split()]
    lost = sorted(set(range(len(sent))) - set(arrivals))
    switches = sorted(moment for window in windows for pair in window for moment in pair)
    # Of each lost packet, how long after the beginning or end of a switch it was sent, in ms.
    assert [(n, (sent[n] - switches[bisect.bisect(switches, sent[n]) - 1]) / 1e6) for n in lost] == []
    assert arrivals == list(range(len(sent)))

    flusher = until("all events are sent", lambda: _drained(lab))
    assert (flusher["dropped_ring_full"], flusher["dropped_by_reason"]) == (0, {})
    events = told(endpoint, "packet")
    assert [one["event.sequence"] for one in events] == list(range(len(events)))
    numbers = [_number(one, sent) for one in events]
    for (asked_on, is_on), (asked_off, is_off) in windows:
        inside = [number for number in numbers if asked_on <= sent[number] <= is_off]
        # What was sent while a switch was under way may be told or not, but nothing between two that are.
        assert inside == list(range(inside[0], inside[-1] + 1))
        must = range(bisect.bisect(sent, is_on), bisect.bisect(sent, asked_off) - IN_FLIGHT)
        assert set(must) <= set(inside)
        numbers = numbers[len(inside) :]
    assert numbers == []


def _drained(lab: Lab) -> dict[str, Any] | None:
    found = json.loads(lab.gateway.tidegate("status", "--json", *PLACES))["events"]
    return found if found["pending"] == 0 else None


def _number(told: dict[str, Any], sent: list[int]) -> int:
    """Return the number of the packet that an event tells of."""
    rest = told["source.bytes"] - FIRST_BYTES
    last = bisect.bisect(sent, told["tidegate.monotonic_ns"]) + IN_FLIGHT
    return last - (last - rest) % LENGTHS
