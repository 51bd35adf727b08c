"""What every test shares: which tests can run on this machine, and a plain word about those that cannot."""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import sandbox
from kernel.reports import INSIDE, Starter, is_machine_at_work
from tidegate_schema.cli import run

_TURNS = "TIDEGATE_TEST_TURNS"
_MACHINE_SECONDS = 900  # the emulated machine takes some 220; one that hangs keeps nobody waiting for ever


def pytest_configure(config: pytest.Config) -> None:
    sandbox.add_sbin_to_path()
    # Nox may put temporary directories inside this repository; no test is to find it around its own.
    os.environ["GIT_CEILING_DIRECTORIES"] = str(Path(tempfile.gettempdir()).resolve())
    if os.geteuid() != 0:
        # In a user namespace an ordinary user is called root, and the real root's temporary directory is not
        # theirs: whoever is started in a sandbox inherits a place of this user's own.
        place = Path(tempfile.gettempdir(), f"tests-of-{os.getuid()}")
        place.mkdir(mode=0o700, exist_ok=True)
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))
    # Not in a worker, nor in a run within this one, which has the same environment.
    if _TURNS not in os.environ and INSIDE not in os.environ:
        config.pluginmanager.register(Starter(config))
        turns = tempfile.TemporaryDirectory(prefix="turns-")
        config.add_cleanup(turns.cleanup)
        os.environ[_TURNS] = turns.name


@pytest.fixture
def tidegate(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Return the command line, in this process: words to exit status, output and what was said on stderr."""

    def call(*args: object) -> tuple[int, str, str]:
        capfd.readouterr()
        status = run([str(arg) for arg in args])
        out, err = capfd.readouterr()
        assert "Traceback" not in out + err
        return status, out, err

    return call


def _is_worker(config: pytest.Config) -> bool:
    return hasattr(config, "workerinput")


def _is_one_too_many() -> bool:
    """Tell whether this is a worker for which there is no processor: it begins when the machine has ended."""
    return int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) >= (os.cpu_count() or 1)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Let a test that is marked `alone` run while no other does, and leave the emulated machine a processor."""
    if not _is_worker(item.config):
        return (yield)
    alone = item.get_closest_marker("alone") is not None
    deadline = time.monotonic() + _MACHINE_SECONDS
    waits = alone or _is_one_too_many()
    while waits and is_machine_at_work() and time.monotonic() < deadline:
        time.sleep(1)
    gate, turn = (Path(os.environ[_TURNS], name) for name in ("gate", "turn"))
    with turn.open("w") as others:
        with gate.open("w") as mine:
            # Whoever is first here is first there: so one that wants to be alone is not kept from it.
            fcntl.flock(mine, fcntl.LOCK_EX)
            fcntl.flock(others, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        return (yield)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("netns") is not None:
        reason = sandbox.why_not()
        if reason is not None:
            pytest.skip(f"needs network namespaces and WireGuard ({reason})")
    tools = item.get_closest_marker("needs_tools")
    if tools is not None:
        missing = sandbox.missing_tools(*(tools.args or ("wg", "nft", "ip")))
        if missing:
            pytest.skip(f"needs {', '.join(missing)} (not installed)")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> Iterator[None]:
    """List every skipped test by name, below everything but the closing line, and sum up what was missing."""
    yield
    skipped = [(report.nodeid, _reason(report)) for report in terminalreporter.stats.get("skipped", [])]
    if not skipped:
        return
    terminalreporter.section("skipped tests, by name")
    for name, reason in skipped:
        terminalreporter.write_line(f"SKIPPED {name}: {reason}")
    for reason, count in Counter(reason for _, reason in skipped).items():
        terminalreporter.write_line(_summary(reason, count))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")


def _summary(reason: str, count: int) -> str:
    """Put one reason and its number of tests into a sentence: N tests need X and were skipped: Y."""
    tests, need, were = ("1 test", "needs", "was") if count == 1 else (f"{count} tests", "need", "were")
    what, _, why = reason.partition(" (")
    if not what.startswith("needs "):
        return f"{tests} {were} skipped: {reason}"
    return f"{tests} {need} {what.removeprefix('needs ')} and {were} skipped: {why.removesuffix(')')}"
