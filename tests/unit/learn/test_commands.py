"""`tidegate replay` and `tidegate suggest` from end to end: files, stores, exit statuses, what is refused."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import gitkit
from compilerkit import client, gateway, inventory, policy
from learnkit import NOON, deny, record, right
from tidegate_compiler.plan.markdown import MARKER
from tidegate_control.learn import sources

Run = Callable[..., tuple[int, str, str]]
WEB = {"web": policy("client:alice", ["10.20.0.80/32"], ports=["tcp/443"])}
LINES = [record(), record(port=22), deny("bob", port=443), record(at=NOON + 86400, octets=10_000)]


def write(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def inv(tmp_path: Path) -> Path:
    return write(tmp_path / "inv", inventory(policies=WEB))


@pytest.fixture
def flows(tmp_path: Path) -> Path:
    path = tmp_path / "flows.ndjson"
    path.write_bytes(b"".join(LINES))
    return path


def test_replay_tells_what_would_break_and_exits_2(tidegate: Run, inv: Path, flows: Path) -> None:
    status, out, err = tidegate("replay", "--flows", flows, inv)
    assert (status, err) == (2, "")
    assert "1 flow of 1 client would break, 0 flows of 0 clients that were refused would pass, of 4" in out
    assert (
        "- alice -> 10.20.0.80 tcp/22\n      1 flow, 1.0 kB, 1 day, last 2026-11-29T12:00:00Z; no policy matches"
        in out
    )


def test_replay_without_a_change_exits_0(tidegate: Run, inv: Path, flows: Path) -> None:
    flows.write_bytes(record() + deny("bob"))
    status, out, _ = tidegate("replay", "--flows", flows, inv)
    assert status == 0
    assert "2 flows, all as before" in out


def test_json_is_whole(tidegate: Run, inv: Path, flows: Path) -> None:
    status, out, _ = tidegate("replay", "--flows", flows, inv, "--json")
    told = right("replay", json.loads(out))
    assert status == 2
    assert told["counts"] | {"flows": 4, "breaks": 1, "passes": 0, "same": 3} == told["counts"]
    (one,) = told["breaks"]
    assert one | {"ports": ["tcp/22"], "reason": "no-rule", "gateways": ["gw"], "days": 1, "flows": 1} == one
    assert one["to"] == [{"address": "10.20.0.80", "resource": None}]


def test_the_same_from_gzip_and_standard_input(
    tidegate: Run, inv: Path, flows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, plain, _ = tidegate("replay", "--flows", flows, inv, "--json")
    packed = flows.with_suffix(".gz")
    packed.write_bytes(gzip.compress(flows.read_bytes()))
    _, unpacked, _ = tidegate("replay", "--flows", packed, inv, "--json")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(flows.read_bytes())))
    _, given, _ = tidegate("replay", "--flows", "-", inv, "--json")
    assert json.loads(plain)["breaks"] == json.loads(unpacked)["breaks"] == json.loads(given)["breaks"]


def test_windows_leave_out_what_is_outside(tidegate: Run, inv: Path, flows: Path) -> None:
    for words, count in (
        (("--to", "2026-11-30"), 3),
        (("--from", "2026-11-30"), 1),
        (("--from", "2027-11-30"), 0),
        (("--gateway", "gx"), 0),
        (("--client", "alice"), 3),
        (("--client", "nobody"), 0),
    ):
        _, out, _ = tidegate("replay", "--flows", flows, inv, "--json", *words)
        assert json.loads(out)["counts"]["flows"] == count, words


REFUSED = {
    "no such file": (["--flows", "nowhere.ndjson"], 1, "No such file or directory"),
    "a scheme nobody knows": (
        ["--flows", "mysql://host/db"],
        1,
        "flows are in a file, or at duckdb://, clickhouse://",
    ),
    "a store that is not there": (
        ["--flows", "duckdb:///nowhere/x.duckdb"],
        1,
        "/nowhere/x.duckdb: no such file",
    ),
    "a store's path from here": (
        ["--flows", "duckdb://x.duckdb"],
        1,
        "duckdb://x.duckdb: a path begins at the root: duckdb:///PATH",
    ),
    "a store's wrong question": (
        ["--flows", "duckdb:///x?mode=rw"],
        1,
        "a store is asked with last, from, to",
    ),
    "a store's URL that is none": (["--flows", "clickhouse://[::/db"], 1, "a URL that cannot be read"),
    "more of a store than a life has": (
        ["--flows", "duckdb:///x", "--from", "1970-01-01"],
        1,
        "a store is asked about at most 3660 days at once",
    ),
    "a store until a day far off": (
        ["--flows", "duckdb:///x?from=2026-11-01&to=9999-12-31"],
        1,
        "a store is asked about at most 3660 days at once",
    ),
    "a store later than any event": (
        ["--flows", "duckdb:///x", "--from", "2262-01-01", "--to", "2263-01-01"],
        1,
        "the window ends later than any event",
    ),
    "a store in the future": (
        ["--flows", "duckdb:///x", "--from", "9998-01-01"],
        1,
        "it begins in the future",
    ),
    "a span that is none": (
        ["--flows", "f", "--last", "7"],
        64,
        "write a span of time as 90m, 12h, 7d or 4w",
    ),
    "a span in a URL that is none": (["--flows", "duckdb:///x?last=0d"], 1, "write a span of time"),
    "a time that is none": (["--flows", "f", "--from", "soon"], 64, "write a date"),
    "markdown of what": (["--flows", "f", "--format", "markdown"], 64, "say --against OLD"),
    "readiness against": (
        ["--flows", "f", "--readiness", "--against", "inv"],
        64,
        "--readiness goes neither",
    ),
}


@pytest.mark.parametrize("what", list(REFUSED))
def test_what_is_refused_is_one_line_that_says_how_to_mend_it(
    tidegate: Run, inv: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(inv.parent)
    words, status, said = REFUSED[what]
    found, out, err = tidegate("replay", *words, "inv")
    assert (found, out) == (status, "")
    assert said in err
    assert status == 64 or err.count("\n") == 1


def test_windows_that_contradict_are_refused(tidegate: Run, inv: Path, flows: Path) -> None:
    status, _, err = tidegate("replay", "--flows", flows, "--last", "7d", "--to", "2026-11-30", inv)
    assert status == 1
    assert "say either how long until now" in err
    status, _, err = tidegate("replay", "--flows", flows, "--from", "2026-11-30", "--to", "2026-11-30", inv)
    assert status == 1
    assert "ends before it begins" in err


def test_broken_gzip_is_told_in_one_line(tidegate: Run, inv: Path, tmp_path: Path) -> None:
    whole = gzip.compress(b"".join(LINES) * 50)
    for number, data in enumerate((whole[:-10], whole[:40] + b"\0\0" + whole[42:], b"no gzip")):
        path = tmp_path / f"{number}.gz"
        path.write_bytes(data)
        status, _, err = tidegate("replay", "--flows", path, inv)
        assert status == 1
        assert err.endswith("not a whole gzip file\n")


def test_an_endless_line_is_passed_over_without_being_held(tidegate: Run, inv: Path, tmp_path: Path) -> None:
    path = tmp_path / "endless.gz"
    path.write_bytes(gzip.compress(b"x" * (1 << 24) + b"\n" + record(port=22)))
    status, out, _ = tidegate("replay", "--flows", path, inv)
    assert status == 2
    assert "1 line passed over: not an event" in out


def test_an_inventory_with_errors_is_refused(tidegate: Run, inv: Path, flows: Path) -> None:
    (inv / "policies/all.yaml").write_text(
        "web: {from: [client:nobody], to: [10.20.0.80/32], action: allow}\n"
    )
    for command in ("replay", "suggest"):
        status, out, err = tidegate(command, "--flows", flows, inv)
        assert (status, out) == (1, "")
        assert "TG0" in err


def test_readiness_counts_days_without_an_unexplained_denial(
    tidegate: Run, tmp_path: Path, flows: Path
) -> None:
    files = inventory(policies=WEB | {"no": policy("client:bob", ["10.20.9.0/24"], action="deny")})
    inv = write(tmp_path / "ready", files)
    lines = [record(at=NOON + day * 86400) for day in range(5)]
    lines += [record("bob", at=NOON + 86400), record("bob", "10.20.9.9", at=NOON + 4 * 86400)]
    flows.write_bytes(b"".join(lines))
    status, out, _ = tidegate("replay", "--flows", flows, "--readiness", inv, "--json")
    (gateway,) = right("readiness", json.loads(out))["gateways"]
    assert status == 2
    assert (
        gateway | {"gateway": "gw", "days": 3, "days_recorded": 5, "unexplained": 1, "explained": 1}
        == gateway
    )
    (web,) = gateway["policies"]
    assert web | {"policy": "web", "days": 3, "unexplained": 1, "explained": 0, "clients": ["bob"]} == web
    _, out, _ = tidegate("replay", "--flows", flows, "--readiness", inv)
    assert out.splitlines()[1].split("\t")[:6] == ["gw", "(all)", "3", "5", "7", "1"]
    flows.write_bytes(record())
    assert tidegate("replay", "--flows", flows, "--readiness", inv)[0] == 0


def test_readiness_tells_gateways_and_policies_apart(tidegate: Run, tmp_path: Path, flows: Path) -> None:
    """A denial counts against the gateway that recorded it, and against the policies that it was for there."""
    gateways = gateway("gw", "10.20.0.0/16") | gateway("gx", "10.20.0.0/16", endpoint="203.0.113.250:1")
    clients = client("alice", 11, "gw", "gx") | client("bob", 12, "gw", "gx")
    policies = WEB | {"ssh": policy("client:alice", ["10.20.0.80/32"], ports=["tcp/22"])}
    inv = write(tmp_path / "two", inventory(gateways=gateways, clients=clients, policies=policies))
    lines = [
        record(at=NOON + day * 86400, port=port, gateway=name)
        for day in range(4)
        for port in (22, 443)
        for name in ("gw", "gx")
    ]
    lines += [
        record("bob", at=NOON + 86400, gateway="gx"),
        record("bob", at=NOON + 2 * 86400, port=25, gateway="gx"),
    ]
    flows.write_bytes(b"".join(lines))
    status, out, _ = tidegate("replay", "--flows", flows, "--readiness", inv, "--json")
    found = right("readiness", json.loads(out))["gateways"]
    assert status == 2
    assert {(one["gateway"], one["days"], one["days_recorded"]) for one in found} == {
        ("gw", 4, 4),
        ("gx", 1, 4),
    }
    days = {(one["gateway"], row["policy"]): row["days"] for one in found for row in one["policies"]}
    assert days == {("gw", "web"): 4, ("gw", "ssh"): 4, ("gx", "web"): 2, ("gx", "ssh"): 4}
    assert tidegate("replay", "--flows", flows, "--readiness", "--gateway", "gw", inv)[0] == 0


def test_suggest_writes_an_inventory_that_lets_everything_pass(
    tidegate: Run, tmp_path: Path, flows: Path
) -> None:
    inv = write(tmp_path / "bare", inventory())
    out = tmp_path / "out"
    status, text, err = tidegate("suggest", "--flows", flows, inv, "--out", out)
    assert (status, err) == (0, "")
    assert "policies admit 3 of 4 flows" in text
    assert tidegate("validate", out, "--strict")[0] == 0
    assert tidegate("replay", "--flows", flows, out)[0] == 0
    status, _, err = tidegate("suggest", "--flows", flows, inv, "--out", out)
    assert status == 1
    assert err == f"tidegate: {out}: there is something already; name a new directory\n"


# A change and its comment ----------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "tree"
    write(
        root / "inventory",
        inventory(policies=WEB | {"ssh": policy("client:alice", ["10.20.0.0/24"], ports=["tcp/22"])}),
    )
    environment = gitkit.environment(tmp_path, tmp_path, "Somebody", os.environ)
    for words in ("init -q -b main", "add -A", "commit -q -m Start"):
        subprocess.run(["git", *words.split()], cwd=root, env=environment, check=True)
    monkeypatch.chdir(root)
    return root


def test_the_comment_says_beside_each_access_who_used_it(tidegate: Run, tree: Path, flows: Path) -> None:
    changed: dict[str, Any] = WEB | {"more": policy("client:bob", ["10.20.0.80/32"], ports=["tcp/443"])}
    (tree / "inventory/policies/all.yaml").write_text(json.dumps(changed))
    words = ("replay", "--flows", flows, "--against", "main", "inventory")
    status, out, _ = tidegate(*words, "--format", "markdown")
    assert status == 2
    assert out.startswith(f"{MARKER}\n### Tidegate plan\n")
    assert "1 flow of 1 client would break, 1 flow of 1 client would pass**" in out
    gained = next(line for line in out.splitlines() if "`bob`" in line)
    assert gained.endswith("| `1 flow of 1 client, last 2026-11-29T12:00:00Z` |")
    lost = next(line for line in out.splitlines() if "tcp/22" in line)
    assert lost.endswith("| `1 flow of 1 client, last 2026-11-29T12:00:00Z` |")
    status, out, _ = tidegate(*words)
    assert (
        "1 flow of 1 client that pass in main would break, 1 flow of 1 client that main refuses would pass"
        in out
    )


def test_the_comment_on_a_change_that_nobody_would_notice(tidegate: Run, tree: Path, flows: Path) -> None:
    changed: dict[str, Any] = WEB | {
        "ssh": policy("client:alice", ["10.20.0.0/24"], ports=["tcp/22"]),
        "more": policy("client:bob", ["10.20.0.80/32"], ports=["tcp/8443"]),
    }
    (tree / "inventory/policies/all.yaml").write_text(json.dumps(changed))
    status, out, _ = tidegate(
        "replay", "--flows", flows, "--against", "main", "inventory", "--format", "markdown"
    )
    assert status == 0
    assert "4 flows: **nothing of it changes**" in out
    assert "| `none in this time` |" in out


def test_a_span_is_read() -> None:
    assert [sources.span(text) for text in ("90m", "12h", "7d", "4w")] == [5400, 43200, 604800, 2419200]


def test_no_flow_at_all_is_not_told_as_all_well(tidegate: Run, inv: Path, flows: Path) -> None:
    status, out, _ = tidegate("replay", "--flows", flows, "--gateway", "elsewhere", inv)
    assert (status, "no flow was recorded, so nothing is known" in out, "all as before" in out) == (
        0,
        True,
        False,
    )
    status, out, err = tidegate("replay", "--flows", flows, "--gateway", "elsewhere", "--readiness", inv)
    assert (status, out) == (1, "")
    assert "no flow was recorded, so nothing is known" in err


def test_of_no_flow_no_inventory_without_policies_is_suggested(
    tidegate: Run, inv: Path, flows: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    status, said, err = tidegate("suggest", "--flows", flows, "--to", "2020-01-01", inv, "--out", out)
    assert (status, said, out.exists()) == (1, "", False)
    assert "no flow was recorded, so there is nothing to learn from" in err


def test_a_shallow_clone_says_that_names_are_missing(
    tidegate: Run, tree: Path, flows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tidegate("replay", "--flows", flows, "inventory")[2] == ""
    environment = gitkit.environment(tmp_path, tmp_path, "Somebody", os.environ)
    subprocess.run(["git", "commit", "-q", "--allow-empty", "-m", "More"], env=environment, check=True)
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", "--depth", "1", f"file://{tree}", str(clone)], check=True)
    for where, name in ((clone, "inventory"), (clone, "HEAD"), (tmp_path, clone / "inventory")):
        monkeypatch.chdir(where)
        _, _, err = tidegate("replay", "--flows", flows, name)
        assert err == "tidegate: git: a shallow clone; names from before its first commit are not known\n"


def test_a_repository_that_git_does_not_trust_is_told(
    tidegate: Run, tree: Path, flows: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container whose files are another user's: without a word, a rotated key would seem to break."""
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    _, _, err = tidegate("replay", "--flows", flows, tree / "inventory")
    assert err.startswith("tidegate: git: detected dubious ownership")
    assert err.endswith("; names are those of the inventory alone\n")


def test_a_file_without_a_single_event_is_refused(tidegate: Run, inv: Path, flows: Path) -> None:
    flows.write_bytes(b"# flows\n\nnone\n")
    for command in ("replay", "suggest"):
        status, _, err = tidegate(command, "--flows", flows, inv)
        assert status == 1
        assert "none of its 2 lines is an event" in err
    flows.write_bytes(b"none\n" + LINES[0])  # one event outside of the window is one
    assert tidegate("replay", "--flows", flows, "--to", "2020-01-01", inv)[0] == 0
