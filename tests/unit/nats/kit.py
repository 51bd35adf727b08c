"""What the tests of NATS share: a fleet's output, publishing it, and receivers as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from natskit import Fleet, until
from tidegate_agents import bundles
from tidegate_compiler.output import Output
from tidegate_compiler.publish import Published, Terms, publish
from tidegate_compiler.signing import Signing
from tidegate_compiler.targets import NatsOptions, Options
from tidegate_compiler.targets.nats import Nats, open_
from tidegate_schema import jsonfile, release
from tidegate_schema.jetstream.link import Address, Papers

FLEET = "my-fleet"
DAY = 86400
PRIVATE = Ed25519PrivateKey.from_private_bytes(b"k" * 32)  # the same in every process of a test
SIGNING = Signing(
    release.load_signer(PRIVATE.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
)
KEY = release.load_public_key(
    PRIVATE.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
)


def wg0(number: int) -> bytes:
    return (
        f"[Interface]\nAddress = 10.64.{number >> 8 & 255}.{number & 255}/32\n"
        "PostUp = wg set %i private-key /etc/tidegate/client.key\n"
    ).encode()


def peers(size: int = 0) -> bytes:
    """A gateway's peers.json, padded by white space to so many bytes, for the transport cares for no more."""
    data = jsonfile.canonical({"format": 1, "peers": []})
    return data + b" " * max(0, size - len(data))


def output(hosts: Mapping[tuple[str, str], Mapping[str, bytes]], fleet: str = FLEET) -> Output:
    return Output(fleet, "sha256:" + "0" * 64, hosts)


def clients(names: Iterable[str], first: int = 1) -> Output:
    return output({("client", name): {"wg0.conf": wg0(first + at)} for at, name in enumerate(sorted(names))})


def options(papers: Papers, *, write: bool = True, replicas: int = 1, fleet: str = FLEET) -> Options:
    assert papers.ca is not None
    return Options(write=write, fleet=fleet, nats=NatsOptions(papers.ca, papers.cert, papers.key, replicas))


def target(fleet: Fleet, *, papers: Papers | None = None, write: bool = True, replicas: int = 1) -> Nats:
    return open_(str(fleet.address), options(papers or fleet.publisher(), write=write, replicas=replicas))


def push_to(
    address: Address, papers: Papers, out: Output, *, keep: int = 5, replicas: int = 1, jobs: int = 4
) -> Published:
    with open_(str(address), options(papers, replicas=replicas)) as opened:
        return publish(out, opened, SIGNING, Terms(int(time.time()), 30 * DAY, "test", keep=keep, jobs=jobs))


def push(fleet: Fleet, out: Output, *, keep: int = 5, replicas: int = 1, jobs: int = 4) -> Published:
    return push_to(fleet.address, fleet.publisher(), out, keep=keep, replicas=replicas, jobs=jobs)


def serials(done: Published) -> list[tuple[str, str, int]]:
    return [(row.host, row.action, row.serial) for row in done.rows]


def accepted(place: Path, kind: str, host: str) -> bundles.Accepted:
    """Read what an agent would apply; ReleaseError when it would not."""
    identity = bundles.Identity(FLEET, kind, host, [KEY])
    return bundles.read_current(place / kind / host, identity, 0, time.time())


def digest(place: Path, kind: str, host: str) -> str:
    try:
        return (place / kind / host / "current").readlink().name
    except OSError:
        return ""


@dataclass
class Process:
    """`tidegate <kind> receive` as a process."""

    process: subprocess.Popen[str]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def kill(self, number: int) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)


def words(
    fleet: Fleet, place: Path, kind: str, host: str, *more: str, papers: Papers | None = None
) -> list[str]:
    papers = papers or fleet.host(kind, host)
    return [
        *(sys.executable, "-m", "tidegate_schema", kind, "receive", "--from", str(fleet.address)),
        *("--bundles", str(place / "bundles"), "--name", host, "--fleet", fleet.fleet),
        *("--ca", str(papers.ca), "--cert", str(papers.cert), "--key", str(papers.key)),
        *("--run-dir", str(place / "run" / host), *more),
    ]


@contextmanager
def receiving(
    fleet: Fleet, place: Path, kind: str, host: str, *more: str, papers: Papers | None = None
) -> Iterator[Process]:
    place.mkdir(parents=True, exist_ok=True)
    log = place / f"{host}.log"
    with log.open("a") as file:
        process = subprocess.Popen(
            words(fleet, place, kind, host, *more, papers=papers),
            stdout=file,
            stderr=file,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
    try:
        yield Process(process, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def once(
    fleet: Fleet, place: Path, kind: str, host: str, *more: str, papers: Papers | None = None
) -> subprocess.CompletedProcess[str]:
    command = words(fleet, place, kind, host, "--once", *more, papers=papers)
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def status(place: Path, kind: str, host: str) -> dict[str, object]:
    found: dict[str, object] = json.loads((place / "run" / host / f"{kind}.json").read_text())
    return found


__all__ = ["until"]
