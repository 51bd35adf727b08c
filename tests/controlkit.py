"""Bare repositories with the example inventory, and the inventory service on them, for tests of the control server."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tidegate_control.git.repository import Repository
from tidegate_control.inventory.model import Author
from tidegate_control.inventory.service import Inventory

EXAMPLE = Path(__file__).parents[1] / "inventory"
ALICE = Author("Alice Admin", "alice@example.net")
KEYS = [
    "yl0zAv8j7bIKGzgyCjeWzbTXYZYCbTuZEOuDPJSBkHY=",
    "fUC5ewtVZYsdd6EtzUlhCr2pR5bBKQcuKCUQiBxjlFI=",
]


def environment() -> dict[str, str]:
    """Return the environment of git commands, without anything of the machine's own settings."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    who = {"NAME": "Pat Pusher", "EMAIL": "pat@example.net"}
    return {
        **inherited,
        **{f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER") for key, value in who.items()},
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }


def git(place: Path, *words: str, given: str | None = None) -> str:
    """Run git in a directory; return what it prints."""
    done = subprocess.run(
        ["git", *words], cwd=place, env=environment(), input=given, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def example() -> dict[str, str]:
    """Return the files of the example inventory, by path in it."""
    return {
        str(path.relative_to(EXAMPLE)): path.read_text()
        for path in sorted(EXAMPLE.rglob("*.yaml"))
        if path.is_file()
    }


def bare(place: Path, files: Mapping[str, str] | None = None, *, inside: str = "inventory") -> Path:
    """Return a new bare repository, `place`/fleet.git, whose branch main holds an inventory, by default the example.

    Beside it is `place`/seed, the working tree that it came from.
    """
    if files is None and inside == "inventory":
        shutil.copytree(_template(), place, dirs_exist_ok=True)
    else:
        _make(place, example() if files is None else files, inside)
    return place / "fleet.git"


@functools.cache
def _template() -> Path:
    place = Path(tempfile.mkdtemp(prefix="tidegate-control-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    _make(place, example(), "inventory")
    return place


def _make(place: Path, files: Mapping[str, str], inside: str) -> None:
    tree = place / "seed"
    for path, text in files.items():
        target = tree / inside / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    git(tree, "init", "-q", "-b", "main", "--template=")
    (tree / "README").write_text("A fleet.\n")
    git(tree, "add", "-A")
    git(tree, "commit", "-q", "-m", "Begin")
    git(place, "clone", "-q", "--bare", "--template=", "seed", "fleet.git")
    git(place / "fleet.git", "config", "--unset", "remote.origin.url")


def service(repository: Path, inside: str = "inventory", remote: str | None = None) -> Inventory:
    """Return the service on a repository."""
    return Inventory(Repository(repository, inventory=inside, remote=remote))
