"""Runs each test of this folder in a sandbox of its own, as a child pytest, and reports what it reports.

So a test may leave anything behind, also when it is killed: its namespaces end with its process.

One that fails is run once more, and the run's last lines name it and tell how it failed at first: many real processes
wait for each other here, on a machine that may be busy. Not one that is marked `never`, nor in the long sessions:
what must not happen must not happen once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

import sandbox
from netns import lab as the_lab

INSIDE = "TIDEGATE_TEST_INSIDE"
AGAIN = "again"
IS_LONG = bool({"TIDEGATE_STRESS", "TIDEGATE_CRASH", "TIDEGATE_KILLS"} & os.environ.keys())
SECONDS = 7200 if IS_LONG else 280
HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if not item.path.is_relative_to(HERE):
        return None  # pytest calls this for every test of the run, not for this folder's alone
    if INSIDE in os.environ or item.get_closest_marker("netns") is None or sandbox.why_not():
        return None  # here, or skipped with the reason by the general rule
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    start = time.time()
    first = _run_inside(item)
    is_final = IS_LONG or item.get_closest_marker("never") is not None
    failure = first if is_final or not first else _run_inside(item)
    outcome: Literal["passed", "failed"] = "failed" if failure else "passed"
    stop = time.time()
    for when, result, text in (
        ("setup", "passed", None),
        ("call", outcome, failure),
        ("teardown", "passed", None),
    ):
        report = pytest.TestReport(
            item.nodeid,
            item.location,
            dict.fromkeys(item.keywords, 1),
            result,  # type: ignore[arg-type]
            text,
            when,  # type: ignore[arg-type]
            duration=stop - start if when == "call" else 0,
            start=start,
            stop=stop,
            user_properties=[(AGAIN, first)] if first and when == "call" else (),
        )
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    # What the last test that ran here had set up for its module and folders, and the next one does not share.
    item.session._setupstate.teardown_exact(nextitem)
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the tests that passed only when they were run again, each with its first failure."""
    passed = terminalreporter.stats.get("passed", [])
    again = {one.nodeid: text for one in passed for name, text in one.user_properties if name == AGAIN}
    if again:
        terminalreporter.section("passed only when they were run again, by name")
    for name, text in again.items():
        terminalreporter.write_line(f"AGAIN {name}")
        terminalreporter.write_line(text)


def _run_inside(item: pytest.Item) -> str | None:
    """Run one test in a sandbox; None when it passed, else what it printed."""
    command = [*sandbox.sandbox_prefix(), sys.executable, "-m", "pytest", item.nodeid]
    command += ["--rootdir", str(item.config.rootpath), "-p", "no:cacheprovider", "--no-header", "-q", "-rN"]
    command += ["-p", "pytest_timeout"]
    try:
        done = subprocess.run(
            command,
            cwd=item.config.rootpath,
            # The other plugins, of which hypothesis takes longest, are for tests that are not here.
            env={**os.environ, INSIDE: "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return f"not within {SECONDS} s\n{error.stdout or ''}"
    if done.returncode == 0 and "1 passed" in done.stdout:
        return None
    return done.stdout + done.stderr


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[the_lab.Lab]:
    """The topology, with a web server behind the gateway; on failure, what every host has said is in the report."""
    with the_lab.lab(tmp_path) as made:
        the_lab.serve_web(made.service)
        yield made
    for log in sorted(tmp_path.glob("*.log")):
        print(f"--- {log.name}\n{log.read_text()}")
