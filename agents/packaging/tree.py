"""The files of a host, from the lock: Tidegate and what it needs below one prefix, as package and image carry them.

    PREFIX/bin/python      -> the distribution's own interpreter
    PREFIX/bin/tidegate    the command
    PREFIX/pyvenv.cfg      makes it a virtual environment, so that the agent's children find the same modules
    PREFIX/lib/pythonX.Y/site-packages/…

pip takes only files whose hash the lock holds, and only wheels; where there is none for the machine, the locked source
is built by the locked setuptools (python-pytun, everywhere but on x86_64). Nothing of the building machine gets in: no
path, no bytecode, no time but SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

import csv
import io
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import closure

DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
GLIBC = 34
"""2.34, of 2021: wheels for newer ones are not taken. Debian 12 has 2.36, Ubuntu 24.04 2.39."""
NO_WHEEL = {"aarch64": frozenset({"python-pytun"})}
"""What has no wheel, by machine; agents/packaging/wheels.py keeps this true."""
_LAUNCHER = """#!{prefix}/bin/python -I
import sys

from tidegate_schema.cli import main

sys.exit(main())
"""


class BuildError(Exception):
    """The tree cannot be made; the message is one line."""


def platforms(machine: str) -> list[str]:
    """Return the platform tags whose wheels a host of this machine can use, newest glibc first."""
    old = [
        f"manylinux2014_{machine}",
        *([f"manylinux2010_{machine}", f"manylinux1_{machine}"] if machine == "x86_64" else []),
    ]
    first = 5 if machine == "x86_64" else 17
    return [*(f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC, first - 1, -1)), *old]


def wheel_options(python: str, machine: str) -> list[str]:
    """Return pip's options that mean the wheels of a target, whatever pip itself runs on."""
    words = [
        "--no-deps",
        "--require-hashes",
        "--only-binary=:all:",
        "--implementation=cp",
        f"--python-version={python}",
    ]
    return [*words, *(f"--platform={one}" for one in platforms(machine))]


def build(root: Path, prefix: str, python: str, machine: str, scratch: Path) -> None:
    """Make the tree below `root`, as it is at `prefix` on the host, for its Python (3.11) and machine (x86_64)."""
    home = root / prefix.lstrip("/")
    site = home / f"lib/python{python}/site-packages"
    site.mkdir(parents=True)
    locked = closure.lock_of(python, machine)
    built = NO_WHEEL.get(machine, frozenset())
    wheels = scratch / "wheels.lock"
    wheels.write_text("".join(entry for name, entry in locked.items() if name not in built))
    _pip("install", "--target", str(site), *wheel_options(python, machine), "-r", str(wheels))
    for name in sorted(built):
        _build_from_source(name, locked[name], site, python, machine, scratch)
    _pip("install", "--target", str(site), "--no-deps", "--no-index", str(_own_wheel(scratch)))
    _leave_no_trace(site)
    (home / "bin").mkdir()
    (home / "bin/python").symlink_to(os.path.relpath(f"/usr/bin/python{python}", f"{prefix}/bin"))
    _program(home / "bin/tidegate", _LAUNCHER.format(prefix=prefix))
    (home / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")


def settle(root: Path, epoch: int) -> None:
    """Give every file the mode and the time that it has on every machine that builds."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


def _program(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def _pip(*words: str) -> None:
    quiet = ("-qq", "--disable-pip-version-check", "--no-compile", "--root-user-action=ignore")
    command = [
        sys.executable,
        "-m",
        "pip",
        words[0],
        "-qq",
        *(quiet[2:] if words[0] == "install" else ()),
        *words[1:],
    ]
    if subprocess.run(command, check=False, stdin=subprocess.DEVNULL).returncode:
        raise BuildError(f"pip {words[0]} failed, see above")


def _build_from_source(name: str, entry: str, site: Path, python: str, machine: str, scratch: Path) -> None:
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    if platform.machine() != machine or here != python:
        raise BuildError(f"{name} has no wheel for {machine}: build on such a machine, with Python {python}")
    lock = scratch / f"{name}.lock"
    lock.write_text(entry)
    made = scratch / "built"
    words = ("--require-hashes", "--no-deps", "--no-build-isolation", f"--no-binary={name}")
    _pip("wheel", "--wheel-dir", str(made), *words, "-r", str(lock))
    _pip("install", "--target", str(site), "--no-deps", "--no-index", *map(str, made.glob("*.whl")))


def _own_wheel(scratch: Path) -> Path:
    made = scratch / "wheel"
    shutil.rmtree(made, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(made),
        str(closure.ROOT),
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise BuildError(
            f"the wheel cannot be built: {(done.stderr.strip() or 'no reason given').splitlines()[-1]}"
        )
    (wheel,) = made.glob("*.whl")
    return wheel


def _leave_no_trace(site: Path) -> None:
    """Take away what pip notes of this machine, and programs that nobody is to run."""
    shutil.rmtree(site / "bin", ignore_errors=True)
    for cache in list(site.rglob("__pycache__")):
        shutil.rmtree(cache)
    for info in site.glob("*.dist-info"):
        for name in ("direct_url.json", "REQUESTED"):
            (info / name).unlink(missing_ok=True)
        record = info / "RECORD"
        rows = [
            row for row in csv.reader(io.StringIO(record.read_text())) if row and (site / row[0]).exists()
        ]
        rows = [row for row in rows if ".." not in Path(row[0]).parts]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(sorted(rows))
        record.write_text(text.getvalue())
