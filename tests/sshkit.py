"""A real sshd on loopback for tests: its own configuration, host key, port and account's key; SFTP and nothing else."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")


@dataclass(frozen=True)
class Server:
    """A running server; `config` is for OpenSSH's client (ssh -F), which knows its host key and has the user's key."""

    directory: Path
    port: int
    config: Path

    def url(self, path: Path | str) -> str:
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{path}"


def make_key(path: Path) -> str:
    """Make an ed25519 key pair; returns the public line."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path], check=True)
    return path.with_suffix(".pub").read_text()


def write_config(server: Server, host_key: str, name: str = "config", key: str = "user") -> Path:
    """Write a client's configuration that expects a host key, of which the line is given ("" for none)."""
    known = server.directory / f"{name}.known_hosts"
    known.write_text(
        f"[127.0.0.1]:{server.port} {' '.join(host_key.split()[:2])}\n" if host_key else "",
    )
    config = server.directory / name
    config.write_text(
        f"UserKnownHostsFile {known}\nGlobalKnownHostsFile /dev/null\nIdentitiesOnly yes\n"
        f"IdentityFile {server.directory / key}\nIdentityAgent none\n"
    )
    return config


@contextmanager
def serving(directory: Path, *more: str) -> Iterator[Server]:
    """Run a server; `more` are lines of its configuration. Waits until it answers; leaves nothing behind."""
    assert SSHD is not None
    directory.mkdir(parents=True, exist_ok=True)
    host_key, user_key = make_key(directory / "host"), make_key(directory / "user")
    (directory / "authorized").write_text(user_key)
    if os.geteuid() == 0:  # where it gives up its privileges; Debian's package has it made at a start
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    lines = [
        *(f"Port {port}", "ListenAddress 127.0.0.1", f"HostKey {directory / 'host'}", "UsePAM no"),
        *(f"AuthorizedKeysFile {directory / 'authorized'}", "StrictModes no", "PidFile none"),
        *(
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "PermitRootLogin prohibit-password",
        ),
        *("Subsystem sftp internal-sftp", *(more or ("ForceCommand internal-sftp",))),
    ]
    (directory / "sshd_config").write_text("\n".join(lines) + "\n")
    with (directory / "sshd.log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", directory / "sshd_config"], stderr=log)
    try:
        _wait(process, port, directory)
        server = Server(directory, port, directory / "config")
        write_config(server, host_key)
        yield server
    finally:
        process.terminate()
        process.wait(10)


def _wait(process: subprocess.Popen[bytes], port: int, directory: Path) -> None:
    pause = threading.Event()
    for _ in range(500):
        assert process.poll() is None, (directory / "sshd.log").read_text()
        with socket.socket() as tried:
            if tried.connect_ex(("127.0.0.1", port)) == 0:
                return
        pause.wait(0.02)
    raise AssertionError("sshd does not answer")
