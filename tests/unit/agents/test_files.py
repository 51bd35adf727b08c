"""Files as a hostile place."""

from __future__ import annotations

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from tidegate_agents import files
from tidegate_agents.files import FileRefused, make_private_directory, read_bounded, write_atomic
from unit.agents.kit import descriptors


def test_a_file_is_read_up_to_its_limit(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")
    assert read_bounded(file, 5) == b"12345"
    with pytest.raises(FileRefused, match="5 bytes, at most 4"):
        read_bounded(file, 4)
    with pytest.raises(FileNotFoundError):
        read_bounded(tmp_path / "g", 4)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f"
    file.touch()
    os.truncate(file, 1 << 42)
    with pytest.raises(FileRefused, match="at most 10"):
        read_bounded(file, 10)


def test_what_is_no_regular_file_is_refused_and_leaves_no_descriptor(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "real").write_bytes(b"x")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    before = descriptors()
    for name in ("directory", "pipe", "link", "loop"):
        with pytest.raises(FileRefused) as caught:
            read_bounded(tmp_path / name, 10)
        assert "\n" not in str(caught.value)
    with pytest.raises(FileRefused):
        read_bounded("/dev/zero", 10)
    with pytest.raises(FileRefused):
        read_bounded(tmp_path / "real" / "below", 10)
    assert descriptors() == before


def test_a_file_that_grows_while_it_is_read_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"12345")
    fstat = os.fstat

    def and_grow(fd: int) -> os.stat_result:
        found = fstat(fd)
        with file.open("ab") as more:
            more.write(b"x" * 100)
        return found

    monkeypatch.setattr(files.os, "fstat", and_grow)
    with pytest.raises(FileRefused, match="grew"):
        read_bounded(file, 5)


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_file_is_replaced_with_its_mode(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "f"
    file.write_bytes(b"old")
    file.chmod(0o666)
    before = os.umask(0o077)
    try:
        write_atomic(file, b"new", mode)
    finally:
        os.umask(before)
    assert file.read_bytes() == b"new"
    assert stat.S_IMODE(file.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [file]


def test_it_is_private_unless_told_otherwise_and_never_more_for_an_instant(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_atomic(tmp_path / "f", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o600


@pytest.mark.parametrize("step", ["fsync", "fchmod"])
def test_a_failure_leaves_the_old_file_and_nothing_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    file = tmp_path / "f"
    write_atomic(file, b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, step, full)
    before = descriptors()
    with pytest.raises(OSError, match="No space"):
        write_atomic(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]
    assert descriptors() == before


def test_the_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_sync(fd: int) -> None:
        order.append("directory" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
        fsync(fd)

    def noting_replace(self: Path, target: Path) -> Path:
        order.append("rename")
        return replace(self, target)

    monkeypatch.setattr(files.os, "fsync", noting_sync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    write_atomic(tmp_path / "f", b"x")
    assert order == ["file", "rename", "directory"]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "f").symlink_to(victim)
    write_atomic(tmp_path / "f", b"x")
    assert victim.read_bytes() == b"precious"
    assert not (tmp_path / "f").is_symlink()


def test_a_reader_sees_the_old_or_the_new_and_nothing_between(tmp_path: Path) -> None:
    file = tmp_path / "f"
    contents = [bytes([n]) * 50_000 for n in range(4)]
    write_atomic(file, contents[0])
    stop = threading.Event()

    def writer() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            write_atomic(file, contents[number % 4])

    thread = threading.Thread(target=writer)
    thread.start()
    try:
        for _ in range(300):
            assert read_bounded(file, 1 << 20) in contents
    finally:
        stop.set()
        thread.join()


def test_a_private_directory_is_made_once(tmp_path: Path) -> None:
    place = tmp_path / "a" / "b"
    make_private_directory(place)
    make_private_directory(place)
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_may_write_is_refused(tmp_path: Path, mode: int) -> None:
    place = tmp_path / "a"
    place.mkdir()
    place.chmod(mode)
    with pytest.raises(FileRefused, match="nobody else"):
        make_private_directory(place)


def test_a_link_to_a_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(FileRefused):
        make_private_directory(tmp_path / "link")


def test_what_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the system does not, as of a disk that is full: what is logged is this one line."""

    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=str(tmp_path / "memory")):
        files.write_atomic(tmp_path / "memory", b"x")
    assert list(tmp_path.iterdir()) == []
