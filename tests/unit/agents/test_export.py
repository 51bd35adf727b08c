"""A client's configuration for another program: complete, private where it holds the key, and readable by a camera."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tidegate_agents.client import export
from tidegate_agents.host import HostError, Places
from tidegate_agents.settings import defaults
from tidegate_schema import cli
from tidegate_schema.wgquick import parse
from unit.agents.kit import CLIENT, CONF, key, publish
from unit.agents.test_client import FOREVER, bundle, places  # noqa: F401 - fixtures
from wgquickreader import read

STANDBY = f"\n[Peer]\nPublicKey = {key('fra2')}\nEndpoint = 203.0.113.20:51820\n".encode()
PRIVATE = "QK8hIbV2IvSqJ6Xh2bJ1sCMfnQ9cWqLSDCeSBr0VbmI="
BOX = {" ": (1, 1), "▀": (0, 1), "▄": (1, 0), "█": (0, 0)}
"""Each character of a code is a module above another; 1 is dark."""


@pytest.fixture
def arguments(places: Places, bundle: Path) -> list[str]:  # noqa: F811
    """A client with a key and a release; what leads its commands there."""
    places.key.write_text(PRIVATE + "\n")
    places.key.chmod(0o600)
    publish(bundle, CLIENT, {"wg0.conf": CONF + STANDBY}, not_after=FOREVER)
    where = ["--etc", str(places.etc), "--state-dir", str(places.state_directory)]
    return [
        "client",
        "export",
        "--bundles",
        str(bundle.parents[1]),
        *where,
        "--run-dir",
        str(places.run_directory),
    ]


def seen_by_a_camera(drawn: str, directory: Path) -> str:
    """Read a code by zbar, from a picture of what the terminal shows."""
    lines = drawn.splitlines()
    rows = [[BOX[char][half] for char in line] for line in lines for half in (0, 1)]
    scale = 6
    picture = [" ".join(str(dot) for dot in row for _ in range(scale)) for row in rows for _ in range(scale)]
    file = directory / "code.pbm"
    file.write_text(f"P1\n{len(rows[0]) * scale} {len(rows) * scale}\n" + "\n".join(picture) + "\n")
    done = subprocess.run(["zbarimg", "--raw", "-q", str(file)], capture_output=True, text=True, check=True)
    return done.stdout


def test_the_file_is_complete_and_says_what_the_bundle_says(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 0
    said = capsys.readouterr()
    found = read(said.out.encode())
    assert found.unknown == []
    (interface, peer) = found.sections
    assert dict(interface.entries) == {"privatekey": PRIVATE, "address": "10.64.0.11/32", "mtu": "1420"}
    assert dict(peer.entries) == {
        "publickey": key("fra1"),
        "endpoint": "203.0.113.10:51820",
        "allowedips": "10.20.0.0/16",
    }
    assert "1 standby gateway is left out" in said.err
    assert PRIVATE not in said.err


@pytest.mark.needs_tools("zbarimg")
def test_a_camera_reads_the_code_back(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 0
    file = capsys.readouterr().out
    assert cli.run([*arguments, "--qr"]) == 0
    drawn = capsys.readouterr().out
    assert seen_by_a_camera(drawn, tmp_path).rstrip("\n") == file.rstrip("\n")


def test_a_code_in_colours_is_the_same_code() -> None:
    plain = export.qr_code("content", coloured=False)
    coloured = export.qr_code("content", coloured=True)
    assert coloured.replace("\x1b[40;97m", "").replace("\x1b[0m", "") == plain
    assert coloured.count("\x1b[40;97m") == coloured.count("\x1b[0m\n") == plain.count("\n")


def test_what_does_not_fit_into_a_code_is_said() -> None:
    with pytest.raises(HostError, match=r"3000 bytes do not fit into a QR code; use --out FILE"):
        export.qr_code("x" * 3000, coloured=False)


def test_without_a_key_it_holds_no_secret(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([*arguments, "--no-key"]) == 0
    said = capsys.readouterr()
    assert PRIVATE not in said.out
    assert "PrivateKey = " not in said.out
    assert "# PrivateKey: the app has its own" in said.out
    assert "goes into the inventory" in said.err


def test_a_file_is_its_owner_s_alone(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "alice.conf"
    out.write_text("old")
    out.chmod(0o644)
    assert cli.run([*arguments, "--out", str(out)]) == 0
    assert out.stat().st_mode & 0o777 == 0o600
    assert f"PrivateKey = {PRIVATE}" in out.read_text()
    assert capsys.readouterr().out == ""


def on_a_terminal(*arguments: str) -> tuple[int, str]:
    """Run a command with a terminal as its output; return its status and what the terminal got."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "tidegate_schema", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    try:
        while piece := os.read(ours, 1 << 16):
            shown += piece
    except OSError:  # EIO: the other end is closed
        pass
    os.close(ours)
    return process.wait(), shown.decode()


def test_the_key_is_not_written_onto_a_terminal(arguments: list[str]) -> None:
    status, shown = on_a_terminal(*arguments)
    assert status == 1
    assert "does not belong on a terminal: give --out FILE, or --qr" in shown
    assert PRIVATE not in shown
    status, shown = on_a_terminal(*arguments, "--no-key")
    assert status == 0
    status, shown = on_a_terminal(*arguments, "--qr")
    assert status == 0
    assert "\x1b[40;97m" in shown
    assert PRIVATE not in shown


@pytest.mark.parametrize("wrong", [["--qr", "--no-key"], ["--qr", "--out", "x"]])
def test_what_does_not_go_together_is_a_usage_error(
    arguments: list[str], wrong: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*arguments, *wrong]) == cli.EXIT_USAGE
    assert "--qr goes without" in capsys.readouterr().err


def test_a_release_that_would_be_refused_is_not_exported(
    arguments: list[str],
    bundle: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(bundle, CLIENT, host="bob-laptop", not_after=FOREVER)
    assert cli.run(arguments) == 1
    said = capsys.readouterr()
    assert said.err.startswith("tidegate: release refused: other-host")
    assert said.out == ""
    (bundle / "current").unlink()
    assert cli.run(arguments) == 1
    assert "no release in" in capsys.readouterr().err


def test_local_settings_are_in_it() -> None:
    settings = defaults("client") | {"listen_port": 51820, "persistent_keepalive": 25, "mtu": 1380}
    text = export.text(parse(CONF), settings, PRIVATE)
    for line in ("ListenPort = 51820", "PersistentKeepalive = 25", "MTU = 1380"):
        assert line in text.splitlines()
