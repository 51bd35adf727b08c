"""The one emulated machine of a run: who starts it, and what it reports of the tests in it.

    the process that was called     starts the machine, when tests of a namespace begin, or at once beside two workers
    whoever is to run a test of it  reads its reports, in this process or in a worker

They meet in a directory, whose name workers inherit.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kernel.machine import TOLD_FILE, WRITABLE, Machine, is_at_work, told, why_not

INSIDE = "TIDEGATE_TEST_INSIDE"
DIRECTORY = "TIDEGATE_TEST_MACHINE"
SILENCE = 900.0  # seconds; a test takes some ten on a machine that does nothing else
HERE = Path(__file__).parent
PASSED_ON = ("PATH", "PYTHONPATH")


class Starter:
    """Starts the machine once, for the tests of it that are to run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._started = False
        place = tempfile.TemporaryDirectory(prefix="kernel-")
        config.add_cleanup(place.cleanup)
        self._directory = Path(place.name)
        os.environ[DIRECTORY] = place.name

    @pytest.hookimpl(
        wrapper=True
    )  # other folders answer this call for their tests, and nobody is asked further
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        if item.path.is_relative_to(HERE) or "netns" in item.keywords:
            self._start(other.nodeid for other in item.session.items)
        return (yield)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Iterable[str]) -> None:
        self._start(ids)

    def _start(self, all_names: Iterable[str]) -> None:
        folder = HERE.relative_to(self._config.rootpath).as_posix() + "/"
        names = [name for name in all_names if name.startswith(folder)]
        if self._started or not names or why_not():
            return
        self._started = True
        command = [sys.executable, "-m", "pytest", *names, "--rootdir", str(self._config.rootpath)]
        command += ["-p", "no:cacheprovider", "-p", "pytest_timeout", "-o", "timeout=0", "-q", "--tb=short"]
        environment = {
            **{name: os.environ[name] for name in PASSED_ON if name in os.environ},
            INSIDE: "1",
            "TIDEGATE_TEST_PATIENCE": "30",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HOME": WRITABLE,
            "TMPDIR": WRITABLE,
            "LANG": "C.UTF-8",
        }
        machine = Machine(self._directory, command, environment, self._config.rootpath)
        self._config.add_cleanup(machine.end)


class Reports:
    """What the machine has told so far."""

    def __init__(self) -> None:
        self._directory = Path(os.environ[DIRECTORY])
        self._told = told(self._directory, SILENCE)
        self._seen: dict[str, dict[str, Any]] = {}

    def of(self, name: str) -> Iterator[dict[str, Any]]:
        """Yield setup, call and teardown of one test as they are told; what is missing failed with the console."""
        reports = self._seen.setdefault(name, {})
        for when in ("setup", "call", "teardown"):
            while when not in reports and "teardown" not in reports:
                line = next(self._told, None)
                if line is None:
                    text = f"the machine ended or fell silent; its console:\n{self._last_words()}"
                    yield {"when": when, "outcome": "failed", "duration": 0.0, "longrepr": text}
                    return
                whose, *rest = json.loads(line)
                fields = dict(zip(("when", "outcome", "duration", "longrepr"), rest, strict=True))
                self._seen.setdefault(whose, {})[fields["when"]] = fields
            if when in reports:
                yield reports[when]

    def _last_words(self, lines: int = 40) -> str:
        """Return the end of what qemu and the console have said."""
        paths = [self._directory / name for name in ("qemu", "console")]
        said = [path.read_text(errors="replace") for path in paths if path.exists()]
        return "\n".join("".join(said).splitlines()[-lines:])


class Teller:
    """In the machine: tells every report as a line of JSON."""

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        text = ""
        if report.failed:
            logs = sorted(Path(tempfile.gettempdir()).rglob("*.log"))
            said = [*report.sections, *((log.name, log.read_text(errors="replace")[-5000:]) for log in logs)]
            text = "\n".join([report.longreprtext, *(f"--- {name}\n{words}" for name, words in said)])
        line = (report.nodeid, report.when, report.outcome, report.duration, text)
        with Path(TOLD_FILE).open("a") as out:
            out.write(json.dumps(line) + "\n")


def is_machine_at_work() -> bool:
    """Tell whether the machine of this run is still working."""
    return DIRECTORY in os.environ and is_at_work(Path(os.environ[DIRECTORY]))
