"""docs/nats.md, followed to the letter: its certificates, its server, a publish and a receiver."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import natskit
from docskit import ROOT, fences, shell_fences
from tidegate_schema.jetstream import layout

PAGE = "docs/nats.md"
pytestmark = pytest.mark.needs_tools("nats-server", "openssl")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    return tmp_path


def test_the_page_s_commands_do_what_it_says(desk: Path) -> None:
    port = natskit.free_port()
    programs = desk / "programs"
    programs.mkdir()
    (programs / "tidegate").write_text(f'#!/bin/sh\nexec {sys.executable} -m tidegate_schema "$@"\n')
    (programs / "tidegate").chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}

    def here(text: str) -> str:
        text = text.replace("tls://nats.example.net", f"tls://localhost:{port}").replace(
            "nats.example.net", "localhost"
        )
        text = re.sub(
            r"/(etc/nats|var/lib/nats|var/lib/tidegate-receive)\b", lambda found: f"{desk}/{found[1]}", text
        )
        return text.replace("0.0.0.0:4222", f"127.0.0.1:{port}")

    def run(command: str) -> str:
        done = subprocess.run(
            ["sh", "-c", here(command)],
            cwd=desk,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}"
        return done.stdout + done.stderr

    run(
        f"cp -r {ROOT}/inventory inventory && tidegate compile inventory --out out && tidegate keys init keys"
    )
    commands = [command for fence in shell_fences(PAGE) for command in fence.commands]
    before = [command for command in commands if "openssl" in command or "permissions" in command]
    assert len(before) == 3
    for command in before:
        run(command)
    config, *_ = (fence.text for fence in fences(PAGE) if fence.language == "conf")
    home = desk / "etc/nats"
    home.mkdir(parents=True)
    for name in ("localhost.crt", "localhost.key", "ca.pem"):
        (home / name).write_bytes((desk / name).read_bytes())
    server = natskit.Server(desk / "server", "page", port, here(config))
    server.place.mkdir()
    (server.place / "accounts.conf").write_bytes((desk / "accounts.conf").read_bytes())
    try:
        server.start()
        publish, receive, status = (command for command in commands if command not in before)
        assert "published" in run(publish)
        assert "received release 1" in run(receive)
        current = desk / "var/lib/tidegate-receive/bundles/client/alice-laptop/current"
        assert (current / "wg0.conf").read_bytes() == (desk / "out/client/alice-laptop/wg0.conf").read_bytes()
        assert status == "tidegate client receive --status"
    finally:
        server.kill()


def test_the_cluster_s_lines_are_what_a_server_reads(desk: Path) -> None:
    _, cluster = (fence.text for fence in fences(PAGE) if fence.language == "conf")
    authority = natskit.Authority(desk)
    cert, key = authority.issue("localhost")
    for name, path in (
        ("nats.example.net.crt", cert),
        ("nats.example.net.key", key),
        ("ca.pem", authority.file),
    ):
        cluster = cluster.replace(f"/etc/nats/{name}", str(path))
    (desk / "nats.conf").write_text(f"server_name: n1\n{cluster}")
    done = subprocess.run(
        ["nats-server", "-t", "--config", desk / "nats.conf"],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_the_pointer_of_the_page_of_interfaces_is_one() -> None:
    (text,) = (fence.text for fence in fences("docs/interface.md") if "pointer" in fence.words)
    (entry,) = layout.read_pointer("client", text.encode())
    assert sorted(entry.files) == ["release.json", "wg0.conf"]
