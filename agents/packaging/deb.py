"""Build the Debian package: `./run deb [-- --python 3.11 --machine x86_64 --out dist]`.

One package for both kinds of host. Its Python packages are its own, those of the lock; interpreter and tools are the
distribution's, so a package is for one minor version of Python and one machine. Each version is in a directory of its
own: an agent of the old one never starts a child of the new.

The same commit gives the same bytes: SOURCE_DATE_EPOCH, by default the time of the commit, is the time of everything.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tree
from closure import ROOT

from tidegate_schema import __version__

HERE = Path(__file__).parent
_COMPLETION = {
    "bash": "usr/share/bash-completion/completions/tidegate",
    "zsh": "usr/share/zsh/vendor-completions/_tidegate",
    "fish": "usr/share/fish/vendor_completions.d/tidegate.fish",
}
_SCRIPTS = ("postinst", "prerm", "postrm")
_DOCUMENTS = ("README.md", "docs/hosts.md", "docs/client.md", "docs/gateway.md", "docs/interface.md")
_OVERRIDES = """\
# The Python packages below /usr/lib/tidegate are the files that requirements.lock vouches for, byte by byte.
tidegate: unstripped-binary-or-object [usr/lib/tidegate/*]
tidegate: embedded-library * [usr/lib/tidegate/*]
tidegate: extra-license-file [usr/lib/tidegate/*]
tidegate: package-contains-vcs-control-file [usr/lib/tidegate/*]
tidegate: unusual-interpreter * [usr/lib/tidegate/*]
tidegate: script-not-executable [usr/lib/tidegate/*]
# Each is asked only where systemd runs, and none is started or enabled by the package.
tidegate: maintainer-script-calls-systemctl [*]
# `tidegate --help` and the documents beside this are the manual.
tidegate: no-manual-page [usr/bin/tidegate]
"""


def main() -> None:
    """Build, and print where the package is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--python", default=_debian_python(), help="minor version of the hosts' Python")
    parser.add_argument(
        "--machine", default=platform.machine(), choices=tree.DEBIAN, help="the hosts' machine"
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="directory of the package")
    chosen = parser.parse_args()
    if shutil.which("dpkg-deb") is None:
        sys.exit("deb: needs dpkg-deb; install with:  sudo apt-get install -y dpkg")
    try:
        print(build(chosen.python, chosen.machine, chosen.out))
    except tree.BuildError as error:
        sys.exit(f"deb: {error}")


def build(python: str, machine: str, out: Path) -> Path:
    """Build the package into `out` and return its path; tree.BuildError when it cannot be."""
    epoch = source_date_epoch()
    os.environ["SOURCE_DATE_EPOCH"] = str(epoch)
    with tempfile.TemporaryDirectory(prefix="tidegate-deb-") as place:
        scratch, root = Path(place), Path(place) / "root"
        tree.build(root, f"/usr/lib/tidegate/{__version__}", python, machine, scratch)
        _link(root / "usr/bin/tidegate", f"../lib/tidegate/{__version__}/bin/tidegate")
        _units(root)
        _completion(root)
        _documents(root, epoch)
        tree.settle(root, epoch)
        _control(root, python, machine)
        tree.settle(root / "DEBIAN", epoch)
        for script in _SCRIPTS:
            (root / "DEBIAN" / script).chmod(0o755)
        out.mkdir(parents=True, exist_ok=True)
        made = out / f"tidegate_{__version__}_{tree.DEBIAN[machine]}_python{python}.deb"
        command = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", str(root), str(made)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return made


def source_date_epoch() -> int:
    """Return the time that everything gets: the caller's, else the commit's, else that of the changelog's file."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else int((ROOT / "CHANGELOG.md").stat().st_mtime)


def _debian_python() -> str:
    found = re.search(r"python(3\.[0-9]+)$", os.path.realpath("/usr/bin/python3"))
    return found[1] if found else f"3.{sys.version_info.minor}"


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _units(root: Path) -> None:
    for unit in sorted((ROOT / "agents/tidegate_agents/systemd").glob("*.service")):
        text = unit.read_text().replace("ExecStart=tidegate ", "ExecStart=/usr/bin/tidegate ")
        _write(root / "lib/systemd/system" / unit.name, text.encode())


def _completion(root: Path) -> None:
    for shell, place in _COMPLETION.items():
        environment = {**os.environ, "_TIDEGATE_COMPLETE": f"{shell}_source"}
        command = [sys.executable, "-m", "tidegate_schema"]
        done = subprocess.run(command, env=environment, check=True, capture_output=True)
        _write(root / place, done.stdout)


def _documents(root: Path, epoch: int) -> None:
    folder = root / "usr/share/doc/tidegate"
    for name in _DOCUMENTS:
        if (ROOT / name).exists():
            _write(folder / Path(name).name, (ROOT / name).read_bytes())
    _write(folder / "copyright", (HERE / "debian/copyright").read_bytes())
    stamp = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(epoch))
    entry = (
        f"tidegate ({__version__}) unstable; urgency=medium\n\n  * See NEWS.md.gz.\n\n"
        f" -- The Tidegate maintainers <maintainers@tidegate.example>  {stamp}\n"
    )
    _write(folder / "changelog.gz", gzip.compress(entry.encode(), 9, mtime=0))
    _write(folder / "NEWS.md.gz", gzip.compress((ROOT / "CHANGELOG.md").read_bytes(), 9, mtime=0))
    _write(root / "usr/share/lintian/overrides/tidegate", _OVERRIDES.encode())


def _digest(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()  # deb-md5sums(5) wants no other


def _control(root: Path, python: str, machine: str) -> None:
    major, minor = python.split(".")
    files = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    sums = "".join(f"{_digest(path)}  {path.relative_to(root)}\n" for path in files)
    words = {
        "version": __version__,
        "architecture": tree.DEBIAN[machine],
        "size": str(sum(-(-path.stat().st_size // 1024) for path in files)),
        "python": python,
        "next_python": f"{major}.{int(minor) + 1}~",
        "atomic": "" if machine == "x86_64" else "libatomic1, ",
    }
    _write(root / "DEBIAN/control", (HERE / "debian/control").read_text().format(**words).encode())
    _write(root / "DEBIAN/md5sums", sums.encode())
    for script in _SCRIPTS:
        text = (HERE / "debian" / script).read_text().replace("@VERSION@", __version__)
        _write(root / "DEBIAN" / script, text.encode())


if __name__ == "__main__":
    main()
