"""What was published last, by git: where it is found, when it moves, and what is remembered beside it."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import gitkit
from compilerkit import client, inventory, policy
from docskit import shell_fences
from publishkit import PRIVATE, PUBLIC, SIGNING
from tidegate_compiler import baseline, output, pipeline
from tidegate_compiler.memory import Memory
from tidegate_schema.cli import EXIT_USAGE, run


@dataclass
class Repository:
    """A repository in the working directory, with a signing key."""

    place: Path
    capsys: pytest.CaptureFixture[str]

    def git(self, *words: str) -> str:
        who = ("-c", "user.name=A", "-c", "user.email=a@example.net")
        done = subprocess.run(
            ["git", *who, *words], cwd=self.place, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def write(self, count: int, path: str = "inventory", commit: bool = True) -> str:
        """Write an inventory of some clients, commit and compile it; returns the commit."""
        clients: dict[str, Any] = {}
        for number in range(1, count + 1):
            clients |= client(f"c{number}", number)
        shutil.rmtree(self.place / path, ignore_errors=True)
        for file, data in inventory(clients=clients, policies={"p": policy("all-clients")}).items():
            (self.place / path / file).parent.mkdir(parents=True, exist_ok=True)
            (self.place / path / file).write_bytes(data)
        if commit:
            self.git("add", path)
            self.git("commit", "-q", "--allow-empty", "-m", f"{count} clients")
        assert run(["compile", path, "--out", "out"]) == 0
        self.capsys.readouterr()
        return self.git("rev-parse", "HEAD") if commit else ""

    def publish(self, *more: str, status: int = 0) -> tuple[dict[str, Any], str]:
        """Publish to bundles; returns the JSON and what was said on stderr."""
        words = ["publish", "out", "--to", "bundles", "--key", "signing.key", "--json", *more]
        assert run(words) == status
        told = self.capsys.readouterr()
        return json.loads(told.out) if told.out else {}, told.err

    @property
    def ref(self) -> str:
        return baseline.published(baseline.REF)


@pytest.fixture
def repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Repository:
    (tmp_path / "signing.key").write_bytes(PRIVATE)
    (tmp_path / "signing.key").chmod(0o600)
    monkeypatch.chdir(tmp_path)
    found = Repository(tmp_path, capsys)
    found.git("init", "-q", "-b", "main")
    return found


def test_the_ref_moves_to_the_commit_of_a_complete_publish(repository: Repository) -> None:
    first = repository.write(10)
    told, err = repository.publish(status=1)
    assert (told, repository.ref) == ({}, "")
    assert err.count("\n") == 1
    assert "add --first if nothing was, or --since OLD" in err
    told, _ = repository.publish("--first")
    assert told["recorded"] == repository.ref == first
    assert told["since"] is None
    second = repository.write(9)
    told, err = repository.publish("--dry-run")
    assert (told["recorded"], repository.ref) == (None, first)
    told, err = repository.publish()
    assert told["recorded"] == repository.ref == second
    assert f"refs/tidegate/published ({first[:12]}) -> out: access: 0 gained" in err
    assert repository.publish("--first", status=1)[1].startswith("tidegate: --first is not needed")
    assert run(["publish", "out", "--to", "b", "--key", "k", "--first", "--since", "HEAD"]) == EXIT_USAGE
    assert run(["publish", "out", "--to", "b", "--key", "k", "--ref", "refs/heads/main"]) == EXIT_USAGE


def test_a_release_names_the_commit_it_comes_from(repository: Repository) -> None:
    sha = repository.write(2)
    repository.publish("--first")
    envelope = (repository.place / "bundles/client/c1/current/release.json").read_bytes()
    assert SIGNING.open(envelope).source == sha


def test_a_publish_with_a_failed_host_moves_nothing(repository: Repository) -> None:
    repository.write(3)
    repository.publish("--first")
    before = repository.ref
    new = repository.write(2)
    shutil.rmtree("bundles/client/c1")
    Path("bundles/client/c1").symlink_to("/nowhere")
    told, _ = repository.publish(status=1)
    assert {one["host"]: one["result"] for one in told["hosts"]}["c1"] == "failed"
    assert "not followed" in next(one["reason"] for one in told["hosts"] if one["host"] == "c1")
    assert (told["recorded"], repository.ref) == (None, before)
    Path("bundles/client/c1").unlink()
    assert repository.publish()[0]["recorded"] == repository.ref == new


def test_an_output_of_no_commit_is_published_and_not_recorded(repository: Repository) -> None:
    repository.write(3)
    repository.publish("--first")
    before = repository.ref
    repository.write(2, commit=False)
    told, err = repository.publish()
    assert (told["recorded"], repository.ref) == (None, before)
    assert (
        "out is compiled from what is not committed, so refs/tidegate/published has not moved: commit" in err
    )
    repository.git("commit", "-q", "-a", "-m", "Catch up")
    told, _ = repository.publish()
    assert {one["result"] for one in told["hosts"]} == {"unchanged"}
    assert told["recorded"] == repository.ref == repository.git("rev-parse", "HEAD")


def test_a_source_that_is_another_commit_than_head(repository: Repository) -> None:
    first = repository.write(3)
    shutil.copytree("out", "kept")
    repository.write(2)
    shutil.rmtree("out")
    shutil.move("kept", "out")
    assert repository.publish("--first")[0]["recorded"] is None  # HEAD has another inventory
    assert repository.publish("--first", "--source", first)[0]["recorded"] == first
    for wrong in ("v1.2 of 2026", "abc123", "1" * 40, "--upload-pack=id"):
        told, err = repository.publish(f"--source={wrong}", status=1)
        assert told == {}
        assert err == (
            f"tidegate: --source '{wrong}': no such commit in this repository; fetch it, name the one that out is "
            "compiled from, or leave --source out\n"
        )
    head = repository.git("rev-parse", "HEAD")
    told, err = repository.publish("--source", "HEAD", status=1)
    assert (told, err.count("\n")) == ({}, 1)
    assert f"--source 'HEAD': out is not compiled from the inventory of that commit ({head[:12]})" in err


def test_an_output_that_is_not_compiled_from_head(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    oldest = repository.write(4)
    shutil.copytree("out", "oldest")
    first = repository.write(3)
    repository.publish("--first")
    shutil.copytree("out", "kept")
    second = repository.write(2)
    for output_, says in (
        (
            "kept",
            f"out is compiled from the commit that is published already ({first[:12]}), so "
            f"refs/tidegate/published stays; HEAD "
            f"({second[:12]}) has another inventory: run 'tidegate compile inventory --out out' and publish again",
        ),
        (
            "oldest",
            f"out is not compiled from HEAD ({second[:12]}), so refs/tidegate/published has not moved: run "
            "'tidegate compile inventory --out out' again, or name its commit with --source",
        ),
    ):
        shutil.rmtree("out")
        shutil.copytree(output_, "out")
        told, err = repository.publish()
        assert (told["recorded"], repository.ref) == (None, first)
        assert err.splitlines()[-1] == says
    assert repository.publish("--source", oldest)[0]["recorded"] == oldest


def test_a_target_that_lost_its_releases_is_told(repository: Repository) -> None:
    repository.write(3)
    says = "bundles held nothing, and refs/tidegate/published says that something was published: serials begin at 1"
    assert says not in repository.publish("--first")[1]
    assert says not in repository.publish()[1]
    shutil.rmtree("bundles")
    assert says in repository.publish("--dry-run")[1]
    told, err = repository.publish()
    assert says in err
    assert "see --serial-from" in err
    assert {one["serial"] for one in told["hosts"]} == {1}
    told, err = repository.publish("--serial-from", "9")
    assert says not in err
    assert {(one["result"], one["serial"]) for one in told["hosts"]} == {("renewed", 9)}


def test_a_key_set_that_is_in_use_is_not_forgotten(repository: Repository) -> None:
    """Not where the target knows it no more, nor by another clone's path to the key."""
    repository.write(3)
    (repository.place / "signing.pub").write_bytes(PUBLIC)
    add = ["keys", "add", ".", "--key", "signing.key"]
    assert run([*add, "--fleet", "default", "--threshold", "1"]) == 0
    repository.capsys.readouterr()
    assert "signed under key set 1, 1 of 1 keys" in repository.publish("--first")[1]
    old = Path("keys.json").rename("old.json")
    for _ in ("the target has it", "only git has it"):
        told, err = repository.publish(status=1)
        assert told == {}
        assert err == (
            "tidegate: refs/tidegate/published: releases here are signed under key set 1, this publish has none; "
            "name its keys.json with --keys\n"
        )
        shutil.rmtree("bundles", ignore_errors=True)
    assert not Path("bundles").exists()
    told, _ = repository.publish("--keys", "old.json")
    assert {one["result"] for one in told["hosts"]} == {"published"}
    assert run(["keys", "init", "other"]) == 0
    shutil.copy("old.json", "keys.json")
    assert run([*add, "other/signing.pub"]) == 0
    repository.capsys.readouterr()
    assert "signed under key set 2, 1 of 2 keys" in repository.publish()[1]
    err = repository.publish("--keys", str(old), status=1)[1]
    assert "signed under key set 2, this publish has key set 1" in err
    Path("keys.json").unlink()
    told, err = repository.publish("--ref", "refs/tidegate/anew", "--first", "--to", "anew")
    assert told["recorded"]
    assert "no key set, signed by 1 key" in err


def test_a_key_set_of_another_fleet_signs_nothing(repository: Repository) -> None:
    repository.write(3)
    (repository.place / "signing.pub").write_bytes(PUBLIC)
    assert run(["keys", "add", ".", "--key", "signing.key", "--fleet", "other", "--threshold", "1"]) == 0
    repository.capsys.readouterr()
    for more in ((), ("--dry-run",)):
        told, err = repository.publish("--first", *more, status=1)
        assert (told, err.count("\n")) == ({}, 1)
        assert "remove its keys.json and begin one with 'tidegate keys add DIR --fleet default'" in err
    assert not Path("bundles").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--to", "http://x/"], "'http://x/': no such kind of target"),
        (["--to", "ssh://host"], "'ssh://host': write ssh://user@host/path"),
        (["--to", "tls://a.example/x"], "'tls://a.example/x': write nats://HOST:PORT"),
        (["--to", "tls://a:secret@b"], "no user or password in it"),
        (["--to", "b", "--ssh-config", "c"], "--ssh-config is for a target ssh://"),
        (["--to", "b", "--nats-ca", "c"], "--nats-ca is for a target nats:// or tls://"),
        (["--to", "ssh://a/b", "--nats-replicas", "3"], "--nats-replicas is for a target nats:// or tls://"),
        (["--to", "tls://a", "--nats-cert", "c"], "--nats-cert and --nats-key go together"),
    ],
    ids=["http", "ssh", "tls", "password", "ssh-config", "nats-ca", "replicas", "half"],
)
def test_a_wrong_target_is_a_usage_error_before_anything_is_read(
    capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert run(["publish", "absent", "--key", "absent", *words]) == EXIT_USAGE
    err = capsys.readouterr().err
    assert says in " ".join(err.split())
    assert "secret" not in err


def test_options_from_the_environment_may_be_for_another_target(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(3)
    for name in ("CA", "CERT", "KEY"):
        monkeypatch.setenv(f"TIDEGATE_NATS_{name}", "file")
    assert repository.publish("--first")[0]["recorded"]


@pytest.mark.parametrize("path", ["", "sites/main", "inventory-eu"])
def test_an_inventory_may_lie_elsewhere(repository: Repository, path: str) -> None:
    repository.write(3, path or "top")
    if not path:  # the repository's own top
        for one in Path("top").iterdir():
            shutil.move(one, one.name)
        repository.git("add", "-A", "overlay.yaml", "clients", "gateways", "policies")
        repository.git("rm", "-rq", "--cached", "top")
        repository.git("commit", "-q", "-m", "Move")
        shutil.rmtree("top")
    assert repository.publish("--first")[0]["recorded"] == repository.git("rev-parse", "HEAD")
    shutil.rmtree(".git/tidegate")
    assert repository.publish()[1].splitlines()[0].endswith("-> out: no changes")


def test_without_a_repository_there_is_since(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    repository.write(3)
    shutil.rmtree(".git")
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert "no git repository around" in repository.publish(status=1)[1]
    told, err = repository.publish("--first", "--source", "abc123")  # nothing to check it by
    assert told["recorded"] is None
    assert "no git repository around" in err
    assert "the next publish needs --since" in err
    told, err = repository.publish("--since", "out")
    assert err.splitlines()[0] == "out -> out: no changes"
    assert repository.publish("--since", "HEAD", status=1)[1].count("\n") == 1


def test_a_baseline_that_does_not_compile_is_told(repository: Repository) -> None:
    repository.write(3)
    Path("inventory/clients/all.yaml").write_text("c1: {}\n")
    repository.git("commit", "-q", "-a", "-m", "Broken")
    repository.git("update-ref", baseline.REF, "HEAD")
    err = repository.publish(status=1)[1]
    assert err.count("\n") == 1
    assert "nothing can be compared with it; name a compile output" in err


def test_a_ref_that_moved_meanwhile_is_left_alone(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(3)
    repository.publish("--first")
    other = repository.ref
    mine = repository.write(2)
    with pytest.raises(baseline.BaselineError, match="was not moved"):
        baseline.record(baseline.REF, baseline.Commit(mine, "inventory"), "1" * 40)
    with pytest.raises(baseline.BaselineError, match="was not moved"):
        baseline.record(baseline.REF, baseline.Commit(mine, "inventory"), "")
    assert repository.ref == other


def test_what_is_remembered_gives_the_plan_that_compiling_does(repository: Repository) -> None:
    repository.write(12)
    repository.publish("--first")
    repository.write(10)
    remembered = repository.publish("--dry-run")
    shutil.rmtree(".git/tidegate")
    compiled = repository.publish("--dry-run")
    cut = [
        line.partition(" (inventory/")[0] for line in compiled[1].splitlines()
    ]  # an output knows no places
    assert [line.partition(" (inventory/")[0] for line in remembered[1].splitlines()] == cut
    for told, _ in (remembered, compiled):
        for one in told["hosts"]:
            del one["not_after"]  # a second may have passed
    assert remembered[0] == compiled[0]


def test_with_what_is_remembered_only_what_changed_is_read(
    repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository.write(12)
    settle()
    repository.publish("--first")
    repository.write(11)
    read: list[str] = []
    real = output._host_files

    def host_files(out: Path, kind: str, host: str) -> dict[str, bytes]:
        read.append(host)
        return real(out, kind, host)

    monkeypatch.setattr(output, "_host_files", host_files)
    monkeypatch.setattr(pipeline, "compile_files", None)
    told, _ = repository.publish()
    assert read == ["gw"]
    assert {one["host"] for one in told["hosts"] if one["result"] == "published"} == {"gw"}


@pytest.mark.parametrize("damage", ["garbage", "empty", "tables", "other commit", "other version", "gone"])
def test_what_is_remembered_of_anything_else_is_nothing(repository: Repository, damage: str) -> None:
    repository.write(12)
    repository.publish("--first")
    file = Path(".git/tidegate/published.sqlite")
    assert file.stat().st_mode & 0o777 == 0o600
    if damage == "garbage":
        file.write_bytes(b"SQLite format 3\0" + bytes(range(256)) * 64)
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "gone":
        file.unlink()
    else:
        with sqlite3.connect(file) as database:
            if damage == "tables":
                database.execute("DROP TABLE host")
            else:
                key = "commit" if damage == "other commit" else "version"
                database.execute("UPDATE meta SET value = 'x' WHERE key = ?", (key,))
        database.close()
    repository.write(2)
    err = repository.publish(status=1)[1]
    assert "clients-removed-share" in err
    told, _ = repository.publish("--allow", "clients-removed-share")
    assert told["recorded"] == repository.ref
    with Memory(file, repository.ref, Path("out")) as memory:
        assert len(memory.hosts) == 3


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM file",
        "UPDATE file SET data = 5",
        "UPDATE file SET data = 'text'",
        "UPDATE file SET data = NULL WHERE name = 'wg0.conf'",
    ],
)
def test_rows_that_do_not_belong_together_are_nothing(repository: Repository, damage: str) -> None:
    commit = repository.write(3)
    repository.publish("--first")
    file = Path(".git/tidegate/published.sqlite")
    with sqlite3.connect(file) as database:
        database.execute(damage)
    database.close()
    with Memory(file, commit, Path("out")) as memory:
        assert memory.hosts == {}
    assert {one["result"] for one in repository.publish()[0]["hosts"]} == {"unchanged"}


def test_a_large_file_that_is_damaged_is_told_in_one_line(repository: Repository) -> None:
    repository.write(3)
    repository.publish("--first")
    file = Path(".git/tidegate/published.sqlite")
    with sqlite3.connect(file) as database:
        database.execute("UPDATE file SET data = NULL WHERE name = 'policy.json'")
    database.close()
    repository.write(4)
    err = repository.publish(status=1)[1]
    assert "published.sqlite: damaged" in err
    file.unlink()
    repository.publish()


@pytest.mark.parametrize("damage", ["lost object", "no commit", "garbage", "no repository there"])
def test_a_ref_that_cannot_be_read_is_not_taken_for_none(repository: Repository, damage: str) -> None:
    repository.write(3)
    repository.publish("--first")
    if damage == "no repository there":
        shutil.rmtree(".git")
        Path(".git").write_text("gitdir: /nowhere\n")
    elif damage == "no commit":
        repository.git("update-ref", baseline.REF, repository.git("hash-object", "-w", "signing.key"))
    else:
        text = "1" * 40 if damage == "lost object" else "garbage"
        Path(".git", baseline.REF).write_text(f"{text}\n")
    for more in ((), ("--first",)):
        told, err = repository.publish(*more, status=1)
        assert told == {}
        assert baseline.REF in err
        assert "--first" not in err
        assert err.count("\n") == 1
    told, _ = repository.publish("--since", "out")
    assert told["recorded"] is None


def test_a_file_that_changed_without_growing_is_read(repository: Repository) -> None:
    """Also when its time is set back: its inode's own time cannot be."""
    repository.write(3)
    settle()
    repository.publish("--first")
    file = Path("out/client/c1/wg0.conf")
    info = file.stat()
    file.write_bytes(file.read_bytes().replace(b"10.64.0.1/32", b"10.64.0.9/32"))
    os.utime(file, ns=(info.st_atime_ns, info.st_mtime_ns))
    assert file.stat().st_size == info.st_size
    told, _ = repository.publish()
    assert [one["host"] for one in told["hosts"] if one["result"] == "published"] == ["c1"]


def test_what_was_written_a_moment_ago_is_not_remembered(repository: Repository, tmp_path: Path) -> None:
    repository.write(3)
    changed = max(path.lstat().st_ctime_ns for path in Path("out").rglob("*")) / 1e9
    assert output.read(Path("out"), now=changed).stats == {}
    assert len(output.read(Path("out"), now=changed + 5).stats) == 4


def test_the_recipe_for_ci_works_as_it_stands(repository: Repository, tmp_path: Path) -> None:
    (fence,) = (one for one in shell_fences("docs/publish.md") if "ci" in one.words)
    repository.write(3)
    repository.publish("--first")
    (tmp_path / "programs").mkdir()
    gitkit.tidegate(tmp_path / "programs")
    target = {"TARGET": str(tmp_path / "bundles"), "KEY": str(tmp_path / "signing.key")}
    environment = gitkit.environment(tmp_path, tmp_path / "programs", "CI", os.environ) | target
    repository.git("clone", "-q", "--bare", ".", "origin.git")
    origin = tmp_path / "origin.git"
    repository.git("push", "-q", "origin.git", baseline.REF)
    repository.git("remote", "add", "origin", str(origin))
    sha = repository.write(2)
    repository.git("push", "-q", "origin", "main")
    for number in range(2):
        job = f"job{number}"
        repository.git("clone", "-q", "--depth", "1", origin.as_uri(), job)
        done = subprocess.run(
            ["bash", "-ec", fence.text],
            cwd=tmp_path / job,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert ("gateway\tgw\tpublished\t2" in done.stdout) == (number == 0)
        pushed = repository.git("--git-dir", str(origin), "rev-parse", baseline.REF)
        assert pushed == sha


def settle() -> None:
    """Let the output's files be older than what a file system's clock cannot tell apart."""
    threading.Event().wait(0.1)
