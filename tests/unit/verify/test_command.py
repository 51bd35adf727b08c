"""`tidegate verify` as users meet it: whole directories, exit statuses, one line per difference."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import compilerkit
from tidegate_compiler import pipeline
from tidegate_schema.cli import EXIT_USAGE
from tidegate_schema.policy import PolicyTable

EXAMPLE = compilerkit.ROOT / "inventory"
GOOD = sorted((compilerkit.ROOT / "tests/inventories/good").iterdir())
Run = Callable[..., tuple[int, str, str]]


def compile_to(inventory: Path, out: Path) -> Path:
    compiled = pipeline.compile_inventory(inventory)
    assert isinstance(compiled, pipeline.Compiled)
    pipeline.write(compiled, out)
    return out


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return compile_to(EXAMPLE, tmp_path / "out")


@pytest.mark.parametrize("inventory", [EXAMPLE, *GOOD], ids=lambda path: path.name)
def test_what_is_compiled_is_proven(tidegate: Run, inventory: Path, tmp_path: Path) -> None:
    out = compile_to(inventory, tmp_path / "out")
    begin = time.process_time()
    assert tidegate("verify", inventory, out) == (0, f"proven: {out} says what {inventory} says\n", "")
    assert time.process_time() - begin < 2
    status, printed, _ = tidegate("verify", inventory, out, "--json")
    assert (status, json.loads(printed)) == (0, {"format": 1, "proven": True, "differences": []})


def test_the_golden_output_is_proven(tidegate: Run) -> None:
    assert tidegate("verify", EXAMPLE, compilerkit.ROOT / "tests/golden/example")[0] == 0


def test_a_difference_is_a_line_with_a_packet(tidegate: Run, out: Path) -> None:
    path = out / "gateway/nyc1/policy.json"
    path.write_text(path.read_text().replace("tcp/9100-9199", "tcp/9100-9200", 1))
    status, printed, err = tidegate("verify", EXAMPLE, out)
    assert (status, err) == (1, "")
    assert printed.splitlines() == [
        f"{path}: policy: rule 1 says more than its policy monitor-scrapes",
        f"{path}: gained: the bundle allows monitor -> 10.30.0.0 tcp/9200 at 1970-01-01T00:00:00Z, "
        "the inventory does not",
        "2 differences",
    ]
    status, printed, _ = tidegate("verify", EXAMPLE, out, "--json")
    document = json.loads(printed)
    assert (status, document["proven"]) == (1, False)
    assert document["differences"][1] == {
        "allows": "bundle",
        "file": "gateway/nyc1/policy.json",
        "message": document["differences"][1]["message"],
        "what": "gained",
        "witness": {
            "at": "1970-01-01T00:00:00Z",
            "client": "monitor",
            "destination": "10.30.0.0",
            "port": 9200,
            "protocol": 6,
        },
    }


def test_what_is_on_the_disk_counts(tidegate: Run, out: Path) -> None:
    (out / "client/stray").mkdir()
    (out / "gateway/fra1/\x1b[31m").write_text("")
    shutil.rmtree(out / "client/monitor")
    conf = out / "client/ci-runner/wg0.conf"
    conf.rename(out.parent / "elsewhere")
    conf.symlink_to(out.parent / "elsewhere")
    (out / "gateway/nyc1/peers.json").unlink()
    os.mkfifo(out / "gateway/nyc1/peers.json")
    (out / ".git").mkdir()
    status, printed, _ = tidegate("verify", EXAMPLE, out)
    assert status == 1
    assert [line.removeprefix(f"{out}/").split(": ")[:2] for line in printed.splitlines()[:-1]] == [
        ["client/ci-runner/wg0.conf", "unreadable"],
        ["client/monitor/wg0.conf", "missing"],
        ["client/stray/", "extra"],
        ["gateway/fra1/\\x1b[31m", "extra"],
        ["gateway/nyc1/peers.json", "unreadable"],
    ]


@pytest.mark.parametrize("name", ["peers.json", "policy.json"])
@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", b"{" * 9999, b'{"format":1,"format":1}'])
def test_a_broken_file_is_a_difference_and_no_traceback(
    tidegate: Run, out: Path, name: str, data: bytes
) -> None:
    (out / "gateway/fra1" / name).write_bytes(data)
    (out / "manifest.json").write_bytes(data)
    status, printed, _ = tidegate("verify", EXAMPLE, out)
    assert status == 1
    assert f"{out}/gateway/fra1/{name}: unreadable: " in printed
    assert f"{out}/manifest.json: " in printed


def test_there_has_to_be_something_to_prove(tidegate: Run, out: Path, tmp_path: Path) -> None:
    absent = tmp_path / "absent"
    assert tidegate("verify", EXAMPLE, absent) == (1, "", f"tidegate: {absent}: No such file or directory\n")
    assert tidegate("verify", absent, out) == (1, "", f"tidegate: {absent}: No such file or directory\n")
    assert tidegate("verify", EXAMPLE)[0] == EXIT_USAGE
    (tmp_path / "empty").mkdir()
    assert tidegate("verify", tmp_path / "empty", out)[2] == (
        f"tidegate: {tmp_path}/empty: there is no overlay.yaml\n"
    )


def test_the_help_has_an_example(tidegate: Run) -> None:
    status, printed, _ = tidegate("verify", "--help")
    assert status == 0
    example = "Example: tidegate compile inventory --out out && tidegate verify inventory out"
    assert example in " ".join(printed.split())


def test_a_thousand_clients(tidegate: Run, tmp_path: Path) -> None:
    """Equal rights are compared once, so that the proof grows with the files and not with clients times rules."""
    names = [f"c{number}" for number in range(1000)]
    clients = {
        name: {
            "public_key": compilerkit.key(name),
            "addresses": [f"10.64.{number >> 8}.{number & 255}/32", f"fd64::{number:x}/128"],
            "gateways": ["gw"],
        }
        for number, name in enumerate(names, 1)
    }
    groups = {f"g{n}": {"members": names[n::40]} for n in range(40)}
    policies = {
        f"p{n}": compilerkit.policy(
            f"group:g{n % 40}", [f"10.20.{n}.0/24", f"fd20::{n:x}00/120"], ports=[f"tcp/{n}"]
        )
        for n in range(200)
    }
    files = compilerkit.inventory(clients=clients, groups=groups, policies=policies)
    for path, data in files.items():
        (tmp_path / "inventory" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "inventory" / path).write_bytes(data)
    out = compile_to(tmp_path / "inventory", tmp_path / "out")
    begin = time.process_time()
    assert tidegate("verify", tmp_path / "inventory", out)[0] == 0
    assert time.process_time() - begin < 20
    assert len(PolicyTable(json.loads((out / "gateway/gw/policy.json").read_bytes()))._clients) == 1000
