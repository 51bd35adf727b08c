"""ssh:// against a real sshd on loopback: what hosts find there, what is refused, and a link that is lost."""

from __future__ import annotations

import getpass
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import sshkit
from publishkit import PRIVATE, SIGNING, accepted, push, push_to
from publishkit import compiled_output as out
from tidegate_compiler.publish import Row
from tidegate_compiler.targets import Conflict, Lost, Options, TargetError, lease, open_target, ssh, tree
from tidegate_compiler.targets.sftp import Session
from tidegate_schema.cli import run

pytestmark = pytest.mark.skipif(sshkit.SSHD is None, reason="needs openssh-server")
HOST = "client/alice"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshkit.Server]:
    with sshkit.serving(tmp_path_factory.mktemp("ssh")) as serving:
        yield serving


def options(server: sshkit.Server, config: Path | None = None, **more: bool) -> Options:
    return Options(ssh_config=str(config or server.config), **more)  # type: ignore[arg-type]


def rows(
    server: sshkit.Server, of: object, target: Path, patience: float = lease.PATIENCE, **more: object
) -> dict[str, Row]:
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patched:  # only for taking over: whoever holds it may be slow
            patched.setattr(lease, "PATIENCE", patience)
            opened = stack.enter_context(open_target(server.url(target), options(server)))
        done = push(of, opened, **more)  # type: ignore[arg-type]
    return {f"{row.kind}/{row.host}": row for row in done.rows}


def test_a_host_finds_its_release_and_only_changed_ones_are_pushed(
    server: sshkit.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "bundles"
    first = rows(server, out(tmp_path), target)
    assert {(row.action, row.serial) for row in first.values()} == {("published", 1)}
    assert accepted(target, HOST).release.serial == 1
    of = out(tmp_path, ("alice", 77), ("bob", 12))
    changed = rows(server, of, target)
    assert {host for host, row in changed.items() if row.action == "published"} == {HOST, "gateway/gw"}
    assert accepted(target, HOST).files == of.hosts["client", "alice"]
    monkeypatch.setattr(tree, "find", None)  # what the index knows is not read again
    assert {row.action for row in rows(server, of, target).values()} == {"unchanged"}
    assert sorted(path.name for path in target.iterdir()) == [".tidegate", "client", "gateway"]
    assert [path.name for path in (target / ".tidegate").iterdir()] == ["index.json"]


def test_the_command_says_what_it_did(
    server: sshkit.Server, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    out(tmp_path)
    (tmp_path / "signing.key").write_bytes(PRIVATE)
    (tmp_path / "signing.key").chmod(0o600)
    words = ["publish", "out", "--key", "signing.key", "--first", "--ssh-config", str(server.config)]
    target = tmp_path / "bundles"
    assert run([*words, "--to", server.url(target), "--dry-run"]) == 0
    assert not target.exists()
    capsys.readouterr()
    assert run([*words, "--to", server.url(target), "--json"]) == 0
    assert {one["result"] for one in json.loads(capsys.readouterr().out)["hosts"]} == {"published"}
    assert run([*words, "--to", server.url("/proc/nowhere")]) == 1
    err = capsys.readouterr().err.splitlines()[-1]
    assert (
        err
        == f"tidegate: {server.url('/proc/nowhere')}: the directory cannot be made (No such file or directory)"
    )


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("ssh://-oProxyCommand=id/x", "write ssh://user@host/path"),
        ("ssh://-oProxyCommand=id@host/x", "write ssh://user@host/path"),
        ("ssh://user@-oProxyCommand=id/x", "write ssh://user@host/path"),
        ("ssh://user:secret@host/x", "write ssh://user@host/path"),
        ("ssh://host:99999/x", "write ssh://user@host/path"),
        ("ssh://host:022/x", "write ssh://user@host/path"),
        ("ssh://host", "write ssh://user@host/path"),
        ("ssh://host/", "name the directory"),
        ("ssh://host/a/../../etc", "without '..'"),
        ("ssh://ho st/x", "write ssh://user@host/path"),
        ("ssh://host/x\ny", "write ssh://user@host/path"),
        ("ssh://[::1%lo]/x", "write ssh://user@host/path"),
    ],
)
def test_a_name_that_could_be_an_option_or_is_odd_is_refused(name: str, says: str) -> None:
    with pytest.raises(TargetError, match=says) as refused:
        open_target(name)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (f"ssh: Could not resolve hostname {'x' * 250}: Name or service not known\r\n", None),
        (
            "Warning: a thing\nssh: connect to host it's port 22: No route to host\n",
            "ssh: connect to host it's port 22: No route to host",
        ),
        (
            "c: line 1: Bad configuration option: x\nc: terminating, 1 bad configuration options\n",
            "c: line 1: Bad configuration option: x",
        ),
        ("\x1b[2Jgone\n", "\\x1b[2Jgone"),
    ],
    ids=["long", "last", "configuration", "hostile"],
)
def test_what_ssh_says_is_told_whole_and_as_it_stands(said: str, reason: str | None) -> None:
    assert ssh.reason(said, "host") == (reason or said.strip())


def test_another_host_key_or_none_ends_in_one_line(server: sshkit.Server, tmp_path: Path) -> None:
    other = sshkit.make_key(tmp_path / "other")
    cases = (
        (sshkit.write_config(server, other, "changed"), "host key is not the one in known_hosts"),
        (sshkit.write_config(server, "", "unknown"), "host key is not in known_hosts"),
    )
    for config, says in cases:
        with pytest.raises(TargetError, match=says) as refused:
            open_target(server.url(tmp_path / "x"), options(server, config)).__enter__()
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "x").exists()


def test_a_key_that_is_not_let_in_and_a_port_where_nobody_is(server: sshkit.Server, tmp_path: Path) -> None:
    sshkit.make_key(server.directory / "stranger")
    host_key = (server.directory / "host.pub").read_text()
    config = sshkit.write_config(server, host_key, "stranger.config", "stranger")
    with pytest.raises(TargetError, match="Permission denied"):
        open_target(server.url(tmp_path / "x"), options(server, config)).__enter__()
    with pytest.raises(TargetError, match="Connection refused"):
        open_target("ssh://127.0.0.1:1/x", options(server)).__enter__()


def test_a_link_that_is_lost_is_told_and_gone_on_with(
    server: sshkit.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = out(tmp_path, *((f"c{number}", number) for number in range(1, 40)))
    target = tmp_path / "bundles"
    real = Session.rename
    done: list[str] = []

    with open_target(server.url(target), options(server)) as opened:

        def rename(self: Session, old: str, new: str) -> None:
            real(self, old, new)
            if new.endswith("/current"):
                done.append(new)
                if len(done) == 15:
                    for process in [*opened._channels, opened._master]:  # type: ignore[attr-defined]
                        process.kill()

        with monkeypatch.context() as patched:
            patched.setattr(Session, "rename", rename)
            first = push(of, opened)
    assert not first.is_complete
    failed = [row for row in first.rows if row.action == "failed"]
    assert {row.reason for row in failed} <= {
        f"{server.url(target)}: the connection was lost; run this again, it goes on where it was"
    }
    assert 0 < len(failed) < len(first.rows)
    for row in first.rows:
        if row.action == "published" and row.kind == "client":
            assert accepted(target, f"client/{row.host}")
    second = rows(server, of, target, patience=1.0)
    # 2 where a release was stored, and the link was lost before `current` named it.
    assert {row.serial for row in second.values()} <= {1, 2}
    assert {row.action for row in second.values()} == {"published", "unchanged"}
    assert sum(row.action == "unchanged" for row in second.values()) >= 15


def test_a_server_without_what_is_needed_is_told(tmp_path: Path) -> None:
    with (
        sshkit.serving(tmp_path / "ssh", "ForceCommand /bin/false") as server,
        pytest.raises(TargetError, match=r"what answers there|closed the connection"),
        open_target(server.url(tmp_path / "x"), options(server)),
    ):
        pass


def test_in_a_chroot_with_few_sessions(tmp_path: Path) -> None:
    """As the documentation has it; a server that lets in one session at a time is asked for no more."""
    if os.geteuid() != 0:
        pytest.skip("a chroot needs root")
    root = tmp_path / "root"
    (root / "bundles").mkdir(parents=True)
    above = [root, *root.parents]
    modes = {path: path.stat().st_mode for path in above}
    try:
        for path in above:  # sshd wants every directory above to be root's alone
            if path.stat().st_mode & 0o022:
                path.chmod(0o755)
        lines = ("ForceCommand internal-sftp", f"ChrootDirectory {root}", "MaxSessions 2")
        with sshkit.serving(tmp_path / "ssh", *lines) as server:
            of = out(tmp_path)
            with open_target(server.url("/bundles"), options(server)) as opened:
                assert push(of, opened).is_complete
        assert accepted(root / "bundles", HOST).files == of.hosts["client", "alice"]
    finally:
        for path, mode in modes.items():
            path.chmod(mode & 0o7777)


def test_two_publishers_are_kept_apart(
    server: sshkit.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of, target = out(tmp_path), tmp_path / "bundles"
    monkeypatch.setattr(lease, "BEAT", 0.2)
    with (
        open_target(server.url(target), options(server)) as first,
        pytest.raises(TargetError, match="another publish is at work"),
        open_target(server.url(target), options(server)),
    ):
        pass
    with open_target(server.url(target), options(server)):  # the first gave it back
        pass
    del first
    # One that died is followed, and one that was only asleep finds out.
    sleeper = open_target(server.url(target), options(server))
    with sleeper:
        sleeper._lease._ends.set()  # type: ignore[attr-defined]
        sleeper._lease._thread.join()  # type: ignore[attr-defined]
        assert {row.action for row in rows(server, of, target, patience=1.0).values()} == {"published"}
        monkeypatch.setattr(lease, "PATIENCE", 0.0)
        with pytest.raises(Conflict, match="another publish took over"):
            sleeper.put("client", "alice", "0" * 64, {}, sleeper.find("client", "alice"), 5)
    assert accepted(target, HOST).release.serial == 1


def test_an_interrupt_leaves_no_process_and_no_file(server: sshkit.Server, tmp_path: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))  # a socket's path is short
    script = (
        "import os, sys, time\nfrom tidegate_compiler.targets import Options, open_target\n"
        f"with open_target({server.url(tmp_path / 'b')!r}, Options(ssh_config={str(server.config)!r})):\n"
        "    print('in', flush=True)\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": ":".join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    assert len(list(scratch.iterdir())) == 1
    process.send_signal(signal.SIGINT)
    process.wait(20)
    process.stdout.close()
    scratch.rmdir()  # which is empty
    assert list((tmp_path / "b" / ".tidegate").iterdir()) == []


def test_a_target_of_one_way_is_the_target_of_another(server: sshkit.Server, tmp_path: Path) -> None:
    """The layout is one: what was published by ssh is gone on with as a directory, and back."""
    target = tmp_path / "bundles"
    rows(server, out(tmp_path), target)
    of = out(tmp_path, ("alice", 77))
    assert push_to(of, target)[HOST].serial == 2
    assert rows(server, out(tmp_path, ("alice", 78)), target)[HOST].serial == 3
    assert getpass.getuser()
    assert SIGNING.open((target / HOST / "current" / "release.json").read_bytes()).serial == 3
    assert threading.active_count() < 20
    assert issubclass(Lost, TargetError)
