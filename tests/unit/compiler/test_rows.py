"""Rows against objects: the fast way says what the careful way says, alone or with another inventory."""

from __future__ import annotations

import errno
import ipaddress
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from bench import fleet
from compilerkit import client, gateway, inventory, key, policy
from plankit import side, told
from tidegate_compiler import fields, files, parallel, pipeline, policydocs, quick, sheets
from tidegate_compiler.model import Client, Group, Lazily
from tidegate_compiler.pipeline import Compiled, compile_both, compile_files, validate_files
from tidegate_compiler.plan import document as documents
from tidegate_compiler.plan import hosts
from tidegate_compiler.plan.hosts import Rendered, differing
from tidegate_compiler.plan.limits import Limits
from tidegate_compiler.plan.plan import plan
from tidegate_compiler.plan.source import Content, of_compiled
from universekit import universes

# Modules whose names the package gives to their functions.
reading, references = (import_module(f"tidegate_compiler.check.{name}") for name in ("read", "references"))
NO_MORE = Limits(0, 0, 0, 0, 0, -1, 0)
SLOW = [HealthCheck.filter_too_much, HealthCheck.too_slow]


def block_style(raw: Mapping[str, Any]) -> dict[str, bytes]:
    """Return an inventory's files as people write them, so that they take the fast way."""
    found = {}
    for path, data in inventory(**{kind: one for kind, one in raw.items() if one is not None}).items():
        text = StringIO()
        YAML(typ="safe").dump(json.loads(data), text)
        found[path] = text.getvalue().replace("'", "").encode()
    return found


def compiled(raw: dict[str, bytes]) -> Compiled | None:
    made = compile_files(raw)
    return made if isinstance(made, Compiled) else None


def both(old: dict[str, bytes], new: dict[str, bytes]) -> tuple[Compiled, Compiled]:
    """Return both sides of a plan, each of which compiles."""
    before, after = compile_both((old, []), (new, []))
    assert isinstance(before, Compiled)
    assert isinstance(after, Compiled)
    assert after.fleet.like is before.fleet
    return before, after


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(universes())
def test_both_ways_compile_to_the_same_bytes(raw: dict[str, Any]) -> None:
    written = block_style(raw)
    fast = compiled(written)
    assume(fast is not None)
    assert fast is not None
    assert isinstance(fast.inventory.clients, Lazily)
    assert fast.inventory.clients.made.keys() <= fast.inventory.clients.keys()
    checked = validate_files(written, careful=written)
    slow = compiled(inventory(**raw))
    assert slow is not None
    for path, data in slow.files.items():
        if path != "manifest.json":  # which has the digest of the text
            assert fast.files[path] == data
    assert checked.inventory is not None
    assert dict(fast.inventory.client_rows) == {n: one.row for n, one in checked.inventory.clients.items()}
    assert dict(fast.inventory.group_rows) == {n: one.row for n, one in checked.inventory.groups.items()}
    for kind in ("clients", "groups"):
        for name, one in getattr(checked.inventory, kind).items():
            made = getattr(fast.inventory, kind)[name]
            assert (made.row, made.where) == (one.row, one.where)
            assert kind != "groups" or fast.inventory.group_place(name) == one.where
            assert isinstance(made, Client | Group)


@settings(max_examples=100, deadline=None, suppress_health_check=SLOW)
@given(universes(), universes())
def test_what_is_shared_with_another_inventory_changes_nothing(
    raw: dict[str, Any], other: dict[str, Any]
) -> None:
    for second in (other, {**raw, "policies": other["policies"]}, {**raw, "clients": other["clients"]}):
        before, after = block_style(raw), block_style(second)
        first, alone = compiled(before), compiled(after)
        if first is None or alone is None:
            continue
        like, shared = both(before, after)
        assert like.files == first.files
        assert shared.files == alone.files
        assert shared.diagnostics == alone.diagnostics
        old, new = Rendered(like.fleet), Rendered(shared.fleet)
        assert differing(old, new) == differing(dict(old), dict(new))


LIKE: dict[str, Any] = {
    "gateways": gateway("one") | gateway("two", "10.30.0.0/16", "fd30::/48"),
    "clients": client("alice", 11, "one", "two") | client("bob", 12, "two"),
    "groups": {"g": {"members": ["alice", "bob"]}},
    "resources": {"web": {"addresses": ["10.20.0.0/24"], "ports": ["tcp/80"]}},
    "policies": {
        "p": policy("group:g", "resource:web"),
        "q": policy("all-clients", "10.0.0.0/8", ports=["udp/53"]),
    },
}


@pytest.mark.parametrize(
    "change",
    [
        {"gateways": gateway("one", "10.20.0.0/17") | gateway("two", "10.30.0.0/16", "fd30::/48")},
        {
            "gateways": gateway("one", endpoint="203.0.113.9:51820")
            | gateway("two", "10.30.0.0/16", "fd30::/48")
        },
        {"gateways": LIKE["gateways"] | {"one": LIKE["gateways"]["one"] | {"public_key": key("x")}}},
        {"policies": None},
        {"groups": {"g": {"members": ["alice"]}}},
        {"groups": {"g": {"members": ["alice", "bob"], "expires": {"alice": "2030-01-01"}}}},
        {"resources": {"web": {"addresses": ["10.20.0.0/25"], "ports": ["tcp/80"]}}},
        {"resources": {"web": {"addresses": ["10.20.0.0/24"], "ports": ["tcp/81"]}}},
        {
            "policies": {
                **LIKE["policies"],
                "q": policy("all-clients", "10.0.0.0/8", action="deny", ports=["udp/53"]),
            }
        },
        {"policies": {**LIKE["policies"], "q": policy("client:alice", "10.0.0.0/8", ports=["udp/53"])}},
        {"policies": {**LIKE["policies"], "q": policy("all-clients", "10.0.0.0/8", ports=["udp/54"])}},
        {
            "policies": {
                **LIKE["policies"],
                "q": policy("all-clients", "10.0.0.0/8", ports=["udp/53"], expires="2030-01-01"),
            }
        },
        {"policies": {**LIKE["policies"], "r": policy("client:alice", "10.20.1.1/32", ports=["any"])}},
        {"policies": {"p": LIKE["policies"]["p"]}},
        {"clients": client("alice", 13, "one", "two") | client("bob", 12, "two")},
        {"clients": LIKE["clients"] | {"bob": LIKE["clients"]["bob"] | {"public_key": key("x")}}},
        {"clients": client("alice", 11, "two", "one") | client("bob", 12, "two")},
        {"clients": client("alice", 11, "one", "two", families=(4,)) | client("bob", 12, "two")},
    ],
)
def test_a_change_is_seen_through_what_is_shared(change: dict[str, Any]) -> None:
    first, alone = compiled(block_style(LIKE)), compiled(block_style({**LIKE, **change}))
    assert first is not None
    assert alone is not None
    like, shared = both(block_style(LIKE), block_style({**LIKE, **change}))
    assert like.files == first.files
    assert shared.files == alone.files
    assert shared.files != like.files
    assert differing(Rendered(like.fleet), Rendered(shared.fleet)) == differing(
        dict(Rendered(like.fleet)), dict(Rendered(alone.fleet))
    )


def test_an_old_side_with_an_error_is_judged_as_ever() -> None:
    bad = block_style({**LIKE, "gateways": gateway("one", "10.20.0.0/16")})
    old, new = compile_both((bad, []), (block_style(LIKE), []))
    assert old == validate_files(bad)
    assert [problem.code for problem in old.diagnostics] == ["TG030", "TG030"]
    assert isinstance(new, Compiled)


def test_a_renamed_gateway_changes_no_clients_bundle() -> None:
    renamed = {("uno" if name == "one" else name): one for name, one in LIKE["gateways"].items()}
    clients = client("alice", 11, "uno", "two") | client("bob", 12, "two")
    before, after = both(block_style(LIKE), block_style({**LIKE, "gateways": renamed, "clients": clients}))
    old, new = Rendered(before.fleet), Rendered(after.fleet)
    assert list(differing(old, new)) == [("gateway", "one"), ("gateway", "uno")]
    assert differing(old, new) == differing(dict(old), dict(new))


def test_an_unchanged_part_is_shared() -> None:
    """The other way round: of a change to one client, the others and their gateways' policies are the same values."""
    gateways = gateway("one") | gateway("two", "10.30.0.0/16")
    clients = client("alice", 11, "one") | client("bob", 12, "two")
    old = {"gateways": gateways, "clients": clients, "policies": {"p": policy("all-clients", "10.0.0.0/8")}}
    new = {**old, "clients": client("alice", 13, "one") | client("bob", 12, "two")}
    before, after = both(block_style(old), block_style(new))
    assert after.fleet.clients["bob"] is before.fleet.clients["bob"]
    assert after.fleet.clients["alice"] is not before.fleet.clients["alice"]
    assert after.fleet.gateways["two"].policy is before.fleet.gateways["two"].policy
    assert after.fleet.gateways["one"].policy is not before.fleet.gateways["one"].policy


def test_objects_that_say_the_same_in_the_same_place_are_shared() -> None:
    old = block_style(LIKE)
    text = old["policies/all.yaml"]
    before, after = both(old, old | {"policies/all.yaml": text.replace(b"udp/53", b"udp/54")})
    for kind in ("gateways", "resources"):
        mine, theirs = getattr(after.inventory, kind), getattr(before.inventory, kind)
        assert all(one is theirs[name] for name, one in mine.items())
    assert after.inventory.policies["p"] is before.inventory.policies["p"]
    assert after.inventory.policies["q"].ports != before.inventory.policies["q"].ports
    _, moved = both(old, old | {"policies/all.yaml": b"# a line more\n" + text})
    assert [one.where.line for one in moved.inventory.policies.values()] == [
        one.where.line + 1 for one in before.inventory.policies.values()
    ]


def test_a_message_tells_the_place_of_a_shared_object_exactly() -> None:
    """What is wrong stands in a file that is read carefully, so nothing but the message asks for a place."""
    old = block_style(LIKE)
    thief = gateway("zed", "10.40.0.0/16", endpoint="203.0.113.77:51820")["zed"]
    stolen = {"zed": thief | {"public_key": LIKE["gateways"]["one"]["public_key"]}}
    new = old | {"gateways/more.yaml": json.dumps(stolen).encode()}
    found = compile_both((old, []), (new, []))[1].diagnostics
    assert [one.code for one in found] == ["TG021"]
    assert found == validate_files(new).diagnostics


@pytest.mark.parametrize(
    ("other", "clients", "are_twins"),
    [
        ("10.20.0.0/16", ("one", "two"), True),
        ("10.20.0.0/16", ("one",), False),
        ("10.30.0.0/16", ("one", "two"), False),
    ],
)
def test_gateways_with_the_same_networks_and_clients_have_one_bundle(
    other: str, clients: tuple[str, ...], are_twins: bool
) -> None:
    found = compiled(
        block_style(
            {
                "gateways": gateway("one", "10.20.0.0/16") | gateway("two", other),
                "clients": client("alice", 11, *clients) | client("bob", 12, "one", "two"),
                "policies": {"p": policy("all-clients", "10.0.0.0/8", ports=["any"])},
            }
        )
    )
    assert found is not None
    bundles = [
        [found.files[f"gateway/{name}/{file}"] for file in ("peers.json", "policy.json")]
        for name in ("one", "two")
    ]
    assert (bundles[0] == bundles[1]) == are_twins
    hosts = found.fleet.gateways
    assert (hosts["one"].peers is hosts["two"].peers) == are_twins
    assert (hosts["one"].policy is hosts["two"].policy) == are_twins


def say_the_same(old: dict[str, bytes], new: dict[str, bytes]) -> dict[str, Any]:
    """Return the plan's document, which is the same whether the sides share what is the same or not."""
    before, after = both(old, new)
    sides = [of_compiled(Content("inv", "inv", {}, []), one) for one in (before, after)]
    document = told(old, new)
    assert json.loads(json.dumps(documents.document(plan(*sides)))) == json.loads(json.dumps(document))
    assert plan(*sides, NO_MORE).exceeded == plan(side(old), side(new), NO_MORE).exceeded
    return document


def test_a_plan_of_a_fleet_says_the_same_of_shared_sides(tmp_path: Path) -> None:
    fleet.generate(tmp_path / "old", 300)
    old = files.read(tmp_path / "old")[0]
    new = dict(old)
    new["clients/0000.yaml"] = new["clients/0000.yaml"].replace(
        fleet.key("client 7").encode(), fleet.key("x").encode()
    )
    new["policies/all.yaml"] = new["policies/all.yaml"].replace(b"action: deny", b"action: allow", 3)
    document = say_the_same(old, new)
    assert [one["name"] for one in document["objects"] if one["kind"] == "client"] == ["laptop-000007"]
    assert len([one for one in document["objects"] if one["kind"] == "policy"]) == 3


def test_a_group_that_is_read_carefully_has_a_place_too() -> None:
    found = validate_files(block_style(LIKE) | {"groups/all.yaml": b'"g": {members: [alice, bob]}\n'})
    assert found.inventory is not None
    assert found.inventory.group_place("g") == found.inventory.groups["g"].where


@pytest.mark.usefixtures("_two_processes")
def test_two_processes_make_the_policies_of_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.generate(tmp_path, 300)
    old = files.read(tmp_path)[0]
    new = old | {
        "policies/all.yaml": old["policies/all.yaml"].replace(b"action: deny", b"action: allow", 3),
        "groups/0000.yaml": re.sub(rb"    - .*\n(?=    - )", b"", old["groups/0000.yaml"], count=1),
    }
    alone = told(old, new)
    for limit in ("_LARGE", "_MANY"):
        monkeypatch.setattr(hosts, limit, 1)
    made: list[policydocs.Policies] = []
    real = policydocs.Policies.of
    monkeypatch.setattr(policydocs.Policies, "of", lambda self, *args: made.append(self) or real(self, *args))
    before, after = both(old, new)
    sides = [of_compiled(Content("inv", "inv", {}, []), one) for one in (before, after)]
    assert json.loads(json.dumps(documents.document(plan(*sides)))) == json.loads(json.dumps(alone))
    assert made
    assert set(made) == {after.fleet._policies}  # the other process made the old ones
    assert not before.inventory.groups.made  # type: ignore[attr-defined]  # nor is a group made for its place alone


@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
@given(
    universes(), universes(), st.sampled_from(["", "policies", "clients", "groups", "resources", "gateways"])
)
def test_a_plan_says_the_same_of_shared_sides(raw: dict[str, Any], other: dict[str, Any], kind: str) -> None:
    old, new = block_style(raw), block_style({**raw, kind: other[kind]} if kind else other)
    assume(compiled(old) is not None and compiled(new) is not None)
    say_the_same(old, new)


@settings(deadline=None)
@given(
    st.one_of(
        st.ip_addresses(v=4).map(lambda address: f"{address}/32"),
        st.ip_addresses(v=6).map(lambda address: f"{address}/128"),
        st.ip_addresses(v=6).map(lambda address: f"{address.exploded}/128"),
        st.from_regex(r"[0-9a-fA-F:.]{2,24}/(32|128|24|64)", fullmatch=True),
        st.sampled_from(
            ["010.64.0.1/32", "10.64.1/32", "1::/128", "::ffff:10.0.0.1/128", "::ffff:a00:1/128", "1:2/128"]
        ),
    )
)
def test_an_address_is_read_as_its_field_is(text: str) -> None:
    def outcome(reader: Any) -> Any:
        try:
            return reader(text)
        except ValueError:
            return None

    assert outcome(sheets.packed) == outcome(lambda one: fields.host(one).network_address.packed)


@pytest.mark.parametrize("address", ["::5", "::a:b", "1::", "fd64::1", "fd64:0:0:1::", "::1.2.3.4"])
def test_an_address_is_written_as_python_writes_it(address: str) -> None:
    from tidegate_compiler import resolve

    packed = ipaddress.ip_address(address).packed
    assert resolve._prefix(packed) == f"{ipaddress.ip_address(address)}/128"


@pytest.mark.parametrize("name", ["a\n", "a\n\n", "\na", "a ", "A", "", "a" * 64, "\u00e9", "\u0661"])
def test_the_fast_schema_ends_a_pattern_at_the_very_end(name: str) -> None:
    assert quick.is_valid("groups", {"a": {"members": ["a"]}})
    assert not quick.is_valid("groups", {name: {"members": ["a"]}})
    assert not quick.is_valid("groups", {"a": {"members": [name]}})


ELSEWHERE: set[str] = set()
"""Children that were there when the test began: other tests of this process may have servers at work."""


@pytest.fixture(autouse=True)
def _note_children() -> None:
    ELSEWHERE.clear()
    ELSEWHERE.update(children())


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()) - ELSEWHERE


def test_two_processes_find_what_one_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORTH_IT", 1)
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)
    items = list(range(100))
    found = parallel.each(lambda one: (one * one, os.getpid()), items, lambda one: 1, "counting")
    assert [square for square, _ in found] == [one * one for one in items]
    assert len({process for _, process in found}) == 2
    assert children() == set()


def test_a_second_process_that_ends_early_is_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORTH_IT", 1)
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)
    mine = os.getpid()

    def work(one: int) -> int:
        if os.getpid() != mine:
            os.kill(os.getpid(), 9)
        return one

    assert parallel.each(work, list(range(50)), lambda one: 1, "counting") == list(range(50))
    assert children() == set()


def test_an_exception_leaves_no_process_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORTH_IT", 1)
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)

    def work(one: int) -> int:
        raise ValueError(one)

    with pytest.raises(ValueError, match="0"):
        parallel.each(work, list(range(50)), lambda one: 1, "counting")
    assert children() == set()


@pytest.mark.parametrize("ends", [0, 9])
def test_work_beside_other_work(ends: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)
    mine = os.getpid()

    def work() -> int:
        if ends and os.getpid() != mine:
            os.kill(os.getpid(), ends)
        return os.getpid()

    with parallel.beside(work, True) as found:
        assert (found() == mine) == bool(ends)
    with pytest.raises(ValueError, match="in between"), parallel.beside(work, True):
        raise ValueError("in between")
    with parallel.beside(work, False) as found:
        assert found() == mine
    assert children() == set()


def wait_for(path: Path) -> None:
    """Wait until a file is there, which a process has left."""
    deadline = time.monotonic() + 20
    while not path.exists():
        assert time.monotonic() < deadline, path.name
        time.sleep(0.001)


@pytest.mark.parametrize("count", [0, 1, 255, 1000])
@pytest.mark.parametrize("is_large", [False, True])
def test_shared_work_is_done_once_by_either(
    count: int, is_large: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)
    mine, has_help = os.getpid(), is_large and count > 1
    here, there = tmp_path / "here", tmp_path / "there"

    def work(one: int) -> tuple[int, int]:
        process = os.getpid()
        (here if process == mine else there).touch()
        if has_help and process != mine:  # so that something is left for this process, however slow it is
            wait_for(here)
        return one, process

    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    with parallel.shared(work, range(count), is_large) as found:
        if has_help:
            wait_for(there)
        done = found()
    assert sorted(one for one, _ in done) == list(range(count))
    assert len({process for _, process in done}) == min(count, 1 + has_help)
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before
    assert children() == set()


def test_shared_work_of_a_process_that_ends_early_is_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)
    mine, begun = os.getpid(), tmp_path / "begun"

    def work(one: int) -> int:
        if os.getpid() != mine:
            begun.touch()
        if os.getpid() != mine and one == 3:
            os.kill(os.getpid(), 9)
        return one

    with parallel.shared(work, range(50), True) as found:
        wait_for(begun)
        assert sorted(found()) == list(range(50))
    with pytest.raises(ValueError, match="in between"), parallel.shared(work, range(50), True):
        raise ValueError("in between")
    assert children() == set()


@pytest.mark.parametrize(("cores", "may_again"), [({0, 1}, False), ({0, 1, 2}, True)])
def test_no_more_processes_than_cores(
    cores: set[int], may_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "active_count", lambda: 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    assert parallel._may_fork()
    with parallel.beside(parallel._may_fork, True) as in_the_child:
        assert parallel._may_fork() == may_again
        assert in_the_child() == may_again
    assert parallel._may_fork()
    assert children() == set()


def test_a_large_check_beside_says_what_a_small_one_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tidegate_compiler import check

    fleet.generate(tmp_path, 600)
    text = (tmp_path / "clients/0001.yaml").read_text()
    (tmp_path / "clients/0001.yaml").write_text(text.replace(fleet.key("client 555"), fleet.key("client 3")))
    small = pipeline.validate(tmp_path).diagnostics
    monkeypatch.setattr(check, "_LARGE", 1)
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)
    assert pipeline.validate(tmp_path).diagnostics == small
    assert [one.code for one in small if one.is_error] == ["TG021"]


def test_a_lost_file_is_told_without_comparing_each_of_its_names_with_all(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In a large fleet one such comparison takes a second, and a file holds hundreds of names."""
    asked: list[str] = []

    def hint(word: str, known: Mapping[str, Any]) -> str:
        asked.append(word)
        return "; did you mean it?"

    monkeypatch.setattr(references, "did_you_mean", hint)
    monkeypatch.setattr(references, "_MOST_COMPARED", 5)
    lost = [f"lost-{number}" for number in range(9)]
    groups = {"g": {"members": ["alice", *lost]}, "h": {"members": ["bob", *lost]}}
    found = validate_files(
        block_style({"groups": groups, "clients": client("alice", 11) | client("bob", 12)})
    )
    assert asked == lost[:3]
    assert [(d.code, "mean it" in d.message) for d in found.diagnostics] == [
        ("TG030", name in asked) for name in [*lost, *lost]
    ]


def test_times_of_strangers_are_told_without_comparing_each_with_all_members(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A megabyte holds twenty thousand members and as many times of others: hours of comparing."""
    asked: list[str] = []

    def hint(word: str, known: Any) -> str:
        asked.append(word)
        return "; did you mean it?"

    monkeypatch.setattr(references, "did_you_mean", hint)
    monkeypatch.setattr(references, "_MOST_COMPARED", 5)
    strangers = [f"stranger-{number}" for number in range(9)]
    group = {"members": ["alice", "bob"], "expires": dict.fromkeys(strangers, "2027-01-01")}
    found = validate_files(
        block_style({"groups": {"g": group}, "clients": client("alice", 11) | client("bob", 12)})
    )
    assert list(dict.fromkeys(asked)) == strangers[:3]
    assert [(d.code, "mean it" in d.message) for d in found.diagnostics] == [
        ("TG033", name in asked) for name in strangers
    ]


def test_names_that_stand_twice_are_found_without_looking_at_all_for_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[None] = []
    kept = reading._Kind._sheet_of
    real = kept.func
    monkeypatch.setattr(kept, "func", lambda self: calls.append(None) or real(self))
    clients: dict[str, Any] = {}
    for number in range(1, 40):
        clients |= client(f"c{number}", number)
    raw = block_style({"clients": clients})
    raw["clients/more.yaml"] = raw["clients/all.yaml"]
    found = validate_files(raw)
    assert [d.code for d in found.diagnostics] == ["TG018"] * 39
    assert len(calls) <= 1


@pytest.fixture
def _two_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "WORTH_IT", 1)
    monkeypatch.setattr(parallel, "_may_fork", lambda: True)


@pytest.mark.usefixtures("_two_processes")
@pytest.mark.parametrize("refused", ["fork", "pipe"])
def test_where_the_system_refuses_a_second_process_one_does_it(
    monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    def refuse() -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    before = {path.name for path in Path("/proc/self/fd").iterdir()}
    monkeypatch.setattr(os, refused, refuse)
    assert parallel.each(lambda one: one * one, list(range(50)), lambda one: 1, "x") == [
        one * one for one in range(50)
    ]
    with parallel.shared(lambda one: one * one, range(50), True) as found:
        assert sorted(found()) == [one * one for one in range(50)]
    assert {path.name for path in Path("/proc/self/fd").iterdir()} == before


@pytest.mark.usefixtures("_two_processes")
def test_a_parent_that_ignores_its_children_gets_all() -> None:
    """As under a shell's `trap '' CHLD`: the system reaps the child, and nobody can ask how it ended."""
    was = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert parallel.each(lambda one: one, list(range(50)), lambda one: 1, "x") == list(range(50))
    finally:
        signal.signal(signal.SIGCHLD, was)
    assert children() == set()


@pytest.mark.usefixtures("_two_processes")
def test_an_interrupt_while_waiting_leaves_no_process_behind() -> None:
    mine = os.getpid()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    was = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(KeyboardInterrupt):
            parallel.each(
                lambda one: one if os.getpid() == mine else time.sleep(5), [1, 2], lambda one: 1, "x"
            )
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, was)
    assert children() == set()


ORPHAN = """
import os, time
from tidegate_compiler import parallel
parallel.WORTH_IT, parallel._may_fork, mine = 1, lambda: True, os.getpid()
def work(one):
    if os.getpid() != mine:
        print(os.getpid(), flush=True)
    time.sleep(0.05 if os.getpid() != mine else 60)
parallel.each(work, list(range(500)), lambda one: 1, "x")
"""


def test_a_second_process_works_for_no_dead_parent() -> None:
    parent = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.kill()
    told, _ = parent.communicate(timeout=8)  # ends when the child has closed its end, too
    assert set(told.split()) <= {str(child)}
    assert len(told.split()) < 40


def test_no_fork_beside_another_thread() -> None:
    halt = threading.Event()
    thread = threading.Thread(target=halt.wait)
    thread.start()
    try:
        assert not parallel._may_fork()
    finally:
        halt.set()
        thread.join()


def test_a_large_fleet_is_read_by_two_processes_to_the_same_end(tmp_path: Path) -> None:
    """As a user meets it: more than a megabyte of YAML, a wrong value in the half that the other process reads."""
    fleet.generate(tmp_path, 8000)
    text = (tmp_path / "clients/0001.yaml").read_text()
    (tmp_path / "clients/0001.yaml").write_text(text.replace("10.64.1.244/32", "10.64.1.244/33"))
    done = subprocess.run(
        [sys.executable, "-m", "tidegate_schema", "validate", str(tmp_path), "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    errors = [one for one in json.loads(done.stdout)["diagnostics"] if one["severity"] == "error"]
    assert [(one["code"], one["file"], one["line"]) for one in errors] == [("TG022", "clients/0001.yaml", 1)]
    assert sum(len(data) for data in files.read(tmp_path)[0].values()) > parallel.WORTH_IT
    assert pipeline.validate(tmp_path).inventory is None
