"""Access tests about many packets, what covers a policy, and the JUnit file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from compilerkit import client, compiled, gateway, inventory, policy
from tidegate_compiler import accesstests, junit
from tidegate_compiler.accesstests import Report
from tidegate_compiler.reach import Reach
from tidegate_compiler.times import parse_instant
from tidegate_schema.cli import run

NOW = parse_instant("2027-01-01")
WEB = {"web": {"addresses": ["10.20.0.80/32", "10.20.7.0/28"], "ports": ["tcp/80"]}}


def report(*tests: dict[str, Any], **kinds: Any) -> Report:
    kinds.setdefault("resources", WEB)
    found = compiled(
        inventory(tests=[{"from": "client:alice", "port": "tcp/80", **one} for one in tests], **kinds)
    )
    return accesstests.run(found.inventory, Reach(found.fleet), NOW)


def outcomes(*args: Any, **kinds: Any) -> list[str]:
    return [result.outcome if not result.passed else "passed" for result in report(*args, **kinds).results]


def both(to: str, **kinds: Any) -> list[str]:
    """Return the outcomes of expecting allow and of expecting deny."""
    return outcomes({"to": to, "expect": "allow"}, {"to": to, "expect": "deny"}, **kinds)


def test_all_of_a_resource_is_allowed_or_it_is_not_allow() -> None:
    every = {"p": policy(to="resource:web", ports=["tcp/80"])}
    assert both("resource:web", policies=every) == [
        "passed",
        "expected deny, got allow for 10.20.0.80 (ALLOWED by p)",
    ]
    but_one = every | {"no": policy(to="10.20.7.3/32", action="deny", ports=["tcp/80"])}
    assert both("resource:web", policies=but_one) == [
        "expected allow, got deny for 10.20.7.3 (DENIED by no)",
        "expected deny, got allow for 10.20.0.80 (ALLOWED by p)",
    ]
    assert both("resource:web", policies={}) == [
        "expected allow, got deny for 10.20.0.80 (NO_RULE)",
        "passed",
    ]


def test_one_address_in_a_large_prefix_is_found() -> None:
    """No sampling would: it is one address of 2^64."""
    policies = {"p": policy(to="fd20:0:0:5:1:2:3:4/128", ports=["tcp/80"])}
    assert both("fd20:0:0:5::/64", policies=policies) == [
        "expected allow, got deny for fd20:0:0:5:: (NO_RULE)",
        "expected deny, got allow for fd20::5:1:2:3:4 (ALLOWED by p)",
    ]


def test_the_families_of_a_resource_count_apart() -> None:
    dual = {"web": {"addresses": ["10.20.0.80/32", "fd20::80/128"], "ports": ["icmp"]}}
    four = {"p": policy(to="10.20.0.80/32", ports=["icmp"])}
    found = report({"to": "resource:web", "port": "icmp", "expect": "allow"}, resources=dual, policies=four)
    assert found.results[0].outcome == "expected allow, got deny for fd20::80 (NO_RULE)"
    kinds = {"resources": dual, "policies": four | {"q": policy(to="fd20::80/128", ports=["icmp"])}}
    test = {"to": "resource:web", "port": "icmp", "expect": "allow"}
    assert outcomes(test, **kinds) == ["passed"]
    only4 = client("alice", 11, families=(4,)) | client("bob", 12)
    assert outcomes(test, clients=only4, **kinds) == ["expected allow, got deny for fd20::80 (NO_ROUTE)"]


def test_a_prefix_is_judged_along_every_route_to_it() -> None:
    """Two gateways each have a half; a policy that one of them is not sent leaves that half denied."""
    gateways = gateway("gw", "10.20.0.0/17") | gateway("gx", "10.20.128.0/17")
    clients = client("alice", 11, "gw", "gx", families=(4,)) | client("bob", 12, families=(4,))
    kinds = {"gateways": gateways, "clients": clients, "resources": {}}
    half = {"p": policy(to="10.20.0.0/17")}
    assert (
        both("10.20.0.0/16", policies=half, **kinds)[0]
        == "expected allow, got deny for 10.20.128.0 (NO_RULE)"
    )
    assert both("10.20.0.0/16", policies={"p": policy(to="10.20.0.0/16")}, **kinds)[0] == "passed"
    assert both("10.20.0.0/15", policies={"p": policy(to="10.20.0.0/15")}, **kinds)[0].endswith(
        "10.21.0.0 (NO_ROUTE)"
    )


def test_a_group_is_each_of_its_members() -> None:
    groups = {"g": {"members": ["alice", "bob"]}}
    (alice, bob) = report(
        {"from": "group:g", "to": "10.20.0.1", "expect": "allow"}, groups=groups, policies={"p": policy()}
    ).results
    assert (alice.client, alice.passed, bob.client, bob.passed) == ("alice", True, "bob", False)
    assert bob.outcome == "expected allow, got deny (NO_RULE)"


def test_at_is_the_moment_to_the_second() -> None:
    policies = {"p": policy(to="resource:web", expires="2027-02-01", ports=["tcp/80"])}
    test = {"to": "resource:web", "expect": "allow"}
    assert outcomes(
        test | {"at": "2027-01-31T23:59:59Z"}, test | {"at": "2027-02-01"}, policies=policies
    ) == [
        "passed",
        "expected allow, got deny for 10.20.0.80 (OUT_OF_TIME by p)",
    ]


def untested(*tests: dict[str, Any], policies: dict[str, Any]) -> list[str]:
    return [one.name for one in report(*tests, policies=policies).untested]


def test_a_policy_is_covered_when_it_decides_any_packet() -> None:
    policies = {
        "allow": policy(to="resource:web", ports=["tcp/80"]),
        "deny": policy(to="10.20.7.3/32", action="deny", ports=["any"]),
        "else": policy(to="10.20.9.0/24", ports=["any"]),
    }
    allowed = {"to": "10.20.0.80", "expect": "allow"}
    assert untested(allowed, policies=policies) == ["deny", "else"]
    # The deny decides one packet of many; a policy that only stands beside it decides none.
    assert untested({"to": "10.20.7.0/28", "expect": "deny"}, policies=policies) == ["else"]
    assert untested({"to": "10.20.7.3", "expect": "deny"}, policies=policies) == ["allow", "else"]
    assert untested({"to": "10.20.8.1", "expect": "deny"}, policies=policies) == ["allow", "deny", "else"]


def test_a_policy_that_says_what_another_says_is_covered_for_itself() -> None:
    policies = {"one": policy("client:alice"), "two": policy("client:bob")}
    tests = [{"from": f"client:{name}", "to": "10.20.0.1", "expect": "allow"} for name in ("alice", "bob")]
    assert untested(*tests, policies=policies) == []
    assert untested(tests[0], policies=policies) == ["two"]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    files = inventory(
        resources=WEB,
        policies={"p": policy(to="resource:web", ports=["tcp/80"]), "q": policy("client:bob")},
        tests=[{"from": "client:alice", "to": "resource:web", "port": "tcp/80", "expect": "allow"}],
    )
    for path, data in files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    return tmp_path


def test_coverage_is_required_only_when_asked(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = f"{place}/policies/all.yaml:1:99: no test touches the policy q"
    assert run(["test", str(place)]) == 0
    assert line in capsys.readouterr().out.splitlines()
    assert run(["test", str(place), "--require-coverage"]) == 1
    assert line in capsys.readouterr().out.splitlines()
    assert run(["test", str(place), "--require-coverage", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["untested_policies"] == [{"name": "q", "file": "policies/all.yaml", "line": 1}]
    (place / "policies" / "all.yaml").write_text(
        json.dumps({"p": policy(to="resource:web", ports=["tcp/80"])})
    )
    assert run(["test", str(place), "--require-coverage"]) == 0


def test_junit_says_where_and_what_and_is_xml_whatever_files_are_called(place: Path) -> None:
    hostile = place / "tests" / 'a\x1b[2J"<&>\udcff\uffff.yaml'
    hostile.write_text('- {from: client:bob, to: "resource:web", port: tcp/81, expect: deny}\n')
    file = place / "report.xml"
    assert run(["test", str(place), "--junit", str(file), "--at", "2027-01-01"]) == 1
    root = ElementTree.parse(file).getroot()
    assert (root.attrib["tests"], root.attrib["failures"]) == ("2", "1")
    (bad, good) = root.findall("testcase")
    assert (good.attrib["file"], good.attrib["line"]) == ("tests/all.yaml", "1")
    assert good.attrib["name"] == "alice -> resource:web tcp/80 at 2027-01-01T00:00:00Z"
    assert bad.attrib["file"] == 'tests/a?[2J"<&>??.yaml'
    failure = bad.find("failure")
    assert failure is not None
    assert failure.attrib["message"] == "expected deny, got allow for 10.20.0.80 (ALLOWED by q)"
    assert run(["test", str(place), "--junit", str(file), "--require-coverage"]) == 1
    assert ElementTree.parse(file).getroot().attrib["failures"] == "1"  # q decided


def test_junit_counts_uncovered_policies_only_where_coverage_is_required() -> None:
    found = report(
        {"to": "10.20.9.9", "expect": "deny"}, policies={"p": policy(to="resource:web", ports=["tcp/80"])}
    )
    assert ElementTree.fromstring(junit.junit(found)).attrib["failures"] == "0"
    required = ElementTree.fromstring(junit.junit(found, require_coverage=True))
    (case,) = required.findall("testcase[failure]")
    assert (case.attrib["classname"], case.attrib["name"]) == ("policy coverage", "p")
    assert (case.attrib["file"], case.attrib["line"]) == ("policies/all.yaml", "1")
