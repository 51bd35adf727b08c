"""What one client cannot take from the others in enforce, and that observe takes nothing from anyone."""

from __future__ import annotations

import json
from typing import Any

import pytest

from netns.lab import PLACES, PYTHON, WEB4, WEB6, Host, Lab, get, ping, until

pytestmark = pytest.mark.netns

# Sends COUNT packets to ADDRESS, PORT by PORT, from as many ports of its own as told, at a pace that no queue minds.
SENDER = """
import socket, sys, time
address, pace = sys.argv[1], float(sys.argv[2])
first, ports, count, sources = map(int, sys.argv[3:])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
ends = []
for n in range(sources):
    s = socket.socket(family, socket.SOCK_DGRAM); s.bind(("", 20000 + n)); ends.append(s)
start = time.monotonic()
for n in range(count):
    ends[n % sources].sendto(b"x", (address, first + n % ports))
    late = start + n * pace - time.monotonic()
    if late > 0.001: time.sleep(late)
"""
ANY_UDP = [
    {"to": ["10.20.0.0/16", "fd20::/48"], "ports": ["udp/1000-9000", "tcp/8080", "proto/1", "proto/58"]}
]
SEEN = """
table inet seen {
 counter arrived { }
 chain raw {
  type filter hook prerouting priority raw; policy accept;
  udp dport 1000-60000 counter name arrived drop
 }
}
"""


def send(
    host: Host, address: str, first: int, *, ports: int, count: int, pace: float = 0.0, sources: int = 1
) -> None:
    """Send so many packets from a host to ports from the first on."""
    words = map(str, (address, pace, first, ports, count, sources))
    host.sh("prlimit", "--nofile=20000", PYTHON, "-c", SENDER, *words, timeout=60)


def counted(host: Host, table: str, name: str) -> int:
    """Return the packets of a named counter."""
    listed = json.loads(host.sh("nft", "-j", "list", "counter", "inet", table, name))
    return int(listed["nftables"][1]["counter"]["packets"])


def limited(lab: Lab, name: str) -> int:
    """Return how many packets of clients a limit has stopped."""
    return counted(lab.gateway.host, "tidegate", name)


def watch(lab: Lab) -> None:
    """Count the packets that arrive at the service."""
    lab.service.sh("nft", "-f", "-", text=SEEN)


def judged(lab: Lab, reason: str) -> int:
    status = json.loads(lab.gateway.tidegate("status", "--json", *PLACES))
    return int(status["packets"][reason])


@pytest.mark.parametrize("address", [pytest.param(WEB4, marks=pytest.mark.whole), WEB6])
def test_what_was_denied_is_dropped_again_without_asking_until_the_policy_changes(
    lab: Lab, address: str
) -> None:
    lab.publish(policy=lab.policy_file(bob=ANY_UDP))
    lab.start()
    watch(lab)
    send(lab.alice.host, address, 2000, ports=1, count=1)
    until("it has been denied", lambda: judged(lab, "no-rule"))
    asked = judged(lab, "no-rule")
    send(lab.alice.host, address, 2000, ports=1, count=500, pace=0.001, sources=10)
    until("all are stopped", lambda: limited(lab, "denied_again") + judged(lab, "no-rule") == asked + 500)
    assert judged(lab, "no-rule") <= asked + 10  # again after ten seconds, which a slow machine may take
    asked = judged(lab, "no-rule")
    send(lab.alice.host, address, 2001, ports=1, count=1)
    until("another port is judged", lambda: judged(lab, "no-rule") == asked + 1)
    assert counted(lab.service, "seen", "arrived") == 0
    send(lab.bob.host, address, 2000, ports=1, count=5, pace=0.01)
    until("the same of another client is let through", lambda: counted(lab.service, "seen", "arrived") == 5)
    lab.republish(2, lab.policy_file(alice=ANY_UDP))
    send(lab.alice.host, address, 2000, ports=1, count=5, pace=0.01)
    until("it is let through at once", lambda: counted(lab.service, "seen", "arrived") == 10)


def test_a_client_that_floods_with_new_flows_is_limited_and_the_other_is_not(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=ANY_UDP, bob=ANY_UDP))
    lab.start("client_upcalls=100", "client_connections=0")
    watch(lab)
    flood = lab.alice.host.start(PYTHON, "-c", SENDER, WEB4, "0.0001", "1000", "8000", "1000000", "1")
    until("the limit counts", lambda: limited(lab, "limit_upcalls") > 1000)
    for _ in range(5):
        assert get(lab.bob.host) == "::ffff:10.64.0.12"
    assert ping(lab.bob.host, WEB6)
    assert flood.poll() is None
    flood.kill()
    flood.wait()


FORGET = """
import socket
from pyroute2 import NFCTSocket
for family in (socket.AF_INET, socket.AF_INET6):
    with NFCTSocket(nfgen_family=family) as connections:
        connections.flush()
"""


def test_a_client_opens_so_many_connections_and_the_other_its_own(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=ANY_UDP, bob=ANY_UDP))
    lab.start("client_connections=50")
    watch(lab)
    lab.gateway.host.sh(PYTHON, "-c", FORGET)  # pings of the start
    for address in (WEB4, WEB6):
        arrived, stopped = counted(lab.service, "seen", "arrived"), limited(lab, "limit_connections")

        def outcome(arrived: int = arrived, stopped: int = stopped) -> tuple[int, int]:
            return (
                counted(lab.service, "seen", "arrived") - arrived,
                limited(lab, "limit_connections") - stopped,
            )

        asked = judged(lab, "allowed")
        send(lab.alice.host, address, 1000, ports=80, count=80, pace=0.005)
        until("all have an outcome", lambda outcome=outcome: sum(outcome()) == 80)
        assert 48 <= outcome()[0] <= 50
        # Counting costs: beyond the limit the forwarder is asked once a second, and 80 take half a second here.
        assert judged(lab, "allowed") - asked <= 60
    send(lab.alice.host, WEB4, 1000, ports=40, count=40, pace=0.005)
    send(lab.bob.host, WEB4, 1000, ports=40, count=40, pace=0.005)
    until("what is open goes on, and bob's too", lambda: counted(lab.service, "seen", "arrived") >= 96 + 80)


def test_a_client_beyond_its_connections_saves_up_no_burst_for_the_forwarder(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=ANY_UDP))
    lab.start("client_connections=50", "client_upcalls=100")
    send(lab.alice.host, WEB4, 1000, ports=4000, count=4000, pace=0.0002)

    def stopped() -> int:
        return limited(lab, "limit_connections") + limited(lab, "limit_upcalls")

    until("nearly all are stopped", lambda: stopped() >= 4000 - 100)
    # Half of them were beyond the burst, also of those that came while the client was beyond its connections.
    assert limited(lab, "limit_upcalls") > 1000


@pytest.mark.whole
def test_a_client_has_so_many_flows_remembered_and_the_rest_are_judged_each_time(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=ANY_UDP))
    lab.start("client_flows=20")
    watch(lab)
    send(lab.alice.host, WEB4, 1000, ports=60, count=60, pace=0.002)
    until("all arrive", lambda: counted(lab.service, "seen", "arrived") == 60)
    listed = json.loads(lab.gateway.host.sh("nft", "-j", "list", "set", "inet", "tidegate", "flows4"))
    of_alice = [one["elem"]["val"]["concat"][0] for one in listed["nftables"][1]["set"]["elem"]]
    # Half of 20 at once, and then one a second.
    assert 10 <= len(of_alice) <= 12
    assert limited(lab, "limit_flows") == 60 - len(of_alice)
    send(lab.alice.host, WEB4, 1000, ports=60, count=60, pace=0.002)
    until("all arrive again", lambda: counted(lab.service, "seen", "arrived") == 120)


@pytest.mark.whole
def test_without_limits_by_setting_there_are_none(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=ANY_UDP))
    lab.start("client_upcalls=0", "client_flows=0", "client_connections=0")
    watch(lab)
    send(lab.alice.host, WEB4, 1000, ports=3000, count=3000, pace=0.0002)
    until("all arrive", lambda: counted(lab.service, "seen", "arrived") == 3000)
    assert [limited(lab, name) for name in ("limit_upcalls", "limit_flows", "limit_connections")] == [0, 0, 0]


@pytest.mark.alone
def test_in_observe_a_flood_loses_nothing_to_any_rule(lab: Lab) -> None:
    """New flows by the thousand from one client, and to ports that no policy allows: all of them arrive."""
    lab.publish(policy=lab.policy_file(alice=[], bob=[]))
    lab.start("authz_mode=observe", "client_upcalls=100", "client_connections=10", "client_flows=10")
    watch(lab)
    total = 0
    for address in (WEB4, WEB6):
        send(lab.alice.host, address, 1000, ports=8000, count=8000, pace=0.0002)
        total += 8000
        until("all arrive", lambda total=total: counted(lab.service, "seen", "arrived") == total)
    rules: list[Any] = json.loads(lab.gateway.host.sh("nft", "-j", "list", "table", "inet", "tidegate"))[
        "nftables"
    ]
    verdicts = [expression for one in rules if "rule" in one for expression in one["rule"]["expr"]]
    assert not any("drop" in expression or "reject" in expression for expression in verdicts)
    assert {one["chain"]["policy"] for one in rules if "chain" in one and "policy" in one["chain"]} == {
        "accept"
    }


@pytest.mark.alone
def test_this_machine_can_send_what_these_tests_count(lab: Lab) -> None:
    """The control: what is paced so arrives whole where no gateway is in between."""
    watch(lab)
    send(lab.gateway.host, WEB4, 1000, ports=8000, count=8000, pace=0.0002)
    until("all arrive", lambda: counted(lab.service, "seen", "arrived") == 8000)
