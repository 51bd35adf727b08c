"""Replay and suggest, as whole processes, on a store of generated flows.

The flows are drawn in Python, a million of them at most, and repeated in the store with other times: what is
measured is reading, summing up and judging, for which it is the same. Beside replay, in the same rounds, stands a
process that reads the same columns of the same rows from the same store and does nothing with them.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import duckdb

from bench import traffic
from bench.measure import Cost, medians, run
from bench.rows import Options, Row
from tidegate_compiler import pipeline
from tidegate_compiler.learn.demand import demand
from tidegate_compiler.learn.names import Timeline
from tidegate_compiler.learn.replay import Candidate
from tidegate_compiler.learn.suggest import Suggestion, suggest
from tidegate_control.intake.store import NS, open_store

DRAWN_MOST = 1_000_000
READ = """
import sys, duckdb
found = duckdb.connect(sys.argv[1], read_only=True).execute(
    'SELECT "wall_ns", "observer.name", "tidegate.client.id", "destination.address", "network.iana_number",'
    ' "destination.port", "tidegate.verdict", "event.reason", "source.bytes" FROM tidegate_events')
count = 0
while rows := found.fetchmany(4096):
    for row in rows:
        count += 1
assert count == int(sys.argv[2])
"""
PARSE = """
import sys, json
for line in open(sys.argv[1], 'rb'):
    json.loads(line)
"""


def rows(options: Options) -> list[Row]:
    """Measure both."""
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as scratch:
        return [*_replay(options, Path(scratch)), *_suggest(options)]


def _replay(options: Options, scratch: Path) -> list[Row]:
    world = traffic.world()
    inventory = scratch / "inventory"
    for name, data in world.files().items():
        (inventory / name).parent.mkdir(parents=True, exist_ok=True)
        (inventory / name).write_bytes(data)
    # A candidate that lacks every tenth policy, so that something breaks.
    policies = inventory / "policies/all.yaml"
    lines = policies.read_text().splitlines(keepends=True)
    policies.write_text("".join(line for number, line in enumerate(lines) if number % 10))
    count, fewer = options.flows, max(options.flows // 10, 1)
    paths = {number: scratch / f"state-{number}" for number in (count, fewer)}
    for (
        number,
        path,
    ) in paths.items():  # each in a process of its own: a child's peak memory begins with its parent's
        run(
            "-c",
            f"from bench import learn, traffic; learn.fill(traffic.world(), learn.Path({str(path)!r}), {number})",
        )
    lined = scratch / "flows.ndjson"
    written = min(fewer, 200_000)
    with lined.open("w") as file:
        file.writelines(event(flow, number) for number, (_, flow) in enumerate(traffic.flows(world, written)))

    def replayed(flows: str | Path) -> Cost:
        window = ("--from", "2026-11-01", "--to", "2026-12-31")
        return run(
            "-m", "tidegate_schema", "replay", "--flows", flows, *window, "--json", inventory, fine=(2,)
        )

    def url(number: int) -> str:
        return f"duckdb://{paths[number]}/intake.duckdb"

    costs = medians(
        {
            "read": lambda: run("-c", READ, paths[count] / "intake.duckdb", str(count)),
            "replay": lambda: replayed(url(count)),
            "replay, a tenth": lambda: replayed(url(fewer)),
            "parse": lambda: run("-c", PARSE, lined),
            "replay, lines": lambda: replayed(lined),
        },
        options.rounds,
    )
    read, whole, part = costs["read"], costs["replay"], costs["replay, a tenth"]
    bare, lines_cost = costs["parse"], costs["replay, lines"]
    rate, bare_rate = written / lines_cost.wall, written / bare.wall
    return [
        _rate(f"replay of {count} flows from DuckDB", count / whole.wall, count / read.wall, 0.3),
        Row(
            "learn",
            f"replay of {count} flows, peak memory",
            whole.memory,
            "MiB",
            part.memory,
            2 * part.memory,
        ),
        _rate(f"replay of {written} lines of NDJSON", rate, bare_rate),
    ]


def _rate(row: str, value: float, baseline: float, share: float | None = None) -> Row:
    target = None if share is None else share * baseline
    return Row("learn", row, value, "flows/s", baseline, target, at_least=True)


def fill(world: traffic.World, directory: Path, count: int) -> None:
    """Make a store of so many flow-opens in a directory."""
    directory.mkdir(mode=0o700)
    path = directory / "intake.duckdb"
    open_store(f"duckdb://{path}").close()
    drawn = directory / "drawn.csv"
    times = max(1, count // DRAWN_MOST)
    with drawn.open("w", newline="") as file:
        writer = csv.writer(file)
        for number, (_, one) in enumerate(traffic.flows(world, count // times)):
            writer.writerow((number, int(one.first), one.gateway, one.client_id, one.destination, one.port))
    names = "number, second, gateway, client, destination, port"
    values = {
        "wall_ns": f"second * {NS} + again",
        "received_s": "second",
        "event.sequence": f"number + again * {count // times}",
        "observer.name": "gateway",
        "tidegate.client.id": "client",
        "destination.address": "destination",
        "destination.port": "port",
        "event.action": "'flow-open'",
        "tidegate.mode": "'observe'",
        "tidegate.verdict": "'allow'",
        "event.reason": "'observed'",
        "network.iana_number": "6",
        "source.bytes": "1000",
    }
    with duckdb.connect(str(path)) as database:
        columns = database.execute("DESCRIBE tidegate_events").fetchall()
        said = ", ".join(values.get(name, "''" if kind == "VARCHAR" else "0") for name, kind, *_ in columns)
        read = (
            f"read_csv('{drawn}', header = false, names = [{', '.join(repr(n) for n in names.split(', '))}])"
        )
        database.execute(f"INSERT INTO tidegate_events SELECT {said} FROM {read}, range({times}) AS t(again)")
    drawn.unlink()


def event(one: Any, number: int) -> str:
    """Return a flow as a gateway's line."""
    return (
        json.dumps(
            {
                "@timestamp": f"2026-11-2{2 + number % 7}T12:00:00.{number:09d}Z",
                "observer.name": one.gateway,
                "tidegate.epoch": "0" * 16,
                "tidegate.monotonic_ns": number,
                "event.sequence": number,
                "event.action": "flow-open",
                "tidegate.mode": "observe",
                "tidegate.verdict": one.verdict,
                "event.reason": one.reason,
                "tidegate.generation": 1,
                "source.packets": 0,
                "source.bytes": one.octets,
                "tidegate.client.id": one.client_id,
                "source.address": "10.64.0.1",
                "destination.address": one.destination,
                "network.iana_number": 6,
                "network.transport": "tcp",
                "source.port": 50000,
                "destination.port": one.port,
                "tidegate.tcp.flags": 2,
            },
            separators=(",", ":"),
        )
        + "\n"
    )


def _suggest(options: Options) -> list[Row]:
    """Give suggest the flows of a policy of 300 rules and an inventory without it; compare what comes with it."""
    count = max(options.flows // 10, 1000)
    world = traffic.world()
    compiled = pipeline.compile_files(world.files(with_policies=False))
    assert isinstance(compiled, pipeline.Compiled)
    candidate = Candidate(compiled.fleet, Timeline().end(compiled.fleet.ids))
    wanted = demand(traffic.flows(world, count), candidate, traffic.BEGIN)
    before = os.times()
    done = suggest(wanted, compiled.inventory, traffic.BEGIN)
    took = os.times().elapsed - before.elapsed
    truth, got = world.access(), admitted(done)
    seen = {
        (client, service.destination, service.port)
        for service, uses in wanted.uses.items()
        for client in uses
    }
    rules = sum(len(one.sources) * len(one.to) for one in done.policies)
    size = f"suggest on {count} flows of {len(world.policies)} rules"
    return [
        Row("learn", f"{size}: precision", len(got & truth) / len(got), "", None, 0.95, at_least=True),
        Row(
            "learn",
            f"{size}: recall of what was seen",
            len(got & seen) / len(seen),
            "",
            None,
            1.0,
            at_least=True,
        ),
        Row(
            "learn", f"{size}: of the true access that was not seen, admitted", _share(got, truth - seen), ""
        ),
        Row("learn", f"{size}: rules", rules, "rules", len(world.policies), 1.5 * len(world.policies)),
        Row("learn", f"{size}: policies, each with several of them", len(done.policies), "policies"),
        Row("learn", f"{size}: time, flows summed up", took, "s"),
    ]


def _share(got: set[tuple[str, str, int]], of: set[tuple[str, str, int]]) -> float:
    return len(got & of) / len(of) if of else 1.0


def admitted(done: Suggestion) -> set[tuple[str, str, int]]:
    """Return every (client, address, TCP port) that a suggestion admits in a world where resources are addresses."""
    return {
        (client, str(address), int(home.element.partition("/")[2]))
        for one in done.policies
        for client in done.members(one.clients)
        for home in one.homes
        for network in done.land.targets[home.target].networks
        for address in network
    }
