"""The command line of the benches; `./run bench --help`."""

from __future__ import annotations

import argparse
import importlib
import json
import os
from pathlib import Path

from rich.console import Console

from bench import machine
from bench.rows import Options, Row, show

# Part -> the module that measures it.
PARTS = {
    "compiler": "bench.compiler",
    "datapath": "bench.datapath",
    "wireguard": "bench.wireguard",
    "events": "bench.events",
    "release": "bench.release",
    "control": "bench.control",
    "learn": "bench.learn",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run bench", description="Measure, print a table per part.")
    parser.add_argument("part", nargs="*", help=f"any of {', '.join(PARTS)}; all of them when none is given")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here as well")
    parser.add_argument("--clients", type=int, default=Options.clients, help="size of the inventory")
    parser.add_argument("--rounds", type=int, default=Options.rounds, help="a value is the median of so many")
    parser.add_argument("--flows", type=int, default=Options.flows, help="flows that learn replays")
    args = parser.parse_args()
    unknown = [part for part in args.part if part not in PARTS]
    if unknown:
        parser.error(f"no such part: {', '.join(unknown)} (there are {', '.join(PARTS)})")

    console = Console()
    rows: list[Row] = []
    for part in args.part or PARTS:
        if not rows:
            console.print(*machine.describe(), sep="\n", highlight=False, markup=False)
        measured = importlib.import_module(PARTS[part]).rows(Options(args.clients, args.rounds, args.flows))
        show(console, part, measured)
        rows += measured
    if args.json is not None:
        # nox works in the root of the repository; a relative name is meant from where `./run` was called.
        Path(os.environ.get("RUN_FROM", ""), args.json).write_text(
            json.dumps([row.as_json() for row in rows], indent=2) + "\n"
        )


if __name__ == "__main__":
    main()
