"""A receiver as a process: its signals, its log, its status file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from tidegate_agents.files import FileRefused, read_bounded, write_atomic
from tidegate_agents.receive.store import Store, StoreError
from tidegate_schema import jsonfile
from tidegate_schema.cli import Failure
from tidegate_schema.extras import advice

_STATUS_FORMAT = 1
_STATUS_MAX_BYTES = 64 * 1024


@dataclass(frozen=True)
class Options:
    """What a receiver is told on its command line."""

    source: str
    bundles: Path
    ca: Path | None
    cert: Path | None
    key: Path | None
    keep: int
    once: bool
    as_json: bool
    run_directory: Path


def run(fleet: str, kind: str, host: str, options: Options) -> None:
    """Receive until told to stop, or `once`. Failure in one line."""
    try:
        # nats-py takes longer to import than all else here, and --help and --status do without.
        from tidegate_agents.receive.fetch import Me, Refused
        from tidegate_agents.receive.receiver import Receiver, State
        from tidegate_schema.jetstream import link
    except ModuleNotFoundError as error:
        if error.name != "nats":
            raise
        raise Failure(f"receiving needs nats-py; {advice(kind)}") from None
    status = None if options.once else options.run_directory / f"{kind}.json"

    def told(state: State, what: str) -> None:
        _log(what, state.document(), options.as_json)
        if status is not None:
            document = {"format": _STATUS_FORMAT, "pid": os.getpid(), **state.document()}
            with contextlib.suppress(OSError):  # a full /run stops no release
                write_atomic(status, jsonfile.canonical(document), 0o644)

    async def receive(receiver: Receiver) -> None:
        task = asyncio.ensure_future(receiver.once() if options.once else receiver.follow())
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        address = link.parse_address(options.source)
    except ValueError as error:
        raise Failure(f"--from: {error}") from None
    papers = link.Papers(options.ca, options.cert, options.key)
    try:
        with _status_kept(status), Store(options.bundles, kind, host, options.keep) as store:
            asyncio.run(receive(Receiver(Me(fleet, kind, host), address, papers, store, told)))
    except link.LinkError as error:
        raise Failure(f"{address}: {error}") from None
    except (StoreError, Refused, FileRefused) as error:
        raise Failure(str(error)) from None


@contextlib.contextmanager
def _status_kept(status: Path | None) -> Iterator[None]:
    if status is None:
        yield
        return
    try:
        status.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    except OSError as error:  # which keeps no release from coming
        click.echo(f"{status.parent}: {error.strerror}; no status is kept: name another --run-dir", err=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            status.unlink(missing_ok=True)


def _log(what: str, state: dict[str, Any], as_json: bool) -> None:
    """Say what changed, a line each; that it looked is no change."""
    if what == "looked":
        return
    if as_json:
        click.echo(json.dumps({"event": what, "time": time.time(), **state}, sort_keys=True))
        sys.stdout.flush()
        return
    line = {
        "connected": f"connected to {state['server']}",
        "received": f"received release {state['serial']}, {state['digest'][:12]}",
        "empty": "nothing is published for this host",
        "problem": state["problem"],
        "mended": "all is well again",
    }[what]
    stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    click.echo(f"{stamp} {state['kind']} {state['host']}: {line}", err=True)


def read_status(path: Path) -> dict[str, Any] | None:
    """Return what a receiver that runs has last said, None when none does."""
    with contextlib.suppress(FileNotFoundError, FileRefused, jsonfile.JsonError):
        found: Any = jsonfile.parse(read_bounded(path, _STATUS_MAX_BYTES))
        if isinstance(found, dict) and found.get("format") == _STATUS_FORMAT:
            return found if Path(f"/proc/{found.get('pid')}").exists() else None
    return None


def status_lines(found: dict[str, Any], now: float) -> list[str]:
    """Return a status for people."""
    release = (
        f"release {found['serial']}, {found['digest'][:12]}"
        if found["serial"]
        else found["digest"][:12] or "none yet"
    )
    contact = f"{now - found['contact']:.0f} s ago" if found["contact"] else "never"
    lines = [
        f"{found['kind']} {found['host']} ({found['fleet']}): {release}",
        f"server        {found['server'] or 'not connected'}",
        f"last look     {contact}",
    ]
    if found["received"]:
        lines.append(f"last received {now - found['received']:.0f} s ago")
    if found["problem"]:
        lines.append(f"problem       {found['problem']} (for {now - found['since']:.0f} s)")
    return lines
