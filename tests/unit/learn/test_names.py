"""Who an ID was at a time: renames, rotations, names that are given away, as git has them."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

import gitkit
from compilerkit import client, key
from learnkit import id_of
from tidegate_compiler.learn import history
from tidegate_compiler.learn.names import Timeline

A, B, C = "a" * 32, "b" * 32, "c" * 32


def test_a_name_is_the_one_of_the_time() -> None:
    past = Timeline()
    past.step(100, {"x.yaml": {"alice": A}})
    past.step(200, {"x.yaml": {"ann": A}})
    names = past.end({"ann": A})
    assert [names.at(A, moment) for moment in (0, 100, 199, 200, 999)] == [
        "alice",
        "alice",
        "alice",
        "ann",
        "ann",
    ]
    assert names.current(A) == A
    assert names.at(B, 100) is None


def test_a_key_that_takes_another_s_place_in_one_commit_follows_it() -> None:
    past = Timeline()
    past.step(100, {"x.yaml": {"alice": A}})
    past.step(200, {"x.yaml": {"alice": B}})
    past.step(300, {"x.yaml": {"ann": B}})
    names = past.end({"ann": C})  # and once more, not committed yet
    assert [names.current(one) for one in (A, B, C)] == [C, C, C]
    assert names.at(A, 250) == "alice"


def test_moving_a_client_to_another_file_is_no_change_of_who_it_is() -> None:
    past = Timeline()
    past.step(100, {"x.yaml": {"alice": A}, "y.yaml": {}})
    past.step(200, {"x.yaml": {}, "y.yaml": {"alice": B}})
    assert past.end({"alice": B}).current(A) == B


def test_a_name_that_was_free_for_a_commit_joins_nobody() -> None:
    """Or the traffic of somebody who left would be taken for that of the next one with the name."""
    past = Timeline()
    past.step(100, {"x.yaml": {"alice": A}})
    past.step(200, {"x.yaml": {}})
    past.step(300, {"x.yaml": {"alice": B}})
    assert past.end({"alice": B}).current(A) is None


def test_clients_that_swap_names_stay_who_they_are() -> None:
    past = Timeline()
    past.step(100, {"x.yaml": {"alice": A, "bob": B}})
    past.step(200, {"x.yaml": {"alice": B, "bob": A}})
    names = past.end({"alice": B, "bob": A})
    assert (names.current(A), names.current(B)) == (A, B)
    assert (names.at(A, 300), names.called(B)) == ("bob", "alice")
    past.step(300, {"x.yaml": {"bob": A}})
    assert past.end({"bob": A}).current(B) is None


def test_keys_in_a_circle_end() -> None:
    past = Timeline()
    for number, one in enumerate((A, B, A, B)):
        past.step(number, {"x.yaml": {"alice": one}})
    assert past.end({}).current(A) is None
    assert past.end({"alice": A}).current(B) == A


def test_a_committer_s_clock_that_goes_back_turns_nothing_around() -> None:
    past = Timeline()
    past.step(200, {"x.yaml": {"alice": A}})
    past.step(100, {"x.yaml": {"ann": A}})
    assert past.end({"ann": A}).at(A, 300) == "ann"


# git -------------------------------------------------------------------------------------------------------------


class Repository:
    def __init__(self, directory: Path) -> None:
        self.tree = directory / "tree"
        self.tree.mkdir()
        self.environment = gitkit.environment(directory, directory, "Somebody", os.environ)
        self.moment = 1_000
        self.git("init", "-q", "-b", "main")

    def git(self, *words: str, given: bytes | None = None) -> str:
        dates = {f"GIT_{who}_DATE": f"@{self.moment} +0000" for who in ("AUTHOR", "COMMITTER")}
        done = subprocess.run(
            ["git", *words],
            cwd=self.tree,
            env=self.environment | dates,
            input=given,
            capture_output=True,
            check=True,
        )
        return done.stdout.decode()

    def commit(self, **files: Any) -> None:
        for name, content in files.items():
            path = self.tree / "inventory" / "clients" / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, str):
                path.write_text(content)
            elif content is None:
                path.unlink()
            else:
                with path.open("w") as stream:
                    YAML().dump(content, stream)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", "Change")
        self.moment += 100


def called(name: str, label: str, number: int = 11) -> dict[str, Any]:
    (fields,) = client(name, number).values()
    return {name: fields | {"public_key": key(label)}}


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    found = Repository(tmp_path)
    monkeypatch.chdir(found.tree)
    return found


def test_git_s_history_is_walked_along_the_branch(repository: Repository) -> None:
    repository.commit(x=called("alice", "one"), y=called("bob", "bob", 12))
    repository.commit(x="- not an inventory\n")  # says nothing
    repository.commit(
        x='# "odd" \\ comment\n' + "alice: {public_key: " + key("two") + "}\n"
    )  # read carefully
    repository.git("checkout", "-q", "-b", "side")
    repository.commit(x=called("never", "two"), y=None)
    repository.git("checkout", "-q", "main")
    repository.commit(z=called("carol", "carol", 13))
    repository.git("merge", "-q", "--no-ff", "-m", "Merge", "side")
    for name in ("inventory", "HEAD", "main:inventory"):
        names = history.timeline(name).end({})
        one, two = id_of("one"), id_of("two")
        assert names.at(one, 1_250) == "alice"
        assert [names.at(two, moment) for moment in (1_200, 1_349, 1_399, 1_501)] == ["alice"] * 3 + ["never"]
        assert names.called(id_of("bob")) == "bob"
        assert names.called(id_of("carol")) == "carol"
        assert history.timeline(name).end({"never": two}).current(one) == two


def test_a_top_that_is_the_inventory_and_odd_names_of_files(repository: Repository) -> None:
    (repository.tree / "clients").mkdir()
    (repository.tree / "clients" / "späte \n gäste.yaml").write_text(
        "alice: {public_key: " + key("one") + "}\n"
    )
    repository.commit()
    assert history.timeline("HEAD:").end({}).called(id_of("one")) == "alice"
    assert history.timeline(".").end({}).called(id_of("one")) == "alice"


@pytest.mark.parametrize(
    "name", ["\x1b[31mred", "a\n- b", "[x](http://example.net)", "@everyone", "A", "a|b", "`"]
)
def test_what_was_no_name_is_none_in_the_past_either(repository: Repository, name: str) -> None:
    """Else a commit that never was an inventory could write onto a terminal, or into a comment."""
    repository.commit(
        x=called("alice", "one"), y=called(name, "two", 12), z={name: {"public_key": key("three")}}
    )
    names = history.timeline("HEAD").end({})
    assert names.called(id_of("one")) == "alice"
    assert [names.called(id_of(one)) for one in ("two", "three")] == [id_of("two"), id_of("three")]


def test_whatever_git_is_set_up_to_print_names_are_read(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Signatures are printed among what is read, and paths told from elsewhere, where somebody has set that up."""
    signing = tmp_path / "signing"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(signing)], check=True)
    allowed = tmp_path / "allowed"
    allowed.write_text(f"admin@example.net {signing.with_suffix('.pub').read_text()}")
    for name, value in (
        ("gpg.format", "ssh"),
        ("user.signingKey", str(signing)),
        ("gpg.ssh.allowedSignersFile", str(allowed)),
        ("commit.gpgSign", "true"),
        ("log.showSignature", "true"),
        ("log.decorate", "full"),
        ("diff.relative", "true"),
    ):
        repository.git("config", name, value)
    repository.commit(x=called("alice", "one"))
    repository.commit(x=called("alice", "two"))
    monkeypatch.chdir(repository.tree / "inventory")
    for name in (".", "HEAD"):
        assert history.timeline(name).end({"alice": id_of("two")}).current(id_of("one")) == id_of("two")


def test_without_git_names_are_those_of_the_inventory(tmp_path: Path) -> None:
    assert history.timeline(str(tmp_path)).end({"alice": A}).called(A) == "alice"


def test_a_thousand_commits_take_seconds(repository: Repository) -> None:
    """A bound that only a walk with a process for each commit, or a parse of each file anew, would miss."""
    fields = {number: f'"10.64.{number}.11/32"' for number in range(20)}

    def file(turn: int) -> str:
        return "".join(
            f"client-{n}: {{public_key: {key(f'{n}/{turn if n == turn % 20 else 0}')}, addresses: [{address}], "
            "gateways: [gw]}\n"
            for n, address in fields.items()
        )

    parts = []
    for turn in range(1000):
        data = file(turn).encode()
        parts.append(
            b"commit refs/heads/main\ncommitter S <s@example.net> %d +0000\ndata 1\n.\n" % (1000 + turn)
            + b"M 100644 inline inventory/clients/all.yaml\ndata %d\n%s\n" % (len(data), data)
        )
    repository.git("fast-import", "--quiet", given=b"".join(parts))
    began = time.monotonic()
    names = history.timeline("main").end({})
    assert time.monotonic() - began < 60
    assert names.at(id_of("7/987"), 1990) == "client-7"
    assert names.current(id_of("7/987")) is None
