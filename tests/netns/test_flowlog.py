"""What the gateway tells of flows from the kernel's connection table: every packet and byte once, and of whom."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from netns.lab import PYTHON, WEB4, WEB6, Agent, Host, Lab, until
from tidegate_agents.events.ring import Ring
from tidegate_schema import event
from tidegate_schema.event import Event, Kind

pytestmark = pytest.mark.netns

ALICE4, ALICE6, BOB4 = "10.64.0.11", "fd64::11", "10.64.0.12"
EVERYTHING = [{"to": [WEB4 + "/32", WEB6 + "/128"], "ports": ["any"]}]
# Where the connection table has just counted, and by rules of our own: what our clients' connections carry.
ORACLE = """table inet oracle {
%s
chain counted {
type filter hook prerouting priority mangle
%s
}
}
"""
SERVER = """
import socket, threading
def tcp(c):
    with c:
        up, down = map(int, c.recv(64, socket.MSG_WAITALL).split())
        while up > 0: up -= len(c.recv(65536))
        c.sendall(bytes(down))
def echo():
    u = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); u.bind(("::", 8090))
    while True: data, who = u.recvfrom(65536); u.sendto(data + data, who)
threading.Thread(target=echo, daemon=True).start()
s = socket.create_server(("::", 8090), family=socket.AF_INET6, dualstack_ipv6=True)
while True: threading.Thread(target=tcp, args=(s.accept()[0],), daemon=True).start()
"""
TCP = """
import socket, sys
host, up, down = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with socket.create_connection((host, 8090), 10) as s:
    s.sendall((b"%d %d" % (up, down)).ljust(64) + bytes(up))
    while down > 0: down -= len(s.recv(65536))
"""
UDP = """
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
if sys.argv[3:]: s.bind((sys.argv[3], int((sys.argv[4:] or ["0"])[0])))
s.connect((sys.argv[1], 8090)); s.settimeout(0.2)
for _ in range(int(sys.argv[2])):
    s.send(b"x" * 100)
    try: s.recv(1000)
    except OSError: pass
"""
FLOOD = """
import socket, sys, time
port = int(sys.argv[3])
while True:
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try: s.bind((sys.argv[1], port)); s.sendto(b"x", (sys.argv[2], 8090))
    except OSError: pass
    s.close(); port += 1; time.sleep(0.01)
"""


def records(lab: Lab, ring: str = "flows.ring") -> list[Event]:
    """Return every record in a ring, of the supervisor's by default, without taking it out."""
    file = Path(f"/proc/{lab.gateway.host.holder.pid}/root/run/tidegate/gateway/{ring}")
    with contextlib.closing(Ring(file)) as made:
        data = made.peek(made.capacity)
    return [
        event.unpack(data[at : at + event.RECORD_BYTES]) for at in range(0, len(data), event.RECORD_BYTES)
    ]


def flows(lab: Lab, *kinds: Kind) -> list[dict[str, Any]]:
    """Return records as a log endpoint would receive them."""
    return [
        event.to_json(one, "fra1", "", ["p"] * 9)
        for one in records(lab)
        if one.kind in (kinds or tuple(Kind))
    ]


def closes(lab: Lab, source: str, **wanted: Any) -> list[dict[str, Any]]:
    """Return the closes of an address's flows that have these values, `_` standing for `.`."""
    want = {name.replace("_", "."): value for name, value in wanted.items()} | {"source.address": source}
    return [one for one in flows(lab, Kind.FLOW_CLOSE) if want.items() <= one.items()]


class Oracle:
    """Counts packets and bytes of clients' connections by nftables, in a table that has nothing to do with ours."""

    def __init__(self, host: Host) -> None:
        self._host = host
        names = [(family, way) for family in ("ip", "ip6") for way in ("original", "reply")]
        counters = "\n".join(f"counter {family}-{way} {{ }}" for family, way in names)
        prefix = {"ip": "10.64.0.0/16", "ip6": "fd64::/48"}
        rules = "\n".join(
            f"ct state new,established ct direction {way} ct original {family} saddr {prefix[family]} "
            f"counter name {family}-{way}"
            for family, way in names
        )
        host.sh("nft", "-f", "-", text=ORACLE % (counters, rules))

    def counted(self) -> tuple[int, int, int, int]:
        """Return packets and bytes from clients, and back to them."""
        found = json.loads(self._host.sh("nft", "-j", "list", "counters", "table", "inet", "oracle"))
        by_way: dict[str, list[int]] = {"original": [0, 0], "reply": [0, 0]}
        for one in (entry["counter"] for entry in found["nftables"] if "counter" in entry):
            sums = by_way[one["name"].partition("-")[2]]
            sums[0] += one["packets"]
            sums[1] += one["bytes"]
        return (*by_way["original"], *by_way["reply"])  # type: ignore[return-value]


def told(events: Collection[Event]) -> tuple[int, int, int, int]:
    """Return packets and bytes from clients, and back to them, over all records."""
    return tuple(  # type: ignore[return-value]
        sum(one[at] for one in events)
        for at in map(Event._fields.index, ("packets", "length", "reply_packets", "reply_length"))
    )


def start(lab: Lab, *settings: str) -> None:
    lab.service.start(PYTHON, "-c", SERVER)
    lab.start("logging_enabled=on", *settings)
    until("flows are recorded", lambda: recording(lab))
    until("the server listens", lambda: ":8090" in lab.service.sh("ss", "-lun"))


def recording(lab: Lab) -> bool:
    return bool((lab.gateway.status() or {}).get("flow_records", {}).get("recording"))


def test_over_all_records_packets_and_bytes_are_what_nftables_counts(lab: Lab) -> None:
    """With the flow set and NAT, without them, and on the way from the one to the other."""
    lab.publish(policy=lab.policy_file(alice=EVERYTHING, bob=[]))
    start(lab, "flow_update_interval=2", "flow_cache=on", "masquerade=[inside]")
    for name, seconds in (
        ("udp_timeout", 3),
        ("udp_timeout_stream", 3),
        ("icmp_timeout", 3),
        ("icmpv6_timeout", 3),
        ("tcp_timeout_time_wait", 3),
    ):
        lab.gateway.host.sysctl(f"netfilter/nf_conntrack_{name}", str(seconds))
    oracle, began = Oracle(lab.gateway.host), time.time_ns()

    def carry() -> None:
        for address in (WEB4, WEB6):
            lab.alice.host.sh(PYTHON, "-c", TCP, address, "3000000", "1000")
            lab.alice.host.sh(PYTHON, "-c", TCP, address, "1000", "3000000")
            lab.alice.host.sh(PYTHON, "-c", UDP, address, "300")
            lab.alice.host.sh("ping", "-n", "-c5", "-i0.1", address)

    carry()
    lab.gateway.set("flow_cache=off", "masquerade=[]")
    carry()
    counted = oracle.counted()
    assert counted[1] > 12_000_000
    assert counted[3] > 12_000_000

    def sums() -> tuple[int, ...]:
        return told([one for one in records(lab) if one.start_ns > began])

    until("everything has been told of", lambda: sums() == oracle.counted(), 20)
    until(
        "those of UDP and ICMP are closed", lambda: len(closes(lab, ALICE4)) >= 2 and closes(lab, ALICE6), 20
    )
    assert sums() == oracle.counted()
    assert not flows(lab, Kind.GAP)
    made = [one for one in flows(lab) if one["source.address"] in (ALICE4, ALICE6)]
    assert {one["network.transport"] for one in made} == {"tcp", "udp", "icmp", "ipv6-icmp"}
    assert {one["tidegate.client.id"] for one in made} == {lab.alice.client_id}
    assert {one["destination.address"] for one in made} == {WEB4, WEB6}
    assert {(one["tidegate.verdict"], one["event.reason"], one["rule.name"]) for one in made} == {
        ("allow", "allowed", "p")
    }
    assert {one["tidegate.end"] for one in made if "tidegate.end" in one} == {"ended"}


# Ends, and whose ----------------------------------------------------------------------------------------------------


def open_flow(agent: Agent, *source: str) -> None:
    """Have a client send three datagrams, and the server answer them."""
    agent.host.sh(PYTHON, "-c", UDP, WEB4, "3", *source)


def test_what_is_no_longer_allowed_closes_as_revoked_and_under_what_had_allowed_it(lab: Lab) -> None:
    both = {"alice": EVERYTHING, "bob": EVERYTHING}
    lab.publish(policy=lab.policy_file(**both))
    start(lab, "flow_update_interval=0")
    generation = (lab.gateway.status() or {})["generation"]
    open_flow(lab.alice)
    open_flow(lab.bob)
    # A policy that changes, a client that goes, a rule that ends.
    lab.republish(2, policy=lab.policy_file(alice=EVERYTHING, bob=[]))
    (bobs,) = until("bob's is closed", lambda: closes(lab, BOB4, network_transport="udp"))
    end = int(time.time()) + 3
    expiring = [EVERYTHING[0] | {"expires": end}]
    lab.republish(3, policy=lab.policy_file(alice=expiring, bob=[]))
    (alices,) = until("alice's is closed", lambda: closes(lab, ALICE4, network_transport="udp"))
    assert alices["@timestamp"] >= time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(end))
    lab.republish(4, policy=lab.policy_file(**both))
    open_flow(lab.bob)
    lab.republish(5, policy=lab.policy_file(**both), peers=lab.peers_file((lab.alice, [f"{ALICE4}/32"])))
    gone = until(
        "the one of the client that left is, too", lambda: closes(lab, BOB4, network_transport="udp")[1:]
    )[0]
    for one, agent, of in (
        (bobs, lab.bob, generation),
        (alices, lab.alice, generation + 2),
        (gone, lab.bob, generation + 3),
    ):
        assert one["tidegate.end"] == "revoked"
        assert (one["tidegate.client.id"], one["tidegate.generation"]) == (agent.client_id, of)
        assert (one["tidegate.verdict"], one["rule.name"]) == ("allow", "p")
        assert (one["source.packets"], one["destination.packets"]) == (3, 3)


def test_of_an_address_that_moves_every_flow_is_its_owner_s_of_the_time(lab: Lab) -> None:
    """It goes back and forth while both clients send: whoever had it opened the flow, and nobody else is named."""
    policy = lab.policy_file(alice=EVERYTHING, bob=EVERYTHING)
    lab.publish(policy=policy)
    lab.start("flow_update_interval=0")
    lab.bob.host.sh("ip", "address", "add", f"{ALICE4}/32", "dev", "lo")
    moved = lab.peers_file((lab.alice, ["10.64.0.99/32"]), (lab.bob, [f"{ALICE4}/32", f"{BOB4}/32"]))
    # The port says who sent it: each client tries the whole time from ports of its own.
    for agent, first in ((lab.alice, 20000), (lab.bob, 30000)):
        agent.host.start(PYTHON, "-c", FLOOD, ALICE4, WEB4, str(first))
    # They have begun when logging is turned on: of the first flow that is told of, all is.
    lab.gateway.set("logging_enabled=on")
    until("flows are recorded", lambda: recording(lab))
    for serial in range(2, 8):
        lab.republish(serial, policy=policy, peers=lab.everyone() if serial % 2 else moved)
    until("flows of the last owner are there", lambda: len(closes(lab, ALICE4, network_transport="udp")) > 20)
    made = closes(lab, ALICE4, network_transport="udp")
    names = {"2": lab.alice.client_id, "3": lab.bob.client_id}
    assert {str(one["source.port"])[0] for one in made} == {"2", "3"}
    for one in made:
        assert one["tidegate.client.id"] == names[str(one["source.port"])[0]]
        assert one["tidegate.end"] == "revoked"
    assert len({one["tidegate.generation"] for one in made}) >= 4
    opened = {one.source_port for one in records(lab, "events.ring") if one.kind == Kind.FLOW_OPEN}
    told_of = [one for one in made if one["source.port"] in opened]
    assert len(told_of) > 20
    assert {one["source.packets"] for one in told_of} == {1}
    assert not flows(lab, Kind.GAP)


@pytest.mark.whole
def test_in_observe_a_flow_from_before_its_address_moved_is_nobody_s(lab: Lab) -> None:
    lab.publish()
    start(lab, "flow_update_interval=1", "authz_mode=observe")
    open_flow(lab.alice, ALICE4)
    update = until("it is told of", lambda: udp_updates(lab))[0]
    assert update["tidegate.client.id"] == lab.alice.client_id
    assert (update["tidegate.mode"], update["event.reason"]) == ("observe", "observed")
    lab.bob.host.sh("ip", "address", "add", f"{ALICE4}/32", "dev", "lo")
    lab.republish(2, peers=lab.peers_file((lab.bob, [f"{ALICE4}/32", f"{BOB4}/32"])))
    # From the same port it is the same connection to the kernel, which observe does not cut.
    open_flow(lab.bob, ALICE4, str(update["source.port"]))
    open_flow(lab.bob, ALICE4)
    until("both are told of", lambda: len(udp_updates(lab)) == 3)
    old, new = sorted(udp_updates(lab)[1:], key=lambda one: str(one["event.start"]))
    assert "tidegate.client.id" not in old
    assert old["source.port"] == update["source.port"]
    assert new["tidegate.client.id"] == lab.bob.client_id


def udp_updates(lab: Lab) -> list[dict[str, Any]]:
    return [one for one in flows(lab, Kind.FLOW_UPDATE) if one["network.transport"] == "udp"]


# Restarts -----------------------------------------------------------------------------------------------------------


def test_what_nobody_recorded_between_two_agents_is_a_gap_and_then_it_goes_on(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=EVERYTHING, bob=[]))
    start(lab, "flow_update_interval=1")

    def seen(count: int) -> None:
        """Send and see it told of; what came before as often as there were agents."""
        open_flow(lab.alice, ALICE4, "20000")
        until("it is told of", lambda: len(udp_updates(lab)) == count)
        assert [one["source.packets"] for one in udp_updates(lab)] == [3] * count

    seen(1)
    for count, number in enumerate((signal.SIGKILL, signal.SIGUSR1), 1):
        time.sleep(1.2)  # it notes every second until when it has read all
        before = time.time_ns()
        lab.gateway.stop(number)
        open_flow(lab.alice, ALICE4, "20000")
        after = time.time_ns()
        lab.gateway.start()
        until("flows are recorded", lambda: recording(lab))
        seen(count + 1)
        gaps = [one for one in records(lab) if one.kind == Kind.GAP]
        assert len(gaps) == count
        assert before - 3 * 10**9 < gaps[-1].start_ns < before
        assert after < gaps[-1].wall_ns
        assert (lab.gateway.status() or {})["flow_records"]["gaps"] == 1
    sequence = [one.seq for one in records(lab)]
    assert sequence == list(range(len(sequence)))  # the ring is the same one
    assert lab.gateway.stop() == 0
    lab.gateway.start()
    until("flows are recorded", lambda: recording(lab))
    assert len(flows(lab, Kind.GAP)) == 2  # a stop in order is none


def test_the_connection_table_counts_while_the_agent_runs_and_is_as_it_was_afterwards(lab: Lab) -> None:
    def switches() -> list[str]:
        names = ("acct", "timestamp", "events")
        files = [f"/proc/sys/net/netfilter/nf_conntrack_{name}" for name in names]
        return lab.gateway.host.sh("cat", *files).split()

    lab.gateway.host.sysctl("netfilter/nf_conntrack_timestamp", "1")
    before = switches()
    assert before != ["1", "1", "1"]
    lab.publish()
    lab.start()
    assert switches() == ["1", "1", "1"]
    lab.gateway.host.sysctl("netfilter/nf_conntrack_acct", "0")
    until("it is on again", lambda: switches() == ["1", "1", "1"])
    lab.gateway.kill_everything()
    assert switches() == ["1", "1", "1"]
    lab.gateway.start()
    assert lab.gateway.stop() == 0
    assert switches() == before
