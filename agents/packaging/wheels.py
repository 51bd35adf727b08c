"""Check that everything a host needs has a wheel: `./run wheels`, for both machines and every Python that is supported.

pip is asked, for each of them, for the wheels that the lock vouches for; it reads what the index says of them and
downloads none that it need not. What has none is built from source on the host (`tree.NO_WHEEL`), which needs a
compiler there: so a new one fails here, and so does one that has got its wheel.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

import closure
import tree

PYTHONS = ("3.11", "3.12", "3.13")
_NONE = re.compile(r"No matching distribution found for ([a-z0-9-]+)==")


def main() -> None:
    """Print for each target which packages have a wheel; exit status 1 when others have none than is known."""
    wrong = False
    for machine in sorted(tree.DEBIAN):
        for python in PYTHONS:
            locked = closure.lock_of(python, machine)
            lacking = without_wheel(locked, python, machine)
            known = tree.NO_WHEEL.get(machine, frozenset())
            said = f"built from source: {', '.join(sorted(lacking))}" if lacking else "wheels for all"
            print(f"{machine} Python {python}: {len(locked)} packages, {said}", flush=True)
            print(f"    {', '.join(name for name in locked if name not in lacking)}", flush=True)
            for name in sorted(lacking - known):
                wrong = True
                print(
                    f"wheels: {name} has no wheel for {machine} and Python {python}: see tree.NO_WHEEL",
                    file=sys.stderr,
                )
            for name in sorted(known - lacking):
                wrong = True
                print(
                    f"wheels: {name} has a wheel for {machine} now: take it out of tree.NO_WHEEL",
                    file=sys.stderr,
                )
    if wrong:
        sys.exit(1)


def without_wheel(locked: dict[str, str], python: str, machine: str) -> set[str]:
    """Return the packages of these lock entries that have no wheel for a target."""
    lacking: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="tidegate-wheels-") as place:
        lock, target = Path(place) / "lock.txt", Path(place) / "target"
        while True:
            lock.write_text("".join(entry for name, entry in locked.items() if name not in lacking))
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
            command += ["--target", str(target), *tree.wheel_options(python, machine), "-r", str(lock)]
            done = subprocess.run(
                command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL
            )
            if done.returncode == 0:
                return lacking
            found = _NONE.search(done.stderr)
            if found is None or found[1] in lacking:
                sys.exit(f"wheels: pip says: {(done.stderr.strip() or 'nothing').splitlines()[-1]}")
            lacking.add(found[1])


if __name__ == "__main__":
    main()
