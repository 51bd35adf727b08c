"""Each check of the doctor says what is wrong, and nothing of a host that is in order."""

from __future__ import annotations

import json
import stat
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from tidegate_agents import settings
from tidegate_agents.doctor import checks, read
from tidegate_agents.doctor.facts import Chain, Entry, Facts, Link, Route, Space, Tool, Try
from tidegate_agents.host import Places
from tidegate_schema import cli
from unit.agents.kit import NOW

DIRECTORY, FILE, SECRET = (stat.S_IFDIR | 0o700, stat.S_IFREG | 0o644, stat.S_IFREG | 0o600)
BUNDLES = Path("/var/lib/tidegate/bundles")


def healthy(kind: str) -> Facts:
    """A host on which everything is in order."""
    places = Places(kind)
    names = ("wg", "wg-quick", "ip", "nft", "wireguard-go")
    directories = (places.etc, places.state_directory, places.run, BUNDLES)
    files = (places.identity, places.settings, places.memory)
    return Facts(
        places,
        BUNDLES,
        settings.defaults(kind),
        now=float(NOW),
        remembered=NOW - 10.0,
        synchronised=True,
        agent=4711,
        not_after=NOW + 30 * 86400.0,
        kernel=(6, 1),
        machine="x86_64",
        tools={name: Tool(f"/usr/bin/{name}", "1.0") for name in names},
        tries=dict.fromkeys(("wireguard", "tun", "ruleset", "conntrack"), Try(True)),
        links={
            "tidegate0": Link(1420, True),
            "tidegate-tun": Link(1420, True, ("192.0.0.8",)),
            "eth0": Link(1500, True, ("203.0.113.10",)),
        },
        uplinks=(Route(4, "eth0", "static"), Route(6, "eth0", "static")),
        sysctls={
            "ipv4/ip_forward": "1",
            "ipv6/conf/all/forwarding": "1",
            "ipv4/conf/all/rp_filter": "0",
            "ipv4/conf/tidegate-tun/rp_filter": "2",
            "ipv4/conf/eth0/rp_filter": "1",
            "netfilter/nf_conntrack_max": "262144",
            "netfilter/nf_conntrack_count": "17",
        },
        entries={
            Path("/"): Entry(stat.S_IFDIR | 0o755, 0),
            **{path: Entry(DIRECTORY, 0) for path in directories},
            **{path: Entry(FILE, 0) for path in files},
            places.key: Entry(SECRET, 0),
            Path("/etc/wireguard/tidegate0.conf"): None,
        },
        space={places.etc: Space(1 << 32, 100_000), places.run_directory: Space(1 << 30, None)},
        closed_chains=(),
        udp_ports=frozenset({51820, 68}),
        interface_is_ours=True,
        users={61001: "tidegate-forwarder"},
    )


KINDS = ("client", "gateway")


@pytest.mark.parametrize("kind", KINDS)
def test_a_host_in_order_has_no_problem(kind: str) -> None:
    found = checks.judge(healthy(kind))
    assert [one for one in found if one.level != "ok"] == []
    assert [one for one in found if one.mend] == []
    assert len({one.check for one in found}) >= 14


def changed(facts: Facts, name: str, value: object) -> Facts:
    """Return the facts with one changed; a mapping is added to."""
    before = getattr(facts, name)
    return replace(facts, **{name: {**before, **value} if isinstance(value, Mapping) else value})


KEY = Places("gateway").key
BAD: list[tuple[str, str, str, str, dict[str, Any], str]] = [
    # kind, check, level, a word of what is said, the facts, a word of the way to mend it
    ("gateway", "kernel", "fail", "5.4", {"kernel": (5, 4)}, "5.6"),
    ("gateway", "tool", "fail", "nft is not", {"tools": {"nft": Tool(None)}}, "apt install nftables"),
    ("client", "tool", "fail", "wg-quick is not", {"tools": {"wg-quick": Tool(None)}}, "wireguard-tools"),
    (
        *("client", "wireguard", "fail", "no wireguard-go"),
        {"tries": {"wireguard": Try(False, "Unknown device type.")}, "tools": {"wireguard-go": Tool(None)}},
        "apt install wireguard-go",
    ),
    (
        *("client", "wireguard", "warn", "not known"),
        {"tries": {"wireguard": Try(None, "ip is missing")}, "tools": {"wireguard-go": Tool(None)}},
        "ip link add",
    ),
    ("gateway", "tun", "fail", "no TUN", {"tries": {"tun": Try(False, "No such device")}}, "modprobe tun"),
    (
        *("client", "tun", "fail", "no TUN"),
        {"tries": {"tun": Try(False, "No such device"), "wireguard": Try(False, "none")}},
        "modprobe tun",
    ),
    ("gateway", "tun", "warn", "not known", {"tries": {"tun": Try(None, "no unshare")}}, "/dev/net/tun"),
    ("gateway", "nftables", "fail", "refused", {"tries": {"ruleset": Try(False, "no such")}}, "nf_tables"),
    ("gateway", "nftables", "warn", "not known", {"tries": {"ruleset": Try(None, "nft")}}, "mend"),
    (
        *("gateway", "conntrack", "fail", "cannot be listed"),
        {"tries": {"conntrack": Try(False, "Invalid argument")}},
        "nf_conntrack_netlink",
    ),
    (
        *("gateway", "conntrack", "warn", "room for 1024"),
        {"sysctls": {"netfilter/nf_conntrack_max": "1024"}},
        "nf_conntrack_max=262144",
    ),
    (
        *("gateway", "conntrack", "warn", "nearly full"),
        {"sysctls": {"netfilter/nf_conntrack_count": "250000"}},
        "nf_conntrack_max=524288",
    ),
    ("gateway", "libatomic", "fail", "libatomic", {"libatomic": False}, "apt install libatomic1"),
    ("client", "identity", "fail", "not there", {"identity_problem": "not there"}, "tidegate client init"),
    ("client", "key", "fail", "no private key", {"key_problem": "no private key"}, "tidegate client init"),
    (
        *("gateway", "key", "fail", "others may read"),
        {"key_problem": "others may read it", "entries": {KEY: Entry(stat.S_IFREG | 0o640, 0)}},
        "chmod 600",
    ),
    ("gateway", "settings", "fail", "mtu", {"settings_problem": "mtu: too small"}, "gateway.yaml"),
    (
        *("gateway", "permissions", "fail", "gateway.key may be read by others (0640)"),
        {"entries": {KEY: Entry(stat.S_IFREG | 0o640, 0)}},
        "chmod 600",
    ),
    (
        *("gateway", "permissions", "fail", "belongs to user 1000"),
        {"entries": {BUNDLES: Entry(DIRECTORY, 1000)}},
        f"chown root: {BUNDLES}",
    ),
    (
        *("client", "permissions", "fail", "written by others (0775)"),
        {"entries": {BUNDLES: Entry(stat.S_IFDIR | 0o775, 0)}},
        f"chmod go-w {BUNDLES}",
    ),
    ("gateway", "users", "warn", "'mallory'", {"users": {61001: "mallory"}}, "forwarder_uid=NUMBER"),
    (
        *("gateway", "space", "fail", "0 MiB free, 20 MiB are needed"),
        {"space": {Path("/run/tidegate"): Space(1000, None)}, "agent": None},
        "ring_records",
    ),
    ("client", "space", "fail", "1024 MiB free", {"space": {BUNDLES: Space(1 << 30, 0)}}, "make room"),
    ("client", "space", "warn", "20 MiB free", {"space": {BUNDLES: Space(20 << 20, 5000)}}, "make room"),
    ("client", "bundles", "warn", "not there", {"entries": {BUNDLES: None}}, "mkdir -p"),
    ("client", "release", "fail", "replayed", {"release_problem": "replayed: older"}, "publish again"),
    ("client", "release", "warn", "no release", {"not_after": None}, "tidegate publish"),
    ("client", "release", "warn", "ends on", {"not_after": NOW + 86400.0}, "publish again"),
    ("client", "memory", "fail", "unreadable", {"memory_problem": "unreadable"}, "client.json"),
    ("client", "clock", "fail", "1970-01-01", {"now": 60.0, "remembered": 0.0}, "set the clock"),
    (
        "client",
        "clock",
        "fail",
        "has seen 2027",
        {"remembered": NOW + 3600.0},
        "remove /var/lib/tidegate/client.json",
    ),
    ("client", "synchronisation", "warn", "nothing has told", {"synchronised": False}, "set-ntp"),
    ("gateway", "sysctls", "fail", "cannot be written", {"sysctls_writable": False}, "privileged"),
    (
        *("gateway", "ip_forward", "fail", "IPv4 is not forwarded"),
        {"sysctls": {"ipv4/ip_forward": "0"}},
        "sysctl -w net.ipv4.ip_forward=1",
    ),
    (
        *("gateway", "ip_forward", "fail", "IPv6 is not forwarded"),
        {"sysctls": {"ipv6/conf/all/forwarding": "0"}},
        "sysctl -w net.ipv6.conf.all.forwarding=1",
    ),
    (
        *("gateway", "accept_ra", "warn", "advertises"),
        {"uplinks": (Route(6, "eth0", "ra"),), "sysctls": {"ipv6/conf/eth0/accept_ra": "1"}},
        "net.ipv6.conf.eth0.accept_ra=2",
    ),
    (
        *("gateway", "rp_filter", "fail", "of tidegate-tun is strict"),
        {"sysctls": {"ipv4/conf/tidegate-tun/rp_filter": "0", "ipv4/conf/all/rp_filter": "1"}},
        "tidegate-tun.rp_filter=2",
    ),
    (
        *("gateway", "rp_filter", "fail", "no IPv4 address"),
        {"links": {"tidegate-tun": Link(1420, True, ("fe80::1",))}},
        "ip address add 192.0.0.8/32",
    ),
    (
        *("client", "rp_filter", "warn", "of eth0 is strict"),
        {"uplinks": (Route(4, "eth0"), Route(4, "wlan0"))},
        "eth0.rp_filter=2",
    ),
    ("client", "mtu", "warn", "1400 of eth0", {"links": {"eth0": Link(1400, True)}}, "mtu: 1320"),
    (
        "client",
        "interface",
        "fail",
        "another tool's",
        {"interface_is_ours": False},
        "ip link delete tidegate0",
    ),
    ("client", "interface", "warn", "no agent runs", {"agent": None}, "wg-quick down tidegate0"),
    (
        *("client", "interface", "warn", "wg-quick may bring up"),
        {"entries": {Path("/etc/wireguard/tidegate0.conf"): Entry(SECRET, 0)}},
        "remove /etc/wireguard/tidegate0.conf",
    ),
    ("gateway", "port", "fail", "51820 is in use", {"interface_is_ours": False}, "ss -lunp"),
    (
        *("gateway", "firewall", "warn", "table ip filter, chain FORWARD drops packets of clients"),
        {"closed_chains": (Chain("ip", "filter", "FORWARD", "forward"),)},
        "tidegate-tun",
    ),
    (
        *("gateway", "firewall", "warn", "chain input drops WireGuard's packets"),
        {"closed_chains": (Chain("inet", "mine", "input", "input"),)},
        "UDP port 51820",
    ),
    ("gateway", "firewall", "warn", "older iptables", {"legacy_tables": ("filter",)}, "iptables-legacy"),
]


@pytest.mark.parametrize(
    ("kind", "check", "level", "said", "facts", "mend"), BAD, ids=[f"{one[1]}-{one[3]}" for one in BAD]
)
def test_what_is_wrong_is_named_with_the_way_to_mend_it(
    kind: str, check: str, level: str, said: str, facts: dict[str, Any], mend: str
) -> None:
    host = healthy(kind)
    for name, value in facts.items():
        host = changed(host, name, value)
    wrong = [one for one in checks.judge(host) if one.level != "ok"]
    found = [one for one in wrong if one.check == check and said in one.what]
    assert [one.level for one in found] == [level], wrong
    assert mend in found[0].mend
    assert "\n" not in found[0].what + found[0].mend
    # The mode of the key concerns two checks; an interface without its agent is a thing of its own.
    assert {one.check for one in wrong} <= {check, "permissions", "interface"}


def test_everything_that_can_be_wrong_has_a_way_to_mend_it() -> None:
    for kind in KINDS:
        for *_, facts, _mend in BAD:
            host = healthy(kind)
            for name, value in facts.items():
                host = changed(host, name, value)
            assert [one for one in checks.judge(host) if (one.level == "ok") == bool(one.mend)] == []


@pytest.mark.parametrize(
    ("kind", "check", "facts", "said"),
    [
        ("client", "wireguard", {"tries": {"wireguard": Try(False, "none")}}, "wireguard-go"),
        ("client", "tun", {"tries": {"tun": Try(False, "none")}}, None),  # the kernel's WireGuard needs none
        ("gateway", "ip_forward", {"agent": None, "sysctls": {"ipv4/ip_forward": "0"}}, "switches it on"),
        ("gateway", "conntrack", {"sysctls": {"netfilter/nf_conntrack_max": ""}}, "comes with"),
        (
            "client",
            "firewall",
            {"closed_chains": (Chain("ip", "filter", "INPUT", "input"),)},
            "no other table",
        ),
        ("client", "permissions", {"entries": {Path("/tmp"): Entry(stat.S_IFDIR | 0o1777, 0)}}, "nobody"),
        ("gateway", "port", {"interface_is_ours": None}, "is WireGuard's"),  # it cannot be asked for its key
        ("client", "port", {"udp_ports": frozenset()}, None),
        (
            "gateway",
            "accept_ra",
            {"uplinks": (Route(6, "eth0", "ra"),), "sysctls": {"ipv6/conf/eth0/accept_ra": "2"}},
            None,
        ),
    ],
    ids=["userspace", "no-tun", "not-yet", "no-table-yet", "input", "sticky", "mute", "any-port", "accepted"],
)
def test_what_is_no_problem_is_not_called_one(
    kind: str, check: str, facts: dict[str, Any], said: str | None
) -> None:
    host = healthy(kind)
    for name, value in facts.items():
        host = changed(host, name, value)
    if check == "interface" or facts.get("agent", 1) is None:
        host = replace(host, links={"eth0": Link(1500, True)}, interface_is_ours=None, udp_ports=frozenset())
    found = checks.judge(host)
    assert [one for one in found if one.level != "ok"] == []
    of_it = " ".join(one.what for one in found if one.check == check)
    assert (said or "") in of_it
    assert bool(of_it) == (said is not None)


def test_every_fact_is_looked_at_by_a_check() -> None:
    names = {field.name for field in fields(Facts)}
    source = "".join(path.read_text() for path in Path(checks.__file__).parent.glob("*.py"))
    assert {name for name in names if f"facts.{name}" not in source} == set()


# What is read -----------------------------------------------------------------------------------------------------


def chain(name: str, policy: str, table: str = "filter", family: str = "ip") -> dict[str, Any]:
    hook = {"type": "filter", "hook": name.lower(), "prio": 0, "policy": policy}
    return {"chain": {"family": family, "table": table, "name": name, **hook}}


def rule(name: str, *expressions: dict[str, Any], table: str = "filter") -> dict[str, Any]:
    return {"rule": {"family": "ip", "table": table, "chain": name, "expr": list(expressions)}}


MATCH = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}
COUNT: dict[str, Any] = {"counter": {"packets": 0, "bytes": 0}}
ACCEPT, DROP, REJECT = ({word: None} for word in ("accept", "drop", "reject"))


@pytest.mark.parametrize(
    ("items", "closed"),
    [
        ([chain("FORWARD", "accept")], False),
        ([chain("FORWARD", "drop")], True),
        ([chain("FORWARD", "accept"), rule("FORWARD", COUNT, REJECT)], True),
        ([chain("FORWARD", "accept"), rule("FORWARD", MATCH, DROP)], False),
        ([chain("FORWARD", "accept"), rule("FORWARD", DROP), rule("FORWARD", MATCH, ACCEPT)], False),
        ([chain("FORWARD", "drop", "tidegate", "inet")], False),
        ([chain("FORWARD", "drop", family="bridge")], False),
        ([{"chain": {"family": "ip", "table": "filter", "name": "mine"}}, rule("mine", DROP)], False),
    ],
    ids=["open", "policy", "last-rule", "with-a-condition", "not-last", "ours", "of-frames", "no-base-chain"],
)
def test_a_chain_that_drops_the_rest_is_seen(items: list[dict[str, Any]], closed: bool) -> None:
    assert read.closed_chains(items) == ((Chain("ip", "filter", "FORWARD", "forward"),) if closed else ())


# The command ------------------------------------------------------------------------------------------------------


def places(tmp_path: Path) -> list[str]:
    words = {"--etc": "etc", "--state-dir": "state", "--run-dir": "run", "--bundles": "bundles"}
    return [word for option, name in words.items() for word in (option, str(tmp_path / name))]


def test_without_an_identity_it_asks_which_kind(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for content in (None, b"{", b"[]", b'{"kind": "router"}'):
        (tmp_path / "etc").mkdir(exist_ok=True)
        if content is not None:
            (tmp_path / "etc/identity.json").write_bytes(content)
        assert cli.run(["doctor", *places(tmp_path)]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        assert "give --kind client or gateway" in err or "run it as root" in err


@pytest.mark.parametrize("kind", KINDS)
def test_it_names_what_is_missing_and_exits_with_1(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cli.run(["doctor", "--kind", kind, "--json", *places(tmp_path)]) == 1
    out, err = capfd.readouterr()
    assert err == ""
    found = json.loads(out)
    assert (found["format"], found["kind"]) == (1, kind)
    failed = [one for one in found["checks"] if one["level"] == "fail"]
    assert found["problems"] == len(failed)
    said = " ".join(one["what"] for one in failed)
    for word in ("wg is not on PATH", "ip is not on PATH", "identity.json: not there"):
        assert word in said
    assert list(tmp_path.iterdir()) == []  # nothing was made


def test_it_is_for_root(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert cli.run(["doctor", "--kind", "client"]) == 1
    assert capfd.readouterr().err.startswith(
        "tidegate: the host's key, rules and interfaces are for root to see"
    )
