"""Log intake: the real server, over HTTP, into both stores, beside the stores' own way in for the same lines.

The baseline is the fastest for events as they arrive, one commit for each batch, and nothing read strictly, unpacked
or looked up: DuckDB's own reading of a file of the lines (`read_json`), several times as fast as what its client offers
for rows of Python's (`unnest` of lists, which is a row here, and `executemany`); and ClickHouse's own `INSERT … FORMAT
JSONEachRow` over HTTP.
"""

from __future__ import annotations

import gzip
import http.client
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import duckdb

from bench import events
from bench.measure import in_turn
from bench.rows import Options, Row
from tidegate_agents.events.names import PolicyNames
from tidegate_agents.events.ndjson import Ndjson
from tidegate_control.intake import clickhouse as of_clickhouse
from tidegate_control.intake import duck, queries
from tidegate_control.intake.chlink import Link
from tidegate_control.intake.duck import DuckStore
from tidegate_schema.event import RECORD_BYTES
from unit.agents.receivers import PASSWORD, USER, ClickHouse, clickhouse
from unit.control.intake.serverkit import Server

PART = "control"
BATCH, AT_ONCE = 5000, 4
"""Events of a batch and batches in flight, as a gateway's settings are by default."""
_MADE = "0123456789abcdef"
_EPOCHS = (f"{number:016x}" for number in itertools.count(1))
_HEADERS = {
    "authorization": "Bearer tgc_fra1",
    "content-type": "application/x-ndjson",
    "content-encoding": "gzip",
}


class _Names(PolicyNames):
    def __init__(self) -> None:
        pass

    def of(self, generation: int) -> list[str]:
        return events.NAMES


def made() -> list[bytes]:
    """Return batches of lines, of flows that open and close."""
    records, size = events.flows(), BATCH * RECORD_BYTES
    codec = Ndjson("fra1", _MADE, _Names())
    return [bytes(codec.encode(records[at : at + size])[0]) for at in range(0, len(records), size)]


def anew(batches: Sequence[bytes]) -> list[bytes]:
    """Return the same events of another ring."""
    epoch = next(_EPOCHS).encode()
    return [batch.replace(_MADE.encode(), epoch) for batch in batches]


def posting(server: Server, batches: Sequence[bytes]) -> float:
    """Return events a second, from the first POST to the last ACK."""
    headers = {
        "authorization": f"Bearer {server.token}",
        "content-type": "application/x-ndjson",
        "content-encoding": "gzip",
    }
    bodies = iter([gzip.compress(batch, 1) for batch in anew(batches)])
    lock = threading.Lock()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        while True:
            with lock:
                body = next(bodies, None)
            if body is None:
                break
            connection.request("POST", "/v1/events", body, headers)
            answer = connection.getresponse()
            assert (answer.status, json.loads(answer.read())["stored"]) == (200, BATCH)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(AT_ONCE)]
    before = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _rate(batches, before)


def duckdb_bare(directory: Path, batches: Sequence[bytes]) -> float:
    """Return events a second of `read_json`, a transaction for each file."""
    files = []
    for number, batch in enumerate(anew(batches)):
        files.append(directory / f"{number}.ndjson")
        files[-1].write_bytes(batch)
    DuckStore(str(directory / "bare.duckdb")).close()  # makes the tables, and itself reads no other file
    with duckdb.connect(str(directory / "bare.duckdb")) as database:
        before = time.perf_counter()
        for file in files:
            source = f"read_json('{file}', format = 'newline_delimited', columns = {{{duck.READ}}})"
            database.execute(f"INSERT INTO {queries.EVENTS} SELECT 0, {duck.VALUES} FROM {source}")
        return _rate(batches, before)


def duckdb_rows(directory: Path, batches: Sequence[bytes]) -> float:
    """Return events a second of lists of Python's values, one for each column."""
    names = {"@timestamp": "VARCHAR", **{name: duck.TYPES[kind] for name, kind in queries.COLUMNS.items()}}
    columns = []
    for batch in batches:
        rows = [json.loads(line) for line in batch.splitlines()]
        columns.append([[row.get(name) for row in rows] for name in names])
    types = ", ".join(f'"{name}" {kind}' for name, kind in names.items())
    values = ", ".join(f"unnest(${place}::{kind}[])" for place, kind in enumerate(names.values(), 1))
    with closing(DuckStore(str(directory / "bare.duckdb"))) as store:
        store._database.execute(f"CREATE OR REPLACE TABLE rows ({types})")
        before = time.perf_counter()
        for lists in columns:
            store._database.execute(f"INSERT INTO rows SELECT {values}", lists)
        return _rate(batches, before)


def clickhouse_bare(port: int, batches: Sequence[bytes]) -> float:
    """Return events a second of an INSERT for each batch into the same table."""
    link = Link(f"clickhouse://{USER}@127.0.0.1:{port}/bare", PASSWORD)
    ready = anew(batches)
    before = time.perf_counter()
    for batch in ready:
        link.do(of_clickhouse.INSERT, batch, input_format_skip_unknown_fields=1)
    rate = _rate(batches, before)
    link.close()
    return rate


def rows(options: Options) -> list[Row]:
    """Return the rows of the intake."""
    batches = made()
    with ExitStack() as undo:
        home = Path(undo.enter_context(tempfile.TemporaryDirectory()))
        tasks: dict[str, Callable[[], float]] = {}
        tasks["DuckDB"] = _server(undo, home, "duckdb", f"duckdb://{home / 'events.duckdb'}", batches)
        tasks["DuckDB, bare"] = lambda: duckdb_bare(home, batches)
        tasks["DuckDB, rows"] = lambda: duckdb_rows(home, batches)
        program = clickhouse()
        if program is not None:
            (home / "clickhouse").mkdir()
            database = undo.enter_context(closing(ClickHouse(home / "clickhouse", program)))
            for name in ("intake", "bare"):
                database.do(f"CREATE DATABASE {name}")
            url = f"clickhouse://{USER}@127.0.0.1:{database.port}/"
            of_clickhouse.ClickHouseStore(f"{url}bare", PASSWORD).close()
            tasks["ClickHouse"] = _server(undo, home, "clickhouse", f"{url}intake", batches)
            tasks["ClickHouse, bare"] = lambda: clickhouse_bare(database.port, batches)
        values = {
            name: statistics.median(found) / 1e3 for name, found in in_turn(tasks, options.rounds).items()
        }
    found = []
    for name, bare in (
        ("DuckDB", "read_json of the same lines"),
        ("ClickHouse", "INSERT … FORMAT JSONEachRow of them"),
    ):
        if name in values:
            row = f"intake on {name}: 5,000 flow events a POST, gzip, 4 at once; baseline {bare}, alone"
            base = values[f"{name}, bare"]
            found.append(Row(PART, row, values[name], "k/s", base, base / 2, True))
    row = "intake on DuckDB, as above; baseline the same events as Python's lists, a column each"
    found.append(Row(PART, row, values["DuckDB"], "k/s", values["DuckDB, rows"]))
    return found


def _server(
    undo: ExitStack, home: Path, name: str, url: str, batches: Sequence[bytes]
) -> Callable[[], float]:
    (home / f"{name}-log").mkdir()
    server = Server(url, home / f"{name}-log")
    undo.callback(server.kill)
    server.start()
    return lambda: posting(server, batches)


def _rate(batches: Sequence[bytes], before: float) -> float:
    return len(batches) * BATCH / (time.perf_counter() - before)
