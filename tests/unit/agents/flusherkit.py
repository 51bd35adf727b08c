"""A flusher that a test drives step by step, and the process."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from tidegate_agents.events import otlp
from tidegate_agents.events.batches import Conditions, Limits, Outbox
from tidegate_agents.events.flusher import Flusher, codec_of, gzip
from tidegate_agents.events.ledger import Ledger
from tidegate_agents.events.names import PolicyNames
from tidegate_agents.events.ring import ANY, Ring
from tidegate_agents.events.sender import Sender
from tidegate_agents.process import is_mapped
from tidegate_agents.settings import defaults
from unit.agents.kit import Batch, fields

TIMEOUT = 0.5
USER = 61002


def fill(path: Path, *numbers: int, **changes: Any) -> None:
    """Publish events whose bytes are these numbers."""
    producer = Ring(path)
    batch = Batch(producer)
    for number in numbers:
        batch.put(*fields(number, **changes))
    batch.publish()
    producer.close()


class Driven:
    """A flusher of some rings; `step` posts what is due at a time of the test's own, and waits for the answers."""

    def __init__(
        self,
        paths: Path | list[Path],
        url: str,
        *,
        batch: int = 100,
        octets: int = 1 << 22,
        timeout: float = TIMEOUT,
        most: int = 1,
        is_otlp: bool = False,
        retry_after_max: float = 60.0,
        **of_sender: Any,
    ) -> None:
        paths = paths if isinstance(paths, list) else [paths]
        self._runner = asyncio.Runner()
        self._names = os.open(paths[0].parent, os.O_RDONLY)
        codec = codec_of(is_otlp=is_otlp)
        names = PolicyNames(self._names)
        rings = [Ring(path, ANY) for path in paths]
        self.outboxes = [
            Outbox(
                ring,
                Conditions(0.5, 1.0),
                Limits(batch, octets),
                codec(ring, "fra1", names),
                gzip,
            )
            for ring in rings
        ]
        self._sender = Sender(url, timeout, rejected=otlp.rejected if is_otlp else None, **of_sender)
        self.ledger = Ledger()
        self.saved: list[Mapping[str, Any]] = []
        self.can_save = True
        self.flusher = Flusher(
            self.outboxes,
            self._sender,
            self.ledger,
            "fra1",
            most=most,
            retry_after_max=retry_after_max,
            is_gzip=True,
            save=self._save,
        )

    def _save(self, status: Mapping[str, Any]) -> bool:
        if self.can_save:
            self.saved.append(status)
        return self.can_save

    def step(self, now: float, *, final: bool = False) -> bool:
        return self._runner.run(self._step(now, final))

    async def _step(self, now: float, final: bool) -> bool:
        before = [box.ring.pending() for box in self.outboxes]
        self.flusher.start(now, final=final)
        has_begun = bool(self.flusher._posts)
        while self.flusher._posts:
            await self.flusher._wait()
        return has_begun or before != [box.ring.pending() for box in self.outboxes]

    def run(self, what: Coroutine[Any, Any, None]) -> None:
        self._runner.run(what)

    def drain(self) -> None:
        self._runner.run(self.flusher.drain())

    @property
    def sent(self) -> int:
        return self.ledger.sent

    @property
    def failed(self) -> dict[str, int]:
        return dict(self.ledger.lost)

    def close(self) -> None:
        self._sender.close()
        self._runner.close()
        os.close(self._names)


def home(path: Path) -> Path:
    """Return the directory of a flusher of its own, where it may write after it has given up its user."""
    found = path.parent / "flusher"
    if not found.exists():
        found.mkdir()
        os.chown(found, *(USER, USER) if os.geteuid() == 0 and is_mapped(USER) else (-1, -1))
    return found


def settings(url: str, **changes: Any) -> dict[str, Any]:
    """Return what a flusher is handed."""
    files = dict.fromkeys(("log_ca_file", "log_cert_file", "log_key_file", "authorization"))
    chosen = {"log_endpoint": url, "flush_interval": 0.1, "batch_records": 100, "post_timeout": 1.0}
    return defaults("gateway") | files | chosen | changes


def start(paths: Path | list[Path], url: str, **changes: Any) -> subprocess.Popen[bytes]:
    """Start the flusher as its supervisor does; what it says is there to be read."""
    return subprocess.Popen(command(paths, url, **changes), stderr=subprocess.PIPE)


def command(
    paths: Path | list[Path],
    url: str,
    parent: int | None = None,
    program: Sequence[str] = ("-m", "tidegate_agents.events.flusher"),
    **changes: Any,
) -> list[str]:
    """Return the command that starts a flusher, and make what it needs."""
    paths = paths if isinstance(paths, list) else [paths]
    path = paths[0]
    file = path.parent / "settings.json"
    file.write_text(json.dumps(settings(url, **changes)))
    words = [sys.executable, *program, "--gateway", "fra1"]
    for one in paths:
        words += ["--ring", str(one)]
    words += ["--names", str(path.parent), "--status", str(home(path) / "status.json")]
    return [*words, "--parent", str(parent or os.getpid()), "--settings", str(file), "--user", str(USER)]
