"""The control server's unit: systemd takes it, what it starts is there, and what it restricts stays restricted."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import click
import pytest

from docskit import ROOT, read
from tidegate_control.serve import DRAIN_SECONDS
from tidegate_schema.cli import tidegate
from unit.agents.test_units import RESTRICTED, needs_systemd, service, verify

UNIT = ROOT / "control/tidegate_control/systemd/tidegate-control.service"


@pytest.fixture
def placed(tmp_path: Path) -> Path:
    """Return a copy of the unit that starts a program that is there, as a user that is there."""
    program = tmp_path / "tidegate"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    text = UNIT.read_text().replace("ExecStart=tidegate ", f"ExecStart={program} ")
    made = tmp_path / UNIT.name
    made.write_text(text.replace("User=tidegate-control", "User=daemon"))
    return made


@needs_systemd
def test_systemd_takes_it(placed: Path) -> None:
    done = verify([str(placed)])
    assert (done.returncode, [line for line in done.stderr.splitlines() if str(placed.parent) in line]) == (
        0,
        [],
    )


@needs_systemd
def test_it_is_no_more_exposed_than_the_page_says(placed: Path) -> None:
    exposure = re.search(r"exposure of ([0-9.]+)", read("docs/control.md"))
    assert exposure is not None
    threshold = f"--threshold={round(float(exposure[1]) * 10)}"
    command = ["systemd-analyze", "security", "--offline=true", threshold, "--no-pager", str(placed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, (done.stdout + done.stderr).splitlines()[-1]


def test_what_it_restricts_stays_restricted() -> None:
    found = service(UNIT)
    assert {name: found.get(name) for name in RESTRICTED} == {n: [value] for n, value in RESTRICTED.items()}
    assert found["CapabilityBoundingSet"] == [""]
    assert found["User"] == ["tidegate-control"]
    assert (found["UMask"], found["StateDirectoryMode"]) == (["0077"], ["0700"])
    assert set(found["RestrictAddressFamilies"][0].split()) == {"AF_UNIX", "AF_INET", "AF_INET6"}


def test_it_is_watched_and_may_drain() -> None:
    found = service(UNIT)
    assert (found["Type"], found["NotifyAccess"], found["Restart"]) == (["notify"], ["main"], ["always"])
    assert int(found["TimeoutStopSec"][0]) > DRAIN_SECONDS
    assert int(found["WatchdogSec"][0]) >= 60


def test_what_it_starts_is_there() -> None:
    _, *words = service(UNIT)["ExecStart"][0].split()
    command: click.Command = tidegate
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    command.make_context("serve", words)
