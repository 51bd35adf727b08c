"""One field of one client of a large fleet, from the call to the commit, and `git commit` alone.

The inventory stands in memory, as in a server that has answered before. The baseline is a working tree of the same
repository whose one changed file is staged already: what `git commit -q` takes then.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path

from bench import fleet
from bench.measure import in_turn
from bench.rows import Options, Row
from tidegate_control.git.repository import Repository
from tidegate_control.inventory.model import Author
from tidegate_control.inventory.service import Inventory

CLIENTS = 100_000
TIMES = 20
AUTHOR = Author("Bench", "bench@example.net")
FILE = "inventory/clients/0000.yaml"


def rows(_: Options) -> list[Row]:
    """Edit, and commit, in turn."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        return _rows(Path(scratch))


def _rows(place: Path) -> list[Row]:
    tree = place / "tree"
    fleet.generate(tree / "inventory", CLIENTS)
    _git(tree, "init", "-q", "-b", "main")
    _git(tree, "add", "-A")
    _git(tree, "commit", "-q", "-m", "Begin")
    _git(place, "clone", "-q", "--bare", "tree", "fleet.git")
    inventory = Inventory(Repository(place / "fleet.git"))
    begin = time.perf_counter()
    assert not inventory.snapshot().has_errors
    client = inventory.snapshot().objects("client")["laptop-000123"]
    opened = time.perf_counter() - begin
    numbers = count(1)

    def edit() -> float:
        fields = {**client.fields, "addresses": [f"10.127.0.{next(numbers)}/32"]}
        return _timed(lambda: inventory.update("client", client.name, fields, author=AUTHOR))

    def commit() -> float:
        file = tree / FILE
        file.write_text(file.read_text().replace("\n", "\n# noted\n", 1))
        _git(tree, "add", FILE)
        return _timed(lambda: _git(tree, "commit", "-q", "-m", "Change"))

    found = {name: statistics.median(of) for name, of in in_turn({"edit": edit, "commit": commit}, 9).items()}
    alone = found["commit"] * 1000
    size = f"{CLIENTS:,} clients"
    return [
        Row("control", f"one-field edit, {size}", found["edit"] * 1000, "ms", alone, TIMES * alone),
        Row("control", f"first look at {size} after a start", opened, "s"),
    ]


def _timed(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _git(place: Path, *words: str) -> None:
    who = {f"GIT_{r}_{k}": "bench@example.net" for r in ("AUTHOR", "COMMITTER") for k in ("NAME", "EMAIL")}
    clean = {**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    subprocess.run(["git", *words], cwd=place, check=True, env=clean, stdout=subprocess.DEVNULL)
