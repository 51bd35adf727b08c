"""Flows from the intake's stores, and the control server's own inventory: the answers are those of files and of git."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest

import controlkit
from compilerkit import inventory, key, policy
from learnkit import NOON, deny, id_of, record, right
from tidegate_compiler.learn import suggestdoc
from tidegate_compiler.learn.flows import Window
from tidegate_compiler.pipeline import validate_files
from tidegate_control.intake.store import Batch, EventStore, open_store
from tidegate_control.learn import answers, sources, stores
from tidegate_schema import jsonfile
from unit.agents.receivers import PASSWORD, USER, ClickHouse, clickhouse

Run = Callable[..., tuple[int, str, str]]
WEB = {"web": policy("client:alice", ["10.20.0.80/32"], ports=["tcp/443"])}
LINES = [
    record(),
    record(port=22),
    deny("bob", port=443),
    record(at=NOON + 86400, octets=10_000),
    record(at=NOON + 1, kind="flow-update"),
    record(at=NOON + 2, kind="flow-close"),
    record(None),
    record(protocol=1, port=None),
    record(port=None),
    record(protocol=47, port=None, to="fd20::1"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    program = clickhouse()
    if program is None:
        pytest.skip("needs clickhouse-server (not installed)")
    with contextlib.closing(ClickHouse(tmp_path_factory.mktemp("clickhouse"), program)) as made:
        yield made


@pytest.fixture(params=["duckdb", "clickhouse"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "duckdb":
        (tmp_path / "state").mkdir(mode=0o700)
        return f"duckdb://{tmp_path}/state/intake.duckdb"
    found: ClickHouse = request.getfixturevalue("server")
    found.do("CREATE DATABASE learning")
    return f"clickhouse://{USER}@127.0.0.1:{found.port}/learning"


def fill(url: str, lines: list[bytes]) -> EventStore:
    store = open_store(url, PASSWORD)
    events = (json.loads(line) | {"event.sequence": number} for number, line in enumerate(lines))
    text = b"".join(jsonfile.canonical(one).rstrip(b"\n") + b"\n" for one in events)
    store.add([Batch("gw", "0" * 16, range(len(lines)), text)])
    return store


def written(place: Path) -> Path:
    inv = place / "inv"
    for name, data in inventory(policies=WEB).items():
        (inv / name).parent.mkdir(parents=True, exist_ok=True)
        (inv / name).write_bytes(data)
    return inv


def test_a_store_and_a_file_say_the_same(
    tidegate: Run, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every kind of event: what a store sums up by itself is what the lines come to."""
    monkeypatch.setenv(sources.PASSWORD, PASSWORD)
    inv = written(tmp_path)
    file = tmp_path / "all.ndjson"
    file.write_bytes(b"".join(LINES))
    fill(url, LINES).close()
    window = ("--from", "2026-11-01", "--to", "2026-12-31")
    questions: dict[str, tuple[str, ...]] = {
        "replay": ("replay", "--at", "recorded"),
        "readiness": ("replay", "--readiness", "--at", "recorded"),
        "suggest": ("suggest", "--with-refused"),
    }
    for kind, asked in questions.items():
        told = [
            right(kind, json.loads(tidegate(*asked, "--flows", where, inv, "--json", *words)[1]))
            for where, words in ((file, window), (url, window), (f"{url}?from=2026-11-01&to=2026-12-31", ()))
        ]
        for one in told:
            del one["flows"], one["at"]
        assert told[0] == told[1] == told[2], kind
        assert kind != "replay" or told[0]["counts"]["unjudged"] == 1
        assert kind != "readiness" or told[0]["gateways"][0]["unexplained"] > 0
        assert kind != "suggest" or told[0]["counts"]["admitted"] > 0


def test_a_copy_of_a_store_at_work_is_read_whole_and_left_as_it_is(tidegate: Run, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o700)
    copy = tmp_path / "copy"
    copy.mkdir()
    with contextlib.closing(fill(f"duckdb://{tmp_path}/state/intake.duckdb", LINES)):
        for path in (tmp_path / "state").iterdir():
            shutil.copy(path, copy)
    assert {path.name for path in copy.iterdir()} == {"intake.duckdb", "intake.duckdb.wal"}
    before = contents(copy)
    inv = written(tmp_path)
    counts = []
    for place in (copy, tmp_path / "state"):
        flows = f"duckdb://{place}/intake.duckdb?from=2026-11-01&to=2026-12-31"
        counts.append(json.loads(tidegate("replay", "--flows", flows, inv, "--json")[1])["counts"])
    assert counts[0] == counts[1]
    assert counts[0]["breaks"]
    assert contents(copy) == before


def test_a_store_that_is_named_as_a_file_is_told_how_to_name_it(
    tidegate: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(f"duckdb://{tmp_path}/intake.duckdb", LINES).close()
    inv = written(tmp_path)
    monkeypatch.chdir(tmp_path)
    status, out, err = tidegate("replay", "--flows", "intake.duckdb", inv)
    assert (status, out) == (1, "")
    assert err == f"tidegate: intake.duckdb: a DuckDB file; name it duckdb://{tmp_path}/intake.duckdb\n"


def test_another_s_file_is_refused_and_left_as_it_is(tidegate: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.duckdb"
    duckdb.connect(str(path)).execute("CREATE TABLE other (a INTEGER)").close()
    path.chmod(0o644)
    before = contents(tmp_path)
    inv = written(tmp_path)
    told = tidegate("replay", "--flows", f"duckdb://{path}?last=1d", inv)
    assert told[0] == 1
    assert told[2].strip().splitlines()[-1].endswith("no events of a control server in this file")
    assert contents(tmp_path)["other.duckdb"] == before["other.duckdb"]


HOSTILE = {
    "text for a number": ('"destination.port"', "'x'"),
    "a verdict that is none": ('"tidegate.verdict"', "'maybe'"),
    "no verdict": ('"tidegate.verdict"', "NULL"),
    "less than nothing": ('"source.bytes"', "-5"),
    "a protocol of no packet": ('"network.iana_number"', "70000"),
    "a port of no packet": ('"destination.port"', "70000"),
    "a client's ID that is a list": ('"tidegate.client.id"', "[1, 2]"),
    "a gateway that is none": ('"observer.name"', "NULL"),
}


@pytest.mark.parametrize("name", list(HOSTILE))
def test_what_no_control_server_wrote_into_a_store_is_refused_in_a_line(
    tidegate: Run, tmp_path: Path, name: str
) -> None:
    column, value = HOSTILE[name]
    path = stored(tmp_path)
    with contextlib.closing(duckdb.connect(str(path))) as made:
        made.execute(f"CREATE TABLE changed AS SELECT * REPLACE ({value} AS {column}) FROM tidegate_events")
        made.execute("DROP TABLE tidegate_events")
        made.execute("ALTER TABLE changed RENAME TO tidegate_events")
    inv = written(tmp_path)
    for verb in (("replay",), ("replay", "--readiness"), ("suggest", "--with-refused")):
        told = tidegate(*verb, "--flows", f"duckdb://{path}?from=2026-11-01&to=2026-12-31", inv)
        assert told[0] == 1, told
        last = told[2].strip().splitlines()[-1]
        assert "none that a control server stores" in last or "DuckDB" in last, told


def test_of_a_store_that_is_read_no_account_is(tidegate: Run, tmp_path: Path) -> None:
    path = stored(tmp_path)
    inv = written(tmp_path)
    flows = f"duckdb://{path}?from=2026-11-01&to=2026-12-31"
    before = json.loads(tidegate("replay", "--flows", flows, inv, "--json")[1])["counts"]
    with contextlib.closing(duckdb.connect(str(path))) as made:
        made.execute("UPDATE tidegate_rings SET state = '[]'")
    assert json.loads(tidegate("replay", "--flows", flows, inv, "--json")[1])["counts"] == before


def stored(tmp_path: Path) -> Path:
    """Return the file of a store that holds LINES."""
    (tmp_path / "state").mkdir(mode=0o700)
    path = tmp_path / "state" / "intake.duckdb"
    fill(f"duckdb://{path}", LINES).close()
    return path


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {
        path.name: (path.stat().st_mode, path.read_bytes()) for path in folder.iterdir() if path.is_file()
    }


def test_the_server_s_inventory_is_asked_with_the_names_that_its_repository_knows(tmp_path: Path) -> None:
    files = {name: data.decode() for name, data in inventory(policies=WEB).items()}
    service = controlkit.service(controlkit.bare(tmp_path, files))
    first = service.head()
    fields = dict(service.snapshot().objects("client")["alice"].fields)
    service.update("client", "alice", fields | {"public_key": key("rotated")}, author=controlkit.ALICE)
    (tmp_path / "state").mkdir(mode=0o700)
    store = fill(f"duckdb://{tmp_path}/state/intake.duckdb", [record(), record(port=22)])
    new = answers.of_snapshot(service.snapshot(), service, "main", "inventory", service.head())
    old = answers.of_snapshot(service.snapshot(first), service, "before", "inventory", first)
    assert new is not None
    assert old is not None
    with contextlib.closing(store):

        def reader() -> stores.StoreReader:
            return stores.of(store, "the last week", Window(NOON - 7 * 86400, NOON + 1), NOON)

        told, _ = answers.replayed(new, reader(), NOON)
        (one,) = told["breaks"]
        assert one["clients"] == [
            {"name": "alice", "client_id": id_of("rotated"), "was": [f"alice ({id_of('alice')})"]}
        ]
        assert one["ports"] == ["tcp/22"]
        changed, done = answers.replayed(new, reader(), NOON, old)
        assert changed["counts"]["breaks"] == 0
        assert "nothing of it changes" in answers.commented(new, old, changed, done)
        (gateway,) = answers.readied(new, reader(), NOON)["gateways"]
        assert (gateway["days"], gateway["unexplained"]) == (0, 1)
        document, suggestion = answers.suggested(new, reader(), NOON)
        assert document["counts"]["admitted"] == 2
        assert (
            validate_files(suggestdoc.files(suggestion, document, service.snapshot().files)).inventory
            is not None
        )


def test_an_inventory_with_errors_is_nobody_s_subject(tmp_path: Path) -> None:
    files = {name: data.decode() for name, data in inventory(policies={"p": policy("client:nobody")}).items()}
    service = controlkit.service(controlkit.bare(tmp_path, files))
    assert answers.of_snapshot(service.snapshot(), service, "main", "inventory", service.head()) is None
