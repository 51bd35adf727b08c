"""The demo itself: every expectation holds, in time, and nothing is left, also when it is interrupted."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from netns.lab import REPOSITORY, until

pytestmark = pytest.mark.netns

COMMAND = [sys.executable, str(REPOSITORY / "tests/netns/demo.py")]
SECONDS = 60  # the deadline that the demo promises


def _left(directory: Path) -> list[str]:
    running = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True).stdout
    named = [
        line
        for line in running.splitlines()
        if "tidegate" in line and "pytest" not in line and "ps " not in line
    ]
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    return [*named, *map(str, directory.iterdir()), *(["internet"] if "internet" in links else [])]


def test_the_demo_holds_in_time_and_cleans_up(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    started = time.monotonic()
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - started < SECONDS
    assert "✗" not in done.stdout
    assert done.stdout.count("✓") >= 14
    assert not _left(tmp_path)


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.whole), signal.SIGTERM])
def test_an_interrupted_demo_cleans_up_and_fails(tmp_path: Path, number: signal.Signals) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    output = tmp_path.parent / "output"
    with output.open("wb") as out:
        demo = subprocess.Popen(COMMAND, env=environment, stdout=out, stderr=out, start_new_session=True)
    until("the demo is under way", lambda: "observe:" in output.read_text(), seconds=SECONDS)
    os.killpg(demo.pid, number)
    assert demo.wait(30) == 1
    assert not _left(tmp_path)
