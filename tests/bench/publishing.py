"""Publishing to a directory on the disk, as an admin does it: whole processes in a git repository, compared by its ref.

The baseline is the first publish, which signs every host's release and has each on the disk. The others have to find
out that nearly nothing changed.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path

from bench import fleet
from bench.measure import Cost, medians, run
from bench.rows import Options, Row

HOSTS = 10_000
ROUNDS = 3  # a first publish takes a while
TARGET = 0.05  # what the change of one host may take of a first publish


def rows(options: Options) -> list[Row]:
    """Publish a generated fleet for the first time, unchanged, and with one client changed."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        return _rows(Path(scratch), min(options.rounds, ROUNDS))


def _rows(place: Path, rounds: int) -> list[Row]:
    inventory, out, target = place / "inventory", place / "out", place / "bundles"
    key, ref = place / "keys" / "signing.key", place / ".git" / "refs" / "tidegate" / "published"
    clients = HOSTS - fleet.GATEWAYS
    fleet.generate(inventory, clients)
    numbers = count(clients)

    def tidegate(*words: str | Path) -> Cost:
        # The ref is one of the repository around the working directory.
        script = "import os, sys; os.chdir(sys.argv[1]); del sys.argv[1]; from tidegate_schema.cli import main; main()"
        return run("-c", script, place, *words)

    def git(*words: str) -> None:
        who = ("-c", "user.name=bench", "-c", "user.email=bench@example.net")
        subprocess.run(["git", *who, *words], cwd=place, check=True, stdout=subprocess.DEVNULL)

    def compiled() -> None:
        git("add", "inventory")
        git("commit", "-q", "-m", "Change")
        tidegate("compile", inventory, "--out", out)

    def publish(*more: str) -> Cost:
        return tidegate("publish", out, "--to", target, "--key", key, *more)

    def first() -> Cost:
        shutil.rmtree(target, ignore_errors=True)
        shutil.rmtree(place / ".git" / "tidegate", ignore_errors=True)
        ref.unlink(missing_ok=True)
        return publish("--first")

    def one_changed() -> Cost:
        number = next(numbers)
        (inventory / "clients/changed.yaml").write_text(fleet.client(number, number % fleet.GATEWAYS))
        compiled()
        return publish()

    git("init", "-q")
    tidegate("keys", "init", place / "keys")
    compiled()
    costs = medians({"first": first, "unchanged": publish, "changed": one_changed}, rounds)
    whole, changed, unchanged = costs["first"], costs["changed"], costs["unchanged"]
    size = f"{HOSTS:,} hosts"
    return [
        Row("release", f"publish of {size} to a directory, the first", whole.wall, "s"),
        Row("release", "the same, CPU", whole.cpu, "s"),
        Row("release", "the same, peak memory", whole.memory, "MiB"),
        Row("release", "changed 1", changed.wall, "s", whole.wall, TARGET * whole.wall),
        Row("release", "changed 1, CPU", changed.cpu, "s", whole.cpu),
        Row("release", "changed 1, peak memory", changed.memory, "MiB", whole.memory),
        Row("release", "nothing changed", unchanged.wall, "s", whole.wall),
    ]
