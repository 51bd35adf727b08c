"""A server of the intake as a process, to post to and to kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from unit.agents.kit import until
from unit.agents.receivers import PASSWORD

TESTS = Path(__file__).parents[3]


class Server:
    """uvicorn with `appkit.serving`; `start` may be called again after a kill, at the same address."""

    def __init__(self, store: str, home: Path) -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = bound.getsockname()[1]
        self.store = store
        self._log = home / "server.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        words = (
            "--factory",
            "--port",
            str(self.port),
            "--log-level",
            "warning",
            "--timeout-graceful-shutdown",
            "5",
        )
        environ = os.environ | {
            "TEST_EVENTS": self.store,
            "TEST_PASSWORD": PASSWORD,
            "PYTHONPATH": str(TESTS),
        }
        with self._log.open("ab") as log:
            command = [sys.executable, "-m", "uvicorn", "unit.control.intake.appkit:serving", *words]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environ)
        until("the server answers", self._answers, 30)

    def _answers(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def kill(self) -> None:
        """End it at once, wherever it is."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it in order."""
        self._end(signal.SIGTERM)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            self._process = None
