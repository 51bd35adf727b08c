"""The container image on a real runtime: a gateway in it runs, is looked at, is stopped, and leaves its key outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hosts.machine import until
from hosts.test_package import peers
from netns.lab import Signer

sys.path.append(str(Path(__file__).parents[2] / "agents/packaging"))
from engine import Engine

IMAGE = os.environ.get("TIDEGATE_IMAGE", "")
pytestmark = [
    pytest.mark.skipif(not IMAGE, reason="needs the image (./run image builds it)"),
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("podman") is None, reason="needs podman (and root)"),
]
# What this machine's own limits allow, whatever podman would set; no control groups are needed.
_HERE = (
    "--ulimit=nofile=1024:1024",
    "--ulimit=nproc=1024:1024",
    "--cgroups=disabled",
    "--pull=never",
    "--rm",
)
# What docs/hosts.md says a gateway needs.
GATEWAY = ("--cap-add=NET_ADMIN", "--device=/dev/net/tun", "--security-opt=unmask=/proc/sys")
PLACES = ("etc:/etc/tidegate", "state:/var/lib/tidegate")


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        loaded = made.run("load", "--quiet", "--input", IMAGE)
        assert loaded.returncode == 0, loaded.stderr
        yield made


def test_a_gateway_in_a_container(engine: Engine, tmp_path: Path) -> None:
    signer = Signer(tmp_path / "keys")
    name = engine.run("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()[0]
    volumes = []
    for place in PLACES:
        (tmp_path / place.partition(":")[0]).mkdir(mode=0o700)
        volumes.append(f"--volume={tmp_path}/{place}")
    (tmp_path / "etc/signing.pub").write_bytes(signer.public.read_bytes())
    start = ("run", *_HERE, "--network=none", *GATEWAY, *volumes)

    assert engine.run("run", *_HERE, "--network=none", name, "--version").stdout.startswith(
        "tidegate, version"
    )
    words = ("--name", "host1", "--fleet", "example", "--trust", "/etc/tidegate/signing.pub")
    made = engine.run(*start, name, "gateway", "init", *words)
    assert made.returncode == 0, made.stderr
    assert (tmp_path / "etc/gateway.key").stat().st_mode & 0o777 == 0o600
    signer.publish(tmp_path / "state/bundles", "gateway", "host1", {"peers.json": peers()}, 1)

    bundles = ("--bundles", "/var/lib/tidegate/bundles")
    run = [*engine.prefix, *start, "--name", "gateway", name, "gateway", "run", *bundles]
    process = subprocess.Popen(run, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:

        def status() -> dict[str, Any]:
            assert process.poll() is None, process.stderr.read().decode() if process.stderr else ""
            said = engine.run("exec", "gateway", "tidegate", "gateway", "status", "--json")
            found: dict[str, Any] = json.loads(said.stdout) if said.returncode == 0 else {}
            return found if found.get("release") else {}

        found = until("the gateway runs", status)
        assert (found["peers"], found["trouble"], found["authz_mode"]) == (1, None, "enforce")
        looked = engine.run("exec", "gateway", "tidegate", "doctor")
        assert looked.returncode == 0, looked.stdout
        engine.run("kill", "--signal", "TERM", "gateway")
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            engine.run("kill", "--signal", "KILL", "gateway")
            process.wait(30)
        assert process.stderr is not None
        print(process.stderr.read().decode())
        process.stderr.close()
    assert engine.run("ps", "--all", "--quiet").stdout == ""
    assert (tmp_path / "etc/gateway.key").exists()
    assert engine.run("rmi", name).returncode == 0
    assert engine.run("images", "--quiet").stdout == ""
