"""`tidegate`, killed with SIGKILL before a step of taking a release up. Run as a program, in the place of tidegate.

A step is whatever lasts: a file put in its place, a program that changes something, a netlink request, a process that
is started or ended, connections that are cut. They are counted from the moment a release of TIDEGATE_CRASH_SERIAL or
newer has been read until it is confirmed. Each is noted in TIDEGATE_CRASH_LOG; before number TIDEGATE_CRASH_AT the
process kills itself (0: never). A file's bytes are no step: until it is put in its place, nobody reads it.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

_READING = ("show", "list", "pubkey", "genkey")


class Crash:
    def __init__(self, at: int, serial: int, log: Path) -> None:
        self._at, self._serial = at, serial
        self._log = log.open("a", buffering=1)
        self._count = 0
        self._armed = False

    def arm(self, serial: int) -> None:
        self._armed = self._armed or serial >= self._serial

    def disarm(self) -> None:
        self._armed, self._serial = False, sys.maxsize

    def step(self, name: str) -> None:
        if not self._armed:
            return
        self._count += 1
        self._log.write(f"{name}\n")
        if self._count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(self, owner: Any, attribute: str, name: Callable[..., str | None]) -> None:
        """Count each call of a function as a step, but those that have no name."""
        real = getattr(owner, attribute)

        def wrapped(*words: Any, **more: Any) -> Any:
            said = name(*words, **more)
            if said is not None:
                self.step(said)
            return real(*words, **more)

        setattr(owner, attribute, wrapped)


def _tool(*words: str, **_: Any) -> str | None:
    if any(word in _READING for word in words[:5]) or "-json" in words:
        return None
    shown = " ".join(Path(word).name if "/" in word and word.startswith("/") else word for word in words[:5])
    return shown


def _file(source: Any, target: Any, **_: Any) -> str:
    name = Path(target).name
    return f"put {name if len(name) < 40 else name[:8] + '…'} in its place"


class Requests:
    """An IPRoute whose requests that change something are steps."""

    def __init__(self, crash: Crash, ip: Any) -> None:
        self._crash, self._ip = crash, ip

    def __enter__(self) -> Requests:
        self._ip.__enter__()
        return self

    def __exit__(self, *what: Any) -> None:
        self._ip.__exit__(*what)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._ip, name)
        if name not in ("route", "rule", "addr", "link"):
            return found

        def request(verb: str, *words: Any, **more: Any) -> Any:
            self._crash.step(f"netlink {name} {verb} {more.get('dst', '')}".rstrip())
            return found(verb, *words, **more)

        return request


def main() -> None:
    crash = Crash(
        int(os.environ["TIDEGATE_CRASH_AT"]),
        int(os.environ["TIDEGATE_CRASH_SERIAL"]),
        Path(os.environ["TIDEGATE_CRASH_LOG"]),
    )
    from tidegate_agents import bundles, succession, tools
    from tidegate_schema import cli

    read, confirm = bundles.read_current, succession.Succession.confirm

    def reading(*words: Any, **more: Any) -> Any:
        found = read(*words, **more)
        crash.arm(found.release.serial)
        return found

    def confirming(self: Any) -> None:
        crash.step("confirm")
        confirm(self)
        crash.step("confirmed")
        crash.disarm()

    bundles.read_current = reading
    succession.Succession.confirm = confirming  # type: ignore[method-assign]
    crash.before(tools, "run", _tool)
    for name in ("replace", "rename"):
        crash.before(os, name, _file)
    crash.before(shutil, "rmtree", lambda path, **_: "forget a release")
    if "gateway" in sys.argv:
        from tidegate_agents.gateway import conntrack, network, processes

        real = network.IPRoute
        network.IPRoute = lambda: Requests(crash, real())  # type: ignore[misc, assignment]
        crash.before(conntrack, "revoke", lambda *_: "cut connections")
        crash.before(processes.Child, "__init__", lambda _child, command, **_: "start a process")
        crash.before(processes.Process, "stop", lambda *_: "end a process")
    cli.main()


if __name__ == "__main__":
    main()
