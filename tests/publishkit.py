"""Outputs, keys and targets for tests of publishing; what a host would take is asked of the agents' own reader."""

from __future__ import annotations

import copy
import os
import signal
import subprocess
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compilerkit import client, compiled, inventory, policy
from tidegate_agents.bundles import Accepted, Identity, read_current
from tidegate_compiler import output
from tidegate_compiler.publish import Published, Row, Terms, publish
from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import Options, Target, open_target
from tidegate_compiler.targets.sftp import Session
from tidegate_schema import release

NOW, DAY = 1_800_000_000, 86400
PRIVATE, PUBLIC = release.generate_key()
SIGNING = Signing(release.load_signer(PRIVATE))
SFTP_SERVER = "/usr/lib/openssh/sftp-server"


def with_chain(chain: bytes) -> Signing:
    """Return what signs, with these bytes for a chain of key sets: what they say is the hosts' business."""
    signing = copy.copy(SIGNING)
    signing.chain = chain
    return signing


def compiled_output(directory: Path, *clients: tuple[str, int]) -> output.Output:
    """Compile a gateway and some clients, alice and bob unless told otherwise, into directory/out."""
    chosen: dict[str, object] = {}
    for name, number in clients or (("alice", 11), ("bob", 12)):
        chosen |= client(name, number)
    output.write(
        directory / "out", compiled(inventory(clients=chosen, policies={"p": policy("all-clients")})).files
    )
    return output.read(directory / "out")


def push(
    of: output.Output, target: Target, signing: Signing = SIGNING, now: int = NOW, **more: Any
) -> Published:
    """Publish to an opened target."""
    return publish(of, target, signing, Terms(now, 30 * DAY, "abc123", **more))


def push_to(
    of: output.Output, target: Path | str, signing: Signing = SIGNING, now: int = NOW, **more: Any
) -> dict[str, Row]:
    """Publish to a target by its name; returns the rows by kind/host."""
    with open_target(str(target), Options(write=not more.get("dry_run"))) as opened:
        done = push(of, opened, signing, now, **more)
    return {f"{row.kind}/{row.host}": row for row in done.rows}


def accepted(target: Path, host: str) -> Accepted:
    """Read what a host, kind/name, would take; ReleaseError when it would take nothing."""
    kind, _, name = host.partition("/")
    identity = Identity("default", kind, name, [release.load_public_key(PUBLIC)])
    return read_current(target / host, identity, 0, NOW)


def killed_at_every(
    holder: Any, names: Iterable[str], do: Callable[[], object], between: Callable[[], None]
) -> Iterator[int]:
    """Run `do` in a fork that is killed at its first, second, … call of a function in `holder`, until it is not.

    `between` prepares each turn. Yields the turn's number after each kill, and after the run that came to its end.
    """
    step = 0
    finished = False
    while not finished:
        between()
        child = os.fork()
        if child == 0:
            status = 3
            try:
                left = [step]
                for name in names:
                    _kill_at(holder, name, left)
                do()
                status = 0
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        finished = ended == 0
        assert finished or (os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL), (step, ended)
        yield step
        step += 1


def _kill_at(holder: Any, name: str, left: list[int]) -> None:
    real = getattr(holder, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **kwargs)

    setattr(holder, name, counted)


@contextmanager
def sftp(shown: str = "server") -> Iterator[Session]:
    """Speak to OpenSSH's own SFTP server over pipes, without an SSH between."""
    server = subprocess.Popen(
        [SFTP_SERVER, "-e"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert server.stdin is not None
    assert server.stdout is not None
    try:
        yield Session(server.stdout.fileno(), server.stdin.fileno(), shown)
    finally:
        server.stdin.close()
        server.stdout.close()
        server.wait(10)
