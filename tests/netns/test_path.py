"""The path itself: who gets through, who does not, and that nothing else does."""

from __future__ import annotations

import re
import subprocess
import time
from typing import Any

import pytest

from netns.lab import (
    GATEWAY4,
    GATEWAY6,
    PLACES,
    PYTHON,
    WEB4,
    WEB6,
    WEB_RULES,
    Host,
    Lab,
    LogEndpoint,
    Pings,
    Sniffer,
    get,
    ping,
    until,
)

pytestmark = pytest.mark.netns

RAW = """
import socket, struct, sys
source, destination = map(socket.inet_aton, sys.argv[1:])
def checksum(data):
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF
def packet(source, destination, protocol, body):
    return struct.pack(">BBHHHBBH4s4s", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0, source, destination) + body
def icmp(kind, code, body):
    data = struct.pack(">BBHI", kind, code, 0, 0) + body
    return data[:2] + struct.pack(">H", checksum(data)) + data[4:]
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
s.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"tidegate0")
def send(body):
    for _ in range(5): s.sendto(packet(source, destination, 1, body), (sys.argv[2], 0))
"""
SPOOFED_PING = RAW + "send(icmp(8, 0, bytes(8)))"
# Destination unreachable, about a packet from the web server that was never sent.
FORGED_ERROR = RAW + "send(icmp(3, 3, packet(destination, source, 6, struct.pack('>HHI', 8080, 4000, 1))))"


def test_enforce_lets_through_what_the_policy_allows_and_nothing_else(lab: Lab) -> None:
    lab.publish()
    lab.start()
    assert ping(lab.alice.host)
    assert ping(lab.alice.host, WEB6)
    assert get(lab.alice.host) == "::ffff:10.64.0.11"
    assert get(lab.alice.host, WEB6) == "fd64::11"
    assert not ping(lab.bob.host)
    assert not ping(lab.bob.host, WEB6)
    assert get(lab.bob.host) is None
    assert get(lab.bob.host, WEB6) is None


@pytest.mark.never
def test_ipv4_and_ipv6_are_judged_apart(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=WEB_RULES[:1], bob=WEB_RULES[1:]))
    lab.start()
    assert ping(lab.alice.host)
    assert not ping(lab.alice.host, WEB6)
    assert ping(lab.bob.host, WEB6)
    assert not ping(lab.bob.host)


def test_observe_forwards_everything_and_no_settings_file_means_enforce(lab: Lab) -> None:
    lab.publish()
    lab.start()
    status = lab.gateway.status()
    assert status is not None
    assert (status["authz_mode"], status["logging_enabled"]) == ("enforce", False)
    assert not ping(lab.bob.host)
    assert _refuses_behind_the_tun(lab) == [True, True]
    lab.gateway.set("authz_mode=observe")
    assert _refuses_behind_the_tun(lab) == [False, False]
    for host in (lab.alice.host, lab.bob.host):
        assert ping(host)
        assert ping(host, WEB6)
        assert get(host)
        assert get(host, WEB6)
    assert ping(lab.bob.host, GATEWAY4)
    rules = lab.gateway.host.sh("nft", "list", "table", "inet", "tidegate")
    assert "drop" not in rules
    assert "reject" not in rules


def _refuses_behind_the_tun(lab: Lab) -> list[bool]:
    """Whether the TUN's routing table refuses what the TUN does not take, for each family."""
    routes = [lab.gateway.host.sh("ip", family, "route", "show", "table", "29696") for family in ("-4", "-6")]
    return ["unreachable default" in route for route in routes]


@pytest.mark.never
def test_a_bundle_without_policy_denies_all_in_enforce_and_forwards_in_observe(lab: Lab) -> None:
    lab.publish(policy=b"")
    lab.start()
    assert not ping(lab.alice.host)
    lab.gateway.set("authz_mode=observe")
    assert ping(lab.alice.host)
    assert ping(lab.bob.host, WEB6)


def test_every_combination_of_both_flags_is_reached_live_without_losing_a_ping(lab: Lab) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish()
    lab.start(f"log_endpoint={endpoint.url}", "flush_interval=0.2")
    pings = [Pings(lab.alice.host), Pings(lab.alice.host, WEB6)]
    for mode, logging in (
        *(("enforce", "on"), ("observe", "on"), ("observe", "off"), ("enforce", "off")),
        *(("observe", "off"), ("enforce", "on"), ("enforce", "off"), ("observe", "on")),
    ):
        lab.gateway.set(f"authz_mode={mode}", f"logging_enabled={logging}")
        status = lab.gateway.status()
        assert status is not None
        assert (status["authz_mode"], status["logging_enabled"]) == (mode, logging == "on")
        assert ping(lab.bob.host, seconds=1) == (mode == "observe")
    for stream in pings:
        sent, answered = stream.end()
        assert sent > 100
        assert answered == sent
    # Each flag alone, too.
    lab.gateway.set("authz_mode=enforce")
    assert lab.gateway.status()["logging_enabled"] is True  # type: ignore[index]
    lab.gateway.set("logging_enabled=off")
    assert lab.gateway.status()["authz_mode"] == "enforce"  # type: ignore[index]


@pytest.mark.never
def test_wireguard_drops_a_source_address_that_is_another_client_s(lab: Lab) -> None:
    lab.publish()
    lab.start("authz_mode=observe")
    sniffer = Sniffer(lab.service)
    lab.bob.host.sh(PYTHON, "-c", SPOOFED_PING, "10.64.0.12", WEB4)  # the control: bob as bob gets there
    lab.bob.host.sh(PYTHON, "-c", SPOOFED_PING, "10.64.0.11", WEB4)
    assert ping(lab.bob.host)
    seen = sniffer.end()
    assert any(source == "10.64.0.12" for source, _, _ in seen)
    assert not any(source == "10.64.0.11" for source, _, _ in seen)


@pytest.mark.never
def test_a_key_that_is_no_peer_s_gets_nothing_even_in_observe(lab: Lab) -> None:
    lab.publish(peers=lab.peers_file((lab.alice, ["10.64.0.11/32", "fd64::11/128"])))
    lab.gateway.tidegate("set", "authz_mode=observe", *PLACES)
    for agent in lab.agents:
        agent.start()
    until("alice gets through", lambda: ping(lab.alice.host))
    assert not ping(lab.bob.host)
    assert lab.bob.host.sh("wg", "show", "tidegate0", "latest-handshakes").split()[1] == "0"


@pytest.mark.never
def test_the_gateway_s_own_addresses_are_no_way_around(lab: Lab) -> None:
    lab.gateway.host.start(PYTHON, "-m", "http.server", "8081", "--bind", "::")
    lab.publish()
    lab.start()
    for host in (lab.alice.host, lab.bob.host):
        for address in (GATEWAY4, GATEWAY6):
            assert not ping(host, address)
            shown = f"[{address}]" if ":" in address else address
            script = f"import urllib.request as u; u.urlopen('http://{shown}:8081/', timeout=1)"
            assert not host.ok(PYTHON, "-c", script)
    # Nor is a local user of the gateway a way in: what it sends to a client does not leave.
    assert not ping(lab.gateway.host, "10.64.0.11")
    # Not a single datagram, either way: an answer that is dropped would hide a packet that was not.
    assert not _arrives(lab.alice.host, lab.gateway.host, GATEWAY4)
    assert not _arrives(lab.alice.host, lab.gateway.host, GATEWAY6)
    assert not _arrives(lab.gateway.host, lab.alice.host, "10.64.0.11")
    assert not _arrives(lab.gateway.host, lab.alice.host, "fd64::11")
    lab.gateway.set("authz_mode=observe")
    assert _arrives(lab.alice.host, lab.gateway.host, GATEWAY4)
    assert _arrives(lab.gateway.host, lab.alice.host, "fd64::11")
    assert ping(lab.alice.host)


def _arrives(sender: Host, receiver: Host, address: str) -> bool:
    """Send ten datagrams and tell whether any reaches a socket."""
    listen = "import socket; s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM); s.bind(('::', 8083))"
    listen += "; s.settimeout(1.5)"
    listener = receiver.start(
        PYTHON, "-c", f"{listen}; print('up', flush=True); s.recv(9)", stdout=subprocess.PIPE
    )
    assert listener.stdout is not None
    assert listener.stdout.readline() == b"up\n"
    family = "AF_INET6" if ":" in address else "AF_INET"
    send = f"import socket; s = socket.socket(socket.{family}, socket.SOCK_DGRAM)"
    sender.ok(PYTHON, "-c", f"{send}\nfor _ in range(10): s.sendto(b'x', ('{address}', 8083))")
    listener.stdout.close()
    return listener.wait(10) == 0


@pytest.mark.never
def test_a_server_cannot_open_a_connection_to_a_client(lab: Lab) -> None:
    lab.alice.host.start(PYTHON, "-m", "http.server", "8081", "--bind", "::")
    lab.publish()
    lab.start()
    assert ping(lab.alice.host)
    assert not ping(lab.service, "10.64.0.11")
    assert not ping(lab.service, "fd64::11")
    lab.gateway.set("authz_mode=observe")
    assert ping(lab.service, "10.64.0.11")


@pytest.mark.never
def test_clients_do_not_reach_each_other_in_enforce(lab: Lab) -> None:
    everything = [{"to": ["0.0.0.0/0"], "ports": ["any"]}, {"to": ["::/0"], "ports": ["any"]}]
    lab.publish(policy=lab.policy_file(alice=everything, bob=everything))
    for agent in (lab.alice, lab.bob):  # whose agents would undo what follows
        agent.host.sh("sh", "-c", "echo 'repair: report' > /run/etc/client.yaml")
    lab.start()
    for agent, other in ((lab.alice, "10.64.0.12"), (lab.bob, "10.64.0.11")):
        agent.host.sh("ip", "route", "add", other, "dev", "tidegate0")
        agent.host.sh("wg", "set", "tidegate0", "peer", lab.gateway.public_key, "allowed-ips", "0.0.0.0/0")
    assert ping(lab.alice.host)
    assert not ping(lab.alice.host, "10.64.0.12")
    lab.gateway.set("authz_mode=observe")
    assert ping(lab.alice.host, "10.64.0.12")  # the control: observe always forwards


def test_large_packets_arrive_in_fragments_and_by_path_mtu(lab: Lab) -> None:
    lab.publish()
    lab.start()
    assert lab.alice.host.ok("ping", "-n", "-c1", "-W2", "-s", "4000", WEB4)
    # The first answer teaches the server the tunnel's MTU (ICMPv6 packet too big) and is lost: RFC 8201.
    assert lab.alice.host.ok("ping", "-n", "-c10", "-i0.3", "-W2", "-s", "4000", WEB6)
    assert not lab.bob.host.ok("ping", "-n", "-c1", "-W1", "-s", "4000", WEB4)
    assert lab.alice.host.ok("ping", "-n", "-c1", "-W2", "-M", "do", "-s", "1392", WEB4)


def test_icmp_errors_of_a_client_pass_only_for_flows_that_exist(lab: Lab) -> None:
    lab.publish(policy=lab.policy_file(alice=[{"to": [f"{WEB4}/32"], "ports": ["tcp/8080", "udp/8084"]}]))
    lab.start()
    sniffer = Sniffer(lab.service)
    lab.alice.host.sh(PYTHON, "-c", FORGED_ERROR, "10.64.0.11", WEB4)
    assert get(lab.alice.host)
    assert not any(protocol == 1 for _, _, protocol in sniffer.end())
    # The control: the answer comes to a socket that is closed, and alice's kernel says so to the server.
    sniffer = Sniffer(lab.service)
    answer = "import socket, time; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('', 8084))"
    answer += "; print('up', flush=True); a = s.recvfrom(9)[1]; time.sleep(1); s.sendto(b'x', a)"
    server = lab.service.start(PYTHON, "-c", answer, stdout=subprocess.PIPE)
    assert server.stdout is not None
    assert server.stdout.readline() == b"up\n"
    ask = f"import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('{WEB4}', 8084))"
    lab.alice.host.sh(PYTHON, "-c", ask)
    server.wait(5)
    server.stdout.close()
    assert ping(lab.alice.host, GATEWAY4) is False
    assert ("10.64.0.11", WEB4, 1) in sniffer.end()


def test_masquerade_hides_clients_behind_the_gateway(lab: Lab) -> None:
    lab.publish()
    lab.start("masquerade=[inside]")
    assert get(lab.alice.host) == f"::ffff:{GATEWAY4}"
    assert get(lab.alice.host, WEB6) == GATEWAY6
    assert get(lab.bob.host) is None


def test_one_event_per_inner_packet_when_on_and_none_when_off(lab: Lab) -> None:
    endpoint = LogEndpoint(lab.service, lab.directory)
    lab.publish()
    lab.start(f"log_endpoint={endpoint.url}", "flush_interval=0.1", "log_granularity=packet")
    assert lab.alice.host.ok("ping", "-n", "-c3", "-i0.1", WEB4)
    lab.gateway.set("logging_enabled=on")
    lab.alice.host.sh("ping", "-n", "-c5", "-i0.1", WEB4)
    lab.bob.host.ok("ping", "-n", "-c4", "-i0.1", "-W1", WEB6)
    lab.gateway.set("logging_enabled=off")
    assert lab.alice.host.ok("ping", "-n", "-c3", "-i0.1", WEB4)

    def packets() -> list[dict[str, Any]]:
        return [event for event in endpoint.events() if event["event.action"] == "packet"]

    until("nine events have arrived", lambda: len(packets()) >= 9)
    events = packets()
    assert [event["event.sequence"] for event in events] == list(range(9))
    told = {
        (
            *(event["tidegate.client.id"], event["source.address"], event["destination.address"]),
            *(event["tidegate.verdict"], event["event.reason"]),
        )
        for event in events
    }
    assert told == {
        (lab.alice.client_id, "10.64.0.11", WEB4, "allow", "allowed"),
        (lab.bob.client_id, "fd64::12", WEB6, "deny", "no-rule"),
    }
    assert {event.get("rule.name") for event in events} == {"p", None}
    assert all(
        event["observer.name"] == "fra1" and re.fullmatch("[0-9a-f]{16}", event["tidegate.epoch"])
        for event in events
    )


def test_the_pings_that_these_tests_count_notice_a_short_hole(lab: Lab) -> None:
    """The instrument itself: what is dropped on the way for a moment is counted, and nothing else is."""
    lab.publish()
    lab.start()
    pings = Pings(lab.alice.host)
    until("pings are answered", lambda: len(pings.answered()) > 20)
    lab.service.sh(
        "nft", "add table ip hole; add chain ip hole in { type filter hook input priority 0; policy drop; }"
    )
    seen = max(pings.answered())
    time.sleep(0.3)  # the hole's length, some fifteen pings
    lab.service.sh("nft", "delete table ip hole")
    until("pings are answered again", lambda: max(pings.answered()) > seen + 5)
    sent, answered = pings.end()
    assert 5 <= sent - answered <= 100
    assert answered > 20
