"""Publishing to a directory: what hosts find there, serials, renewals, and who is refused."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from compilerkit import client, compiled, inventory, policy
from tidegate_compiler import output
from tidegate_compiler.publish import Row, Terms, publish
from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import Options, TargetError, open_target
from tidegate_schema import release

PRIVATE, PUBLIC = release.generate_key()
SIGNER = Signing(release.load_signer(PRIVATE))
TRUSTED = [release.load_public_key(PUBLIC)]
DAY = 86400
NOW = 1_800_000_000


def out(tmp_path: Path, *clients: tuple[str, int]) -> output.Output:
    chosen: dict[str, object] = {}
    for name, number in clients or (("alice", 11), ("bob", 12)):
        chosen |= client(name, number)
    output.write(tmp_path / "out", compiled(inventory(clients=chosen, policies={"p": policy()})).files)
    return output.read(tmp_path / "out")


def run(
    of: output.Output, target: Path, now: int = NOW, signing: Signing = SIGNER, **more: object
) -> dict[str, Row]:
    terms = Terms(now, 30 * DAY, "abc123", **more)  # type: ignore[arg-type]
    with open_target(str(target), Options(write=not terms.dry_run)) as opened:
        return {f"{row.kind}/{row.host}": row for row in publish(of, opened, signing, terms).rows}


def current(target: Path, host: str) -> tuple[release.Release, Path]:
    folder = target / host / "current"
    return release.open_envelope((folder / "release.json").read_bytes(), TRUSTED), folder


def test_a_host_finds_its_signed_release(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    rows = run(of, target)
    assert set(rows) == {"client/alice", "client/bob", "gateway/gw"}
    for host, row in rows.items():
        statement, folder = current(target, host)
        assert f"{statement.kind}/{statement.host}" == host
        assert (statement.fleet, statement.serial, statement.not_after) == ("default", 1, NOW + 30 * DAY)
        assert statement.source == "abc123"
        assert str(folder.readlink()) == f"releases/{row.digest}"
        assert row.digest == release.files_digest(statement.files)
        for name, entry in statement.files.items():
            assert release.FileEntry.of((folder / name).read_bytes()) == entry
        assert {path.name for path in folder.iterdir()} == {*statement.files, "release.json"}


def test_publishing_again_changes_nothing(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target)
    before = {path: path.lstat().st_mtime_ns for path in target.rglob("*")}
    rows = run(of, target, NOW + 14 * DAY)
    assert {row.action for row in rows.values()} == {"unchanged"}
    assert {path: path.lstat().st_mtime_ns for path in target.rglob("*")} == before


def test_only_hosts_that_changed_get_a_release_and_its_serial_is_one_more(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    run(out(tmp_path), target)
    rows = run(out(tmp_path, ("alice", 11), ("bob", 99)), target)
    assert {host: (row.action, row.serial) for host, row in rows.items()} == {
        "client/alice": ("unchanged", 1),
        "client/bob": ("published", 2),
        "gateway/gw": ("published", 2),
    }


def test_going_back_to_earlier_files_is_a_new_release(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    first = run(out(tmp_path), target)["client/bob"]
    run(out(tmp_path, ("alice", 11), ("bob", 99)), target)
    again = run(out(tmp_path), target)["client/bob"]
    assert (again.digest, again.action, again.serial) == (first.digest, "published", 3)
    assert current(target, "client/bob")[0].serial == 3


def test_past_half_its_validity_a_release_is_renewed_and_watchers_are_told(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target)
    link = (target / "client/alice/current").lstat().st_ino
    rows = run(of, target, NOW + 16 * DAY)
    assert {(row.action, row.serial) for row in rows.values()} == {("renewed", 2)}
    assert current(target, "client/alice")[0].not_after == NOW + 46 * DAY
    assert (target / "client/alice/current").lstat().st_ino != link


@pytest.mark.parametrize("damage", ["envelope", "payload", "link", "gone"])
def test_a_damaged_host_is_mended_with_a_higher_serial(tmp_path: Path, damage: str) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target)
    folder = target / "client" / "alice"
    if damage == "envelope":
        (folder / "current" / "release.json").write_bytes(b"{}")
    elif damage == "payload":
        (folder / "current" / "wg0.conf").write_bytes(b"PostUp = id\n")
    else:
        (folder / "current").unlink()
        if damage == "link":
            (folder / "current").symlink_to("/etc")
    rows = run(of, target)
    assert rows["client/alice"].serial == (1 if damage == "envelope" else 2)
    statement, path = current(target, "client/alice")
    assert release.FileEntry.of((path / "wg0.conf").read_bytes()) == statement.files["wg0.conf"]


def forged(serial: int) -> bytes:
    other = Signing(release.load_signer(release.generate_key()[0]))
    return other.sign(release.Release("default", "client", "alice", serial, NOW, "x", {}))


def test_a_serial_that_this_key_did_not_sign_does_not_count(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    run(out(tmp_path), target)
    folder = target / "client" / "alice" / "releases" / ("0" * 64)
    folder.mkdir()
    (folder / "release.json").write_bytes(forged(9_000_000))
    assert run(out(tmp_path, ("alice", 77)), target)["client/alice"].serial == 2


def test_nor_does_one_that_this_key_signed_for_another_host_or_fleet(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    run(out(tmp_path), target)
    for number, (fleet, kind, host) in enumerate(
        [("other", "client", "alice"), ("default", "gateway", "alice"), ("default", "client", "bob")]
    ):
        folder = target / "client" / "alice" / "releases" / (str(number) * 64)
        folder.mkdir()
        statement = release.Release(fleet, kind, host, 500, NOW, "x", {})
        (folder / "release.json").write_bytes(SIGNER.sign(statement))
    assert run(out(tmp_path, ("alice", 77)), target)["client/alice"].serial == 2


def test_a_forgery_in_the_place_of_current_is_mended(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    run(out(tmp_path), target)
    run(out(tmp_path, ("alice", 77)), target)
    (target / "client/alice/current/release.json").write_bytes(forged(9_000_000))
    row = run(out(tmp_path, ("alice", 77)), target)["client/alice"]
    assert (row.action, row.serial) == ("published", 2)  # after the 1 that is still there
    assert current(target, "client/alice")[0].serial == 2


def test_the_serial_of_a_target_that_lost_its_memory_is_the_admins_to_say(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    rows = run(of, target, serial_from=41)
    assert {row.serial for row in rows.values()} == {41}
    assert {row.serial for row in run(out(tmp_path, ("alice", 77)), target, serial_from=7).values()} == {42}


def test_hosts_below_a_serial_are_signed_anew_though_nothing_changed(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target)
    for serial, last in ((41, "index"), (50, "no index")):
        if last == "no index":
            (target / ".tidegate" / "index.json").unlink()
        assert {(row.action, row.serial) for row in run(of, target, serial_from=serial).values()} == {
            ("renewed", serial)
        }
        assert current(target, "client/alice")[0].serial == serial
        assert {row.action for row in run(of, target, serial_from=serial).values()} == {"unchanged"}


def test_another_keys_hosts_fail_and_keep_what_they_have(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target)
    before = {path: path.lstat().st_mtime_ns for path in (target / "client").rglob("*")}
    rows = run(of, target, signing=Signing(release.load_signer(release.generate_key()[0])))
    assert {(row.action, row.reason) for row in rows.values()} == {
        ("failed", "another key signed the current release; use that key, with the keys.json that names it")
    }
    assert {path: path.lstat().st_mtime_ns for path in (target / "client").rglob("*")} == before


def test_two_publishers_are_kept_apart(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    target.mkdir()
    held = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(TargetError, match="another publish"):
            run(of, target)
    finally:
        os.close(held)
    run(of, target)


@pytest.mark.parametrize("target", ["s3://bucket/x", "root@gw1:/srv/bundles", "SSH://host/x", ""])
def test_a_target_that_is_no_directory_is_refused_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    of = out(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TargetError, match="no such kind of target"):
        open_target(target)
    run(of, tmp_path / "out" / ".." / "out/../b")  # which is one
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b", "out"]


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_file_or_a_place_that_is_not_there_is_no_target(tmp_path: Path, dry_run: bool) -> None:
    of = out(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(TargetError, match=r"/file: not a directory"):
        run(of, tmp_path / "file", dry_run=dry_run)
    with pytest.raises(TargetError, match=r"/mnt: no such directory, so bundles is not made there"):
        run(of, tmp_path / "mnt" / "bundles", dry_run=dry_run)
    assert not (tmp_path / "mnt").exists()


@pytest.mark.parametrize(
    ("name", "what"), [("overlay.yaml", "an inventory"), ("manifest.json", "a compile output")]
)
def test_an_inventory_or_an_output_is_no_target(tmp_path: Path, name: str, what: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / name).write_text("")
    with pytest.raises(TargetError, match=what):
        run(out(tmp_path), target)
    assert [path.name for path in target.iterdir()] == [name]
