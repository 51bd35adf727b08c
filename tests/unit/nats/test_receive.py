"""Releases from a real nats-server into the watched directory, by the command itself."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

import natskit
from natskit import Fleet, until
from tidegate_agents.receive.fetch import Me
from tidegate_schema.release import ReleaseError
from unit.nats import killed, kit


def test_a_receiver_that_starts_after_the_publish_takes_it(fleet: Fleet, tmp_path: Path) -> None:
    kit.push(fleet, kit.clients(["alice"]))
    done = kit.once(fleet, tmp_path, "client", "alice")
    assert done.returncode == 0, done.stderr
    assert kit.accepted(tmp_path / "bundles", "client", "alice").files["wg0.conf"] == kit.wg0(1)
    again = kit.once(fleet, tmp_path, "client", "alice")
    assert again.returncode == 0
    assert "received" in done.stderr
    assert "received" not in again.stderr


def test_a_receiver_that_runs_takes_each_publish_at_once_and_ends_by_sigterm(
    fleet: Fleet, tmp_path: Path
) -> None:
    bundles = tmp_path / "bundles"
    with kit.receiving(fleet, tmp_path, "client", "bob") as receiver:
        until(lambda: "connected" in receiver.said(), what="connected")
        for number in (1, 2, 3):
            kit.push(fleet, kit.clients(["bob"], first=number))
            row = kit.push(fleet, kit.clients(["bob"], first=number)).rows[0]
            assert row.action == "unchanged"
            until(
                lambda wanted=row.digest: kit.digest(bundles, "client", "bob") == wanted,
                10.0,
                receiver.said(),
            )
            assert kit.accepted(bundles, "client", "bob").files["wg0.conf"] == kit.wg0(number)
        assert kit.status(tmp_path, "client", "bob")["problem"] == ""
        assert receiver.kill(signal.SIGTERM) == 0
    assert "Traceback" not in receiver.said()
    assert receiver.said().count("received") == 3


def test_a_gateway_s_bundle_of_5_mb_comes_in_parts(fleet: Fleet, tmp_path: Path) -> None:
    kit.push(fleet, kit.output({("gateway", "gw1"): {"peers.json": kit.peers(5_000_000)}}))
    done = kit.once(fleet, tmp_path, "gateway", "gw1")
    assert done.returncode == 0, done.stderr
    assert kit.accepted(tmp_path / "bundles", "gateway", "gw1").files["peers.json"] == kit.peers(5_000_000)


def test_nothing_published_is_nothing_received(fleet: Fleet, tmp_path: Path) -> None:
    kit.push(fleet, kit.clients(["alice"]))
    done = kit.once(fleet, tmp_path, "client", "carol")
    assert done.returncode == 0, done.stderr
    assert "nothing is published for this host" in done.stderr
    with pytest.raises(ReleaseError, match="bad-link"):
        kit.accepted(tmp_path / "bundles", "client", "carol")


def test_no_more_releases_are_kept_than_said(fleet: Fleet, tmp_path: Path) -> None:
    releases = tmp_path / "bundles/client/carol/releases"
    digests = []
    for number in range(1, 6):
        digests.append(kit.push(fleet, kit.clients(["carol"], first=number)).rows[0].digest)
        assert kit.once(fleet, tmp_path, "client", "carol", "--keep", "2").returncode == 0
    assert {entry.name for entry in releases.iterdir()} == set(digests[-2:])
    assert kit.digest(tmp_path / "bundles", "client", "carol") == digests[-1]


def test_what_somebody_else_damaged_here_is_mended(fleet: Fleet, tmp_path: Path) -> None:
    digest = kit.push(fleet, kit.clients(["alice"])).rows[0].digest
    killed.receive(fleet, tmp_path, "client", "alice")
    home = tmp_path / "bundles/client/alice"
    damages: list[Callable[[], object]] = [
        lambda: (home / "current").unlink(),
        lambda: (home / "releases" / digest / "wg0.conf").write_text("PostUp = true"),
        lambda: (home / "releases" / digest / "release.json").unlink(),
        lambda: (home / "releases" / digest / "stranger").write_text("x"),
        lambda: ((home / "current").unlink(), (home / "current").symlink_to("/etc")),
        lambda: (home / "releases" / digest).rename(tmp_path / "elsewhere"),
        lambda: (
            shutil.rmtree(home / "releases" / digest),
            (home / "releases" / digest).symlink_to(tmp_path / "elsewhere"),
        ),
    ]
    for damage in damages:
        damage()
        killed.receive(fleet, tmp_path, "client", "alice")
        assert kit.accepted(tmp_path / "bundles", "client", "alice").digest == digest


def test_two_receivers_do_not_share_a_directory(fleet: Fleet, tmp_path: Path) -> None:
    with kit.receiving(fleet, tmp_path, "client", "alice") as first:
        until(lambda: "connected" in first.said(), what="connected")
        second = kit.once(fleet, tmp_path, "client", "alice")
    assert second.returncode == 1
    assert "another receiver is at work there" in second.stderr


def test_status_says_what_was_received_and_what_is_wrong(fleet: Fleet, tmp_path: Path) -> None:
    kit.push(fleet, kit.clients(["alice"], first=40))
    command = [sys.executable, "-m", "tidegate_schema", "client", "receive", "--status"]
    command += ["--run-dir", str(tmp_path / "run/alice")]

    def status(*more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *more], capture_output=True, text=True, timeout=60, check=False)

    assert status().returncode == 1
    with kit.receiving(fleet, tmp_path, "client", "alice", "--json") as receiver:
        until(lambda: "received" in receiver.said(), what="received")
        until(lambda: (tmp_path / "run/alice/client.json").exists(), what="a status")
        said = status("--json")
        assert said.returncode == 0
        found = json.loads(said.stdout)
        assert found["digest"] == kit.digest(tmp_path / "bundles", "client", "alice")
        assert found["problem"] == ""
        assert "client alice (my-fleet): release" in status().stdout
        lines = [json.loads(line) for line in receiver.said().splitlines()]
        assert [line["event"] for line in lines] == ["connected", "received"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (
            ["--from", "http://a", "--bundles", "b", "--name", "a", "--fleet", "f"],
            1,
            "--from: write nats://HOST",
        ),
        (["--from", "nats://a:1"], 64, "--from URL --bundles DIR"),
        (
            ["--from", "nats://a:1", "--bundles", "b", "--name", "../x", "--fleet", "f"],
            1,
            "--name: a name is",
        ),
        (["--from", "nats://a:1", "--bundles", "b", "--etc", "absent"], 1, "--name HOST --fleet FLEET"),
        (
            ["--from", "nats://a:1", "--bundles", "/dev/null/x", "--name", "a", "--fleet", "f"],
            1,
            "Not a directory",
        ),
        (
            ["--from", "nats://a:1", "--bundles", "b", "--name", "a", "--fleet", "f", "--cert", "x"],
            1,
            "name both, --cert and --key",
        ),
    ],
    ids=["url", "nothing", "name", "identity", "bundles", "half"],
)
def test_a_wrong_command_line_is_told_in_a_line(
    tmp_path: Path, words: list[str], status: int, said: str
) -> None:
    command = [sys.executable, "-m", "tidegate_schema", "client", "receive", "--once", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path, check=False)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert status == 64 or done.stderr.count("\n") == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become somebody else")
def test_it_needs_no_right_but_to_own_its_directory(fleet: Fleet, tmp_path: Path) -> None:
    kit.push(fleet, kit.clients(["alice"]))
    papers = fleet.host("client", "alice")
    home = Path(tempfile.mkdtemp(prefix="receiver-"))
    try:
        copies = [Path(shutil.copy(path, home)) for path in (papers.ca, papers.cert, papers.key) if path]
        for path in (home, *copies):
            os.chown(path, 65534, 65534)
        own = natskit.Papers(*copies)
        me = Me(fleet.fleet, "client", "alice")
        with killed.forking() as do:
            assert do(killed.Receive(fleet.address, own, me, home / "bundles", user=65534))
        assert kit.accepted(home / "bundles", "client", "alice").files["wg0.conf"] == kit.wg0(1)
    finally:
        shutil.rmtree(home)
