"""The output directory: untouched when right, ours or refused, whole or marked."""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from compilerkit import client, compiled, inventory, policy
from tidegate_compiler import output
from tidegate_compiler.output import OutputError

ONE = compiled(inventory(policies={"p": policy()})).files
OTHER = compiled(inventory(clients=client("alice", 13), policies={"p": policy()})).files
MORE = compiled(inventory(clients=client("alice", 13) | client("bob", 14), policies={"p": policy()})).files


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_writes_exactly_the_files(tmp_path: Path) -> None:
    written = output.write(tmp_path / "a" / "out", ONE)
    assert tree(tmp_path / "a" / "out") == ONE
    assert set(written.changed) == set(ONE)


def test_unchanged_files_are_not_touched(tmp_path: Path) -> None:
    output.write(tmp_path, ONE)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert output.write(tmp_path, ONE) == output.Written((), (), len(ONE))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    inode = (tmp_path / "gateway/gw/policy.json").stat().st_ino
    changed = dict(ONE) | {"client/bob/wg0.conf": b"new\n"}
    assert output.write(tmp_path, changed).changed == ("client/bob/wg0.conf",)
    assert (tmp_path / "gateway/gw/policy.json").stat().st_ino == inode


def test_stale_hosts_are_removed(tmp_path: Path) -> None:
    output.write(tmp_path, ONE)
    written = output.write(tmp_path, OTHER)
    assert written.removed == ("client/bob/wg0.conf",)
    assert tree(tmp_path) == OTHER
    assert not (tmp_path / "client" / "bob").exists()


@pytest.mark.parametrize(
    "content", [None, b"{}", b"not json", b'{"format":1,"hosts":{}}', b"[]", b'"x"', b"\xff"]
)
def test_somebody_elses_directory_is_refused_and_left_alone(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "precious").write_text("x")
    (tmp_path / "client" / "mine").mkdir(parents=True)
    (tmp_path / "client" / "mine" / "file").write_text("x")
    if content is not None:
        (tmp_path / "manifest.json").write_bytes(content)
    before = tree(tmp_path)
    with pytest.raises(OutputError) as caught:
        output.write(tmp_path, ONE)
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before


def test_a_file_or_a_link_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    for name in ("file", "link"):
        with pytest.raises(OutputError):
            output.write(tmp_path / name, ONE)


def test_a_link_inside_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    output.write(tmp_path / "out", ONE)
    target = tmp_path / "out" / "client" / "alice" / "wg0.conf"
    target.unlink()
    target.symlink_to(outside)
    output.write(tmp_path / "out", ONE)
    assert outside.read_text() == "precious"
    assert not target.is_symlink()


def test_a_link_for_a_hosts_folder_is_replaced_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "wg0.conf").write_text("precious")
    out = tmp_path / "out"
    output.write(out, ONE)
    (out / "client/alice/wg0.conf").unlink()
    (out / "client/alice").rmdir()
    (out / "client/alice").symlink_to(outside)
    (out / "client/stray").touch()
    assert output.write(out, ONE).removed == ("client/alice", "client/stray")
    assert (outside / "wg0.conf").read_text() == "precious"
    assert tree(out) == ONE
    (out / "client").rename(tmp_path / "moved")
    (out / "client").symlink_to(tmp_path / "moved")
    with pytest.raises(OutputError, match="symbolic link"):
        output.write(out, OTHER)
    assert (tmp_path / "moved/bob/wg0.conf").exists()


def test_a_folder_among_a_hosts_files_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    out = tmp_path / "out"
    output.write(out, ONE)
    (out / "client/alice/mine").mkdir()
    with pytest.raises(OSError, match="a directory, where an output has none; remove it") as caught:
        output.write(out, OTHER)
    assert caught.value.filename == f"{out}/client/alice/mine"
    (out / "client/alice/mine").rmdir()
    assert tree(out) == ONE


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts")
def test_a_full_disk_is_told_with_the_file(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from tidegate_compiler import output\n"
        "try: output.write(Path(sys.argv[1]), {'manifest.json': bytes(1 << 20)})\n"
        "except OSError as error: print(error.filename, error.strerror)"
    )
    small = f'mount -t tmpfs -o size=64k none {tmp_path} && exec {sys.executable} -c "$1" {tmp_path}/out'
    done = subprocess.run(["unshare", "-m", "sh", "-c", small, "sh", code], capture_output=True, text=True)
    assert done.stdout == f"{tmp_path}/out/manifest.json.new No space left on device\n", done.stderr


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_what_stands_beside_a_file_is_replaced_and_not_written_into(tmp_path: Path, link: Any) -> None:
    outside = tmp_path / "outside"
    outside.write_text("precious")
    out = tmp_path / "out"
    output.write(out, ONE)
    link(outside, out / "client/alice/wg0.conf.new")
    output.write(out, OTHER)
    assert outside.read_text() == "precious"
    assert tree(out) == OTHER
    os.mkfifo(out / "client/alice/wg0.conf.new")
    output.write(out, ONE)
    assert tree(out) == ONE


def test_a_manifest_beside_the_right_one_goes(tmp_path: Path) -> None:
    output.write(tmp_path, ONE)
    (tmp_path / "manifest.json.new").write_bytes(OTHER["manifest.json"])
    assert output.write(tmp_path, ONE).removed == ("manifest.json.new",)
    assert tree(tmp_path) == ONE


def test_two_runs_do_not_write_at_once(tmp_path: Path) -> None:
    output.write(tmp_path, ONE)
    other = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    try:
        with pytest.raises(OutputError, match="another compile"):
            output.write(tmp_path, OTHER)
    finally:
        os.close(other)
    assert tree(tmp_path) == ONE
    output.write(tmp_path, OTHER)
    assert tree(tmp_path) == OTHER


@pytest.mark.parametrize("ends", [True, False])
def test_a_compile_while_an_output_is_read_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    output.write(tmp_path, ONE)
    real = output._host_files

    def read(out: Path, kind: str, host: str) -> dict[str, bytes]:
        if host == "bob":
            output.write(tmp_path, MORE)
            if not ends:
                (tmp_path / output.INCOMPLETE).touch()
        return real(out, kind, host)

    monkeypatch.setattr(output, "_host_files", read)
    with pytest.raises(OutputError, match="while it was read"):
        output.read(tmp_path)


@pytest.mark.parametrize("steps", range(24))
def test_a_write_that_is_cut_anywhere_is_refused_by_publish_and_mended(
    tmp_path: Path, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in ({}, ONE):
        out = tmp_path / str(len(first))
        if first:
            output.write(out, first)
        left = [steps]

        def step(original: object, left: list[int] = left) -> object:
            def wrapped(*args: object, **more: object) -> object:
                if left[0] == 0:
                    raise KeyboardInterrupt
                left[0] -= 1
                return original(*args, **more)  # type: ignore[operator]

            return wrapped

        with monkeypatch.context() as patched:
            for name in ("mkdir", "write", "replace", "unlink", "rmdir"):
                patched.setattr(os, name, step(getattr(os, name)))
            with contextlib.suppress(KeyboardInterrupt):
                output.write(out, OTHER)
        try:
            seen = output.read(out)
        except OutputError:
            pass
        else:
            assert {f"{kind}/{host}/{n}" for (kind, host), files in seen.hosts.items() for n in files} | {
                "manifest.json"
            } in (set(first), set(OTHER))
        output.write(out, OTHER)
        assert tree(out) == OTHER


def test_read_gives_back_every_host(tmp_path: Path) -> None:
    output.write(tmp_path, ONE)
    read = output.read(tmp_path)
    assert read.fleet == "default"
    assert {
        f"{kind}/{host}/{name}": data
        for (kind, host), files in read.hosts.items()
        for name, data in files.items()
    } == {path: data for path, data in ONE.items() if path != "manifest.json"}


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("client/alice/wg0.conf", ONE["client/alice/wg0.conf"] + b"PostUp = id\n"),
        ("client/alice/wg0.conf", ONE["client/alice/wg0.conf"].replace(b"[Peer]", b"PreUp = id\n[Peer]")),
        ("client/alice/wg0.conf", b""),
        ("gateway/gw/peers.json", b'{"format":1,"peers":[],"authz_mode":"observe"}\n'),
        ("gateway/gw/peers.json", b"{"),
        ("gateway/gw/policy.json", ONE["gateway/gw/policy.json"].replace(b'"allow"', b'"permit"')),
        ("gateway/gw/policy.json", b'{"format":1,"rules":[],"sets":[[7]],"clients":{}}'),
        ("gateway/gw/settings.json", b"{}"),
        ("client/mallory/wg0.conf", ONE["client/alice/wg0.conf"]),
        ("gateway/gw/peers.json", None),
        ("client/bob/wg0.conf", None),
    ],
)
def test_read_refuses_what_a_host_would_refuse(tmp_path: Path, path: str, data: bytes | None) -> None:
    output.write(tmp_path, ONE)
    if data is None:
        (tmp_path / path).unlink()
    else:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    with pytest.raises(OutputError) as caught:
        output.read(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_number_that_is_no_integer_is_refused_as_a_host_does() -> None:
    right = (
        b'{"clients":{},"format":1,"rules":[{"action":"allow","policy":"p","ports":["any"],"to":["10.0.0.0/8"]}],'
        b'"sets":[[0]]}\n'
    )
    output.refuse("policy.json", right)
    for wrong in (b"0.0", b"0e0", b"false", b'"0"', b"-1"):
        with pytest.raises(ValueError, match="breaks its schema"):
            output.refuse("policy.json", right.replace(b"[0]", b"[" + wrong + b"]"))
