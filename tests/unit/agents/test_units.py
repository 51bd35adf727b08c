"""The units: systemd takes them, what they start is there, and what they restrict stays restricted."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from docskit import read
from tidegate_schema.cli import tidegate

ROOT = Path(__file__).parents[3]
UNITS = sorted((ROOT / "agents/tidegate_agents/systemd").glob("*.service"))
AGENTS = [unit for unit in UNITS if "receive" not in unit.name]
NAMES = [unit.name for unit in UNITS]
# Without any of these a stranger's way into an agent leads further.
RESTRICTED = {
    "NoNewPrivileges": "yes",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "PrivateTmp": "yes",
    "ProtectKernelModules": "yes",
    "ProtectKernelLogs": "yes",
    "ProtectClock": "yes",
    "ProtectControlGroups": "yes",
    "RestrictNamespaces": "yes",
    "LockPersonality": "yes",
    "MemoryDenyWriteExecute": "yes",
    "SystemCallArchitectures": "native",
}
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze (not installed)"
)


def service(unit: Path) -> dict[str, list[str]]:
    """Return what stands in [Service]; systemd allows a name more than once."""
    found: dict[str, list[str]] = {}
    text = unit.read_text().partition("[Service]")[2].partition("\n[")[0]
    for name, value in re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def copied(tmp_path: Path, *, extra: str = "") -> list[str]:
    """Copy the units, with a program that is there in place of `tidegate`, as an instance where one is meant."""
    program = tmp_path / "tidegate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    made = []
    for unit in UNITS:
        text = unit.read_text().replace("ExecStart=tidegate ", f"{extra}ExecStart={program} ")
        (tmp_path / unit.name).write_text(text)
        made.append(str(tmp_path / unit.name.replace("@", "@client")))
    return made


def verify(units: list[str]) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "verify", "--man=no", *units]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_there_are_units() -> None:
    assert NAMES == ["tidegate-client.service", "tidegate-gateway.service", "tidegate-receive@.service"]


@needs_systemd
def test_systemd_takes_every_unit(tmp_path: Path) -> None:
    done = verify(copied(tmp_path))
    assert (done.returncode, [line for line in done.stderr.splitlines() if str(tmp_path) in line]) == (0, [])


@needs_systemd
def test_a_wrong_word_in_a_unit_would_be_noticed(tmp_path: Path) -> None:
    assert (
        "'ProtectNothing' in section [Service]"
        in verify(copied(tmp_path, extra="ProtectNothing=yes\n")).stderr
    )


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_a_unit_is_no_more_exposed_than_the_page_says(unit: Path, tmp_path: Path) -> None:
    row = re.search(rf"^\| `{re.escape(unit.name)}` \| ([0-9.]+) \|", read("docs/hosts.md"), re.MULTILINE)
    assert row is not None, "docs/hosts.md has a row for each unit"
    (place,) = (
        one for one in copied(tmp_path) if unit.name.partition("@")[0].removesuffix(".service") in one
    )
    threshold = round(float(row[1]) * 10)
    command = [
        "systemd-analyze",
        "security",
        "--offline=true",
        f"--threshold={threshold}",
        "--no-pager",
        place,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr).splitlines()[-1]


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_what_a_unit_restricts_stays_restricted(unit: Path) -> None:
    found = service(unit)
    assert {name: found.get(name) for name in RESTRICTED} == {
        name: [value] for name, value in RESTRICTED.items()
    }
    assert set(found["RestrictAddressFamilies"][0].split()) <= {
        "AF_UNIX",
        "AF_INET",
        "AF_INET6",
        "AF_NETLINK",
    }
    rights = {right for line in found["CapabilityBoundingSet"] for right in line.split()}
    assert rights.isdisjoint({"CAP_SYS_ADMIN", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_BPF", "CAP_SYS_BOOT"})
    if unit not in AGENTS:
        assert rights == set()


@pytest.mark.parametrize("unit", AGENTS, ids=[unit.name for unit in AGENTS])
def test_an_agent_is_watched_and_its_children_are_left_to_it(unit: Path) -> None:
    found = service(unit)
    assert found["Type"] == ["notify"]
    assert found["NotifyAccess"] == ["main"]  # no child may speak for the agent
    assert found["KillMode"] == ["process"]
    assert found["Restart"] == ["always"]
    assert int(found["WatchdogSec"][0]) >= 60
    assert "StartLimitIntervalSec=0" in unit.read_text()  # it never gives up
    _, *words = found["ExecStart"][0].split()
    command: click.Command = tidegate
    while isinstance(command, click.Group):
        found_command = command.get_command(click.Context(command), words.pop(0))
        assert found_command is not None
        command = found_command
    command.make_context("run", words)  # its options are there


@pytest.mark.parametrize("unit", UNITS, ids=NAMES)
def test_a_unit_has_its_three_parts(unit: Path) -> None:
    parser = configparser.ConfigParser(strict=False)
    parser.read(unit)
    assert set(parser.sections()) == {"Unit", "Service", "Install"}
