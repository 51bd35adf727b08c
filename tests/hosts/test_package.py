"""The Debian package in a real machine: installed, run by systemd, upgraded under way, removed, purged."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hosts.machine import Machine, booted, until, why_not
from netns.lab import Signer
from tidegate_schema import __version__, jsonfile
from tidegate_schema.keys import client_id, parse_public_key
from unit.agents.kit import key

ROOT = Path(__file__).parents[2]
NEXT = "999.0"  # a version that is newer than any
GATEWAY, CLIENT = "tidegate-gateway.service", "tidegate-client.service"
PACKAGE = os.environ.get("TIDEGATE_DEB", "")
_reason = why_not()
pytestmark = [
    pytest.mark.skipif(not PACKAGE, reason="needs the package (./run deb builds it)"),
    pytest.mark.skipif(_reason is not None, reason=f"needs systemd-nspawn ({_reason})"),
]


@pytest.fixture(scope="module")
def package() -> Path:
    """The package that `./run deb` has built."""
    return Path(PACKAGE)


@pytest.fixture(scope="module")
def newer(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package under a newer version."""
    place = tmp_path_factory.mktemp("newer")
    tree = place / "tree"
    subprocess.run(["dpkg-deb", "-R", package, tree], check=True)
    shutil.move(tree / f"usr/lib/tidegate/{__version__}", tree / f"usr/lib/tidegate/{NEXT}")
    (tree / "usr/bin/tidegate").unlink()
    (tree / "usr/bin/tidegate").symlink_to(f"../lib/tidegate/{NEXT}/bin/tidegate")
    for name in (f"usr/lib/tidegate/{NEXT}/bin/tidegate", "DEBIAN/postinst", "DEBIAN/control"):
        (tree / name).write_text((tree / name).read_text().replace(__version__, NEXT))
    (tree / "DEBIAN/md5sums").unlink()
    command = ["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, place / "newer.deb"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return place / "newer.deb"


@pytest.fixture
def machine() -> Iterator[Machine]:
    with booted() as made:
        yield made
        print(
            made.done("journalctl", "--no-pager", "-n", "60", "-u", "tidegate-*").stdout.decode()
        )  # with a failure


def install(machine: Machine, package: Path) -> None:
    machine.write("/opt/tidegate.deb", package.read_bytes())
    machine.run("dpkg", "--install", "/opt/tidegate.deb")


def bring(machine: Machine, kind: str, files: dict[str, bytes], signer: Signer, place: Path) -> None:
    """Sign a release for the host, and carry it into its bundle directory."""
    signer.publish(place, kind, "host1", files, 1)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.add(place, ".")
    machine.run("tar", "-C", "/var/lib/tidegate/bundles", "--no-same-owner", "-x", data=archive.getvalue())


def init(machine: Machine, kind: str, signer: Signer) -> str:
    machine.write("/etc/tidegate/signing.pub", signer.public.read_bytes())
    words = ("--name", "host1", "--fleet", "example", "--trust", "/etc/tidegate/signing.pub")
    return machine.run("tidegate", kind, "init", *words).strip()


def status(machine: Machine, kind: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(machine.run("tidegate", kind, "status", "--json"))
    return found


def index(machine: Machine, link: str) -> str:
    return machine.run("cat", f"/sys/class/net/{link}/ifindex").strip()


def running(machine: Machine) -> bytes:
    """Return the command line of the agent that systemd runs now, if any."""
    return machine.done("cat", f"/proc/{machine.unit(GATEWAY)['MainPID']}/cmdline").stdout


def peers() -> bytes:
    public = key("alice")
    peer = {
        "client_id": client_id(parse_public_key(public)),
        "public_key": public,
        "allowed_ips": ["10.64.0.11/32"],
    }
    return jsonfile.canonical({"format": 1, "peers": [peer]})


def test_a_gateway_is_installed_runs_hangs_is_upgraded_and_removed(
    machine: Machine, package: Path, newer: Path, tmp_path: Path
) -> None:
    install(machine, package)
    for unit in (GATEWAY, CLIENT):  # a package that starts an agent by itself would be a surprise
        assert machine.unit(unit)["UnitFileState"] == "disabled"
        assert machine.unit(unit)["ActiveState"] == "inactive"
    for name in ("/etc/tidegate", "/var/lib/tidegate", "/var/lib/tidegate/bundles"):
        assert machine.run("stat", "-c", "%a %U:%G", name) == "700 root:root\n"
    assert machine.run("getent", "passwd", "61001", "61002").count("nologin") == 2

    signer = Signer(tmp_path / "keys")
    init(machine, "gateway", signer)
    bring(machine, "gateway", {"peers.json": peers()}, signer, tmp_path / "bundles")
    machine.write(f"/etc/systemd/system/{GATEWAY}.d/test.conf", b"[Service]\nWatchdogSec=3\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", GATEWAY)  # returns when the agent has said that it is ready
    first = status(machine, "gateway")
    assert first["release"]["serial"] == 1  # type: ignore[index]
    assert first["trouble"] is None
    assert "1 peers" in machine.unit(GATEWAY)["StatusText"]
    # Every child works under the unit's restrictions: the flusher is another user, with another root and a filter.
    machine.run("tidegate", "gateway", "set", "logging_enabled=on", "log_endpoint=http://127.0.0.1:9/events")
    flusher = until("a flusher runs", lambda: status(machine, "gateway")["flusher"])
    until("it says how it is", lambda: status(machine, "gateway").get("events"), 10)
    assert machine.run("stat", "-c", "%U", f"/proc/{flusher}") == "tidegate-flusher\n"
    assert machine.run("stat", "-c", "%a %G", "/run/tidegate/gateway/names") == "2750 tidegate-flusher\n"
    first = status(machine, "gateway")
    assert first["flusher"] == flusher
    assert first["log_problem"] is None
    assert first["flow_records"]["problem"] is None  # type: ignore[index]
    machine.run("tidegate", "doctor")
    links = {link: index(machine, link) for link in ("tidegate0", "tidegate-tun")}

    # A loop that hangs is noticed, and what it left at work is taken over.
    machine.run("kill", "-STOP", machine.unit(GATEWAY)["MainPID"])
    until("it is started again", lambda: machine.unit(GATEWAY)["NRestarts"] == "1")
    until("it is ready again", lambda: machine.unit(GATEWAY)["ActiveState"] == "active")
    second = status(machine, "gateway")
    assert second["pid"] != first["pid"]
    assert {link: index(machine, link) for link in links} == links

    # A newer version takes over what runs.
    install(machine, newer)
    until(
        "the newer version runs",
        lambda: f"tidegate/{NEXT}/".encode() in running(machine),
    )
    until("it is ready", lambda: machine.unit(GATEWAY)["ActiveState"] == "active")
    third = status(machine, "gateway")
    assert third["pid"] != second["pid"]
    assert third["trouble"] is None
    assert {link: index(machine, link) for link in links} == links, "WireGuard or the TUN was down meanwhile"
    assert not machine.ok("test", "-e", f"/usr/lib/tidegate/{__version__}")

    private = machine.run("cat", "/etc/tidegate/gateway.key")
    machine.run("dpkg", "--remove", "tidegate")
    assert not machine.ok("test", "-e", "/sys/class/net/tidegate0")
    assert "inet tidegate" not in machine.run("nft", "list", "tables")
    assert not machine.ok("test", "-e", "/usr/lib/tidegate")
    assert machine.run("cat", "/etc/tidegate/gateway.key") == private
    assert machine.ok("test", "-e", "/var/lib/tidegate/gateway.json")
    machine.run("dpkg", "--purge", "tidegate")
    for name in ("/etc/tidegate", "/var/lib/tidegate", "/run/tidegate"):
        assert not machine.ok("test", "-e", name), name
    assert not machine.ok("getent", "passwd", "61001")


def test_a_client_is_run_and_stopped(machine: Machine, package: Path, tmp_path: Path) -> None:
    install(machine, package)
    signer = Signer(tmp_path / "keys")
    init(machine, "client", signer)
    file = (
        f"[Interface]\nAddress = 10.64.0.11/32\n\n[Peer]\nPublicKey = {key('gateway')}\n"
        "Endpoint = 203.0.113.10:51820\nAllowedIPs = 10.20.0.0/16\n"
    )
    bring(machine, "client", {"wg0.conf": file.encode()}, signer, tmp_path / "bundles")
    machine.run("systemctl", "enable", "--now", CLIENT)
    assert status(machine, "client")["applied"] is True
    assert "release 1, tidegate0" in machine.unit(CLIENT)["StatusText"]
    assert "10.20.0.0/16" in machine.run("ip", "route", "show", "dev", "tidegate0")
    machine.run("systemctl", "stop", CLIENT)
    assert machine.unit(CLIENT)["Result"] == "success"
    assert not machine.ok("test", "-e", "/sys/class/net/tidegate0")


def test_the_number_of_somebody_else_is_left_to_them(machine: Machine, package: Path) -> None:
    machine.run("useradd", "--uid", "61001", "--no-create-home", "somebody")
    machine.write("/opt/tidegate.deb", package.read_bytes())
    done = machine.done("dpkg", "--install", "/opt/tidegate.deb")
    assert done.returncode == 0
    assert b"61001 is somebody else's; choose another forwarder_uid" in done.stderr
    machine.run("dpkg", "--purge", "tidegate")
    assert machine.run("getent", "passwd", "61001").startswith("somebody:")


def test_the_same_commit_gives_the_same_bytes(package: Path, tmp_path: Path) -> None:
    """Built again elsewhere, under another umask, with another time zone and language."""
    python = package.stem.rpartition("python")[2]
    machine = {"amd64": "x86_64", "arm64": "aarch64"}[package.stem.split("_")[2]]
    (tmp_path / "scratch").mkdir()
    words = ("--python", python, "--machine", machine, "--out", str(tmp_path))
    subprocess.run(
        [
            "sh",
            "-c",
            'umask 077 && exec "$@"',
            "sh",
            sys.executable,
            ROOT / "agents/packaging/deb.py",
            *words,
        ],
        env={**os.environ, "TMPDIR": str(tmp_path / "scratch"), "TZ": "Asia/Tokyo", "LC_ALL": "C"},
        check=True,
        stdout=subprocess.DEVNULL,
    )
    assert (tmp_path / package.name).read_bytes() == package.read_bytes()
