"""A real gateway's metrics, scraped as an agent on its host would; and clients of the socket that mean no good."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from netns.lab import PLACES, PYTHON, WEB4, Host, Lab, get, ping, until
from tidegate_agents.gateway import flowcount, netlink, nft, ruleset
from tidegate_agents.gateway.metrics import FAMILIES
from tidegate_agents.settings import defaults

pytestmark = pytest.mark.netns

SOCKET = "/run/tidegate/gateway-metrics.sock"
SCRAPE = """
import socket, sys
where = sys.argv[1]
if where.startswith("/"):
    s = socket.socket(socket.AF_UNIX); s.settimeout(10); s.connect(where)
else:
    host, _, port = where.rpartition(":")
    s = socket.create_connection((host.strip("[]"), int(port)), 10)
s.sendall(sys.argv[2].encode() + b"\\r\\nhost: x\\r\\n\\r\\n")
answer = b""
while piece := s.recv(65536):
    answer += piece
sys.stdout.buffer.write(answer)
"""
# Holds 40 connections that drip a request byte by byte, and makes new ones of those that were cut.
SLOW_LORIS = """
import socket, time
print("up", flush=True)
held = []
while True:
    while len(held) < 40:
        s = socket.socket(socket.AF_UNIX); s.settimeout(0.2)
        try: s.connect(%r); held.append(s)
        except OSError: s.close(); break
    for s in list(held):
        try: s.send(b"G")
        except OSError: held.remove(s); s.close()
    time.sleep(0.1)
"""
FLOOD = """
import socket, time
s = socket.socket(2, 2)
while True:
    for _ in range(50): s.sendto(b"x", ("10.20.0.80", 9))
    time.sleep(0.01)
"""
# Asks for the page again and again and never reads an answer.
NEVER_READS = """
import socket, time
print("up", flush=True)
held = []
while True:
    s = socket.socket(socket.AF_UNIX); s.settimeout(0.2); s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    try: s.connect(%r); s.send(b"GET /metrics HTTP/1.1\\\\r\\\\n\\\\r\\\\n"); held.append(s)
    except OSError: s.close()
    held = held[-40:]
    time.sleep(0.02)
"""


def _ask(host: Host, where: str = SOCKET, request: str = "GET /metrics HTTP/1.1") -> tuple[str, str]:
    """Return the head and the body of an answer."""
    head, _, body = host.sh(PYTHON, "-c", SCRAPE, where, request).partition("\n\n")
    return head, body


def _scrape(host: Host, where: str = SOCKET) -> dict[tuple[str, ...], float]:
    """Return every sample of a page: the metric's name and its labels' values, and the value."""
    head, body = _ask(host, where)
    assert head.splitlines()[0] == "HTTP/1.1 200 OK", head
    return {
        (sample.name, *(sample.labels[label] for label in FAMILIES[sample.name].labels)): sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
    }


def _mode(host: Host, path: str = SOCKET) -> str:
    return host.sh("stat", "-c", "%A %a %U %G", path).strip()


def test_a_page_follows_what_the_gateway_does(lab: Lab) -> None:
    lab.publish()
    lab.start()
    gateway = lab.gateway.host
    before = _scrape(gateway)
    for _ in range(3):
        assert ping(lab.alice.host)
    assert not ping(lab.bob.host)
    assert get(lab.alice.host) is not None
    after = _scrape(gateway)

    def grown(*name: str) -> float:
        return after[name] - before[name]

    assert grown("tidegate_upcall_packets_total", "allow", "allowed") >= 4
    assert grown("tidegate_upcall_bytes_total", "allow", "allowed") >= 3 * 84 + 60
    assert grown("tidegate_upcall_packets_total", "deny", "no-rule") == 1
    assert grown("tidegate_upcall_packets_total", "allow", "observed") == 0
    assert grown("tidegate_flow_set_packets_total", "ipv4") >= 3  # all of the request but its first packet
    assert grown("tidegate_flow_set_bytes_total", "ipv4") > 100
    assert after["tidegate_flow_set_flows", "ipv4"] == 1
    assert after["tidegate_flow_set_flows", "ipv6"] == 0
    assert grown("tidegate_tunnel_packets_total", "received") >= 8
    assert grown("tidegate_tunnel_packets_total", "sent") >= 6
    assert after["tidegate_queue_dropped_packets_total",] == 0
    for agent in (lab.alice, lab.bob):
        assert 0 <= after["tidegate_handshake_age_seconds", agent.client_id] < 60
    status: Any = lab.gateway.status()
    assert after["tidegate_generation",] == status["generation"]
    assert after["tidegate_peers",] == 2
    assert after["tidegate_release_serial",] == 1
    assert after["tidegate_offloads", status["offloads"]] == 1
    assert after["tidegate_authz_mode", "enforce"] == 1
    assert {value for name, value in after.items() if name[0] == "tidegate_source_up"} == {1}
    assert {name[0] for name in after} <= FAMILIES.keys()
    assert 0 < after["tidegate_swap_last_seconds",] < 10

    gateway.sh("kill", "-KILL", str(status["forwarder"]))
    until("the restart is counted", lambda: _scrape(gateway)["tidegate_restarts_total", "forwarder"] == 1)
    lab.gateway.set("authz_mode=observe")
    page = _scrape(gateway)
    assert page["tidegate_authz_mode", "observe"] == 1
    assert page["tidegate_generation",] > status["generation"]
    assert page["tidegate_swaps_total",] == after["tidegate_swaps_total",] + 2
    assert ping(lab.bob.host)
    # A batch is counted when it has gone, by when the answer may be back.
    until(
        "the packet is counted",
        lambda: _scrape(gateway)["tidegate_upcall_packets_total", "allow", "observed"] >= 1,
    )
    assert "Traceback" not in gateway.log.read_text()


def test_drops_have_their_names(lab: Lab) -> None:
    lab.publish()
    lab.start()
    gateway = lab.gateway.host
    # What has been denied, again and again.
    assert _scrape(gateway)["tidegate_limit_dropped_packets_total", "denied-again"] == 0
    for _ in range(3):
        assert get(lab.bob.host, seconds=1) is None
    page = _scrape(gateway)
    assert page["tidegate_limit_dropped_packets_total", "denied-again"] > 0
    assert page["tidegate_limit_dropped_packets_total", "limit-upcalls"] == 0
    assert page["tidegate_flow_set_refused_packets_total",] == 0
    # To the gateway's own address.
    before = _scrape(gateway)["tidegate_rule_dropped_packets_total", "input"]
    assert not ping(lab.alice.host, "10.20.0.1")
    assert _scrape(gateway)["tidegate_rule_dropped_packets_total", "input"] > before
    # More than the queue holds, while nobody takes anything out of it.
    status: Any = lab.gateway.status()
    gateway.sh("kill", "-STOP", str(status["forwarder"]))
    lab.alice.host.start(PYTHON, "-c", FLOOD)
    until("drops are counted", lambda: _scrape(gateway)["tidegate_queue_dropped_packets_total",] > 0)
    gateway.sh("kill", "-CONT", str(status["forwarder"]))


def test_flows_are_counted_where_the_kernel_does_not_tell_their_number() -> None:
    """Kernels before the number was told give the elements only; this one can be asked both ways."""
    settings = {**defaults("gateway"), "flow_timeout": 600}
    assert flowcount.flows() == {}
    nft.load(ruleset.render(settings, enforce=True))
    assert flowcount.flows() == {"ipv4": 0, "ipv6": 0}
    some = ", ".join(f"10.64.{n >> 8}.{n & 255} . {WEB4} . tcp . 40000 . 80" for n in range(3000))
    nft.load(f"add element inet tidegate flows4 {{ {some} }}\n")
    nft.load("add element inet tidegate flows6 { ::1 . ::2 . udp . 1 . 2 }\n")
    assert flowcount.flows() == {"ipv4": 3000, "ipv6": 1}
    with netlink.open_netfilter() as opened:
        assert [flowcount.counted(opened, name) for name in flowcount.SETS.values()] == [3000, 1]
    nft.load(ruleset.render({**settings, "flow_cache": False}, enforce=True))
    assert flowcount.flows() == {}


def test_only_root_and_its_group_reach_the_socket(lab: Lab) -> None:
    lab.publish()
    lab.gateway.start()
    gateway = lab.gateway.host
    assert _mode(gateway) == "srw-rw---- 660 root root"
    if int(Path("/proc/self/uid_map").read_text().split()[2]) == 1:
        return  # the sandbox of an ordinary user has one user only

    def reached(group: int) -> bool:
        become = ("setpriv", "--reuid=65534", f"--regid={group}", "--clear-groups")
        return gateway.ok(*become, PYTHON, "-c", SCRAPE, SOCKET, "GET /metrics HTTP/1.1")

    assert not reached(65534)
    gateway.sh("chgrp", "2000", "/run/tidegate")
    assert lab.gateway.stop() == 0
    lab.gateway.start()
    assert reached(2000)
    assert not reached(65534)


def test_the_setting_is_followed_live(lab: Lab) -> None:
    lab.publish()
    lab.gateway.start()
    gateway = lab.gateway.host
    until("the socket is there", lambda: gateway.ok("test", "-S", SOCKET))
    for where in ("127.0.0.1:9469", "[::1]:9469"):
        lab.gateway.set(f"metrics_listen={where}")
        until(f"{where} answers", lambda where=where: gateway.ok(PYTHON, "-c", SCRAPE, where, "GET /metrics"))
        assert _scrape(gateway, where)["tidegate_peers",] == 2
        assert not gateway.ok("test", "-e", SOCKET)
    refused = gateway.sh(
        *(PYTHON, "-m", "tidegate_schema", "gateway", "set", "metrics_listen=0.0.0.0:9469", *PLACES),
        check=False,
    )
    assert refused == ""
    lab.gateway.set("metrics_listen=off")
    until("nobody listens", lambda: ":9469" not in gateway.sh("ss", "-ltn"))
    holder = gateway.start(
        PYTHON,
        "-c",
        "import socket\ns = socket.create_server(('127.0.0.1', 9470)); input()",
        stdin=subprocess.PIPE,
    )
    until("somebody else listens", lambda: ":9470" in gateway.sh("ss", "-ltn"))
    lab.gateway.set("metrics_listen=127.0.0.1:9470")
    until("that is said", lambda: "no metrics at 127.0.0.1:9470" in gateway.log.read_text())
    holder.communicate(b"\n")
    until(
        "it is taken when it is free",
        lambda: gateway.ok(PYTHON, "-c", SCRAPE, "127.0.0.1:9470", "GET /metrics"),
    )
    assert gateway.log.read_text().count("no metrics at") == 1
    lab.gateway.set("metrics_listen=socket")
    until("the socket is back", lambda: gateway.ok("test", "-S", SOCKET))
    assert _mode(gateway).startswith("srw-rw----")


def test_a_socket_of_a_killed_agent_is_replaced_and_a_stop_takes_it_away(lab: Lab) -> None:
    lab.publish()
    lab.gateway.start()
    gateway = lab.gateway.host
    first = gateway.sh("stat", "-c", "%i", SOCKET)
    lab.gateway.stop(signal.SIGKILL)
    assert gateway.ok("test", "-S", SOCKET)
    lab.gateway.start()
    assert gateway.sh("stat", "-c", "%i", SOCKET) != first
    assert _scrape(gateway)["tidegate_peers",] == 2
    assert lab.gateway.stop() == 0
    assert not gateway.ok("test", "-e", SOCKET)


def test_hostile_clients_hold_up_neither_scrapes_nor_the_agent(lab: Lab) -> None:
    lab.publish()
    lab.start()
    gateway = lab.gateway.host
    for script in (SLOW_LORIS, NEVER_READS):
        hostile = gateway.start(PYTHON, "-c", script % SOCKET, stdout=subprocess.PIPE)
        assert hostile.stdout is not None
        assert hostile.stdout.readline() == b"up\n"
        hostile.stdout.close()
    requests = (
        "POST /metrics HTTP/1.1",
        "GET / HTTP/1.1",
        "",
        "\x01" * 100,
        "GET /metrics/../x",
        "x" * 100_000,
    )
    for request in requests:
        assert "200 OK" not in gateway.sh(PYTHON, "-c", SCRAPE, SOCKET, request, check=False)
    until("a scrape succeeds", lambda: gateway.ok(PYTHON, "-c", SCRAPE, SOCKET, "GET /metrics HTTP/1.1"))
    status: Any = lab.gateway.status()
    lab.gateway.set("authz_mode=observe")
    assert lab.gateway.status()["generation"] > status["generation"]  # type: ignore[index]
    assert ping(lab.bob.host)
    descriptors = gateway.sh("ls", f"/proc/{status['pid']}/fd").split()
    assert len(descriptors) < 80
    start = time.monotonic()
    assert lab.gateway.stop() == 0
    assert time.monotonic() - start < 8
    assert "Traceback" not in gateway.log.read_text()
