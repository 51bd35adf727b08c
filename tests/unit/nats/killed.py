"""A process that kills itself (SIGKILL) at its n-th step: a publisher's request, a receiver's file operation.

A child is forked for each, by a process of its own that has one thread: run as a module this is that process.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docskit import ROOT
from natskit import Fleet
from tidegate_agents.receive.fetch import Me
from tidegate_agents.receive.receiver import Receiver
from tidegate_agents.receive.store import Store
from tidegate_compiler.output import Output
from tidegate_compiler.targets.nats import Nats
from tidegate_schema.jetstream.link import Address, Papers
from unit.nats import kit

_STEPS = ("open", "os.rename", "os.mkdir", "os.symlink", "os.remove", "os.rmdir")
_SECONDS = 60


@dataclass(frozen=True)
class Publisher:
    """Publish, and die before a request, or right after it was answered, by turns."""

    address: Address
    papers: Papers
    out: Output
    step: int

    def work(self) -> None:
        ask, asked, step = Nats._ask, [0], self.step

        async def counted(target: Nats, *args: Any, **words: Any) -> Any:
            asked[0] += 1
            if asked[0] * 2 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = await ask(target, *args, **words)
            if asked[0] * 2 + 1 == step:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer

        Nats._ask = counted  # type: ignore[method-assign, assignment]
        kit.push_to(self.address, self.papers, self.out, jobs=1)


@dataclass(frozen=True)
class Receive:
    """Receive once, and die before a file operation in the bundle directory; by step 0 never."""

    address: Address
    papers: Papers
    me: Me
    bundles: Path
    step: int = 0
    user: int | None = None

    def work(self) -> None:
        done = [0]

        def audit(event: str, args: tuple[object, ...]) -> None:
            if event in _STEPS and str(self.bundles) in str(args[0]):
                done[0] += 1
                if done[0] == self.step:
                    os.kill(os.getpid(), signal.SIGKILL)

        if self.step:
            sys.addaudithook(audit)
        if self.user is not None:
            # What Python imports late is out of reach afterwards, where it stands in root's home.
            replace(self, bundles=self.bundles.with_name("before"), user=None).work()
            os.setgroups([])
            os.setresgid(self.user, self.user, self.user)
            os.setresuid(self.user, self.user, self.user)
        with Store(self.bundles, self.me.kind, self.me.host, 3) as store:
            asyncio.run(Receiver(self.me, self.address, self.papers, store, lambda *_: None).once())


def receive(fleet: Fleet, place: Path, kind: str, host: str) -> None:
    """Receive once, in this process."""
    Receive(fleet.address, fleet.host(kind, host), Me(fleet.fleet, kind, host), place / "bundles").work()


@contextlib.contextmanager
def forking() -> Iterator[Callable[[Publisher | Receive], bool]]:
    """Give what does a job in a child and tells whether that came to its end, rather than killed itself."""
    paths = [str(ROOT / "tests"), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = subprocess.Popen(
        [sys.executable, "-m", "unit.nats.killed"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(paths)},
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def do(job: Publisher | Receive) -> bool:
        process.stdin.write(base64.b64encode(pickle.dumps(job)).decode() + "\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
        status = int(process.stdout.readline())  # type: ignore[union-attr]
        assert status in (0, -signal.SIGKILL)
        return status == 0

    try:
        yield do
    finally:
        process.stdin.close()
        process.stdout.close()
        process.kill()
        process.wait()


def main() -> None:
    for line in sys.stdin:
        job = pickle.loads(base64.b64decode(line))
        child = os.fork()
        if child == 0:
            signal.alarm(_SECONDS)
            try:
                job.work()
                os._exit(0)
            finally:
                os._exit(1)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    from unit.nats import killed  # what is pickled names its classes by this module's own name

    killed.main()
