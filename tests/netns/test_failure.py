"""Failure and the edges of life: kill -9, start, stop, invalid settings. Enforce fails closed, observe open."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from netns.lab import (
    DEVICE,
    GATEWAY4,
    PLACES,
    PYTHON,
    TIDEGATE,
    WEB4,
    WEB6,
    WEB_RULES,
    Agent,
    Lab,
    LogEndpoint,
    Pings,
    Sniffer,
    ping,
    prepare_sandbox,
    sh,
    until,
)
from tidegate_agents.datapath import forwarder
from tidegate_agents.gateway import processes
from tidegate_agents.gateway.tuns import Tuns
from unit.agents.kit import privileges, unprivileged

pytestmark = pytest.mark.netns

BOTH = ("10.64.0.11", "10.64.0.12", "fd64::11", "fd64::12")


def _kill(lab: Lab, pid: int) -> None:
    lab.gateway.host.sh("kill", "-KILL", str(pid))


def _forwarder(lab: Lab) -> int:
    pid = until("a forwarder runs", lambda: (lab.gateway.status() or {}).get("forwarder"))
    assert isinstance(pid, int)
    return pid


@pytest.mark.never
def test_kill_9_of_the_forwarder_in_enforce_lets_nothing_new_pass_until_it_is_back(lab: Lab) -> None:
    lab.publish()
    lab.start()
    sniffer = Sniffer(lab.service)
    allowed, refused = Pings(lab.alice.host), Pings(lab.bob.host)
    for _ in range(5):
        old = _forwarder(lab)
        _kill(lab, old)
        until("another forwarder is in charge", lambda old=old: _forwarder(lab) != old)
        until("alice gets through again", lambda: ping(lab.alice.host))
    allowed.end()
    assert refused.end()[1] == 0
    seen = sniffer.end()
    assert {source for source, _, _ in seen} & set(BOTH) == {"10.64.0.11"}
    assert lab.gateway.status()["restarts"]["forwarder"] == 5  # type: ignore[index]


@pytest.mark.never
def test_while_no_forwarder_runs_enforce_passes_nothing_new(lab: Lab) -> None:
    """With the supervisor frozen too, nobody restarts the forwarder, and the kernel's rules are all there is."""
    lab.publish()
    lab.start()
    supervisor = lab.gateway.status()["pid"]  # type: ignore[index]
    lab.gateway.host.sh("kill", "-STOP", str(supervisor))
    _kill(lab, _forwarder(lab))
    assert not ping(lab.alice.host)
    assert not ping(lab.bob.host)
    lab.gateway.host.sh("kill", "-CONT", str(supervisor))
    until("alice gets through again", lambda: ping(lab.alice.host))


def test_kill_9_of_the_forwarder_in_observe_traffic_goes_on(lab: Lab) -> None:
    lab.publish()
    lab.start("authz_mode=observe")
    pings = [Pings(lab.alice.host), Pings(lab.bob.host, WEB6)]
    for _ in range(5):
        old = _forwarder(lab)
        _kill(lab, old)
        until("another forwarder is in charge", lambda old=old: _forwarder(lab) != old)
    for stream in pings:
        sent, answered = stream.end()
        # What the dead forwarder held in its hands is gone; everything else went on.
        assert sent - answered <= 5
        assert answered > 50


def test_in_observe_traffic_goes_on_when_no_forwarder_can_be_started(lab: Lab) -> None:
    lab.publish()
    lab.start("authz_mode=observe")
    # No generation can be written any more, so no forwarder can be started.
    lab.gateway.host.sh(
        "sh", "-c", "rm -r /run/tidegate/gateway/generations && touch /run/tidegate/gateway/generations"
    )
    _kill(lab, _forwarder(lab))
    until("traffic goes on by itself", lambda: ping(lab.bob.host))
    assert ping(lab.alice.host, WEB6)
    until("the trouble is named", lambda: (lab.gateway.status() or {}).get("trouble"))


@pytest.mark.never
def test_with_everything_killed_enforce_stays_closed_and_a_new_start_cleans_up(lab: Lab) -> None:
    lab.publish()
    lab.start()
    sniffer = Sniffer(lab.service)
    refused = Pings(lab.bob.host)
    lab.gateway.kill_everything()
    assert not ping(lab.alice.host)
    lab.gateway.start()
    until("alice gets through again", lambda: ping(lab.alice.host))
    assert refused.end()[1] == 0
    assert not any(source == "10.64.0.12" for source, _, _ in sniffer.end())


@pytest.mark.parametrize(
    "change", [pytest.param("tun=inside", marks=pytest.mark.whole), "interface=other0 listen_port=51821"]
)
@pytest.mark.never
def test_a_start_that_fails_or_goes_elsewhere_after_a_kill_9_opens_nothing(lab: Lab, change: str) -> None:
    """The killed agent's WireGuard is still up, and its rules are all that keeps it closed."""
    lab.publish()
    lab.start()
    sniffer = Sniffer(lab.service)
    lab.gateway.stop(signal.SIGKILL)
    lab.gateway.tidegate("set", *change.split(), *PLACES)
    agent = lab.gateway.host.start(*TIDEGATE, "gateway", "run", "--bundles", str(lab.bundles), *PLACES)
    if change.startswith("tun"):
        assert agent.wait(20) == 1
    else:
        until("the old interface is gone", lambda: not lab.gateway.host.ok("ip", "link", "show", DEVICE))
    for address in (WEB4, WEB6):
        assert not ping(lab.bob.host, address)
    assert not any(source.endswith((".12", "::12")) for source, _, _ in sniffer.end())
    assert "Traceback" not in lab.gateway.host.log.read_text()


def test_a_second_agent_with_files_of_its_own_does_not_touch_the_first(lab: Lab) -> None:
    lab.publish()
    lab.start()
    places = ("--etc", "/run/etc", "--state-dir", "/run/state2", "--run-dir", "/run/other")
    second = lab.gateway.host.start(*TIDEGATE, "gateway", "run", "--bundles", str(lab.bundles), *places)
    assert second.wait(20) == 1
    assert ping(lab.alice.host)
    assert not ping(lab.bob.host)


@pytest.mark.parametrize("router_before", [False, pytest.param(True, marks=pytest.mark.whole)])
@pytest.mark.never
def test_what_does_not_come_through_wireguard_is_not_forwarded_in_enforce(
    lab: Lab, router_before: bool
) -> None:
    """A neighbour on the link outside uses the gateway as a router, as itself and as a client.

    A host that was a router before goes on being one; yet a client's address is never believed from outside.
    """
    lab.gateway.host.sysctl("ipv4/ip_forward", str(int(router_before)))
    lab.publish()
    lab.start()
    neighbour = lab.host("neighbour")
    sh(
        "ip",
        "link",
        "add",
        "to-n",
        "type",
        "veth",
        "peer",
        "name",
        "eth0",
        "netns",
        str(neighbour.holder.pid),
    )
    sh("ip", "link", "set", "to-n", "master", "internet", "up")
    neighbour.sh("ip", "link", "set", "eth0", "up")
    lab.address(neighbour, "eth0", "203.0.113.103/24")
    neighbour.sh("ip", "route", "add", "10.20.0.0/16", "via", "203.0.113.10")
    lab.service.sh("ip", "route", "add", "203.0.113.0/24", "via", GATEWAY4)
    lab.address(neighbour, "lo", "10.64.0.11/32")
    for name in ("all", "eth0"):
        lab.gateway.host.sysctl(f"ipv4/conf/{name}/rp_filter", "0")
    sniffer = Sniffer(lab.service)
    assert neighbour.ok("ping", "-c2", "-i0.2", "-W1", WEB4) == router_before
    assert not neighbour.ok("ping", "-c2", "-i0.2", "-W1", "-I", "10.64.0.11", WEB4)
    assert not any(source == "10.64.0.11" for source, _, _ in sniffer.end())
    lab.gateway.set("authz_mode=observe")
    assert neighbour.ok("ping", "-c1", "-W1", WEB4)  # the control: the way is there
    assert ping(lab.alice.host)


FROM_ALICE = """
table inet seen {
 counter alice { }
 chain raw {
  type filter hook prerouting priority raw; policy accept;
  ip saddr 10.64.0.11 counter name alice
 }
}
"""


@pytest.mark.never
def test_a_source_that_is_the_gateway_s_own_comes_no_further_than_the_tun(lab: Lab) -> None:
    lab.publish()
    lab.start()
    lab.service.sh("nft", "-f", "-", text=FROM_ALICE)
    counted = ("counter", "inet", "seen", "alice")
    assert ping(lab.alice.host)
    assert "packets 0 " not in lab.service.sh("nft", "reset", *counted)  # the control
    lab.address(lab.gateway.host, "lo", "10.64.0.11/32")
    assert lab.gateway.host.sh("cat", "/proc/sys/net/ipv4/conf/tidegate0/accept_local") == "1\n"
    assert not lab.alice.host.ok("ping", "-c3", "-i0.2", "-W1", WEB4)
    assert "packets 0 " in lab.service.sh("nft", "list", *counted)


class Knocks:
    """A client that shakes hands anew all the time, so that it has a session as soon as the gateway can give one."""

    def __init__(self, lab: Lab, agent: Agent) -> None:
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._knock, args=(lab, agent))
        self._thread.start()

    def _knock(self, lab: Lab, agent: Agent) -> None:
        while not self._end.wait(0.02):
            lab.forget_session(agent)

    def end(self) -> None:
        """Stop knocking."""
        self._end.set()
        self._thread.join()


@pytest.mark.never
def test_no_unauthorised_packet_from_before_the_first_rule_until_after_the_last(lab: Lab) -> None:
    lab.publish()
    lab.start()
    sniffer = Sniffer(lab.service)
    refused = [Pings(lab.bob.host, interval=0.005), Pings(lab.bob.host, WEB6, interval=0.005)]
    for _ in range(5):
        before = _packets_from_bob(lab)
        until("bob's packets reach the gateway", lambda before=before: _packets_from_bob(lab) > before)
        assert lab.gateway.stop() == 0
        left = lab.gateway.host.sh("nft", "list", "ruleset") + lab.gateway.host.sh("ip", "rule")
        assert "tidegate" not in left
        assert "7400" not in left
        assert lab.gateway.host.sh("ip", "-o", "link").count("tidegate") == 0
        lab.gateway.host.sysctl("ipv4/ip_forward", "1")  # a host that forwards anyway has no gap either
        lab.gateway.host.sysctl("ipv6/conf/all/forwarding", "1")
        knocks = [Knocks(lab, agent) for agent in (lab.alice, lab.bob)]
        lab.gateway.start()
        for knock in knocks:
            knock.end()
        until("alice gets through again", lambda: ping(lab.alice.host))
    for stream in refused:
        assert stream.end()[1] == 0
    seen = {source for source, _, _ in sniffer.end()}
    assert "10.64.0.11" in seen
    assert not seen & {"10.64.0.12", "fd64::12"}


def _packets_from_bob(lab: Lab) -> int:
    lines = lab.gateway.host.sh("wg", "show", DEVICE, "transfer").splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(lab.bob.public_key))


def test_stop_puts_the_kernel_s_forwarding_back_to_what_it_was(lab: Lab) -> None:
    lab.publish()
    lab.start()
    names = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")
    assert [lab.gateway.host.sh("cat", f"/proc/sys/net/{name}").strip() for name in names] == ["1", "1"]
    assert lab.gateway.stop() == 0
    assert [lab.gateway.host.sh("cat", f"/proc/sys/net/{name}").strip() for name in names] == ["0", "0"]


def test_the_sniffer_does_see_such_packets_when_the_order_of_stop_is_reversed(lab: Lab) -> None:
    """The control of the test above: rules away while WireGuard is still up, and the packets are there."""
    lab.publish()
    lab.start()
    sniffer = Sniffer(lab.service)
    refused = Pings(lab.bob.host)
    assert not ping(lab.bob.host)
    lab.gateway.host.sh("nft", "delete", "table", "inet", "tidegate")
    until("bob gets through", lambda: ping(lab.bob.host))
    refused.end()
    assert any(source == "10.64.0.12" for source, _, _ in sniffer.end())


def test_invalid_settings_keep_the_running_mode_and_at_start_mean_enforce(lab: Lab) -> None:
    lab.publish()
    lab.start("authz_mode=observe")
    file = "/run/etc/gateway.yaml"
    for bad in (
        "authz_mode: [",
        "authz_mode: maybe",
        "- observe",
        "unknown: 1",
        "authz_mode: observe\nmtu: 1",
    ):
        lab.gateway.host.sh("sh", "-c", f"printf '%s\\n' '{bad}' > {file}")
        until("the problem is named", lambda: (lab.gateway.status() or {}).get("settings_problem"))
        assert lab.gateway.status()["authz_mode"] == "observe"  # type: ignore[index]
        assert ping(lab.bob.host)
        lab.gateway.host.sh("sh", "-c", f"echo 'authz_mode: observe' > {file}")
        until(
            "the problem is gone",
            lambda: not (lab.gateway.status() or {"settings_problem": 1})["settings_problem"],
        )
    lab.gateway.host.sh("sh", "-c", f"echo 'authz_mode: maybe' > {file}")
    lab.gateway.stop()
    lab.gateway.start()
    assert lab.gateway.status()["authz_mode"] == "enforce"  # type: ignore[index]
    lab.forget_session(lab.alice)
    until("alice gets through", lambda: ping(lab.alice.host))
    assert not ping(lab.bob.host)


HALF_NFT = """#!/bin/sh
case "$*" in *-f*) echo refused >&2; exit 1;; esac
exec /run/nft "$@"
"""


@pytest.mark.whole
def test_a_change_that_fails_half_way_and_is_taken_back_leaves_nothing_of_itself(lab: Lab) -> None:
    """Towards observe, the forwarder comes before the rules; when these fail, it must not stay."""
    lab.publish()
    lab.start()
    nft = shutil.which("nft")
    assert nft is not None
    half = lab.directory / "nft"
    half.write_text(HALF_NFT)
    half.chmod(0o755)
    lab.gateway.host.sh("cp", nft, "/run/nft")
    lab.gateway.host.sh("mount", "--bind", str(half), nft)
    lab.gateway.tidegate("set", "authz_mode=observe", *PLACES, check=False)
    assert "refused" in ((lab.gateway.status() or {}).get("trouble") or "")
    lab.gateway.tidegate("set", "authz_mode=enforce", *PLACES)
    lab.gateway.host.sh("umount", nft)
    until("it is out of trouble", lambda: (lab.gateway.status() or {}).get("trouble") is None)
    until("alice gets through", lambda: ping(lab.alice.host))
    assert not ping(lab.bob.host)


def test_two_agents_never_fight_over_one_host(lab: Lab) -> None:
    lab.publish()
    lab.start()
    for agent in (lab.gateway, lab.alice):
        second = agent.host.start(
            *(PYTHON, "-m", "tidegate_schema", agent.kind, "run", "--bundles", str(lab.bundles)), *PLACES
        )
        assert second.wait(20) == 1
        assert "another" in agent.host.log.read_text()
    assert ping(lab.alice.host)


@pytest.mark.whole
def test_wireguard_go_killed_is_started_again_with_its_peers(lab: Lab) -> None:
    lab.publish()
    lab.start()
    userspace = lab.gateway.status()["wireguard_go"]  # type: ignore[index]
    if userspace is None:
        pytest.skip("this kernel has WireGuard of its own")
    _kill(lab, userspace)
    until("alice gets through again", lambda: ping(lab.alice.host), seconds=40)
    assert not ping(lab.bob.host)


def _is_up(lab: Lab, link: str) -> bool:
    return "UP" in lab.gateway.host.sh("ip", "-br", "link", "show", link, check=False)


@pytest.mark.whole
def test_what_another_tool_takes_away_comes_back(lab: Lab) -> None:
    lab.publish()
    lab.start()
    for command in (
        ("nft", "flush", "ruleset"),
        ("nft", "flush", "chain", "inet", "tidegate", "forward"),
        ("ip", "link", "del", "tidegate-tun"),
        ("ip", "link", "del", "tidegate-denied"),
        ("ip", "link", "del", "tidegate0"),
        ("ip", "link", "set", "tidegate-tun", "down"),
        ("ip", "link", "set", "tidegate0", "down"),
        ("wg", "set", "tidegate0", "peer", lab.alice.public_key, "remove"),
        ("ip", "link", "set", "inside", "down"),
        ("ip", "rule", "del", "priority", "7400"),
        ("ip", "route", "flush", "table", "29696"),
        ("ip", "route", "flush", "proto", "116"),
    ):
        lab.gateway.host.sh(*command)
        if command[-1] == "down" and "inside" in command:  # somebody pulled the cable, and puts it back
            lab.gateway.host.sh("ip", "link", "set", "inside", "up")
        if "tidegate0" in command:  # a session ends with its interface, and by itself begins anew later
            until("WireGuard is there", lambda: _is_up(lab, "tidegate0"))
            lab.forget_session(lab.alice)
            lab.forget_session(lab.bob)
        until(f"alice gets through after {' '.join(command)}", lambda: ping(lab.alice.host))
        until(f"bob does not after {' '.join(command)}", lambda: not ping(lab.bob.host))
        assert "drop" in lab.gateway.host.sh("nft", "list", "chain", "inet", "tidegate", "forward")
    assert "unreachable default" in lab.gateway.host.sh("ip", "-6", "route", "show", "table", "29696")
    said = lab.gateway.host.log.read_text()
    assert "Traceback" not in said
    for words in (
        "table was changed",
        "tidegate-tun is gone",
        "tidegate-denied is gone",
        "tidegate0 is gone",
        "tidegate0 is down",
        "the way into tidegate-tun was changed",
        "routes to clients were changed",
        "peers were changed",
    ):
        assert words in said


def test_a_full_run_directory_is_named_and_stops_nothing_and_the_change_is_made_once_there_is_room(
    lab: Lab,
) -> None:
    lab.publish()
    lab.start()
    lab.gateway.host.sh("mount", "-o", "remount,size=8m", "/run")
    lab.gateway.host.ok("dd", "if=/dev/zero", "of=/run/full", "bs=4k")
    files = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(alice=WEB_RULES, bob=WEB_RULES)}
    lab.signer.publish(lab.bundles, "gateway", "fra1", files, 2)
    until("it is named", lambda: "No space left" in lab.gateway.host.log.read_text())
    assert ping(lab.alice.host)
    assert not ping(lab.bob.host)
    lab.gateway.host.sh("rm", "/run/full")
    until("the change is made", lambda: lab.gateway.applied(2))
    until("bob gets through", lambda: ping(lab.bob.host))
    assert "Traceback" not in lab.gateway.host.log.read_text()


@pytest.mark.whole
def test_on_the_way_to_enforce_a_forwarder_that_cannot_be_started_closes_the_gateway(lab: Lab) -> None:
    """The one before lets everything pass, and must not go on doing so under the new mode."""
    lab.publish()
    lab.start("authz_mode=observe")
    assert ping(lab.bob.host)
    # An empty program, in this host's view of its files alone.
    lab.gateway.host.sh("mount", "--bind", "/dev/null", str(Path(forwarder.__file__)))
    lab.gateway.tidegate("set", "authz_mode=enforce", *PLACES, check=False)
    assert "did not get as far as L" in ((lab.gateway.status() or {}).get("trouble") or "")
    for _ in range(3):
        assert not ping(lab.bob.host)
        assert not ping(lab.alice.host, WEB6)
    lab.gateway.host.sh("umount", str(Path(forwarder.__file__)))
    until("alice gets through", lambda: ping(lab.alice.host))
    assert not ping(lab.bob.host)


def test_a_start_that_fails_leaves_at_work_what_an_earlier_agent_left(lab: Lab) -> None:
    lab.publish()
    lab.start("authz_mode=observe")
    lab.gateway.stop(signal.SIGKILL)
    lab.gateway.host.sh("mount", "-o", "remount,size=8m", "/run")
    lab.gateway.host.ok("dd", "if=/dev/zero", "of=/run/full", "bs=4k")
    pings = Pings(lab.bob.host)
    agent = lab.gateway.host.start(*TIDEGATE, "gateway", "run", "--bundles", str(lab.bundles), *PLACES)
    assert agent.wait(20) == 1
    assert "No space left" in lab.gateway.host.log.read_text()
    assert ping(lab.alice.host)
    lab.gateway.host.sh("rm", "/run/full")
    lab.gateway.start()
    sent, answered = pings.end()
    assert sent == answered
    assert "Traceback" not in lab.gateway.host.log.read_text()


def test_no_file_descriptors_left_is_named_and_stops_nothing(lab: Lab) -> None:
    lab.publish()
    lab.start()
    pid = str((lab.gateway.status() or {})["pid"])
    limit = lab.gateway.host.sh(
        "prlimit", "--pid", pid, "--nofile", "--raw", "--noheadings", "-o", "SOFT"
    ).strip()
    lab.gateway.host.sh("prlimit", "--pid", pid, "--nofile=4:")
    files = {"peers.json": lab.everyone(), "policy.json": lab.policy_file(alice=WEB_RULES, bob=WEB_RULES)}
    lab.signer.publish(lab.bundles, "gateway", "fra1", files, 2)
    until("it is named", lambda: "Too many open files" in lab.gateway.host.log.read_text())
    assert ping(lab.alice.host)
    assert not ping(lab.bob.host)
    lab.gateway.host.sh("prlimit", "--pid", pid, f"--nofile={limit}:")
    until("the change is made", lambda: lab.gateway.applied(2))
    until("bob gets through", lambda: ping(lab.bob.host))
    assert "Traceback" not in lab.gateway.host.log.read_text()


def test_a_dead_log_endpoint_costs_events_and_nothing_else(lab: Lab) -> None:
    lab.publish()
    packets = ("logging_enabled=on", "log_granularity=packet")
    lab.start("log_endpoint=http://10.20.0.80:9/", "flush_interval=0.1", *packets)
    pings = Pings(lab.alice.host)
    time.sleep(2)
    sent, answered = pings.end()
    assert sent == answered > 0
    until("the drops are counted by reason", lambda: _dropped(lab).get("connect", 0) > 50)


def _dropped(lab: Lab) -> dict[str, int]:
    import json

    status = json.loads(lab.gateway.tidegate("status", "--json", *PLACES))
    dropped: dict[str, int] = status.get("events", {}).get("dropped_by_reason", {})
    return dropped


def test_after_kill_9_of_the_supervisor_the_next_one_takes_over_what_runs(lab: Lab) -> None:
    """Nothing that is allowed notices; nothing that is not gets through; and afterwards changes are followed again."""
    lab.publish()
    lab.start()
    sniffer = Sniffer(lab.service)
    refused, allowed = Pings(lab.bob.host), Pings(lab.alice.host)
    before = lab.gateway.status()
    assert before is not None
    number = signal.SIGKILL
    for _ in range(4):
        lab.gateway.stop(number)
        assert ping(lab.alice.host)  # judged by a forwarder without a supervisor
        assert not ping(lab.bob.host)
        lab.gateway.start()
        number = signal.SIGUSR1 if number == signal.SIGKILL else signal.SIGKILL
    after = lab.gateway.status()
    assert after is not None
    assert after["generation"] == before["generation"] + 4
    sent, answered = allowed.end()
    assert (sent - answered, refused.end()[1]) == (0, 0)
    assert {source for source, _, _ in sniffer.end()} & set(BOTH) == {"10.64.0.11"}
    lab.republish(2, lab.policy_file(alice=[], bob=[]))
    assert not ping(lab.alice.host)
    assert lab.gateway.stop() == 0
    for name in ("tidegate-tun", "tidegate-denied", DEVICE):
        assert not lab.gateway.host.ok("ip", "link", "show", name)


LEFT_BEHIND = """
import fcntl, os, sys, time
from pathlib import Path
from types import SimpleNamespace
from tidegate_agents.gateway import network
fixed = {"tun": "t0", "denied_tun": "t1", "offloads": "off", "mtu": 1420, "tun_address": "192.0.0.8"}
held = [network.open_tun(fixed)[0], network.open_denied_tun(fixed)]
lock = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT); fcntl.lockf(lock, fcntl.LOCK_EX)
print("held", flush=True); time.sleep(1000)
"""


@pytest.mark.parametrize("is_here", [True, False])
def test_a_tun_is_taken_over_within_its_network_namespace_alone(tmp_path: Path, is_here: bool) -> None:
    prepare_sandbox()
    prefix = [] if is_here else ["unshare", "--net"]
    words = [*prefix, PYTHON, "-c", LEFT_BEHIND, str(processes.lock_file(tmp_path))]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as left:
        assert left.stdout is not None
        assert left.stdout.readline() == b"held\n"
        fixed = {"tun": "t0", "denied_tun": "t1", "mark": 1, "table": 2, "rule_priority": 3}
        found = processes.survivor(tmp_path)
        assert found is not None
        taken = Tuns(fixed)
        assert taken.take_over(found, fixed) is is_here
        assert (taken.tun >= 0, taken.denied >= 0) == (is_here, is_here)
        assert not Tuns(fixed).take_over(found, fixed | {"mark": 4})
        left.kill()


def test_forwarder_and_flusher_have_no_privilege_left(lab: Lab) -> None:
    lab.publish()
    lab.start("logging_enabled=on", f"log_endpoint={LogEndpoint(lab.service, lab.directory).url}")
    status = until("both run", lambda: (found := lab.gateway.status() or {}).get("flusher") and found)
    until(
        "events have been sent",
        lambda: json.loads(lab.gateway.tidegate("status", "--json", *PLACES))["events"]["sent"],
    )
    for name, user in (("forwarder", 61001), ("flusher", 61002)):
        assert privileges(status[name]) == unprivileged(user)
