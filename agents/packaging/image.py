"""Build the container image: `./run image [-- --package FILE.deb --base tarball-or-image --out dist]`.

Without --base the base is made by mmdebstrap from Debian's own archive, whose signature apt checks: the interpreter and
the tools that the package depends on, and nothing else. The image is written as an OCI archive.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import tree
from deb import build, source_date_epoch
from engine import Engine

from tidegate_schema import __version__

RECIPE = Path(__file__).parent / "Containerfile"
SUITE, PYTHON = "bookworm", "3.11"
"""The release of Debian in the image, and its Python."""
BASE = ("python3", "wireguard-tools", "wireguard-go", "iproute2", "nftables", "passwd")
"""What the image has beside Debian's smallest system: what the package depends on, and WireGuard for any kernel."""
_NEEDED = {"mmdebstrap": "mmdebstrap", "podman": "podman", "crun": "crun", "buildah": "buildah"}


def main() -> None:
    """Build, and print where the image is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--package", type=Path, help="a package that is there; without it one is built")
    parser.add_argument("--base", type=Path, help="a tarball of the base; without it one is made")
    parser.add_argument("--out", type=Path, default=Path("dist"), help="directory of the image")
    chosen = parser.parse_args()
    missing = [package for name, package in _NEEDED.items() if shutil.which(name) is None]
    if missing:
        sys.exit(
            f"image: needs {', '.join(missing)}; install with:  sudo apt-get install -y {' '.join(missing)}"
        )
    try:
        print(build_image(chosen.package, chosen.base, chosen.out.absolute()))
    except tree.BuildError as error:
        sys.exit(f"image: {error}")


def build_image(package: Path | None, base: Path | None, out: Path) -> Path:
    """Build the image into `out` and return the archive's path; tree.BuildError when it cannot be."""
    os.environ["SOURCE_DATE_EPOCH"] = epoch = str(source_date_epoch())
    out.mkdir(parents=True, exist_ok=True)
    package = package or build(PYTHON, platform.machine(), out)
    archive = out / f"tidegate_{__version__}_{tree.DEBIAN[platform.machine()]}.oci.tar"
    archive.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="tidegate-image-") as place, Engine() as engine:
        context = Path(place) / "context"
        context.mkdir()
        shutil.copy(package, context / "tidegate.deb")
        shutil.copy(RECIPE, context)
        base = base or _base(Path(place) / "base.tar")
        _done(engine.run("import", "--quiet", str(base), "localhost/tidegate-base"), "podman import")
        words = ("--quiet", "--pull=never", "--network=host", "--isolation=chroot", "--timestamp", epoch)
        arguments = (
            "--build-arg",
            "BASE=localhost/tidegate-base",
            "--tag",
            f"localhost/tidegate:{__version__}",
        )
        _done(engine.run("build", *words, *arguments, str(context)), "podman build")
        save = ("save", "--quiet", "--format", "oci-archive", "--output", str(archive))
        _done(engine.run(*save, f"localhost/tidegate:{__version__}"), "podman save")
    return archive


def _base(path: Path) -> Path:
    words = ("--quiet", "--variant=minbase", f"--include={','.join(BASE)}", SUITE, str(path))
    _done(subprocess.run(["mmdebstrap", *words], check=False, capture_output=True, text=True), "mmdebstrap")
    return path


def _done(done: subprocess.CompletedProcess[str], what: str) -> None:
    if done.returncode:
        said = (done.stderr.strip() or "no reason given").splitlines()[-1]
        raise tree.BuildError(f"{what}: {said}")


if __name__ == "__main__":
    main()
