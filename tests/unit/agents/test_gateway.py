"""What a gateway should be: its bundle, its ruleset, and how it treats its children."""

from __future__ import annotations

import ipaddress
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sandbox
from tidegate_agents.bundles import Accepted
from tidegate_agents.gateway import desired, nft, processes, ruleset
from tidegate_agents.gateway.desired import GatewayBundle, read_bundle
from tidegate_agents.gateway.processes import Backoff, Child
from tidegate_agents.settings import defaults
from tidegate_agents.wireguard import PeerConfig
from tidegate_schema import jsonfile
from tidegate_schema.policy import Reason
from tidegate_schema.release import ReleaseError, files_digest
from unit.agents.kit import GATEWAY, NOW, id_of, key, peers, policy, raw, statement, until

GOOD = peers(alice=["10.64.0.11/32", "fd64::11/128"], bob=["10.64.0.12/32"])
RULES = policy(alice=[{"to": ["10.20.0.0/16"], "ports": ["tcp/443"]}])


def accepted(peers_document: Any, policy_document: Any = None) -> Accepted:
    def encode(document: Any) -> bytes:
        return document if isinstance(document, bytes) else jsonfile.canonical(document)

    files = {"peers.json": encode(peers_document)}
    if policy_document is not None:
        files["policy.json"] = encode(policy_document)
    made = statement(GATEWAY, files)
    return Accepted(made, files_digest(made.files), files)


def refusal(peers_document: Any, policy_document: Any = None) -> str:
    with pytest.raises(ReleaseError) as caught:
        read_bundle(accepted(peers_document, policy_document))
    assert caught.value.name == "invalid-bundle"
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    return str(caught.value)


def changed(**fields: Any) -> dict[str, Any]:
    """Return the good peers with fields of the first one replaced."""
    document: dict[str, Any] = json.loads(json.dumps(GOOD))
    document["peers"][0] |= fields
    return document


def test_a_bundle_s_peers_and_clients() -> None:
    bundle = read_bundle(accepted(GOOD, RULES))
    assert bundle.peers == {
        key("alice"): PeerConfig(frozenset({"10.64.0.11/32", "fd64::11/128"})),
        key("bob"): PeerConfig(frozenset({"10.64.0.12/32"})),
    }
    assert bundle.clients == {
        raw("10.64.0.11"): id_of("alice"), raw("fd64::11"): id_of("alice"), raw("10.64.0.12"): id_of("bob"),
    }  # fmt: skip
    verdict = bundle.policy.decide(id_of("alice"), raw("10.20.0.1"), 6, 443, NOW)
    assert verdict.allow


def test_a_bundle_without_policy_denies_all() -> None:
    bundle = read_bundle(accepted(GOOD))
    tables = bundle.tables(3, True, 5.0)
    assert tables.policy.decide(id_of("alice"), raw("10.20.0.1"), 6, 443, NOW).reason is Reason.NO_POLICY
    assert (tables.generation, tables.enforce, tables.not_earlier_than) == (3, True, 5.0)
    assert GatewayBundle().peers == {}
    assert not GatewayBundle().policy.decide(id_of("alice"), raw("10.20.0.1"), 6, 443, NOW).allow


def test_a_rule_that_would_open_after_the_release_s_end_does_not() -> None:
    late = {"to": ["10.20.0.80/32"], "ports": ["any"], "not_before": NOW + 1000}
    bundle = read_bundle(accepted(peers(alice=["10.64.0.11/32"]), policy(alice=[late])))
    asked = (raw("10.64.0.11"), raw("10.20.0.80"), 6, 443, NOW + 2000)
    assert bundle.allows(*asked) is False
    early = late | {"not_before": NOW + 999}
    assert read_bundle(accepted(peers(alice=["10.64.0.11/32"]), policy(alice=[early]))).allows(*asked)


def test_a_bundle_of_nobody_is_valid() -> None:
    assert read_bundle(accepted({"format": 1, "peers": []})).peers == {}


@pytest.mark.parametrize(
    ("document", "said"),
    [
        (b"", "peers.json: line 1"),
        (b"\xff", "peers.json: not UTF-8"),
        (b"[" * 100_000, "peers.json: nested"),
        ([], "peers.json"),
        ({}, "peers.json"),
        ({"format": 2, "peers": []}, "format"),
        ({"format": 1, "peers": [], "authz_mode": "observe"}, "authz_mode"),
        ({"format": 1, "peers": [], "logging_enabled": True}, "logging_enabled"),
        (changed(private_key="x"), "private_key"),
        (changed(client_id=id_of("mallory")), "is not the client ID of its public key"),
        (changed(client_id=id_of("alice").upper()), "client_id"),
        (changed(client_id=id_of("alice") + "\n"), "client_id"),
        (changed(public_key=key("mallory")), "is not the client ID of its public key"),
        (changed(public_key="A" * 43 + "="), "low-order"),
        (changed(public_key=key("x")[:-2] + "B="), "canonical|client ID"),
        (changed(allowed_ips=[]), "allowed_ips"),
        (changed(allowed_ips=["10.64.0.0/24"]), "not one address"),
        (changed(allowed_ips=["0.0.0.0/0"]), "not one address"),
        (changed(allowed_ips=["fd64::/64"]), "not one address"),
        (changed(allowed_ips=["10.64.0.1/24"]), "host bits"),
        (changed(allowed_ips=["10.64.0.1/33"]), "does not appear"),
        (changed(allowed_ips=["fd64:0::11/128"]), "canonical form"),
        (changed(allowed_ips=["FD64::11/128"]), "allowed_ips"),
        (changed(allowed_ips=["fe80::1%eth0/128"]), "allowed_ips"),
        (changed(allowed_ips=["10.64.0.11"]), "allowed_ips"),
        (changed(allowed_ips=["10.64.0.11/32", "10.64.0.11/32"]), "allowed_ips"),
        (changed(allowed_ips=["...../32"]), "....."),
        ({"format": 1, "peers": GOOD["peers"] * 2}, "stands twice"),
        (
            {"format": 1, "peers": [GOOD["peers"][0], *peers(zoe=GOOD["peers"][0]["allowed_ips"])["peers"]]},
            "two peers claim one address",
        ),
    ],
)
def test_peers_that_contradict_their_format_are_refused(document: Any, said: str) -> None:
    assert any(word in refusal(document) for word in said.split("|"))


@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"null",
        {},
        RULES | {"format": 2},
        RULES | {"authz_mode": "observe"},
        RULES | {"sets": [[7]]},
        RULES | {"sets": [[0.0]]},
        RULES | {"clients": {id_of("alice"): 9}},
        RULES | {"clients": {"alice": 0}},
        policy(alice=[{"to": ["10.20.0.1/16"], "ports": ["any"]}]),
        policy(alice=[{"to": ["10.20.0.0/99"], "ports": ["any"]}]),
        policy(alice=[{"to": [], "ports": ["any"]}]),
        policy(alice=[{"to": ["::/0"], "ports": []}]),
        policy(alice=[{"to": ["::/0"], "ports": ["tcp/9-1"]}]),
        policy(alice=[{"to": ["::/0"], "ports": ["proto/999"]}]),
        policy(alice=[{"to": ["::/0"], "ports": ["any"], "action": "permit"}]),
        policy(alice=[{"to": ["::/0"], "ports": ["any"], "expires": "2030"}]),
        policy(alice=[{"to": ["::/0"], "ports": ["any"], "expires": 1e3}]),
    ],
)
def test_a_policy_that_contradicts_its_format_is_refused(document: Any) -> None:
    refusal(GOOD, document)


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.sampled_from(["peers", "policy"]))
def test_any_bytes_are_a_bundle_or_refused(data: bytes, where: str) -> None:
    refusal(data) if where == "peers" else refusal(GOOD, data)


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(0, 40), max_size=20), st.sets(st.integers(0, 40), max_size=20))
def test_routes_cover_exactly_the_peers_addresses(fours: set[int], sixes: set[int]) -> None:
    addresses = [f"10.64.0.{n}/32" for n in fours] + [f"fd64::{n:x}/128" for n in sixes]
    bundle = GatewayBundle(clients={raw(a.partition("/")[0]): id_of(a) for a in addresses})
    covered = {str(ip) for prefix in bundle.routes for ip in ipaddress.ip_network(prefix)}
    assert covered == {str(ipaddress.ip_network(a).network_address) for a in addresses}


@settings(deadline=None, max_examples=500)
@given(
    st.one_of(
        st.from_regex(r"[0-9a-f:.]{2,45}/[0-9]{1,3}", fullmatch=True),
        st.ip_addresses().map(lambda ip: f"{ip}/{ip.max_prefixlen}"),
        st.builds("::ffff:{}/128".format, st.ip_addresses(v=4)),
        st.builds("::{}/128".format, st.ip_addresses(v=4)),
        st.binary(max_size=4).map(lambda end: f"{ipaddress.IPv6Address(end.rjust(16, bytes(1)))}/128"),
    )
)
def test_an_address_is_read_quickly_as_by_the_book(text: str) -> None:
    def outcome(read: Callable[[str], bytes]) -> bytes | None:
        try:
            return read(text)
        except ValueError:
            return None

    assert outcome(desired._address) == outcome(desired._address_by_the_book)


@pytest.mark.parametrize("number", ["1.0", "1e0", "10E-1", " \t1.0"])
def test_a_number_with_a_fraction_is_no_integer(number: str) -> None:
    text = f'{{"clients":{{}},"format":1,"rules":[],"sets":[[{number}]]}}'.encode()
    with pytest.raises(ReleaseError, match="sets"):
        read_bundle(accepted(GOOD, text))


# The ruleset --------------------------------------------------------------------------------------------------

SETTINGS = defaults("gateway")
PACKETS_LOGGED = {"logging_enabled": True, "log_granularity": "packet"}
MASQUERADED = SETTINGS | {"masquerade": ["eth0", "inside-1"]}
UNCACHED = SETTINGS | {"flow_cache": False}
UNLIMITED = SETTINGS | dict.fromkeys(("client_upcalls", "client_flows", "client_connections"), 0)
VARIANTS = [
    (chosen, enforce, bypass)
    for chosen in (SETTINGS, MASQUERADED, UNCACHED, UNLIMITED)
    for enforce, bypass in ((True, False), (False, False), (False, True))
]


def rules(text: str, chain: str) -> list[str]:
    """Return the rules of one chain, without its hook."""
    inside = text.split(f" chain {chain} {{\n")[1].split("\n }")[0]
    return [line.strip() for line in inside.splitlines() if "hook" not in line]


@pytest.mark.parametrize("chosen", [SETTINGS, MASQUERADED, UNCACHED])
@pytest.mark.parametrize("bypass", [True, False])
def test_in_observe_no_rule_drops(chosen: dict[str, Any], bypass: bool) -> None:
    text = ruleset.render(chosen, enforce=False, bypass=bypass)
    assert not any(word in text for word in ("drop", "reject", "queue", "limit"))
    assert all("policy accept;" in line for line in text.splitlines() if "hook" in line)
    assert "chain input" not in text
    assert ("notrack" in text) != bypass


@pytest.mark.parametrize("chosen", [SETTINGS, UNCACHED])
def test_in_enforce_what_comes_from_wireguard_goes_into_the_tun_or_nowhere(chosen: dict[str, Any]) -> None:
    text = ruleset.render(chosen, enforce=True)
    forward = rules(text, "forward")
    wg, tun = '"tidegate0"', '"tidegate-tun"'
    known = f"meta mark 0x7401 oifname != {wg} oifname != {tun} ct mark 0x74000001 accept"
    shortcut = [known] if chosen is SETTINGS else []
    assert forward[:-2] == [*shortcut, f"iifname {wg} goto from_client", f"iifname {tun} goto allowed"]
    approve = "ct mark != 0x74000001 ct direction original ct mark set 0x74000001"
    own = [f"oifname {link} counter drop" for link in (wg, tun)]
    assert any("mark set 0x7401" in rule for rule in rules(text, "inner")) is (chosen is SETTINGS)
    assert rules(text, "inner")[-1] == "notrack meta mark set 0x7400 counter"
    # Without flows nothing is marked so any more, but a packet of the rules before may still be on its way to here.
    into_tun = f"meta mark 0x7400 oifname {tun} accept"
    assert rules(text, "from_client") == ["meta mark 0x7401 goto known", into_tun, "counter drop"]
    assert rules(text, "known") == [*own, approve, "accept"]
    # Nothing reaches a client but answers to what was approved, and nothing goes from client to client.
    assert forward[-1] == f"oifname {{ {wg}, {tun} }} counter drop"
    (to_wg,) = [rule for rule in forward if rule.startswith(f"oifname {wg}")]
    assert "ct mark @live" in to_wg
    assert "established" in to_wg
    assert rules(text, "input") == [f"iifname {{ {wg}, {tun} }} counter drop"]
    assert rules(text, "output")[-1] == f"oifname {{ {wg}, {tun} }} counter drop"
    allowed = rules(text, "allowed")
    unlimited = [rule for rule in allowed if "name limit_" not in rule and "goto crowded" not in rule]
    assert (unlimited[:2], unlimited[4], unlimited[-1]) == (own, f"{approve} counter", "accept")
    assert all("icmp" in rule and "ct state != related" in rule for rule in allowed[2:4])
    remember = [rule for rule in allowed if "update @flows" in rule]
    assert len(remember) == (2 if chosen is SETTINGS else 0)
    assert all(allowed.index(rule) > allowed.index("ct status dnat accept") for rule in remember)


def test_limits_stop_before_what_they_protect() -> None:
    text = ruleset.render(SETTINGS, enforce=True)
    inner, allowed = rules(text, "inner"), rules(text, "allowed")

    def at(found: list[str], word: str) -> list[int]:
        return [number for number, rule in enumerate(found) if word in rule]

    assert len(at(inner, "limit_upcalls drop")) == len(at(inner, "denied_again drop")) == 2
    assert max(at(inner, "limit_upcalls drop")) < inner.index("notrack meta mark set 0x7400 counter")
    # What is known goes on whatever its client has used up.
    assert max(at(inner, "@flows")) < min(at(inner, "denied"))
    (approve,) = at(allowed, "ct mark set")
    assert max(at(allowed, "goto crowded")) < approve
    assert rules(text, "crowded")[-1] == "counter name limit_connections drop"
    assert max(at(inner, "limit_upcalls drop")) < min(at(inner, "@crowded"))
    assert max(at(inner, "@crowded")) < inner.index("notrack meta mark set 0x7400 counter")
    assert max(at(allowed, "limit_flows accept")) < min(at(allowed, "update @flows"))
    assert rules(text, "denied")[-1] == "drop"


@pytest.mark.parametrize(
    ("changed", "enforce"), [({}, False), ({"flow_cache": False}, True), (PACKETS_LOGGED, True)]
)
def test_nobody_is_limited_in_observe_or_while_every_packet_crosses(
    changed: dict[str, Any], enforce: bool
) -> None:
    settings = SETTINGS | changed
    assert not ruleset.has_limits(settings, enforce=enforce)
    assert "limit" not in ruleset.render(settings, enforce=enforce)
    assert "denied4" not in ruleset.render(settings, enforce=enforce)
    # A forwarder from before the change may still write what it denies.
    assert ('iifname "tidegate-denied" drop' in ruleset.render(settings, enforce=enforce)) == enforce


def test_a_limit_of_0_is_none() -> None:
    text = ruleset.render(UNLIMITED, enforce=True)
    assert "limit rate" not in text
    assert "ct count" not in text
    assert "crowded" not in text
    assert "denied_again drop" in text


@pytest.mark.parametrize("enforce", [True, False])
@pytest.mark.parametrize("chosen", [SETTINGS, UNCACHED])
def test_raw_marks_and_does_not_track_but_flows_that_are_remembered(
    chosen: dict[str, Any], enforce: bool
) -> None:
    text = ruleset.render(chosen, enforce=enforce)
    denied, forged = (
        f'iifname "tidegate-denied" {"goto denied" if chosen is SETTINGS else "drop"}',
        "fib saddr",
    )
    raw_rules = rules(text, "raw")
    assert raw_rules[:2] == ['iifname "tidegate0" goto inner', 'iifname "tidegate-tun" accept']
    assert raw_rules[2:] == ([denied, f'{forged} oifname "tidegate0" counter drop'] if enforce else [])
    inner = [rule for rule in rules(text, "inner") if "limit" not in rule and "denied" not in rule]
    assert inner[-2:] == [
        "fib daddr type { local, broadcast, multicast } accept",
        "notrack meta mark set 0x7400 counter",
    ]
    hits = inner[:-2]
    assert len(hits) == (2 if chosen is SETTINGS else 0)
    assert all(rule.startswith("ip") and "@flows" in rule and "mark set 0x7401" in rule for rule in hits)


def test_the_kernel_remembers_no_flow_while_packets_are_logged_or_no_forwarder_reads() -> None:
    logged = SETTINGS | PACKETS_LOGGED
    assert not ruleset.has_flows(logged)
    for text in (
        ruleset.render(logged, enforce=True),
        ruleset.render(UNCACHED, enforce=True),
        ruleset.render(SETTINGS, enforce=False, bypass=True),
    ):
        assert "flows4" not in text
    assert "flows4" in ruleset.render(SETTINGS, enforce=False)
    assert ruleset.has_flows(SETTINGS | {"logging_enabled": True})  # by flow


def test_enforce_cannot_be_bypassed() -> None:
    with pytest.raises(AssertionError):
        ruleset.render(SETTINGS, enforce=True, bypass=True)


@pytest.mark.parametrize(("chosen", "enforce", "bypass"), VARIANTS)
def test_a_ruleset_replaces_its_own_table_and_touches_no_other(
    chosen: dict[str, Any], enforce: bool, bypass: bool
) -> None:
    lines = ruleset.render(chosen, enforce=enforce, bypass=bypass).splitlines()
    assert lines[:3] == ["table inet tidegate", "delete table inet tidegate", "table inet tidegate {"]
    assert [line for line in lines if "table" in line] == lines[:3]
    assert "flush" not in "".join(lines)


LISTING = """table ip other {
	chain a {
		tcp dport 22 accept
	}
}
table inet tidegate {
	set flows4 {
		size 262144	# count 17
		flags dynamic,timeout
	}
}
table inet tidegate2 {
}
"""


def test_our_table_is_told_from_others_and_from_what_changes_by_itself() -> None:
    found = nft.own_table(LISTING)
    assert found.startswith("table inet tidegate {\n\tset flows4 {\n\t\tsize 262144\n")
    assert found.endswith("\n\t}\n}")
    assert nft.own_table(LISTING.replace("# count 17", "# count 18")) == found
    assert nft.own_table(LISTING.replace("dynamic,timeout", "timeout")) != found
    assert nft.own_table(LISTING.replace("inet tidegate {", "inet tidegate3 {")) == ""


@pytest.mark.needs_tools("nft")
@pytest.mark.parametrize(("chosen", "enforce", "bypass"), VARIANTS)
def test_nft_accepts_it(chosen: dict[str, Any], enforce: bool, bypass: bool) -> None:
    reason = sandbox.why_not()
    if reason is not None:
        pytest.skip(f"needs a network namespace ({reason})")
    named = chosen | {"interface": "wg-x", "tun": "t0", "mark": 0xFFFFFFFE}
    for settings_ in (chosen, named):
        text = ruleset.render(settings_, enforce=enforce, bypass=bypass)
        command = [*sandbox.sandbox_prefix(), "nft", "-c", "-f", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


# Children -----------------------------------------------------------------------------------------------------


def test_a_child_that_keeps_ending_is_started_at_once_then_ever_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(processes.time, "monotonic", lambda: now)
    backoff = Backoff()
    assert backoff.not_before <= now
    waits = []
    for _ in range(9):
        backoff.after_death(0.01)
        waits.append(round(backoff.not_before - now, 6))
    assert waits == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    backoff.after_death(10.0)  # it had lived long enough
    assert backoff.not_before == now
    backoff.after_death(9.9)
    assert backoff.not_before == now + 0.1


def test_a_child_is_stopped_and_reaped() -> None:
    child = Child(["sleep", "60"])
    assert not child.ended()
    child.stop()
    assert child.ended()
    child.stop()  # again does no harm
    child.close()


def test_a_child_that_does_not_listen_is_killed() -> None:
    child = Child(["sh", "-c", "trap '' TERM; echo; while :; do sleep 0.05; done"])
    child.stop(0.2)
    assert child.ended()
    child.close()


def test_a_child_inherits_what_it_is_handed_and_nothing_else(tmp_path: Any) -> None:
    seen = tmp_path / "seen"
    with (tmp_path / "one").open("w") as one, (tmp_path / "two").open("w"):
        child = Child(["sh", "-c", f"ls -l /proc/self/fd > {seen}"], pass_fds=[one.fileno()])
        until("it has ended", child.ended)
        child.close()
    text = seen.read_text()
    assert "/one" in text
    assert "/two" not in text
