"""DuckDB's file: an ACK waits for the disk, nobody else looks into it, and an error leaves it as it was."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tidegate_control.intake.duck import DuckStore
from tidegate_control.intake.store import Added, Batch, StoreError, Unavailable
from unit.control.intake.kit import EPOCH, batches, numbers, record

_ADD = """
import sys
from tidegate_control.intake.duck import DuckStore
from tidegate_control.intake.store import Batch
store = DuckStore(sys.argv[1])
line = open(sys.argv[2], "rb").read()
for number in range(2):
    print("BEGIN", flush=True)
    assert store.add([Batch("fra1", "0123456789abcdef", (number,), line)])[0].new == 1
    print("ACK", flush=True)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "state").mkdir(mode=0o700)
    return tmp_path / "state" / "events.duckdb"


@pytest.fixture
def store(path: Path) -> Iterator[DuckStore]:
    made = DuckStore(str(path))
    yield made
    made.close()


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_the_log_is_on_the_disk_before_the_ack(path: Path, tmp_path: Path) -> None:
    (tmp_path / "line").write_bytes(batches([record(0)])[0].text)
    words = ["-f", "-y", "-e", "trace=fdatasync,fsync,write", "-o", str(tmp_path / "calls")]
    subprocess.run(
        ["strace", *words, sys.executable, "-c", _ADD, str(path), str(tmp_path / "line")], check=True
    )
    calls = (tmp_path / "calls").read_text()
    found = re.findall(r'"(BEGIN|ACK)|(write|fdatasync|fsync)\(\d+<[^>]*events\.duckdb\.wal>', calls)
    steps = [marker or call for marker, call in found]
    for _ in range(2):
        begin, ack = steps.index("BEGIN"), steps.index("ACK")
        assert "write" in steps[begin:ack]
        assert steps[ack - 1] in ("fdatasync", "fsync")
        del steps[: ack + 1]


def test_a_directory_that_others_may_look_into_is_refused(path: Path) -> None:
    path.parent.chmod(0o750)
    with pytest.raises(StoreError, match=r"others may look into it; chmod 700"):
        DuckStore(str(path))
    assert not path.exists()


def test_the_file_is_for_its_owner_alone(store: DuckStore, path: Path) -> None:
    store.add(batches([record(1)]))
    assert {
        file.name: file.stat().st_mode & 0o077 for file in path.parent.iterdir() if file.suffix == ".duckdb"
    } == {"events.duckdb": 0}


def test_what_is_no_database_is_one_line(path: Path) -> None:
    path.write_bytes(b"x" * 10_000)
    with pytest.raises(StoreError, match="events: DuckDB: ") as refused:
        DuckStore(str(path))
    assert len(str(refused.value).splitlines()) == 1


def test_a_batch_that_cannot_be_stored_leaves_nothing_behind(store: DuckStore) -> None:
    good = batches([record(1), record(2)])
    broken = Batch("fra1", EPOCH, (3,), b'{"@timestamp":"never"}\n')
    with pytest.raises(StoreError):
        store.add([*good, broken])
    assert (numbers(store), store.accounts()) == (0, [])
    assert store.add(good) == [Added(2)]


def test_after_an_error_of_the_file_it_is_opened_anew(store: DuckStore) -> None:
    store.add(batches([record(1)]))
    store._database.close()
    with pytest.raises(Unavailable):
        store.add(batches([record(2)]))
    assert store.add(batches([record(1), record(2)])) == [Added(1, 1)]


def test_a_second_server_is_refused(store: DuckStore, path: Path) -> None:
    asked = "import sys; from tidegate_control.intake.duck import DuckStore; DuckStore(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", asked, str(path)], capture_output=True, text=True, check=False
    )
    assert "another process has this file open" in done.stderr


def test_what_has_expired_is_not_in_the_file(store: DuckStore, path: Path) -> None:
    """Deleting is more than hiding: the blocks are given back, and used again or cut off."""
    few = path.stat().st_size
    for first in range(0, 30_000, 10_000):
        store.add(batches([record(n, length=n * 7919 % 65536) for n in range(first, first + 10_000)]))
    store._database.execute("CHECKPOINT")
    many = path.stat().st_size
    assert store.expire(1 << 40) == 30_000
    assert path.stat().st_size < few + (many - few) / 2
    assert not path.with_suffix(".duckdb.wal").exists() or not path.with_suffix(".duckdb.wal").stat().st_size


@pytest.mark.parametrize(
    "statement",
    [
        pytest.param("SELECT * FROM read_text('/etc/passwd')", id="read"),
        pytest.param("SELECT * FROM read_csv('/etc/passwd')", id="read-csv"),
        pytest.param("COPY (SELECT 1) TO '{0}/copy.csv'", id="write"),
        pytest.param("ATTACH '{0}/other.duckdb'", id="attach"),
        pytest.param("SET enable_external_access = true", id="unlock"),
        pytest.param("INSTALL httpfs", id="install"),
    ],
)
def test_whatever_duckdb_is_asked_it_opens_no_other_file(
    store: DuckStore, tmp_path: Path, statement: str
) -> None:
    with pytest.raises(StoreError):
        list(store._ask(statement.format(tmp_path)))
    assert not {"copy.csv", "other.duckdb"} & {path.name for path in tmp_path.iterdir()}
    assert store.add(batches([record(0)])) == [Added(1, 0)]
