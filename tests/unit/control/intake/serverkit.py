"""The real server as a process, to post to and to kill."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from unit.agents.kit import until
from unit.agents.receivers import PASSWORD
from unit.control.door.test_cli import repository

_TIDEGATE = [sys.executable, "-P", "-m", "tidegate_schema", "control"]


class Server:
    """`tidegate control serve`; `start` may be called again after a kill, at the same address."""

    def __init__(self, store: str, home: Path) -> None:
        """`home` is an empty directory."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port: int = bound.getsockname()[1]
        self.store = store
        self._log = home / "log"
        self._settings = home / "control.yaml"
        self._process: subprocess.Popen[bytes] | None = None
        self._environ = os.environ | {"GIT_CONFIG_GLOBAL": os.devnull}
        repository(home)
        (home / "password").touch(0o600)
        (home / "password").write_text(PASSWORD)
        words = f"repository: inventory.git\nstate: state\nlisten: 127.0.0.1:{self.port}\nevents: {store}\n"
        self._settings.write_text(words + "events_password_file: password\n")
        scope = ["--scope", "gateway-intake", "--gateway", "fra1", "--expires", "1w"]
        added = [*_TIDEGATE, "token", "add", "fra1", *scope, "--settings", str(self._settings)]
        made = subprocess.run(added, env=self._environ, check=True, capture_output=True, text=True)
        self.token = made.stdout.strip()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        with self._log.open("ab") as log:
            command = [*_TIDEGATE, "serve", "--settings", str(self._settings)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=self._environ)
        until("the server answers", self._answers, 60)

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
            self._process.wait(60)
            self._process = None
