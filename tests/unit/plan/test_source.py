"""Sides from a real repository: revisions, paths, merges, refusals; and the command's exit statuses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from compilerkit import ROOT, key
from tidegate_compiler import files
from tidegate_compiler.plan import revision
from tidegate_compiler.plan.cli import plan
from tidegate_compiler.plan.markdown import MARKER
from tidegate_schema import validation
from tidegate_schema.cli import EXIT_USAGE, run

Run = Callable[..., tuple[int, str, str]]
KEY = key("another")
WHO = {f"GIT_{role}_{what}": "a@b" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str]) -> Run:
    def call(*args: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run(["plan", *map(str, args)])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return call


class Repository:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.inventory = root / "inventory"

    def git(self, *args: str) -> str:
        done = subprocess.run(["git", *args], cwd=self.root, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(self, message: str = "Change") -> str:
        self.git("add", "-A", "-f", ".")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        return self.git("rev-parse", "HEAD")

    def edit(self, file: str, old: str, new: str) -> None:
        path = self.inventory / file
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    for name, value in {**WHO, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}.items():
        monkeypatch.setenv(name, value)
    made = Repository(tmp_path / "repo")
    shutil.copytree(ROOT / "inventory", made.inventory)
    made.git("init", "-q", "-b", "main")
    made.commit("Start")
    monkeypatch.chdir(made.root)
    return made


def revoke_alice(repository: Repository) -> None:
    repository.edit("groups/people.yaml", "[alice-laptop, dave-laptop", "[dave-laptop")


def test_revoking_alice_is_exactly_her_losses(tidegate: Run, repository: Repository) -> None:
    revoke_alice(repository)
    status, out, err = tidegate("main", "inventory", "--format", "json")
    told = json.loads(out)
    assert (status, err) == (2, "")
    assert validation.errors("plan", told) == []
    assert told["access"]["gained"] == []
    assert {one["name"] for row in told["access"]["lost"] for one in row["clients"]} == {"alice-laptop"}
    lost = {
        (to, port, row["expires"], row["policy"]["name"], row["policy"]["line"])
        for row in told["access"]["lost"]
        for to in row["to"]
        for port in row["ports"]
    }
    assert lost == {
        (to, port, until, policy, line)
        for all_to, ports, until, policy, line in (
            ("10.20.0.80/32 fd20::80/128", "tcp/8080 icmp", None, "eng-reaches-web", 1),
            ("10.20.0.22/32 fd20::22/128", "tcp/22 tcp/443", None, "eng-and-contractors-use-git", 6),
            ("10.20.5.0/28 fd20:0:0:5::/64", "tcp/5432", "2031-06-30T00:00:00Z", "eng-reads-prod-db", 11),
        )
        for to in all_to.split()
        for port in ports.split()
    }
    assert {row["policy"]["file"] for row in told["access"]["lost"]} == {
        "inventory/policies/engineering.yaml"
    }
    assert [one["host"] for one in told["bundles"]] == ["fra1"]
    assert [(one["kind"], one["name"], one["line"]) for one in told["objects"]] == [("group", "engineers", 1)]


def test_exit_statuses_and_forms(tidegate: Run, repository: Repository) -> None:
    assert tidegate("main", "inventory") == (0, "main -> inventory: no changes\n", "")
    revoke_alice(repository)
    second = repository.commit()
    for old, new in (("HEAD~1", second), ("HEAD~1:inventory", "HEAD:inventory/"), ("main^", "main^{commit}")):
        status, out, _ = tidegate(old, new)
        assert (status, out.count("no longer granted by")) == (2, 3)
        assert "inventory/policies/engineering.yaml:11" in out
    assert tidegate("HEAD", "HEAD:")[0] == 1  # the top of the repository has no overlay.yaml
    status, out, _ = tidegate("HEAD~1", "HEAD", "--format", "markdown")
    assert (status, out.startswith(MARKER)) == (2, True)
    assert tidegate("HEAD")[0] == EXIT_USAGE
    assert tidegate("HEAD", "HEAD", "--format", "xml")[0] == EXIT_USAGE


def test_a_repository_without_that_directory_is_told_how_to_name_the_top(
    tidegate: Run, repository: Repository
) -> None:
    told = tidegate("HEAD", "HEAD:inv")[2]
    assert told.endswith("has no 'inv'; write REV:path, or 'HEAD:' if its top is the inventory\n")
    assert "an inventory inside an inventory is not read" in tidegate("HEAD", "HEAD:")[2]


def test_the_shell_completes_directories() -> None:
    context = click.Context(plan)
    for parameter in plan.params[:2]:
        (item,) = parameter.shell_complete(context, "inv")
        assert (item.value, item.type) == ("inv", "dir")


def test_a_revision_may_hold_colons_inside_braces(tidegate: Run, repository: Repository) -> None:
    repository.commit("fix: this")
    revoke_alice(repository)
    repository.commit("Revoke")
    for name in ("HEAD^{/fix: this}", "HEAD^{/fix: this}:inventory", "HEAD@{1}:./inventory/"):
        assert tidegate("HEAD~1", name)[0] == 0, name
        assert tidegate(name, "HEAD")[0] == 2, name
    status, _, err = tidegate("HEAD", ":/fix: this")
    assert (status, "write REV or REV:path" in err, err.count("\n")) == (1, True, 1)


def test_the_top_of_the_repository_is_written_in_two_ways(
    tidegate: Run, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in [*repository.inventory.iterdir()]:
        path.rename(repository.root / path.name)
    repository.commit()
    (repository.root / "below").mkdir()
    for place in (
        repository.root,
        repository.root / "below",
    ):  # the path begins at the top, wherever one stands
        monkeypatch.chdir(place)
        assert tidegate("HEAD:", "HEAD:.")[0] == 0
        assert tidegate("HEAD~1", "HEAD:./")[0] == 0


def test_a_merge_is_compared_with_either_parent(tidegate: Run, repository: Repository) -> None:
    repository.git("checkout", "-q", "-b", "side")
    revoke_alice(repository)
    repository.commit()
    repository.git("checkout", "-q", "main")
    repository.edit("policies/operations.yaml", "[tcp/873]", "[tcp/874]")
    repository.commit()
    repository.git("merge", "-q", "-m", "Merge", "side")
    _, out, _ = tidegate("HEAD^1", "HEAD", "--format", "json")
    assert {one["name"] for row in json.loads(out)["access"]["lost"] for one in row["clients"]} == {
        "alice-laptop"
    }
    _, out, _ = tidegate("HEAD^2", "HEAD", "--format", "json")
    found = json.loads(out)["access"]
    assert [[row["ports"] for row in found[kind]] for kind in ("gained", "lost")] == [
        [["tcp/874"]],
        [["tcp/873"]],
    ]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nonsense", "no such directory, and no such git revision"),
        ("HEAD~99", "no such git revision"),
        ("HEAD:nowhere", "the revision has no 'nowhere'"),
        ("HEAD:inventory/overlay.yaml", "is no directory in that revision"),
        ("HEAD:../etc", "neither a directory nor a git revision"),
        (":inventory", "neither a directory nor a git revision"),
        ("a\x1b[2J\u202e", "no such git revision"),
        ("inventory/overlay.yaml", "neither a directory nor a git revision"),
        ("--upload-pack=x:y", "No such option"),
        ("", "neither a directory nor a git revision"),
    ],
)
def test_a_bad_revision_is_one_line(tidegate: Run, repository: Repository, name: str, told: str) -> None:
    status, out, err = tidegate(name, "HEAD")
    assert (status, out) == (EXIT_USAGE if name.startswith("--") else 1, "")
    assert told in err
    if status == 1:
        assert err.count("\n") == 1
        assert err.rstrip("\n").isprintable()


def test_outside_a_repository_or_without_git(
    tidegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.chdir(tmp_path)
    status, _, err = tidegate("HEAD", "HEAD")
    assert (status, err.count("\n"), "not a git repository" in err) == (1, 1, True)
    monkeypatch.setenv("PATH", str(tmp_path))
    status, _, err = tidegate("HEAD", "HEAD")
    assert (status, err.count("\n"), "git" in err) == (1, 1, True)


def test_a_side_with_errors_is_told_with_its_places(tidegate: Run, repository: Repository) -> None:
    repository.edit("groups/people.yaml", "alice-laptop", "alcie-laptop")
    status, out, err = tidegate("main", "inventory")
    assert (status, out) == (1, "")
    assert "inventory/groups/people.yaml:2:" in err
    assert err.splitlines()[-1] == "tidegate: inventory: 1 error, 0 warnings"
    repository.commit()
    assert tidegate("main", "main~1")[0] == 1


def test_a_revision_is_read_as_the_directory_it_came_from(repository: Repository) -> None:
    inventory = repository.inventory
    outside = repository.root / "elsewhere"
    outside.mkdir()
    (inventory / "groups" / "link.yaml").symlink_to("/etc/passwd")
    (inventory / "groups" / "note.link").symlink_to("/etc/passwd")
    (inventory / "tests" / "old.yml").write_text("[]")
    (inventory / "tests" / "old.json").write_text("[]")
    (inventory / "tests" / "README.md").write_text("text")
    (inventory / "tests" / "below").mkdir()
    (inventory / "tests" / "below" / "x.yaml").write_text("[]")
    (inventory / "clients" / ".hidden.yaml").write_text("x: 1")
    (inventory / "clients" / "big.yaml").write_bytes(b"#" * (files.FILE_MAX_BYTES + 1))
    (inventory / "clients" / "dir.yaml").mkdir()
    (inventory / "clients" / "dir.yaml" / "x").write_text("x")
    (inventory / "polices").mkdir()
    (inventory / "polices" / "x.txt").write_text("x")
    (inventory / "docs").mkdir()
    (inventory / "docs" / "x.txt").write_text("x")
    (inventory / "other").mkdir()
    (inventory / "other" / "x.yaml").write_text("x")
    (inventory / "stray.yaml").write_text("x")
    (inventory / "strange.yaml").symlink_to("overlay.yaml")
    (inventory / ".gitattributes").write_text("policies/* export-ignore\n*.yaml text eol=crlf ident\n")
    with open(os.fsencode(inventory / "tests") + b"/\xff.yaml", "w") as file:  # noqa: PTH123 - bytes are no Path
        file.write("[]")
    expected_files, expected_problems = files.read(inventory)
    repository.commit()
    root, found, problems = revision.read("HEAD")
    assert root == "inventory"
    assert found == expected_files
    assert sorted(problems) == sorted(expected_problems)
    assert {problem.code for problem in problems} == {"TG001", "TG002", "TG004"}


def test_a_kind_that_is_no_directory(repository: Repository) -> None:
    shutil.rmtree(repository.inventory / "tests")
    (repository.inventory / "tests").symlink_to("groups")
    shutil.rmtree(repository.inventory / "policies")
    (repository.inventory / "policies").write_text("x")
    expected = files.read(repository.inventory)[1]
    repository.commit()
    assert sorted(revision.read("HEAD")[2]) == sorted(expected)


def test_compile_outputs(tidegate: Run, repository: Repository, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    assert run(["compile", "inventory", "--out", str(old)]) == 0
    assert tidegate(old, "inventory")[0] == 0
    revoke_alice(repository)
    assert run(["compile", "inventory", "--out", str(new)]) == 0
    status, out, _ = tidegate(old, new, "--format", "json")
    told = json.loads(out)
    assert (status, told["objects"], told["old"]["is"]) == (2, None, "output")
    assert validation.errors("plan", told) == []
    assert {one["name"] for row in told["access"]["lost"] for one in row["clients"]} == {"alice-laptop"}
    assert {row["policy"]["file"] for row in told["access"]["lost"]} == {None}
    assert [one["host"] for one in told["bundles"]] == ["fra1"]
    status, out, _ = tidegate(old, "inventory")
    assert (status, "not compared, a side is a compile output" in out) == (2, True)
    (new / "gateway" / "fra1" / "policy.json").write_text("{}")
    status, _, err = tidegate(old, new)
    assert (status, err.count("\n")) == (1, 1)


def test_a_repository_of_another_place_is_not_touched(tidegate: Run, repository: Repository) -> None:
    revoke_alice(repository)
    before = sorted(path for path in repository.root.rglob("*"))
    status = repository.git("status", "--porcelain")
    assert tidegate("HEAD", "inventory")[0] == 2
    assert sorted(path for path in repository.root.rglob("*")) == before
    assert repository.git("status", "--porcelain") == status


def test_explain_agrees_with_every_witness(
    tidegate: Run, repository: Repository, capfd: pytest.CaptureFixture[str]
) -> None:
    repository.edit("groups/people.yaml", "[carol-laptop, erin-desktop]", "[erin-desktop, monitor]")
    repository.edit("policies/operations.yaml", "tcp/9100-9199", "proto/47")
    repository.edit("policies/operations.yaml", "  ports: [tcp/22]", "  ports: [any]\n  expires: 2030-01-01")
    old = repository.root / "old"
    repository.git("worktree", "add", "-q", str(old), "HEAD")
    told = json.loads(tidegate("HEAD", "inventory", "--format", "json")[1])["access"]
    assert len(told["gained"]) > 2
    assert len(told["lost"]) > 2
    for kind, verdicts in (("gained", (3, 0)), ("lost", (0, 3))):
        for witness in (one for row in told[kind] for one in row["witnesses"]):
            at = witness["at"] or "2029-01-01T00:00:00Z"
            for side, verdict in zip((old / "inventory", "inventory"), verdicts, strict=True):
                question = [witness["client"], witness["destination"], witness["port"], "--at", at]
                assert run(["explain", str(side), *question]) == verdict, (kind, witness)
    capfd.readouterr()


def test_a_hostile_file_name_reaches_no_terminal_and_no_page(tidegate: Run, repository: Repository) -> None:
    name = "@team|<b>`\u202e\x1b[2J\u200b.yaml"
    (repository.inventory / "policies" / name).write_text(
        "p: {from: [client:monitor], to: [10.20.7.0/24], ports: [tcp/1], action: allow}\n"
    )
    for form in ("text", "markdown", "json"):
        status, out, _ = tidegate("HEAD", "inventory", "--format", form)
        assert status == 2
        assert all(char.isprintable() or char == "\n" for char in out)
        assert form == "json" or "policies/" in out
        if form == "markdown":
            assert "@team" not in out
            assert "\\x40team\\x7c\\x3cb\\x3e\\x60\\u202e\\x1b\\x5b2J\\u200b.yaml:1" in out


def test_the_way_a_packet_takes_changes_no_access(tidegate: Run, repository: Repository) -> None:
    with (repository.inventory / "gateways" / "more.yaml").open("w") as file:
        file.write(
            "near: {public_key: 0MYU9N9kpueC+npQI2gv6PTYsQfZCvFvHp+6pZh7fls=, endpoint: '203.0.113.77:51820',"
            " networks: [10.20.5.0/24, 'fd20:0:0:5::/64']}\n"
        )
    repository.edit("clients/contractors.yaml", "0MYU9N9kpueC+npQI2gv6PTYsQfZCvFvHp+6pZh7fls=", KEY)
    repository.commit()
    repository.edit("clients/engineering.yaml", "gateways: [fra1]", "gateways: [fra1, near]")
    status, out, err = tidegate("HEAD", "inventory", "--format", "json")
    told = json.loads(out)
    assert (status, err) == (2, "")
    assert told["access"] == {"gained": [], "lost": []}
    assert [one["host"] for one in told["bundles"]] == ["alice-laptop", "near"]
