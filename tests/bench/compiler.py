"""The compiler as a user meets it: whole processes over `inventory/` grown by generated clients.

The baseline is the least that any Python tool must do with the same files: start, and load them with PyYAML's
C loader. It checks nothing.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from bench.rows import Options, Row, medians

ROOT = Path(__file__).parents[2]
PER_FILE = 100

LOAD = """
import sys, yaml
from pathlib import Path
for path in Path(sys.argv[1]).rglob("*.yaml"):
    yaml.load(path.read_bytes(), Loader=yaml.CSafeLoader)
"""


def grow(inventory: Path, clients: int) -> None:
    """Add generated clients to an inventory, all in one group that an allow policy names.

    The same number makes the same bytes; addresses are taken from the overlay's upper end, away from people's.
    """
    overlay = yaml.safe_load((inventory / "overlay.yaml").read_text())["overlay"]["prefixes"]
    nets = [ipaddress.ip_network(prefix) for prefix in overlay]
    gateways = [
        name
        for path in sorted((inventory / "gateways").glob("*.yaml"))
        for name in yaml.safe_load(path.read_text())
    ]
    resource = next(
        name
        for path in sorted((inventory / "resources").glob("*.yaml"))
        for name, value in yaml.safe_load(path.read_text()).items()
        if "ports" in value
    )
    names = [f"bench-{number:06}" for number in range(clients)]
    for first in range(0, clients, PER_FILE):
        lines = []
        for number in range(first, min(first + PER_FILE, clients)):
            key = base64.b64encode(hashlib.blake2s(names[number].encode()).digest()).decode()
            addresses = ", ".join(
                f'"{net[2 ** min(net.max_prefixlen - net.prefixlen, 63) - 2 - number]}/{net.max_prefixlen}"'
                for net in nets
            )
            lines.append(
                f'{names[number]}: {{public_key: "{key}", addresses: [{addresses}], gateways: [{gateways[0]}]}}\n'
            )
        (inventory / "clients" / f"bench-{first:06}.yaml").write_text("".join(lines))
    (inventory / "groups" / "bench.yaml").write_text(f"bench: {{members: [{', '.join(names)}]}}\n")
    (inventory / "policies" / "bench.yaml").write_text(
        f"bench: {{from: [group:bench], to: [resource:{resource}], action: allow}}\n"
    )


def run(*args: str | Path) -> None:
    """Run Python with these arguments; what it prints is shown only when it fails."""
    done = subprocess.run(
        [sys.executable, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{' '.join(map(str, args))}\n{done.stdout[-2000:]}")


def rows(options: Options) -> list[Row]:
    """Measure validate and compile, of a whole inventory and of one that did not change."""
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as scratch:
        inventory = Path(scratch, "inventory")
        shutil.copytree(ROOT / "inventory", inventory)
        grow(inventory, options.clients)
        fresh, kept = Path(scratch, "fresh"), Path(scratch, "kept")

        def compile_fresh() -> None:
            # Renaming costs nothing, so that only the writing is in the time; the rest is removed below.
            if fresh.exists():
                fresh.rename(Path(scratch, f"old-{len(list(Path(scratch).iterdir()))}"))
            run("-m", "tidegate_schema", "compile", inventory, "--out", fresh)

        load = "baseline: start Python, load with PyYAML's C loader"
        tasks = {
            load: functools.partial(run, "-c", LOAD, inventory),
            "validate": functools.partial(run, "-m", "tidegate_schema", "validate", inventory),
            "compile to an empty directory": compile_fresh,
            "compile, nothing changed": functools.partial(
                run, "-m", "tidegate_schema", "compile", inventory, "--out", kept
            ),
        }
        seconds = medians(tasks, options.rounds)
    size = f"{options.clients} clients added"
    return [
        Row("compiler", f"{name}, {size}", seconds[name], "s", None if name == load else seconds[load])
        for name in tasks
    ]
