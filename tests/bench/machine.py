"""What a bench ran on, in lines: figures of another machine or of other versions are other figures."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

PROGRAMS = {
    "wireguard-go": "--version",
    "nebula": "-version",
    "iperf3": "--version",
    "nft": "--version",
}
"""The programs that are measured or measured with, and how to ask for their version."""


def describe() -> list[str]:
    """Return the processor, the kernel, and the versions of what is installed."""
    model = re.search(r"^model name\s*: (.*)", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = [f"Python {platform.python_version()}"]
    versions += [f"{name} {_version(name, flag) or 'not installed'}" for name, flag in PROGRAMS.items()]
    return [
        f"{model[1] if model else platform.machine()}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB",
        f"{platform.system()} {platform.release()}, load {os.getloadavg()[0]:.1f} before the first row",
        ", ".join(versions),
    ]


def _version(program: str, flag: str) -> str | None:
    if shutil.which(program) is None:
        return None
    done = subprocess.run([program, flag], capture_output=True, text=True, check=False, timeout=10)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else "of an unknown version"
