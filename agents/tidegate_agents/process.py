"""What a child of a supervisor does first: give up every privilege, and end with its supervisor."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# linux/prctl.h, linux/capability.h
_PR_SET_PDEATHSIG, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 24, 38
_CAPABILITY_VERSION_3 = 0x20080522
BULK = 5
"""How much nicer than the rest work is that no packet waits for; a third of the time is left to it at worst."""
_CAPABILITIES = 64  # numbers that the kernel's own sets have room for; those it does not know are refused


def die_with(parent: int) -> None:
    """Ask the kernel to kill this process when its supervisor dies; after `drop_privileges`, which would undo it."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the supervisor is gone")


def outlive_parent() -> None:
    """Take `die_with` back."""
    _prctl(_PR_SET_PDEATHSIG, 0)


@contextlib.contextmanager
def unhurried() -> Iterator[None]:
    """Let everything else on this host go first for a while, where that can be taken back afterwards."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    hurry(os.getpid(), before + BULK)
    try:
        yield
    finally:
        hurry(os.getpid(), before)


def hurry(process: int, niceness: int) -> None:
    """Set a process's niceness, its main thread's; nothing where that could not be taken back."""
    if _may_hurry():
        with contextlib.suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, process, niceness)


@functools.cache
def _may_hurry() -> bool:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    try:
        os.setpriority(os.PRIO_PROCESS, 0, own - 1)
    except PermissionError:
        return False
    os.setpriority(os.PRIO_PROCESS, 0, own)
    return True


def drop_privileges(user: int, *, processes: int, empty: Path | None = None) -> None:
    """Become an unprivileged user and group without any capability, for good; what is open stays open.

    From then on this user has at most so many processes, threads included. With `empty`, the name of a directory that
    is made, nothing but what is open can be reached, no file is written, and no user namespace is made, in which a
    process would have capabilities again (user_namespaces(7): not by who has another root).

    A process that is not root has nothing to give up but new privileges. In a user namespace that has no such user, as
    one of an unprivileged developer, the user stays and the capabilities go.
    """
    if os.geteuid() == 0:
        has_user = is_mapped(user)  # asked of /proc, which is out of reach further down
        resource.setrlimit(resource.RLIMIT_NPROC, (processes, processes))
        if empty is not None:
            empty.mkdir(mode=0o755, exist_ok=True)
            os.chroot(empty)
            os.chdir("/")
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
        for capability in range(_CAPABILITIES):
            _prctl(_PR_CAPBSET_DROP, capability, tolerated=errno.EINVAL)
        if has_user:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        header, none = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
        if _libc().capset(header, none):
            raise OSError(ctypes.get_errno(), "capabilities cannot be given up")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def is_mapped(user: int) -> bool:
    """Tell whether this user namespace has a user and group of that number."""
    lines = Path("/proc/self/uid_map").read_text().splitlines()
    ranges = [tuple(map(int, line.split())) for line in lines]
    return any(first <= user < first + count for first, _, count in ranges)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int, tolerated: int = 0) -> None:
    zero = ctypes.c_ulong(0)
    if _libc().prctl(option, ctypes.c_ulong(value), zero, zero, zero) and ctypes.get_errno() != tolerated:
        raise OSError(ctypes.get_errno(), f"prctl {option} is refused")
