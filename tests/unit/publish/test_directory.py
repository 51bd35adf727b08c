"""A directory as a target, at its worst: links, floods, a full disk, no permission; and what is kept there."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from publishkit import DAY, NOW, SIGNING, accepted, push, push_to, with_chain
from publishkit import compiled_output as out
from tidegate_compiler.output import Output
from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import Conflict, Found, Options, open_target, tree
from tidegate_compiler.targets.folders import Local
from tidegate_schema import jsonfile, release

HOST = "client/alice"


def serials(target: Path, host: str = HOST) -> set[int]:
    return {
        SIGNING.open(path.read_bytes()).serial for path in (target / host / "releases").glob("*/release.json")
    }


def test_the_last_releases_are_kept_and_the_current_one_always(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    for number in range(1, 9):
        push_to(out(tmp_path, ("alice", number)), target, keep=3)
        os.utime(target / HOST / "current" / "release.json", ns=(number, number))  # a clock that stands still
    assert serials(target) == {6, 7, 8}
    push_to(out(tmp_path, ("alice", 6)), target, keep=3)  # an earlier one again, whose directory is there
    assert serials(target) == {7, 8, 9}
    push_to(out(tmp_path, ("alice", 50)), target, keep=1)
    assert serials(target) == {10}
    assert accepted(target, HOST).release.serial == 10


@pytest.mark.parametrize("jobs", [1, 4])
def test_so_many_hosts_are_pushed_at_a_time_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    of = out(tmp_path, *((f"c{number}", number) for number in range(1, 12)))  # and a gateway
    real, together = tree.put, threading.Barrier(jobs)
    lock, at_work, most = threading.Lock(), 0, 0

    def put(*words: Any) -> str:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        together.wait(60)  # broken where fewer come than are waited for
        said = real(*words)
        with lock:
            at_work -= 1
        return said

    monkeypatch.setattr(tree, "put", put)
    rows = push_to(of, tmp_path / "bundles", jobs=jobs)
    assert {row.action for row in rows.values()} == {"published"}
    assert (len(rows), most) == (12, jobs)


def test_a_kept_release_whose_time_is_far_ahead_does_not_push_the_current_one_out(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    push_to(out(tmp_path), target)
    os.utime(target / HOST / "current" / "release.json", (1 << 33, 1 << 33))
    push_to(out(tmp_path, ("alice", 50)), target, keep=1)
    assert accepted(target, HOST).release.serial == 2


@pytest.mark.parametrize("what", ["kind", "host", "releases"])
def test_a_link_in_a_folders_place_is_named_and_not_followed(tmp_path: Path, what: str) -> None:
    of, target, outside = out(tmp_path), tmp_path / "bundles", tmp_path / "outside"
    outside.mkdir()
    place = {"kind": target / "client", "host": target / HOST, "releases": target / HOST / "releases"}[what]
    place.parent.mkdir(parents=True)
    place.symlink_to(outside)
    if what == "kind":
        with pytest.raises(Exception, match="not followed; remove it"):
            push_to(of, target)
    else:
        rows = push_to(of, target)
        assert rows[HOST].action == "failed"
        assert rows[HOST].reason == f"{place}: a symbolic link or no directory, and not followed; remove it"
        assert rows["client/bob"].action == rows["gateway/gw"].action == "published"
    assert list(outside.iterdir()) == []


def test_links_in_place_of_files_and_releases_are_replaced_and_not_followed(tmp_path: Path) -> None:
    of, target, outside = out(tmp_path), tmp_path / "bundles", tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("kept")
    digest = push_to(of, target)[HOST].digest
    folder = target / HOST
    for damage in ("current", "release", "file", "aside", "new"):
        if damage == "current":
            (folder / "current").unlink()
            (folder / "current").symlink_to("/etc")
        elif damage == "release":
            (folder / "releases" / digest).rename(tmp_path / f"moved {damage}")
            (folder / "releases" / digest).symlink_to(outside)
        elif damage == "file":
            (folder / "current" / "wg0.conf").unlink()
            (folder / "current" / "wg0.conf").symlink_to(outside / "file")
        elif damage == "aside":
            (folder / "current" / "release.json").write_bytes(b"{}")
            (folder / "current" / ".release.json.new").symlink_to(outside / "file")
            (folder / ".current.new").symlink_to(outside / "file")
        else:
            (folder / "releases" / f".{'0' * 64}.new").symlink_to(outside)
            (folder / "current" / "release.json").unlink()
        assert push_to(of, target)[HOST].action == "published", damage
        assert accepted(target, HOST).files == of.hosts["client", "alice"]
    assert [path.name for path in outside.iterdir()] == ["file"]
    assert (outside / "file").read_text() == "kept"


def test_a_huge_or_odd_envelope_is_not_read(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    envelope = target / HOST / "current" / "release.json"
    envelope.unlink()
    with envelope.open("wb") as file:
        file.truncate(1 << 40)
    assert push_to(of, target)[HOST].action == "published"
    assert accepted(target, HOST)
    envelope.unlink()
    os.mkfifo(envelope)
    assert push_to(of, target)[HOST].action == "published"
    payload = target / HOST / "current" / "wg0.conf"
    with payload.open("wb") as file:
        file.truncate(1 << 40)
    assert push_to(of, target)[HOST].action == "published"
    assert accepted(target, HOST)


def test_of_a_flood_of_releases_few_are_read(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    data = (target / HOST / "current" / "release.json").read_bytes()
    for number in range(300):
        folder = target / HOST / "releases" / f"{number:064x}"
        folder.mkdir()
        (folder / "release.json").write_bytes(data)
    with open_target(str(target)) as opened:
        assert len(opened.find("client", "alice").envelopes) == 64
    assert push_to(out(tmp_path, ("alice", 50)), target)[HOST].serial == 2
    assert len(list((target / HOST / "releases").iterdir())) == 5


def test_an_index_that_lies_can_withhold_and_nothing_else(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    file = target / ".tidegate" / "index.json"
    told = json.loads(file.read_bytes())
    told["hosts"][HOST][2] = 9_000_000
    file.write_text(json.dumps(told))
    assert (
        push_to(of, target)[HOST].serial == 9_000_000
    )  # what is told of an unchanged host is the index's word
    new = push_to(out(tmp_path, ("alice", 50)), target)[HOST]
    assert (new.action, new.serial) == ("published", 2)


@pytest.mark.parametrize(
    "index",
    [
        b"",
        b"[]",
        b"{",
        b'{"format":1}',
        b'{"fleet":"default","format":1,"hosts":{"client/alice":[1,2,3,4]},"keys":"","sample":"x"}',
        b"\xff" * 1000,
        b"[" * 100_000,
    ],
    ids=["empty", "list", "cut", "bare", "types", "bytes", "deep"],
)
def test_an_index_of_another_form_is_none(tmp_path: Path, index: bytes) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    (target / ".tidegate" / "index.json").write_bytes(index)
    assert {row.action for row in push_to(of, target).values()} == {"unchanged"}


def test_an_index_of_many_more_hosts_than_there_are_is_not_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small values make large objects: 150 MB of `{}` took 3 GB."""
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    parsed: list[int] = []
    real = jsonfile.parse

    def parse(data: bytes, fractions: list[str] | None = None) -> object:
        parsed.append(len(data))
        return real(data, fractions)

    monkeypatch.setattr(jsonfile, "parse", parse)
    (target / ".tidegate" / "index.json").write_bytes(b"[" + b"{}," * 500_000 + b"{}]")
    assert {row.action for row in push_to(of, target).values()} == {"unchanged"}
    assert max(parsed) < 100_000


@pytest.mark.parametrize("what", ["current", "current/wg0.conf", "current/release.json"])
def test_a_directory_in_the_place_of_what_is_none_is_replaced(tmp_path: Path, what: str) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    (target / HOST / what).unlink()
    (target / HOST / what / "inner").mkdir(parents=True)
    assert push_to(of, target)[HOST].action == "published"
    assert accepted(target, HOST).files == of.hosts["client", "alice"]


def test_a_directory_in_the_place_of_the_index_goes(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    (target / ".tidegate" / "index.json" / "inner").mkdir(parents=True)
    push_to(of, target)
    assert (target / ".tidegate" / "index.json").is_file()


def test_the_index_saves_reading_and_notices_every_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    read: list[str] = []
    real = tree.find

    def find(root: Local, kind: str, host: str) -> Found:
        read.append(f"{kind}/{host}")
        return real(root, kind, host)

    monkeypatch.setattr(tree, "find", find)
    push_to(of, target)
    assert read == []
    (target / HOST / "current" / "wg0.conf").write_bytes(b"x")
    push_to(of, target)
    assert read == [HOST]
    read.clear()
    push_to(of, target, now=NOW + 16 * DAY)
    assert sorted(read) == sorted(f"{kind}/{host}" for kind, host in of.hosts)
    read.clear()
    push_to(of, target, Signing(release.load_signer(release.generate_key()[0])), now=NOW + 16 * DAY)
    assert len(read) == len(of.hosts)  # another key believes none of it


def test_a_key_set_that_changed_is_sent_to_every_host(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    push_to(of, target)
    chained = with_chain(b'{"keys":1}\n')
    rows = push_to(of, target, chained)
    assert {(row.action, row.serial) for row in rows.values()} == {("renewed", 2)}
    assert (target / HOST / "current" / "keys.json").read_bytes() == chained.chain
    assert {row.action for row in push_to(of, target, chained).values()} == {"unchanged"}
    (target / HOST / "current" / "keys.json").write_bytes(b"other\n")
    assert push_to(of, target, chained)[HOST].action == "renewed"


def test_somebody_elses_put_in_between_is_noticed(tmp_path: Path) -> None:
    """Where a mount knows no locks, this is what keeps two publishers apart."""
    target = tmp_path / "bundles"
    push_to(out(tmp_path), target)
    root = Local(os.open(target, os.O_RDONLY), "target")
    found = tree.find(root, "client", "alice")
    push_to(out(tmp_path, ("alice", 50)), target)
    before = accepted(target, HOST)
    with pytest.raises(Conflict, match="another publish"):
        tree.put(root, "client", "alice", "0" * 64, {}, found, 5)
    assert accepted(target, HOST) == before
    root.close()


def test_a_full_disk_fails_the_hosts_that_have_no_room(tmp_path: Path) -> None:
    target = tmp_path / "small"
    target.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(target)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("may not mount here")
    try:
        of = out(tmp_path, *((f"c{number}", number) for number in range(1, 60)))
        rows = push_to(of, target, jobs=1)
        failed = [row for row in rows.values() if row.action == "failed"]
        assert 0 < len(failed) < len(rows)
        assert all("No space left on device" in row.reason and "\n" not in row.reason for row in failed)
        for name, row in rows.items():
            if row.action == "published" and name.startswith("client/"):
                assert accepted(target, name)
        subprocess.run(["mount", "-o", "remount,size=16m", str(target)], check=True)
        rows = push_to(of, target)
        assert {row.action for row in rows.values()} == {"published", "unchanged"}
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_target_that_cannot_be_written_fails_every_host_by_name(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "small"
    target.mkdir()
    options = "ro,size=1m"
    if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", target], check=False).returncode:
        pytest.skip("may not mount here")
    try:
        rows = push_to(of, target)
        assert {row.action for row in rows.values()} == {"failed"}
        assert rows[HOST].reason == f"{target}/client: Read-only file system"
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_an_output_without_hosts_publishes_nothing(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    push_to(out(tmp_path), target)
    with open_target(str(target), Options()) as opened:
        done = push(Output("default", "sha256:x", {}), opened)
    assert done.rows == ()
    assert {host for _, host in done.left_behind} == {"alice", "bob", "gw"}
    assert accepted(target, HOST)
