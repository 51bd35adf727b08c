"""What would have allowed a denied packet: near misses with their places, and changes that suffice when made."""

from __future__ import annotations

import ipaddress
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings

from compilerkit import client, compiled, gateway, inventory, policy
from tidegate_compiler.advice import advise as module
from tidegate_compiler.advice.advise import MOST_CHANGES, MOST_NEAR, Advice, advise
from tidegate_compiler.advice.changes import Change
from tidegate_compiler.advice.document import Places, document, lines
from tidegate_compiler.advice.near import fit
from tidegate_compiler.judge import Packet, court, judge, packet
from tidegate_compiler.model import Inventory
from tidegate_compiler.pipeline import Compiled, compile_files
from tidegate_compiler.resolve import Fleet
from tidegate_compiler.times import parse_instant
from tidegate_schema.cli import run
from universekit import ADDRESSES, MOMENTS, universes

WEB = {"web": {"addresses": ["10.20.0.80/32"], "ports": ["tcp/80", "icmp"]}}


def suffices(change: Change, found: Advice, whole: Inventory, asked: Packet) -> bool:
    """Make a change in the whole inventory, and judge what comes of compiling that."""
    lifted = {one.name for one in found.denied_by}
    policies = {name: one for name, one in whole.policies.items() if name not in lifted}
    after = replace(change.after, policies={**policies, **change.after.policies})
    return judge(court(Fleet(after)), asked).allow


def advice(
    files: dict[str, bytes],
    to: str = "10.20.0.80",
    port: str = "tcp/22",
    name: str = "alice",
    at: str = "2027-01-01",
) -> Advice:
    """Return the advice; every change of it suffices when the whole inventory is compiled with it."""
    made = compiled(files)
    over = court(made.fleet)
    asked = packet(name, ipaddress.ip_address(to), port, parse_instant(at))
    found = advise(made.inventory, asked, port, judge(over, asked), Places("inv"))
    assert all(suffices(change, found, made.inventory, asked) for change in found.changes)
    return found


def near(*args: Any, **kinds: Any) -> list[tuple[str, str, str]]:
    return [(one.policy.name, one.missing, one.message) for one in advice(*args, **kinds).near]


def texts(found: Advice) -> list[str]:
    return [change.text for change in found.changes]


def test_a_packet_that_is_allowed_needs_no_advice() -> None:
    assert advice(inventory(policies={"p": policy()})) == Advice()


def test_the_wrong_port_tells_the_ports_and_whoever_leaves_it_out_is_given_it() -> None:
    on_resource = inventory(
        resources=WEB, policies={"p": {"from": ["client:alice"], "to": ["resource:web"], "action": "allow"}}
    )
    assert near(on_resource) == [("p", "port", "it allows icmp, tcp/80 there")]
    assert texts(advice(on_resource)) == [
        "add tcp/22 to 'ports' of resource web",
        "add a policy for this packet alone",
    ]
    on_policy = inventory(policies={"p": policy(ports=["tcp/80"])})
    assert texts(advice(on_policy))[0] == "add tcp/22 to 'ports' of policy p"
    on_both = inventory(resources=WEB, policies={"p": policy(to="resource:web", ports=["tcp/80"])})
    assert texts(advice(on_both))[0] == (
        "add tcp/22 to 'ports' of policy p and add tcp/22 to 'ports' of resource web (inv/resources/all.yaml:1)"
    )


def test_a_client_that_is_not_named_is_told_the_groups_and_where_they_are() -> None:
    files = inventory(groups={"g": {"members": ["bob"]}}, policies={"p": policy(["group:g", "client:bob"])})
    told = "the client is not in its 'from': group:g (inv/groups/all.yaml:1), client:bob"
    assert near(files) == [("p", "client", told)]
    assert texts(advice(files))[:2] == [
        "add client:alice to 'from' of policy p",
        "add alice to 'members' of group g, which other policies may name, too",
    ]


def test_outside_the_window_is_told_with_the_policys_or_the_memberships_time() -> None:
    late = inventory(policies={"p": policy(expires="2026-06-30")})
    assert near(late) == [("p", "time", "it ended at 2026-06-30T00:00:00Z")]
    assert texts(advice(late))[0] == "let 'expires' of policy p be after 2027-01-01T00:00:00Z"
    early = inventory(policies={"p": policy(not_before="2028-06-30")})
    assert near(early) == [("p", "time", "it begins at 2028-06-30T00:00:00Z")]
    assert texts(advice(early))[0] == "let 'not_before' of policy p be at or before 2027-01-01T00:00:00Z"
    for field, verb, day in (("expires", "ended", "2026-01-31"), ("not_before", "begins", "2027-01-31")):
        group = {"g": {"members": ["alice"], field: {"alice": day}}}
        files = inventory(groups=group, policies={"p": policy("group:g")})
        told = f"the client's membership (inv/groups/all.yaml:1) {verb} at {day}T00:00:00Z"
        assert near(files) == [("p", "time", told)]
        assert texts(advice(files))[0].startswith(f"let '{field}' of alice in group g be ")


def test_the_other_family_is_told_as_such() -> None:
    files = inventory(resources=WEB, policies={"p": policy(to="resource:web", ports=["tcp/22", "tcp/80"])})
    assert near(files, "fd20::80", "tcp/80") == [("p", "family", "it names only IPv4 destinations")]
    assert texts(advice(files, "fd20::80", "tcp/80")) == [
        "add fd20::80/128 to 'to' of policy p",
        "add fd20::80/128 to 'addresses' of resource web",
        "add a policy for this packet alone",
    ]


def test_another_destination_tells_the_nearest_prefixes_first() -> None:
    rules = {"a": policy(to="10.20.128.0/24"), "b": policy(to=["10.20.200.0/24", "10.20.1.0/24"])}
    assert near(inventory(policies=rules), "10.20.2.1") == [
        ("b", "destination", "the destination is not in its 'to': 10.20.1.0/24, 10.20.200.0/24"),
        ("a", "destination", "the destination is not in its 'to': 10.20.128.0/24"),
    ]


def test_a_policy_that_lacks_two_things_is_not_near() -> None:
    assert near(inventory(policies={"p": policy("client:bob", ports=["tcp/80"])})) == []


def test_a_deny_is_named_with_what_would_allow_it_all_the_same() -> None:
    rules = {
        "yes": policy(),
        "no": policy(action="deny", to="10.20.0.80/32", ports=["tcp/22"]),
        "never": policy("all-clients", "10.20.0.0/24", action="deny", ports=["tcp/1-100"]),
    }
    found = advice(inventory(policies=rules))
    assert [one.name for one in found.denied_by] == ["never", "no"]
    assert [one.name for one in found.allowed_by] == ["yes"]
    assert texts(found) == ["narrow deny policy never (inv/policies/all.yaml:1), and narrow deny policy no"]
    del rules["yes"]
    found = advice(inventory(policies=rules))
    assert found.allowed_by == ()
    assert texts(found)[0].endswith(
        "narrow deny policy no (inv/policies/all.yaml:1), and add a policy for this packet alone"
    )


def test_no_route_is_told_with_its_reason_and_what_would_make_one() -> None:
    gateways = gateway("gw") | gateway("far", "10.30.0.0/16")
    four = client("alice", 11, families=(4,))
    files = inventory(
        gateways=gateways, clients=four, policies={"p": policy(to=["10.30.0.0/16", "fd20::/48"])}
    )
    found = advice(files, "10.30.0.1")
    assert found.route == "client alice (inv/clients/all.yaml:1) does not list far (inv/gateways/all.yaml:1)"
    assert texts(found) == ["add far to 'gateways' of client alice"]
    found = advice(files, "fd20::1")
    assert found.route == "client alice (inv/clients/all.yaml:1) has no IPv6 address"
    assert texts(found) == ["add an IPv6 address of the overlay to 'addresses' of client alice"]
    found = advice(files, "10.40.0.1")
    assert (found.route, found.changes) == ("no gateway has a network with 10.40.0.1", ())
    nothing = inventory(gateways=gateways, clients=four, policies={})
    assert texts(advice(nothing, "10.30.0.1")) == [
        "add far to 'gateways' of client alice (inv/clients/all.yaml:1), and add a policy for this packet alone"
    ]


def test_it_is_bounded_and_says_what_it_left_out() -> None:
    rules = {f"p{n:02}": policy("client:bob") for n in range(40)}
    found = advice(inventory(policies=rules))
    assert (len(found.near), found.near_total, len(found.changes)) == (MOST_NEAR, 40, MOST_CHANGES)
    assert [one.policy.name for one in found.near] == [f"p{n:02}" for n in range(MOST_NEAR)]
    told = list(lines({"verdict": "deny", **document(found, Places("inv"))}))
    assert "           and 35 more policies lack one thing" in told


def test_a_change_that_does_not_suffice_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prefix needs ports, and a policy whose resources say them has none of its own."""
    files = inventory(
        resources=WEB, policies={"p": {"from": ["client:alice"], "to": ["resource:web"], "action": "allow"}}
    )
    kept = texts(advice(files, "10.20.0.81", "tcp/80"))
    assert kept == ["add 10.20.0.81/32 to 'addresses' of resource web", "add a policy for this packet alone"]
    made = compiled(files)
    asked = packet("alice", ipaddress.ip_address("10.20.0.81"), "tcp/80", 0)
    monkeypatch.setattr(module.changes, "proven", lambda *_: True)
    offered = advise(made.inventory, asked, "tcp/80", judge(court(made.fleet), asked), Places("inv"))
    assert "add 10.20.0.81/32 to 'to' of policy p" in texts(offered)


def test_the_policy_it_writes_works_when_it_is_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = inventory(policies={"alice-tcp-22": policy("client:bob", "fd20::9/128")})
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    question = ["explain", str(tmp_path), "alice", "fd20::80", "tcp/22"]
    assert run([*question, "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert told["near"] == []
    (change,) = told["changes"]
    assert change["yaml"].startswith("alice-tcp-22-2:\n")
    (tmp_path / "policies" / "new.yaml").write_text(change["yaml"])
    assert run(question) == 0
    out = capsys.readouterr().out
    assert "policy   alice-tcp-22-2" in out
    assert "to allow" not in out


def test_places_are_printable_whatever_files_are_called(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = inventory(groups={"g": {"members": ["bob"]}}, policies={"p": policy("group:g")})
    for path, data in files.items():
        name = path.replace("all", "a\x1b[2J\u202e\n") if path.startswith(("policies", "groups")) else path
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert run(["explain", str(tmp_path), "alice", "10.20.0.80", "tcp/22"]) == 3
    assert all(line.isprintable() for line in capsys.readouterr().out.splitlines())


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow]
)
@given(universes())
def test_every_change_suffices_and_the_words_agree_with_the_verdict(raw: dict[str, Any]) -> None:
    made = compile_files(inventory(**raw))
    assume(isinstance(made, Compiled))
    assert isinstance(made, Compiled)
    over = court(made.fleet)
    for name, to in itertools.product(raw["clients"], ADDRESSES[::4]):
        for port, now in (("tcp/85", MOMENTS[2]), ("icmp", MOMENTS[-1])):
            asked = packet(name, ipaddress.ip_address(to), port, now)
            judgement = judge(over, asked)
            found = advise(made.inventory, asked, port, judgement, Places("inv"))
            matching = [
                one.action
                for one in made.inventory.policies.values()
                if not fit(made.inventory, one, asked).missing
            ]
            if judgement.route is not None:
                assert judgement.allow == (set(matching) == {"allow"})
                assert bool(found.changes) != judgement.allow
            assert all(suffices(change, found, made.inventory, asked) for change in found.changes)


def test_every_place_is_exact_whichever_way_its_file_was_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The fast way of reading knows where a group begins; the time of a membership stands lines below."""
    for path, data in inventory(resources=WEB).items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    (tmp_path / "groups").mkdir()
    (tmp_path / "policies").mkdir()
    (tmp_path / "groups/g.yaml").write_text("g:\n  members: [alice]\n  expires:\n    alice: 2026-01-01\n")
    (tmp_path / "policies/p.yaml").write_text(
        "p:\n  from: [group:g]\n  to: [resource:web]\n  action: allow\n"
        "q:\n  from: [client:alice]\n  to: [resource:web]\n  action: allow\n  expires: 2026-01-01\n"
    )
    asked = ["explain", str(tmp_path), "alice", "10.20.0.80", "tcp/80", "--at", "2027-01-01"]
    assert run([*asked, "--json"]) == 3
    told = json.loads(capsys.readouterr().out)
    assert (
        f"({tmp_path}/groups/g.yaml:4)"
        in next(one for one in told["near"] if one["policy"] == "p")["message"]
    )
    assert {(one["file"], one["line"]) for one in told["changes"] if one["file"]} == {
        (f"{tmp_path}/groups/g.yaml", 4),
        (f"{tmp_path}/policies/p.yaml", 9),
    }
