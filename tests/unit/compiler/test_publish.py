"""Publishing to a directory: what hosts find there, serials, renewals, and who is refused."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

import pytest

from compilerkit import client, compiled, inventory, policy
from tidegate_compiler import output
from tidegate_compiler.publish import PublishError, Row, publish
from tidegate_schema import release

PRIVATE, PUBLIC = release.generate_key()
SIGNER = release.load_signer(PRIVATE)
TRUSTED = [release.load_public_key(PUBLIC)]
DAY = 86400
NOW = 1_800_000_000


def out(tmp_path: Path, *clients: tuple[str, int]) -> output.Output:
    chosen: dict[str, object] = {}
    for name, number in clients or (("alice", 11), ("bob", 12)):
        chosen |= client(name, number)
    output.write(tmp_path / "out", compiled(inventory(clients=chosen, policies={"p": policy()})).files)
    return output.read(tmp_path / "out")


def run(of: output.Output, target: Path, now: int = NOW, signer: object = SIGNER) -> dict[str, Row]:
    rows = publish(of, target, signer, now, 30 * DAY, "abc123")  # type: ignore[arg-type]
    return {f"{row.kind}/{row.host}": row for row in rows}


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


def test_a_serial_that_this_key_did_not_sign_does_not_count(tmp_path: Path) -> None:
    target = tmp_path / "bundles"
    other = release.load_signer(release.generate_key()[0])
    run(out(tmp_path), target)
    forged = release.Release("default", "client", "alice", 9_000_000, NOW, "x", {})
    folder = target / "client" / "alice" / "releases" / ("0" * 64)
    folder.mkdir()
    (folder / "release.json").write_bytes(release.sign(forged, other))
    assert run(out(tmp_path, ("alice", 77)), target)["client/alice"].serial == 2


def test_another_keys_target_is_refused(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    run(of, target)
    with pytest.raises(PublishError, match="another key"):
        run(of, target, signer=release.load_signer(release.generate_key()[0]))


def test_two_publishers_are_kept_apart(tmp_path: Path) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    target.mkdir()
    held = os.open(target, os.O_RDONLY)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(PublishError, match="another publish"):
            run(of, target)
    finally:
        os.close(held)
    run(of, target)


def test_current_never_names_an_incomplete_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut the run at every rename and fsync: whatever `current` names is whole and signed."""
    target = tmp_path / "bundles"
    run(out(tmp_path), target)
    for steps in range(30):
        of = out(tmp_path, ("alice", 20 + steps), ("bob", 12))
        left = [steps]

        def fsync(_: int, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fsync)
            with contextlib.suppress(KeyboardInterrupt):
                run(of, target)
        for host in ("client/alice", "client/bob", "gateway/gw"):
            statement, folder = current(target, host)
            for name, entry in statement.files.items():
                assert release.FileEntry.of((folder / name).read_bytes()) == entry


@pytest.mark.parametrize("target", ["s3://bucket/x", "root@gw1:/srv/bundles", "nats://host"])
def test_a_target_that_is_no_directory_is_refused_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, target: str
) -> None:
    of = out(tmp_path)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PublishError, match="a directory only"):
        run(of, Path(target))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("name", "what"), [("overlay.yaml", "an inventory"), ("manifest.json", "a compile output")]
)
def test_an_inventory_or_an_output_is_no_target(tmp_path: Path, name: str, what: str) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / name).write_text("")
    with pytest.raises(PublishError, match=what):
        run(out(tmp_path), target)
    assert [path.name for path in target.iterdir()] == [name]
