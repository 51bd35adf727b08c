"""A throw-away machine that systemd runs: this machine's own files under an overlay, in namespaces of its own.

systemd-nspawn boots it as far as basic.target. What is installed, changed or removed in it goes into a tmpfs of its
mount namespace and ends with it; this machine's files are only read.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SECONDS = 60
_CGROUPS = Path("/sys/fs/cgroup")
_SCRIPT = """set -e
mount -t tmpfs tmpfs "$1"
mkdir "$1/up" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=/,upperdir=$1/up,workdir=$1/work" overlay "$1/root"
mount -t tmpfs tmpfs "$1/root/tmp"
rm -rf "$1/root/etc/tidegate" "$1/root/var/lib/tidegate"
exec systemd-nspawn --quiet --register=no --keep-unit --link-journal=no --console=pipe --directory="$1/root" \\
    --private-network --capability=CAP_NET_ADMIN --bind=/dev/net/tun --system-call-filter=pidfd_getfd \\
    --boot -- --unit=basic.target
"""
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def why_not() -> str | None:
    """Return why there can be no such machine here, None when there can."""
    missing = [
        name for name in ("systemd-nspawn", "unshare", "nsenter", "dpkg") if shutil.which(name) is None
    ]
    if missing:
        return f"missing: {', '.join(missing)}"
    if os.geteuid() != 0:
        return "not root"
    if not Path("/usr/bin/python3").exists() or not Path("/lib/systemd/systemd").exists():
        return "no Debian with systemd and its own Python"
    return None


def until(what: str, true: Callable[[], Any], seconds: float = SECONDS) -> Any:
    """Poll until `true()` is truthy and return that; AssertionError naming `what` after the deadline."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.1)
    return found


class Machine:
    """A booted machine; commands run in it as root."""

    def __init__(self, leader: int) -> None:
        enter = ("nsenter", "--target", str(leader), "--mount", "--pid", "--net", "--ipc", "--uts", "--")
        self._prefix = (*enter, "env", "-i", _PATH, "HOME=/root", "LANG=C.UTF-8", "PYTHONWARNINGS=error")

    def done(self, *command: str, data: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
        """Run a command to its end, whatever that is."""
        options: dict[str, Any] = {"input": data} if data is not None else {"stdin": subprocess.DEVNULL}
        return subprocess.run(
            [*self._prefix, *command], capture_output=True, timeout=SECONDS, check=False, **options
        )

    def run(self, *command: str, data: bytes | None = None) -> str:
        """Run a command and return what it printed; AssertionError with all of it when it fails."""
        done = self.done(*command, data=data)
        said = done.stdout.decode() + done.stderr.decode()
        assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{said}"
        return done.stdout.decode()

    def ok(self, *command: str) -> bool:
        """Tell whether a command succeeds."""
        return self.done(*command).returncode == 0

    def write(self, path: str, data: bytes) -> None:
        """Write a file."""
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat > {path}", data=data)

    def unit(self, name: str) -> dict[str, str]:
        """Return what systemd knows of a unit."""
        lines = self.run("systemctl", "show", name).splitlines()
        return {key: value for key, _, value in (line.partition("=") for line in lines)}


@contextlib.contextmanager
def booted() -> Iterator[Machine]:
    """Boot a machine, and leave nothing of it."""
    place = tempfile.mkdtemp(prefix="machine-")
    before = _groups()
    command = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", _SCRIPT, "sh", place]
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    leader = 0
    try:
        leader = until("systemd runs", lambda: _leader(process))
        machine = Machine(leader)
        until("the machine is up", lambda: machine.ok("systemctl", "--quiet", "is-active", "basic.target"))
        yield machine
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(leader or process.pid, signal.SIGKILL)
        try:
            process.wait(SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            assert process.stdout is not None
            print(process.stdout.read().decode(errors="replace"))  # shown with a failure
            process.stdout.close()
            Path(place).rmdir()
            for group in sorted(_groups() - before, reverse=True):
                with contextlib.suppress(OSError):
                    group.rmdir()


def _leader(process: subprocess.Popen[bytes]) -> int:
    assert process.poll() is None, process.stdout.read().decode() if process.stdout else ""
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
            if Path(f"/proc/{child}/comm").read_text() == "systemd\n":
                return int(child)
    return 0


def _groups() -> set[Path]:
    """Return the control groups that systemd-nspawn makes and leaves."""
    tops = [
        top
        for name in ("payload", "supervisor")
        for top in (*_CGROUPS.glob(name), *_CGROUPS.glob(f"*/{name}"))
    ]
    return {path for top in tops for path in [top, *top.rglob("*")] if path.is_dir()}
