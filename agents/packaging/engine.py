"""podman with a store of its own, which is gone afterwards; also where crun does not take the control groups."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

_HYBRID = Path("/sys/fs/cgroup/unified")
# crun knows no hybrid of both versions of control groups: there it sees version 2 alone, in its own mount namespace.
_UNIFIED = 'umount -l /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup && exec "$@"'


class Engine:
    """One podman. Use as a context manager."""

    def __init__(self) -> None:
        # podman refuses a runroot of more than 50 characters; a session's own TMPDIR may be longer.
        self._store = tempfile.TemporaryDirectory(
            prefix="tidegate-podman-", dir="/var/tmp", ignore_cleanup_errors=True
        )
        place = Path(self._store.name)
        enter = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _UNIFIED, "sh")
        self.prefix = [
            *(enter if _HYBRID.exists() else ()),
            *("podman", "--root", str(place / "root"), "--runroot", str(place / "run")),
            *("--cgroup-manager", "cgroupfs"),
        ]

    def __enter__(self) -> Engine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.run("system", "reset", "--force")
        self._store.cleanup()

    def run(self, *words: str, data: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of podman's commands to its end."""
        return subprocess.run(
            [*self.prefix, *words],
            input=data,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ},
        )
