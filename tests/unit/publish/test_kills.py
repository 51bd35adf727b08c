"""Killed at every file operation of a put, a host's directory holds the old release or the new one, never a mixture."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from publishkit import NOW, SFTP_SERVER, accepted, killed_at_every, push_to, sftp, with_chain
from publishkit import compiled_output as out
from tidegate_compiler.output import Output
from tidegate_compiler.publish import Terms, _Run, digests
from tidegate_compiler.targets import Found, Host, tree
from tidegate_compiler.targets.folders import Folder, Local
from tidegate_compiler.targets.sftp import Remote, Session
from tidegate_schema.release import ReleaseError

OPERATIONS = ("open", "mkdir", "write", "fsync", "rename", "symlink", "unlink", "rmdir")
HOST = "client/alice"
CHAIN = b'{"chain":1}\n'


class Bare:
    """A target over any folder, without lock or lease: what is killed here is one put."""

    def __init__(self, root: Folder) -> None:
        self._root = root

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def hosts(self) -> dict[Host, str]:
        return tree.hosts(self._root)

    def find(self, kind: str, host: str) -> Found:
        return tree.find(self._root, kind, host)

    def put(self, kind: str, host: str, digest: str, files: dict[str, bytes], found: Found, keep: int) -> str:
        return tree.put(self._root, kind, host, digest, files, found, keep)

    def index(self) -> bytes:
        return b""

    def remember(self, index: bytes) -> None:
        pass


def only_alice(of: Output) -> Output:
    return replace(of, hosts={host: files for host, files in of.hosts.items() if host == ("client", "alice")})


def put_alice(of: Output, root: Callable[[], Folder], now: int, chain: bytes) -> None:
    """Publish alice alone, in the calling thread, as the pool's threads do."""
    of = only_alice(of)
    run = _Run(of, Bare(root()), with_chain(chain), Terms(now, 2592000, "abc", keep=1), digests(of))
    row, _ = run._one("client", "alice")
    assert row.action in ("published", "renewed", "unchanged"), row


@pytest.fixture(params=["local", "sftp"])
def store(request: pytest.FixtureRequest) -> str:
    if request.param == "sftp" and not os.access(SFTP_SERVER, os.X_OK):
        pytest.skip("needs openssh-sftp-server")
    return str(request.param)


@pytest.mark.parametrize(
    "case",
    [
        "first",
        "change",
        *(pytest.param(case, marks=pytest.mark.whole) for case in ("renew", "back", "mend", "keys")),
    ],
)
def test_killed_anywhere_a_host_has_the_old_release_or_the_new_one(
    tmp_path: Path, store: str, case: str
) -> None:
    first, second = out(tmp_path), out(tmp_path, ("alice", 77), ("bob", 12))
    start, target = tmp_path / "start", tmp_path / "bundles"
    start.mkdir()
    if case != "first":
        push_to(first, start)
    if case == "back":
        push_to(second, start)
    if case == "mend":
        (start / HOST / "current" / "wg0.conf").write_bytes(b"PostUp = id\n")
        (start / HOST / "current" / "policy.json").write_bytes(b"{}")
    new = second if case == "change" else first
    now = NOW + 16 * 86400 if case == "renew" else NOW
    chain = CHAIN if case == "keys" else b""
    before = None if case in ("first", "mend") else accepted(start, HOST)

    def between() -> None:
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(start, target, symlinks=True)

    def do() -> None:
        if store == "local":
            descriptor = os.open(target, os.O_RDONLY)
            put_alice(new, lambda: Local(descriptor, "target"), now, chain)
        else:
            with sftp() as session:
                put_alice(new, lambda: Remote(session, str(target), "target"), now, chain)

    holder, names = (os, OPERATIONS) if store == "local" else (Session, ("_request",))
    turns = 0
    moments: set[str] = set()
    for turn in killed_at_every(holder, names, do, between):
        turns = turn
        try:
            seen = accepted(target, HOST)
            moments.add("old" if before and seen.release.serial == before.release.serial else "new")
            if before is not None and moments == {"old"}:
                assert (seen.digest, seen.files) == (before.digest, before.files)
            if "new" in moments:
                assert seen.files == new.hosts["client", "alice"]
                # No release is there without the key set that it is signed under.
                assert case != "keys" or (target / HOST / "current" / "keys.json").read_bytes() == chain
        except ReleaseError:
            assert case in ("first", "mend")
            moments.add("none")
        push_to(new, target, with_chain(chain), now)  # run again, it goes on where it was
        assert accepted(target, HOST).files == new.hosts["client", "alice"]
        assert [path.name for path in (target / HOST / "releases").iterdir() if path.name[0] == "."] == []
        keys = target / HOST / "current" / "keys.json"
        assert (keys.read_bytes() if keys.exists() else b"") == chain
    assert turns > 10
    assert moments == ({"none", "new"} if before is None else {"old", "new"})


def test_what_was_cut_is_gone_on_with(tmp_path: Path) -> None:
    """The hosts that were done are left alone by the next run, and the others done."""
    of = out(tmp_path, *((f"c{number}", number) for number in range(1, 40)))
    target = tmp_path / "bundles"
    stop = threading.Event()
    real = tree.put
    done: list[str] = []

    def put(root: Folder, kind: str, host: str, *rest: object) -> str:
        if len(done) == 20:
            stop.set()
            raise KeyboardInterrupt
        said = real(root, kind, host, *rest)  # type: ignore[arg-type]
        done.append(host)
        return said

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(tree, "put", put)
        with pytest.raises(KeyboardInterrupt):
            push_to(of, target, jobs=1)
    assert len(done) == 20
    rows = push_to(of, target)
    assert sum(row.action == "unchanged" for row in rows.values()) == 20
    assert {row.serial for row in rows.values()} == {1}
