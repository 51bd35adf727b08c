"""Where the tests that build networks run: a process tree in namespaces of its own, gone when it ends.

`sandbox_prefix()` is the argument vector that enters one; `why_not()` says why there is none. Both try it for
real, once a process: what the capabilities, sysctls and security modules of a machine allow together is
known only by doing it.

Inside, the process is root over its own network, mounts and (where possible) processes, and over nothing else.
A private tmpfs on /run gives `ip netns` and WireGuard's control sockets room that no other test sees.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys

# nft, ip and modprobe are in directories that a user's PATH leaves out on Debian.
SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")

# Everything a lab does, in small; each line's failure is told by its name.
PROBE = """
import fcntl, os, shutil, struct, subprocess, sys

def step(name, *argv):
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        sys.exit(f"{name}: {said[-1] if said else done.returncode}")

step("a private /run", "mount", "-t", "tmpfs", "tmpfs", "/run")
step("a second namespace", "ip", "netns", "add", "probe")
step("a link", "ip", "link", "add", "name", "probe0", "type", "veth", "peer", "name", "probe1", "netns", "probe")
step("an nftables table", "nft", "add", "table", "inet", "probe")
try:
    tun = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(tun, 0x400454CA, struct.pack("16sH22x", b"probe2", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
except OSError as error:
    sys.exit(f"/dev/net/tun: {error.strerror}")
if shutil.which("wireguard-go") is None:
    step("WireGuard in the kernel (and no wireguard-go)", "ip", "link", "add", "probe3", "type", "wireguard")
"""


def add_sbin_to_path() -> None:
    """Make administrators' commands findable for this process and its children."""
    path = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(path + [directory for directory in SBIN if directory not in path])


def missing_tools(*names: str) -> list[str]:
    """Return those of `names` that are not commands here."""
    return [name for name in names if shutil.which(name) is None]


def sandbox_prefix() -> list[str]:
    """Return the argv prefix that runs a command in a sandbox.

    Raises RuntimeError with the reason of `why_not()` where there is none.
    """
    prefix, reason = _probe()
    if prefix is None:
        raise RuntimeError(reason)
    return list(prefix)


def why_not() -> str | None:
    """Return why this process can have no sandbox, in one line, or None when it can."""
    return _probe()[1]


def _ladder() -> list[tuple[str, ...]]:
    """Return the prefixes to try, best first.

    Without a PID namespace children that daemonise may survive, but some containers allow no new one, or
    no new /proc for it.
    """
    base = ["unshare"]
    if os.geteuid() != 0:
        base += ["--user", "--map-root-user"]
    alone = ["--net", "--mount"]
    child = ["--pid", "--fork", "--kill-child"]
    rungs = [(*base, *alone, *child, "--mount-proc"), (*base, *alone, *child), (*base, *alone)]
    if os.geteuid() == 0:
        # A root without CAP_SYS_ADMIN (a container's) may still be allowed a user namespace.
        user = ("--user", "--map-root-user")
        rungs += [("unshare", *user, *rung[1:]) for rung in list(rungs)]
    return [(*rung, "--") for rung in rungs]


@functools.cache
def _probe() -> tuple[tuple[str, ...] | None, str | None]:
    add_sbin_to_path()
    missing = missing_tools("unshare", "mount", "ip", "nft", "wg")
    if missing:
        return None, f"not installed: {', '.join(missing)}"
    reason = ""
    for prefix in _ladder():
        tried = subprocess.run(
            [*prefix, sys.executable, "-c", PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if tried.returncode == 0:
            return prefix, None
        # The first rung's reason is the one to mend; the later ones fail for what they do without.
        reason = reason or next(
            iter(tried.stderr.strip().splitlines()[-1:]), f"exit status {tried.returncode}"
        )
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    return None, f"no sandbox as {who}: {reason}"
