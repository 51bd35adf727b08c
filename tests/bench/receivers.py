"""200 receivers, a process each, on one nats-server with TLS and permissions: all updated by one publish.

python -m bench.receivers        (the part `release` has these rows, too)
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import natskit
from bench.rows import Options, Row
from tidegate_compiler.output import Output
from tidegate_compiler.publish import Terms, publish
from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import NatsOptions, open_target
from tidegate_compiler.targets import Options as TargetOptions
from tidegate_schema import release

RECEIVERS = 200
FLEET = "bench"
_SECONDS = 600.0
_PART = "release"


def rows(options: Options) -> list[Row]:
    """Measure; of `options` the rounds count."""
    names = [f"laptop-{number:03}" for number in range(RECEIVERS)]
    signing = Signing(release.load_signer(release.generate_key()[0]))
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="receivers-")))
        fleet = stack.enter_context(natskit.one(place, FLEET, [("client", name) for name in names]))
        (server,) = fleet.servers
        quiet = server.memory
        processes = [stack.enter_context(_receiver(fleet, place, name)) for name in names]
        logs = [place / f"{name}.log" for name in names]
        natskit.until(lambda: all("connected" in log.read_text() for log in logs), _SECONDS, "every receiver")
        published, updated, processor = [], [], []
        for number in range(options.rounds):
            before = _cpu(processes)
            start = time.monotonic()
            digests = _publish(fleet, names, number, signing)
            published.append(time.monotonic() - start)
            _wait(place, digests)
            updated.append(time.monotonic() - start)
            processor.append(_cpu(processes) - before)
            # A receiver rests for a second after it took a release.
            time.sleep(1.5)
        memory = [_pss(process.pid) for process in processes]
        what = f"{RECEIVERS} receivers on one NATS node"
        return [
            Row(_PART, f"{what}: publish done", statistics.median(published), "s"),
            Row(_PART, f"{what}: all updated since the publish began", statistics.median(updated), "s"),
            Row(
                _PART,
                f"{what}: processor time of one receiver for it",
                statistics.median(processor) / RECEIVERS,
                "s",
            ),
            Row(
                _PART,
                f"{what}: memory of the server (before: baseline)",
                server.memory,
                "MiB",
                baseline=quiet,
            ),
            Row(_PART, f"{what}: memory of one receiver, its share", statistics.median(memory), "MiB"),
            Row(_PART, f"{what}: memory of all receivers", sum(memory), "MiB"),
        ]


def _publish(fleet: natskit.Fleet, names: list[str], number: int, signing: Signing) -> dict[str, str]:
    hosts = {
        ("client", name): {"wg0.conf": f"[Interface]\nAddress = 10.64.{number}.{at}/32\n".encode()}
        for at, name in enumerate(names)
    }
    papers = fleet.publisher()
    options = TargetOptions(fleet=FLEET, nats=NatsOptions(papers.ca, papers.cert, papers.key))
    with open_target(str(fleet.address), options) as target:
        done = publish(
            Output(FLEET, "bench", hosts), target, signing, Terms(int(time.time()), 86400, "bench", jobs=8)
        )
    assert done.is_complete
    return {row.host: row.digest for row in done.rows}


def _wait(place: Path, digests: dict[str, str]) -> None:
    natskit.until(
        lambda: all(_current(place, name) == digest for name, digest in digests.items()),
        _SECONDS,
        "all updated",
    )


def _current(place: Path, name: str) -> str:
    try:
        return (place / "bundles" / "client" / name / "current").readlink().name
    except OSError:
        return ""


@contextmanager
def _receiver(fleet: natskit.Fleet, place: Path, name: str) -> Iterator[subprocess.Popen[bytes]]:
    papers = fleet.host("client", name)
    with (place / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tidegate_schema", "client", "receive", "--from", str(fleet.address)),
                *("--bundles", place / "bundles", "--name", name, "--fleet", FLEET),
                *("--ca", str(papers.ca), "--cert", str(papers.cert), "--key", str(papers.key)),
                *("--run-dir", place / "run" / name),
            ],
            stdout=log,
            stderr=log,
        )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _pss(pid: int) -> float:
    """Return what a process takes of memory, shared pages by their share, MiB."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(text.partition("Pss:")[2].split()[0]) / 1024


def _cpu(processes: list[subprocess.Popen[bytes]]) -> float:
    """Return the processor time of all, seconds."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def main() -> None:
    from rich.console import Console

    from bench.rows import show

    show(Console(), _PART, rows(Options()))


if __name__ == "__main__":
    main()
