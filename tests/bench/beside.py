"""Beside two tools that do a part of the same: wg-meshconf (peers a second) and aerleon (rules a second).

Each pair gets the same input in its own notation, in the same rounds and in this process; what both write is read back
and must say the same, or nothing is measured. `docs/bench.md` says what is compared and what is not.
"""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from bench import mesh, rules
from bench.measure import Cost, medians
from bench.rows import Row
from tidegate_compiler import pipeline, render, resolve
from tidegate_schema import cli

HOSTS, RULES = 100, 1000


def rows(scratch: Path, rounds: int, hosts: int = HOSTS, count: int = RULES) -> list[Row]:
    """Measure both pairs in a directory, preferably in memory; exit with a line when their outputs differ."""
    return [*_peers(scratch / "mesh", rounds, hosts), *_rules(scratch / "rules", rounds, count)]


def _peers(scratch: Path, rounds: int, hosts: int) -> list[Row]:
    from wg_meshconf.database_manager import KEY_TYPE, DatabaseManager

    scratch.mkdir(parents=True)
    mesh.write_inventory(scratch / "inventory", hosts)
    mesh.write_table(scratch / "table.csv", hosts, list(KEY_TYPE))

    def ours() -> None:
        compile_(scratch / "inventory", scratch / "ours")

    def theirs() -> None:
        fresh(scratch / "theirs").mkdir()
        DatabaseManager(scratch / "table.csv").genconfig(None, scratch / "theirs")

    def theirs_remembering() -> None:
        # It derives each peer's public key anew for every file that names it. This is not its author's code path,
        # but it keeps us from winning by arithmetic alone.
        manager = DatabaseManager(scratch / "table.csv")
        manager.wireguard.pubkey = functools.cache(manager.wireguard.pubkey)
        fresh(scratch / "theirs").mkdir()
        manager.genconfig(None, scratch / "theirs")

    def ours_rendering() -> None:
        # `ours` less what wg-meshconf has no counterpart of: reading YAML and checking it.
        render.render(resolve.Fleet(inventory), "")

    for task in (ours, theirs):
        task()
    checked = pipeline.validate(scratch / "inventory")
    assert checked.inventory is not None
    inventory = checked.inventory
    for number in range(hosts):
        name = f"host-{number:03}"
        said = mesh.read((scratch / f"ours/client/{name}/wg0.conf").read_bytes())
        other = mesh.without_own_addresses(mesh.read((scratch / f"theirs/{name}.conf").read_bytes()))
        if said != other or len(said.peers) != hosts - 1:
            sys.exit(f"beside wg-meshconf: the files of {name} do not say the same")
    rate = _rates(
        {
            "ours": ours,
            "rendering": ours_rendering,
            "theirs": theirs,
            "remembering": theirs_remembering,
        },
        rounds,
        hosts * (hosts - 1),
    )
    size = f"a mesh of {hosts} hosts"
    return [
        Row("compiler", f"peers rendered, {size}: tidegate", rate["ours"], "peers/s", rate["theirs"]),
        Row(
            "compiler",
            "  tidegate, from an inventory in memory to files in memory",
            rate["rendering"],
            "peers/s",
            rate["theirs"],
        ),
        Row("compiler", "  wg-meshconf", rate["theirs"], "peers/s"),
        Row(
            "compiler",
            "  wg-meshconf, if it derived each key once",
            rate["remembering"],
            "peers/s",
            rate["theirs"],
        ),
    ]


def _rules(scratch: Path, rounds: int, count: int) -> list[Row]:
    with _silent_aerleon():
        from aerleon import aclgen, api
        from aerleon.lib import naming

        scratch.mkdir(parents=True)
        rules.write_inventory(scratch / "inventory", count)
        rules.write_definitions(scratch / "theirs", count)
        names, policy = rules.definitions(count), rules.policy(count)
        rendered = scratch / "theirs/out/rules.nft"

        def ours() -> None:
            compile_(scratch / "inventory", scratch / "ours")

        def theirs() -> None:
            rendered.unlink(missing_ok=True)
            base = scratch / "theirs"
            aclgen.Run(
                base_directory=str(base / "pol"),
                definitions_directory=str(base / "def"),
                policy_file=str(base / "pol/rules.yaml"),
                output_directory=str(base / "out"),
                exp_info=2,
                max_renderers=1,
                ignore_directories=[],
                optimize=False,
                shade_check=False,
                context=None,
            )

        def theirs_from_values() -> None:
            known = naming.Naming()
            known.ParseDefinitionsObject(names, "")
            api.Generate([policy], known)

        for task in (ours, theirs):
            task()
        gateway = scratch / "ours/gateway/gw"
        said = rules.of_bundle((gateway / "policy.json").read_bytes(), (gateway / "peers.json").read_bytes())
        other = list(rules.of_ruleset(rendered.read_text()))
        meant = [rule for _, _, rule in rules.wanted(count)]
        if not (Counter(said) == Counter(meant) and other == meant):
            sys.exit("beside aerleon: the rules do not say the same")
        rate = _rates({"ours": ours, "theirs": theirs, "values": theirs_from_values}, rounds, count)
    return [
        Row(
            "compiler", f"rules compiled, {count} of them: tidegate", rate["ours"], "rules/s", rate["theirs"]
        ),
        Row("compiler", "  aerleon (nftables)", rate["theirs"], "rules/s"),
        Row(
            "compiler",
            "  aerleon, from Python values instead of files",
            rate["values"],
            "rules/s",
            rate["theirs"],
        ),
    ]


def compile_(inventory: Path, out: Path) -> None:
    """Run `tidegate compile` in this process, into a fresh directory; nothing is kept from an earlier run."""
    fresh(out)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        status = cli.run(["compile", str(inventory), "--out", str(out)])
    if status:
        sys.exit(f"compile {inventory}: {printed.getvalue()[-2000:]}")


def fresh(path: Path) -> Path:
    """Remove a directory, if it is there."""
    shutil.rmtree(path, ignore_errors=True)
    return path


def _rates(tasks: dict[str, Callable[[], None]], rounds: int, items: int) -> dict[str, float]:
    """Return each task's items a second of the clock: medians of interleaved rounds."""

    def timed(task: Callable[[], None]) -> Cost:
        start = time.perf_counter()
        task()
        return Cost(time.perf_counter() - start, 0, 0)

    costs = medians({name: functools.partial(timed, task) for name, task in tasks.items()}, rounds)
    return {name: items / cost.wall for name, cost in costs.items()}


@contextlib.contextmanager
def _silent_aerleon() -> Iterator[None]:
    """Keep aerleon from telling of each file; printing is no part of what is measured, on either side."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    finally:
        logging.disable(level)
