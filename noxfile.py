"""The sessions of this repository; `./run SESSION` makes the environment they run in and calls them.

There is one environment, `.venv`, made from requirements.lock by `./run` (docs/adr/0003-one-environment.md).
Sessions run in it as they are. Under a nox from elsewhere each session makes its own from the same lock.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import tomllib
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"

ROOT = Path(__file__).resolve().parent
LOCK = ROOT / "requirements.lock"
INSIDE = Path(sys.prefix).resolve() == ROOT / ".venv"
SHELL_SCRIPTS = ("run", ".ci/run")

nox.options.sessions = ["lint", "types", "tests"]
nox.options.default_venv_backend = "none" if INSIDE else "venv"
nox.options.reuse_venv = "yes"


def prepare(session: nox.Session) -> None:
    """Install the lock and the project, unless this is `.venv`, where `./run` has done so."""
    if INSIDE:
        return
    stamp = Path(session.virtualenv.location) / "lock.stamp"
    if not stamp.exists() or stamp.read_bytes() != LOCK.read_bytes():
        # setuptools goes first: it builds what has no wheel here, and nothing is built in isolation,
        # where pip would fetch build tools that no hash has vouched for.
        session.install("--require-hashes", "--no-deps", "-r", str(_locked(session, "setuptools")))
        session.install("--require-hashes", "--no-deps", "--no-build-isolation", "-r", str(LOCK))
        stamp.write_bytes(LOCK.read_bytes())
    session.install("--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def _locked(session: nox.Session, name: str) -> Path:
    """Write one package's lines of the lock to a file of their own."""
    entry = LOCK.read_text().partition(f"\n{name}==")[2].partition("\n    #")[0]
    path = Path(session.create_tmp()) / f"{name}.lock"
    path.write_text(f"{name}=={entry}\n")
    return path


def python(session: nox.Session, *args: str, **env: str) -> None:
    """Run this environment's Python."""
    session.run(sys.executable if INSIDE else "python", *args, env=env, external=INSIDE)


@nox.session
def demo(session: nox.Session) -> None:
    """Show the whole path at work on real WireGuard, in network namespaces."""
    prepare(session)
    python(session, "tests/netns/demo.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, import directions, shell scripts."""
    prepare(session)
    python(session, "-m", "ruff", "check")
    python(session, "-m", "ruff", "format", "--check")
    python(
        session,
        "-c",
        "from importlinter.cli import lint_imports_command as c; c()",
        "--no-cache",
        "--no-logo",
    )
    for script in SHELL_SCRIPTS:
        session.run("sh" if script == "run" else "bash", "-n", script, external=True)
    if shutil.which("shellcheck"):
        session.run("shellcheck", *SHELL_SCRIPTS, external=True)


@nox.session
def types(session: nox.Session) -> None:
    """Check types of the four packages, strictly."""
    prepare(session)
    python(session, "-m", "mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test; those that need network namespaces are skipped by name where there are none."""
    prepare(session)
    # Unit tests keep a core busy, those of namespaces mostly wait: one worker more than there are processors.
    # It begins when the emulated machine has ended (tests/conftest.py).
    side_by_side = ("--numprocesses", str(min(os.cpu_count() or 1, 4) + 1), "--dist", "worksteal")
    sample = ("-m", "not whole", *side_by_side)
    python(session, "-m", "pytest", *(session.posargs or sample))


@nox.session
def whole(session: nox.Session) -> None:
    """Run the tests that `tests` leaves out, where it has one of their kind; some fifteen minutes."""
    prepare(session)
    python(session, "-m", "pytest", "-m", "whole", "--timeout=600", *session.posargs)


@nox.session
def netns(session: nox.Session) -> None:
    """Run only the tests that build hosts from network namespaces."""
    prepare(session)
    python(session, "-m", "pytest", "-m", "netns", *session.posargs)


@nox.session
def kills(session: nox.Session) -> None:
    """kill -9 the gateway's processes 200 times, at random moments under traffic; `tests` does it a few times."""
    prepare(session)
    words = ("tests/netns/test_kills.py", "-s", "--timeout=0", *session.posargs)
    python(session, "-m", "pytest", *words, TIDEGATE_KILLS="200")


@nox.session
def crash(session: nox.Session) -> None:
    """Kill a client's and a gateway's agent at every step of taking a release up, and print the table."""
    prepare(session)
    table = Path(session.create_tmp()) / "crash"
    table.mkdir(exist_ok=True)
    words = ("tests/netns/test_crash.py", "--timeout=0", *session.posargs)
    python(session, "-m", "pytest", *words, TIDEGATE_CRASH="all", TIDEGATE_CRASH_TABLE=str(table))
    for file in sorted(table.iterdir()):
        session.log(f"{file.stem}\n{file.read_text()}")


@nox.session
def stress(session: nox.Session) -> None:
    """Events by the hour: 10^8 records, 500 kills, logging switched 1,000 times; the ring in many more orders."""
    prepare(session)
    parts = ("tests/stress", "tests/netns/test_events.py")
    words = ("-s", "--timeout=0", *(session.posargs or parts))
    python(session, "-m", "pytest", *words, TIDEGATE_STRESS="long")


@nox.session
def kernel(session: nox.Session) -> None:
    """Run the agents on the WireGuard of Debian's kernel, in an emulated machine; three to four minutes."""
    prepare(session)
    python(session, "-m", "pytest", "tests/kernel", *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Put hostile strings into every field, and edits into every layout, by the hour; `tests` takes a sample."""
    prepare(session)
    files = ("tests/unit/compiler/test_hostile_strings.py", "tests/unit/edit")
    words = (*files, "--timeout=0", *session.posargs)
    python(session, "-m", "pytest", *words, TIDEGATE_FUZZ="long")


@nox.session
def editor(session: nox.Session) -> None:
    """Open an inventory with a real yaml-language-server; needs node 18 and npm, and fetches 20 packages."""
    prepare(session)
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            session.error(f"needs {program}; install with:  sudo apt-get install -y nodejs npm")
    home = ROOT / ".nox" / "yaml-language-server"  # apart from .nox/editor, where nox may keep an environment
    home.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(ROOT / "tests" / "editor" / name, home)
    # Every file is checked by its hash in the lock, and no script of a package runs.
    with session.chdir(home):
        session.run("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent", external=True)
    python(session, "-m", "pytest", "tests/editor", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure; `bench [PART…] [--json FILE]`."""
    prepare(session)
    python(session, "-m", "bench", *session.posargs, PYTHONPATH=str(ROOT / "tests"))


@nox.session
def build(session: nox.Session) -> None:
    """Build the source distribution and, from it, the wheel, into dist/."""
    prepare(session)
    shutil.rmtree(ROOT / "dist", ignore_errors=True)
    python(session, "-m", "build", "--no-isolation", "--outdir", "dist", ".")


@nox.session
def release(session: nox.Session) -> None:
    """Build, check the metadata, and use the wheel in an empty environment."""
    build(session)
    dist = sorted(str(path) for path in (ROOT / "dist").iterdir())
    python(session, "-m", "twine", "check", "--strict", *dist)

    scratch = Path(session.create_tmp()).resolve()
    for leftover in ("env", "out", "new"):
        shutil.rmtree(scratch / leftover, ignore_errors=True)
    python(session, "-m", "venv", str(scratch / "env"))
    programs = scratch / "env" / "bin"
    # The wheel says what it needs, the lock only which release of that, so nothing undeclared gets in. With
    # hashes among the constraints pip would want one of the wheel that was just built, too.
    versions = scratch / "versions.txt"
    versions.write_text("\n".join(re.findall(r"^[a-z0-9-]+==[^\\\n]+", LOCK.read_text(), re.MULTILINE)))
    wheel = next(path for path in dist if path.endswith(".whl"))
    pip_install = ("-m", "pip", "install", "-qq", "--constraint", str(versions))
    session.run(str(programs / "python"), *pip_install, wheel, external=True)
    session.run(str(programs / "python"), "-m", "pip", "check", external=True)
    with session.chdir(scratch):  # away from the sources, so that only the wheel can be meant
        session.run(str(programs / "tidegate"), "--version", external=True)
        compile_ = ("compile", str(ROOT / "inventory"), "--out", str(scratch / "out"))
        session.run(str(programs / "tidegate"), *compile_, external=True)
        # What it writes is package data, some of it by way of a symbolic link.
        judges = ("--ci", "github", "--ci", "gitlab", "--ci", "pre-commit")
        session.run("git", "init", "-q", str(scratch / "new"), external=True)  # not this repository's top
        session.run(str(programs / "tidegate"), "init", str(scratch / "new"), *judges, external=True)


@nox.session
def deb(session: nox.Session) -> None:
    """Build the Debian package into dist/, and install, run, upgrade and remove it in a machine that systemd runs."""
    package = _packed(session, "deb", "*.deb")
    if shutil.which("lintian"):
        session.run("lintian", "--allow-root", "--fail-on", "error", package, external=True)
    # It builds once more, in minutes where the machine is slow.
    python(session, "-m", "pytest", "tests/hosts/test_package.py", "--timeout=1800", TIDEGATE_DEB=package)


@nox.session
def image(session: nox.Session) -> None:
    """Build the container image into dist/, and run a gateway in it; needs podman, buildah, crun and mmdebstrap."""
    archive = _packed(session, "image", "*.oci.tar")
    python(session, "-m", "pytest", "tests/hosts/test_image.py", TIDEGATE_IMAGE=archive)


def _packed(session: nox.Session, name: str, pattern: str) -> str:
    """Run a builder of agents/packaging, put what it makes into dist/, and return its path."""
    prepare(session)
    out = Path(session.create_tmp()).resolve() / name
    shutil.rmtree(out, ignore_errors=True)
    python(session, f"agents/packaging/{name}.py", "--out", str(out), *session.posargs)
    (made,) = out.glob(pattern)
    (ROOT / "dist").mkdir(exist_ok=True)
    shutil.copy(made, ROOT / "dist")
    return str(made)


@nox.session
def wheels(session: nox.Session) -> None:
    """Check that what a host needs has wheels for x86-64 and aarch64, and every Python; asks the package index."""
    prepare(session)
    python(session, "agents/packaging/wheels.py")


@nox.session(venv_backend="venv")
def lock(session: nox.Session) -> None:
    """Write requirements.lock anew; `lock -- --upgrade` takes the newest releases, without it only what must."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    session.install(*groups.pop("lock"))
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--quiet"),
        # uv reads none of pip's settings, and here none of its own: the hashes are those of PyPI's files.
        *("--universal", "--python-version", "3.11", "--generate-hashes", "--no-emit-index-url"),
        *("--all-extras", *(word for group in groups for word in ("--group", group))),
        *("--custom-compile-command", "./run lock", "--output-file", LOCK.name),
        *session.posargs,
        env={"UV_INDEX_URL": "", "UV_DEFAULT_INDEX": "", "UV_EXTRA_INDEX_URL": "", "UV_INDEX": ""},
    )
