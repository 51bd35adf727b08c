"""The stores that every test of them is run on: DuckDB, and a real ClickHouse, which a worker starts once."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tidegate_control.intake.store import EventStore, open_store
from unit.agents.receivers import PASSWORD, USER, ClickHouse, clickhouse
from unit.control.intake.kit import Clock

_COUNT = itertools.count(1)
STORES = ("duckdb", "clickhouse")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    program = clickhouse()
    if program is None:
        pytest.skip("clickhouse-server is not installed")
    with contextlib.closing(ClickHouse(tmp_path_factory.mktemp("clickhouse"), program)) as made:
        yield made


@pytest.fixture(params=STORES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store that is empty."""
    if request.param == "duckdb":
        (tmp_path / "state").mkdir(mode=0o700)
        return f"duckdb://{tmp_path / 'state' / 'events.duckdb'}"
    server: ClickHouse = request.getfixturevalue("server")
    database = f"test_{next(_COUNT)}"
    server.do(f"CREATE DATABASE {database}")
    return f"clickhouse://{USER}@127.0.0.1:{server.port}/{database}"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def opened(url: str, clock: Clock) -> Iterator[Callable[[], EventStore]]:
    """A way to open the store; closed at the end, but a test may close it before."""
    with contextlib.ExitStack() as undo:

        def call() -> EventStore:
            made = open_store(url, PASSWORD, clock)
            undo.callback(_closed, made)
            return made

        yield call


def _closed(store: EventStore) -> None:
    with contextlib.suppress(Exception):
        store.close()


@pytest.fixture
def store(opened: Callable[[], EventStore]) -> EventStore:
    return opened()
