"""`tidegate inventory add` and `remove` on whole inventories: what is written, named and refused."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compilerkit import ROOT, client, gateway, inventory, key, policy
from tidegate_compiler.edit import store
from tidegate_compiler.edit.change import Change, EditError, new_errors
from tidegate_compiler.edit.remove import remove
from tidegate_compiler.edit.survey import survey
from tidegate_compiler.pipeline import validate_files
from tidegate_schema.cli import run

Run = Callable[..., tuple[int, str, str]]


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "inventory", tmp_path / "inventory")
    return tmp_path / "inventory"


@pytest.fixture
def tidegate(desk: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str) -> tuple[int, str, str]:
        status = run(["inventory", *words])
        told = capsys.readouterr()
        assert "Traceback" not in told.err
        return status, told.out, told.err

    return call


ADD_ZOE = ("add", "client", "zoe", "--public-key", key("zoe"), "--gateway", "fra1")


def test_a_client_gets_the_next_addresses_and_joins_its_groups(desk: Path, tidegate: Run) -> None:
    before = tree(desk)
    status, out, err = tidegate(*ADD_ZOE, "--group", "engineers", "--group", "operators")
    assert (status, err) == (0, "")
    assert out.splitlines() == [
        "inventory/clients/zoe.yaml:1: added client zoe with 10.64.0.2/32, fd64::2/128",
        "inventory/groups/people.yaml:2: added zoe in members of group engineers",
        "inventory/groups/people.yaml:5: added zoe in members of group operators",
    ]
    after = tree(desk)
    groups = after["groups/people.yaml"]
    assert b"erin-desktop, zoe]\n\noperators:\n  members: [carol-laptop, erin-desktop, zoe]" in groups
    assert set(after) - set(before) == {"clients/zoe.yaml"}
    assert tidegate("remove", "client", "zoe")[0] == 0
    assert tree(desk) == before


def test_a_client_goes_to_the_file_of_its_group(desk: Path, tidegate: Run) -> None:
    assert "clients/contractors.yaml:11: added" in tidegate(*ADD_ZOE, "--group", "contractors")[1]


def test_the_only_gateway_is_taken_and_of_several_one_is_chosen(desk: Path, tidegate: Run) -> None:
    status, _, err = tidegate(*ADD_ZOE[:5])
    assert status == 1
    assert "there are several gateways (fra1, nyc1); choose with --gateway" in err
    assert tidegate("remove", "gateway", "nyc1", "--dry-run")[0] == 1  # resources behind no gateway
    (desk / "gateways/newyork.yaml").unlink()
    (desk / "clients/one.yaml").write_text("")
    status, _, err = tidegate(*ADD_ZOE[:5])
    assert status == 0  # the errors were there before
    assert "gateways: [fra1]" in (desk / "clients/zoe.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("--public-key", "AAAA"), 64, "44 characters"),
        (("--address", "10.64.0.0/24"), 64, "single addresses"),
        (("--address", "10.65.0.9"), 1, "TG040"),
        (("--address", "10.64.0.11"), 1, "TG041"),
        (("--group", "enginers"), 1, "did you mean 'engineers'"),
        (("--gateway", "fra2"), 1, "did you mean 'fra1'"),
        (("--group", "a\x1b[31m"), 64, "a name is"),
        (("--file", "groups/x.yaml"), 1, "write clients/FILE.yaml"),
        (("--file", "../x.yaml"), 1, "write clients/FILE.yaml"),
        (("--file", "clients/.x.yaml"), 1, "write clients/FILE.yaml"),
        (("--public-key", key("alice-laptop")), 0, ""),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    desk: Path, tidegate: Run, words: tuple[str, ...], status: int, said: str
) -> None:
    before = tree(desk)
    result, _, err = tidegate(*ADD_ZOE, *words)
    assert result == status
    assert said in err
    assert "\x1b" not in err
    assert (tree(desk) == before) is (status != 0)


def test_a_mangled_key_is_not_repeated_in_whole(tidegate: Run) -> None:
    secret = "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk"
    status, out, err = tidegate("add", "client", "zoe", "--public-key", secret)
    assert status == 64
    assert secret[:7] not in out + err


def test_a_name_is_added_once_and_a_used_key_never(desk: Path, tidegate: Run) -> None:
    assert (
        "inventory: clients/engineering.yaml:1:1: client 'alice-laptop' is there"
        in tidegate("add", "client", "alice-laptop", "--public-key", key("x"), "--gateway", "fra1")[2]
    )
    assert tidegate(*ADD_ZOE)[0] == 0
    status, _, err = tidegate("add", "client", "yan", "--public-key", key("zoe"), "--gateway", "fra1")
    assert status == 1
    assert "TG021" in err
    assert "nothing is written" in err


def test_every_kind_can_be_added_and_removed(desk: Path, tidegate: Run) -> None:
    before = tree(desk)
    kinds = [
        (
            "gateway",
            "tok1",
            "--public-key",
            key("t"),
            "--endpoint",
            "203.0.113.30:51820",
            "--network",
            "10.40.0.0/16",
        ),
        ("group", "auditors", "--member", "carol-laptop", "--expires", "carol-laptop=2031-01-31"),
        ("resource", "wiki", "--address", "10.20.0.90/32", "--port", "tcp/443"),
        (
            "policy",
            "auditors-read-wiki",
            "--from",
            "group:auditors",
            "--to",
            "resource:wiki",
            "--action",
            "allow",
        ),
    ]
    for words in kinds:
        assert tidegate("add", *words)[0::2] == (0, ""), words
    test = ("--from", "group:auditors", "--to", "10.20.0.90", "--port", "tcp/443", "--expect", "allow")
    status, out, _ = tidegate("add", "test", *test, "--file", "inventory/tests/operations.yaml")
    assert status == 0
    assert run(["test", "inventory", "--at", "2030-01-01"]) == 0
    place = out.partition(": added")[0].removeprefix("inventory/")
    assert tidegate("remove", "test", place)[0] == 0
    for kind, name, *_ in reversed(kinds):
        assert tidegate("remove", kind, name, "--cascade")[0] == 0
    assert tree(desk) == before


def test_a_dry_run_writes_nothing_and_shows_everything(desk: Path, tidegate: Run) -> None:
    before = tree(desk)
    status, out, err = tidegate(*ADD_ZOE, "--group", "engineers", "--dry-run")
    assert status == 0
    assert "+  members: [alice-laptop, dave-laptop, erin-desktop, zoe]" in out
    assert "+++ inventory/clients/engineering.yaml" in out
    assert "would add" in err
    assert tree(desk) == before
    document = json.loads(tidegate(*ADD_ZOE, "--json")[1])
    assert document["written"] == ["clients/zoe.yaml"]
    assert document["added"]["fields"]["addresses"] == ["10.64.0.2/32", "fd64::2/128"]


# Removing ---------------------------------------------------------------------------------------------------


def losses(files: dict[str, bytes], kind: str, name: str) -> list[str]:
    return list(map(str, remove(files, survey(files, validate_files(files)), kind, name, True).losses))


def test_every_reference_goes_and_is_named(desk: Path, tidegate: Run) -> None:
    status, out, _ = tidegate("remove", "client", "frank-laptop")
    assert status == 0
    assert out.splitlines() == [
        "inventory/clients/contractors.yaml:6: removed the client frank-laptop",
        "inventory/groups/people.yaml:8: removed client frank-laptop from 'members' of group contractors",
        "inventory/groups/people.yaml:10: removed client frank-laptop from 'expires' of group contractors",
        "inventory/tests/engineering.yaml:9: removed the test about client frank-laptop",
        "inventory/tests/engineering.yaml:10: removed the test about client frank-laptop",
    ]
    assert not any(b"frank" in data for data in tree(desk).values())
    assert b"expires" not in (desk / "groups/people.yaml").read_bytes()  # an empty window is no field
    assert run(["validate", "inventory", "--strict"]) == 0


def test_what_would_be_left_empty_goes_only_with_cascade(desk: Path, tidegate: Run) -> None:
    before = tree(desk)
    status, out, err = tidegate("remove", "client", "ci-runner")
    assert (status, out) == (1, "")
    assert (
        "operations.yaml:14: would remove the policy ci-writes-backups, which is left with an empty 'from'"
        in err
    )
    assert "give --cascade" in err
    assert tree(desk) == before
    assert tidegate("remove", "client", "ci-runner", "--cascade")[0] == 0
    assert not any(b"ci-runner" in data or b"ci-writes" in data for data in tree(desk).values())


def test_a_cascade_goes_on_to_the_end() -> None:
    files = inventory(
        gateways=gateway("gw") | gateway("other", "10.30.0.0/16"),
        clients=client("alice", 11, "other") | client("bob", 12),
        groups={"g": {"members": ["alice"], "expires": {"alice": "2031-01-01"}}},
        policies={"p": policy("group:g"), "q": policy(["group:g", "client:bob"])},
        tests=[{"from": "group:g", "to": "10.20.0.1", "port": "icmp", "expect": "allow"}],
    )
    removal = remove(files, survey(files, validate_files(files)), "gateway", "other", True)
    after = {path: json.loads(data) for path, data in removal.change.after.items()}
    assert set(after["clients/all.yaml"]) == {"bob"}
    assert after["groups/all.yaml"] == {}
    assert after["policies/all.yaml"] == {"q": policy("client:bob")}
    assert after["tests/all.yaml"] == []
    assert [loss.text for loss in removal.losses if loss.needs_cascade] == [
        "the client alice, which is left with an empty 'gateways'",
        "the group g, which is left with an empty 'members'",
        "the policy p, which is left with an empty 'from'",
    ]


def test_a_test_about_a_resource_goes_with_it() -> None:
    resource = {"web": {"addresses": ["10.20.0.80/32"], "ports": ["icmp"]}}
    ask = {"from": "client:alice", "port": "icmp", "expect": "deny"}
    files = inventory(resources=resource, tests=[{**ask, "to": "resource:web"}, {**ask, "to": "10.20.0.1"}])
    removal = remove(files, survey(files, validate_files(files)), "resource", "web", False)
    assert json.loads(removal.change.after["tests/all.yaml"]) == [{**ask, "to": "10.20.0.1"}]
    assert removal.losses[1].text == "the test about resource web"


@pytest.mark.parametrize(
    ("kind", "name", "widens"),
    [
        (
            "resource",
            "db",
            ["resource db from 'to' of policy no-db, a deny", "the deny policy no-db, which is left"],
        ),
        ("resource", "web", ["resource web from 'to' of policy no-web, a deny"]),
        ("group", "g", ["group g from 'from' of policy no-g, a deny"]),
        ("policy", "no-db", ["the deny policy no-db"]),
        ("client", "bob", []),
    ],
)
def test_a_removal_that_may_widen_access_is_named_so_and_refused(
    kind: str, name: str, widens: list[str]
) -> None:
    resource = {"addresses": ["10.20.5.0/28"], "ports": ["any"]}
    files = inventory(
        groups={"g": {"members": ["alice"]}},
        resources={"db": resource, "web": {**resource, "addresses": ["10.20.6.0/28"]}},
        policies={
            "yes": policy(["client:alice", "client:bob"]),
            "no-db": policy(["client:alice", "client:bob"], "resource:db", action="deny"),
            "no-web": policy("all-clients", ["resource:web", "10.20.7.0/24"], action="deny", ports=["any"]),
            "no-g": policy(["group:g", "client:bob"], "10.20.8.0/24", action="deny"),
        },
    )
    assert validate_files(files).inventory is not None
    told = losses(files, kind, name)
    found = [line for line in told if line.endswith("; this may WIDEN access")]
    assert len(found) == len(widens)
    assert all(text in line for text, line in zip(widens, found, strict=True))
    refused = remove(files, survey(files, validate_files(files)), kind, name, False).change.files == {}
    assert refused is (bool(widens) and kind != "policy")


def test_a_deny_that_is_named_itself_is_removed_and_told(desk: Path, tidegate: Run) -> None:
    status, out, _ = tidegate("remove", "policy", "nobody-logs-in-to-databases")
    assert status == 0
    assert "the deny policy nobody-logs-in-to-databases; this may WIDEN access" in out


def test_removing_what_is_not_there_is_one_line(tidegate: Run) -> None:
    tests = ("tests/x.yaml:1", "x\n", "")
    for words in (("client", "alice"), ("policy", "\x1b[31m"), *(("test", name) for name in tests)):
        status, out, err = tidegate("remove", *words)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert "\x1b" not in err


# Inventories that have errors, and hostile ones -------------------------------------------------------------


def test_errors_that_were_there_do_not_stop_an_edit_and_new_ones_do(desk: Path, tidegate: Run) -> None:
    (desk / "policies/bad.yaml").write_text(
        "bad:\n  from: [group:nobody]\n  to: [resource:web]\n  action: allow\n"
    )
    status, out, _ = tidegate(*ADD_ZOE, "--group", "operators")
    assert status == 0
    assert "10.64.0.2/32" in out
    assert (
        tidegate("add", "group", "nobody2", "--member", "zoe", "--expires", "carol-laptop=2031-01-01")[0] == 1
    )


def test_errors_are_known_again_where_they_have_moved_to() -> None:
    bad = {"x": {"addresses": ["10.99.0.0/24"]}}
    before = validate_files(inventory(resources=bad))
    moved = inventory(resources=bad)
    moved["resources/all.yaml"] = b"\n\n" + moved["resources/all.yaml"]
    assert new_errors(before, validate_files(moved)) == []
    twice = validate_files(inventory(resources=bad | {"y": bad["x"]}))
    assert [d.code for d in new_errors(before, twice)] == ["TG047"]


def test_one_more_of_the_same_error_is_a_new_one() -> None:
    ask = {"from": "group:nobody", "port": "icmp", "expect": "deny"}
    first = {**ask, "to": "10.20.0.1"}
    before = validate_files(inventory(tests=[first]))
    after = validate_files(inventory(tests=[first, {**ask, "to": "10.20.0.2"}]))
    assert [d.code for d in new_errors(before, after)] == ["TG030"]


@pytest.mark.parametrize(
    "text", [b"a: &x b\n", b"a: [", b"\xff", b"a: b\n---\nc: d\n", b"- a\n", b"a: 1\x00\n", b"5"]
)
def test_a_file_that_is_unsound_is_not_edited(desk: Path, tidegate: Run, text: bytes) -> None:
    (desk / "clients/odd.yaml").write_bytes(text)
    before = tree(desk)
    status, _, err = tidegate(*ADD_ZOE, "--file", "clients/odd.yaml")
    assert status == 1
    assert "clients/odd.yaml" in err
    assert tree(desk) == before


def test_links_and_fifos_are_not_written_through(desk: Path, tidegate: Run, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (desk / "clients/link.yaml").symlink_to(tmp_path / "outside/x.yaml")
    os.mkfifo(desk / "clients/fifo.yaml")
    (desk / "clients/dir.yaml").mkdir()
    for name in ("link", "fifo", "dir"):
        status, _, err = tidegate(*ADD_ZOE, "--file", f"clients/{name}.yaml")
        assert status == 1
        assert err.count("\n") == 1
        with pytest.raises(EditError, match=f"clients/{name}.yaml"):
            store.write(desk, Change({}, {f"clients/{name}.yaml": b"x: {}"}))
    shutil.rmtree(desk / "tests")
    (desk / "tests").symlink_to(tmp_path / "outside")
    words = ("--from", "client:bob-laptop", "--to", "10.20.0.1", "--port", "icmp", "--expect", "deny")
    status, _, err = tidegate("add", "test", *words)
    assert (status, list((tmp_path / "outside").iterdir())) == (1, [])


@pytest.mark.parametrize(
    "text", [b"people: [\n", b"\xff", b"a: &x {}\n", b"a: {}\na: {}\n", b"a: \x1b\n", b"[" * 99, None]
)
def test_nothing_is_edited_beside_a_file_that_nobody_can_read(
    desk: Path, tidegate: Run, text: bytes | None
) -> None:
    """A removal would leave references in it behind, unnamed, and an addition take its names and addresses."""
    path = desk / "groups/people.yaml"
    if text is None:
        path.rename(desk.parent / "elsewhere.yaml")
        path.symlink_to(desk.parent / "elsewhere.yaml")
    else:
        path.write_bytes(text)
    before = tree(desk)
    for words in (("remove", "client", "alice-laptop", "--cascade"), ADD_ZOE):
        status, out, err = tidegate(*words)
        assert (status, out) == (1, "")
        assert re.fullmatch(
            r"tidegate: inventory/groups/people\.yaml:[0-9:]+: .*; mend the file first, .*\n", err
        )
    assert tree(desk) == before


def test_a_value_of_a_megabyte_is_refused_in_a_line(tidegate: Run) -> None:
    for option in ("--public-key", "--address", "--gateway", "--group"):
        status, _, err = tidegate(*ADD_ZOE, option, "x" * 100_000)
        assert status == 64
        assert len(err) < 1000


# Writing ----------------------------------------------------------------------------------------------------


def test_a_file_that_changed_meanwhile_is_not_overwritten(desk: Path) -> None:
    change = Change({"overlay.yaml": b"old"}, {"overlay.yaml": b"new", "clients/x.yaml": b"{}"})
    before = tree(desk)
    with pytest.raises(EditError, match="changed meanwhile"):
        store.write(desk, change)
    with pytest.raises(EditError, match="changed meanwhile"):
        store.write(desk, Change({}, {"overlay.yaml": b"new"}))
    assert tree(desk) == before


def test_a_write_that_fails_half_way_leaves_what_was(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = tree(desk)
    real, calls = os.rename, []

    def rename(*args: Any, **more: Any) -> None:
        calls.append(args)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        real(*args, **more)

    monkeypatch.setattr(os, "rename", rename)
    with pytest.raises(OSError, match="No space"):
        store.write(desk, Change(before, dict.fromkeys(list(before)[:3], b"{}")))
    assert tree(desk) == before
    assert not list(desk.rglob(".*"))


def test_a_file_that_cannot_be_staged_is_named_as_people_know_it(
    desk: Path, tidegate: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.open

    def refuse(path: Any, flags: int, *args: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            raise PermissionError(13, "Permission denied", path)
        return real(path, flags, *args, **more)

    before = tree(desk)
    monkeypatch.setattr(os, "open", refuse)
    status, out, err = tidegate(*ADD_ZOE, "--group", "engineers")
    assert (status, out) == (1, "")
    assert re.fullmatch(
        r"tidegate: inventory: \w+/\w+\.yaml: cannot be written: Permission denied; nothing is written\n", err
    )
    assert tree(desk) == before


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: str, **_: Any) -> None:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(EditError, match=r"^clients: cannot be made: Permission denied$"):
        store.write(tmp_path, Change({}, {"clients/a.yaml": b""}))


def test_a_name_as_long_as_names_may_be_is_written(desk: Path) -> None:
    path = "clients/" + "\u6f22" * 83 + ".yaml"  # 254 bytes
    store.write(desk, Change({}, {path: b"{}"}))
    assert (desk / path).read_bytes() == b"{}"


def test_modes_are_kept_and_a_file_with_nothing_left_goes(desk: Path, tidegate: Run) -> None:
    (desk / "groups/people.yaml").chmod(0o640)
    assert tidegate(*ADD_ZOE, "--group", "engineers", "--file", "clients/zoe.yaml")[0] == 0
    assert (desk / "groups/people.yaml").stat().st_mode & 0o777 == 0o640
    document = json.loads(tidegate("remove", "client", "zoe", "--json")[1])
    assert document["deleted"] == ["clients/zoe.yaml"]


def test_a_file_never_outgrows_what_is_read(desk: Path) -> None:
    with pytest.raises(EditError, match="larger than"):
        store.write(desk, Change({}, {"clients/big.yaml": b"#" * (5 << 20)}))
    assert not (desk / "clients/big.yaml").exists()


# fmt --------------------------------------------------------------------------------------------------------


def test_fmt_names_writes_and_is_done(desk: Path, tidegate: Run) -> None:
    (desk / "groups/people.yaml").write_text("a:   {members:  [ bob-laptop ]}\n")
    assert tidegate("fmt", "--check") == (1, "inventory/groups/people.yaml: is laid out otherwise\n", "")
    assert "+a: {members: [bob-laptop]}" in tidegate("fmt", "--dry-run", "inventory/groups/people.yaml")[1]
    assert tidegate("fmt", "inventory/groups/people.yaml") == (
        0,
        "inventory/groups/people.yaml: formatted\n",
        "",
    )
    assert (desk / "groups/people.yaml").read_text() == "a: {members: [bob-laptop]}\n"
    assert tidegate("fmt", "--check") == (0, "", "")


def test_fmt_leaves_what_is_unsound_alone(desk: Path, tidegate: Run) -> None:
    for text in (b"a:   [\n", b"a:   &x b\n", b"\xff", b"a:   b\x1b\n", b"a: | # note\n   x\n"):
        (desk / "groups/odd.yaml").write_bytes(text)
        status, _, err = tidegate("fmt")
        assert status == 1
        assert "inventory/groups/odd.yaml:" in err
        assert (desk / "groups/odd.yaml").read_bytes() == text


def test_the_example_and_the_scaffold_are_in_canonical_form(desk: Path, tidegate: Run) -> None:
    assert tidegate("fmt", "--check") == (0, "", "")
    assert run(["init", "new"]) == 0
    assert tidegate("fmt", "--check", "new")[0] == 0


@pytest.mark.parametrize("folder", sorted(path.name for path in (ROOT / "tests/inventories/good").iterdir()))
def test_formatting_changes_no_bundle(folder: str, tmp_path: Path) -> None:
    from tidegate_compiler.pipeline import Compiled, compile_inventory

    shutil.copytree(ROOT / "tests/inventories/good" / folder, tmp_path / "inventory")
    before = compile_inventory(tmp_path / "inventory")
    assert isinstance(before, Compiled)
    assert run(["inventory", "fmt", str(tmp_path / "inventory")]) == 0
    after = compile_inventory(tmp_path / "inventory")
    assert isinstance(after, Compiled)
    differing = {path for path in before.files if before.files[path] != after.files.get(path)}
    assert differing <= {"manifest.json"}
    assert set(before.files) == set(after.files)
