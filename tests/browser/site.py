"""The control server as it runs, on a free port: a real repository, real stores, tokens and sessions."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn

import controlkit
from tidegate_compiler.times import format_instant
from tidegate_control.access.caller import EDITOR, PUBLISHER, READER
from tidegate_control.app import Services, make_app
from tidegate_control.intake.store import Batch
from tidegate_control.inventory.service import Inventory
from tidegate_control.rooms import ROOMS
from tidegate_control.serve import bound, configuration, prepared
from tidegate_control.settings import Settings
from tidegate_schema import jsonfile

SCOPES = (READER, EDITOR, PUBLISHER)
EPOCH = "00000000000000a1"


@dataclass
class Site:
    """A server at work."""

    url: str
    services: Services
    repository: Path
    tokens: dict[str, str] = field(default_factory=dict)
    _ids: dict[str, str] = field(default_factory=dict)

    def make_tokens(self) -> None:
        """Make a token for each scope of people."""
        for scope in SCOPES:
            token, text = self.services.access.tokens.add(
                f"{scope}-token", [scope], seconds=3600, email=f"{scope}@example.net"
            )
            self.tokens[scope], self._ids[scope] = text, token.id

    def cookie(self, scope: str) -> dict[str, Any]:
        """Return the cookie of a new session, as the form to log in would set it."""
        identifier = self.services.access.sessions.begin(self._ids[scope])
        return {"name": self.services.access.cookie, "value": identifier, "url": self.url}

    @property
    def inventory(self) -> Inventory:
        """Return the inventory service."""
        found: Inventory = self.services.inventory
        return found

    def file(self, path: str) -> str:
        """Return a file of the inventory as the branch's tip has it."""
        return controlkit.git(self.repository, "show", f"main:inventory/{path}")

    def log(self) -> list[str]:
        """Return the subjects of the branch's commits, the latest first."""
        return controlkit.git(self.repository, "log", "--format=%s", "main").splitlines()

    def push(self, path: str, text: str) -> None:
        """Commit a file of the inventory as somebody else would: by a push."""
        place = self.repository.parent / f"clone-{time.monotonic_ns()}"
        controlkit.git(self.repository.parent, "clone", "-q", str(self.repository), str(place))
        (place / "inventory" / path).write_text(text)
        controlkit.git(place, "add", "-A")
        controlkit.git(place, "commit", "-q", "-m", f"Write {path}")
        controlkit.git(place, "push", "-q", "origin", "HEAD:main")

    def tell(self, gateway: str, events: list[dict[str, Any]]) -> None:
        """Store events, as the intake does with what a gateway posts."""
        text = b"".join(jsonfile.canonical(event) + b"\n" for event in events)
        numbers = [event["event.sequence"] for event in events]
        self.services.events.add([Batch(gateway, events[0]["tidegate.epoch"], numbers, text)])


@contextmanager
def serve(place: Path, files: Mapping[str, str] | None = None) -> Iterator[Site]:
    """Run a server on an inventory, the example if none is given."""
    repository = controlkit.bare(place, files)
    state = place / "state"
    state.mkdir(mode=0o700)
    settings = Settings(repository, listen="127.0.0.1:0", state=state)
    with prepared(settings) as (tls, services), bound(settings) as listening:

        async def alive() -> None:
            """Nobody looks whether it lives."""

        server = uvicorn.Server(configuration(make_app(services, ROOMS), settings, tls, alive))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        site = Site(f"http://127.0.0.1:{listening.getsockname()[1]}", services, repository)
        site.make_tokens()
        try:
            yield site
        finally:
            server.should_exit = True
            thread.join(30)


def flows(site: Site, now: int) -> list[dict[str, Any]]:
    """Return a day of flows through the gateway fra1: some allowed, some denied, of clients that are there."""
    ids = {name: one.client_id for name, one in site.inventory.snapshot().objects("client").items()}
    wanted = [
        ("alice-laptop", "10.64.0.11", "10.20.0.80", 6, 8080, "allow", "allowed", "eng-reaches-web"),
        ("dave-laptop", "10.64.0.14", "10.20.5.3", 6, 5432, "allow", "allowed", "eng-reads-prod-db"),
        ("bob-laptop", "10.64.0.12", "10.20.0.22", 6, 22, "allow", "allowed", "eng-and-contractors-use-git"),
        ("bob-laptop", "10.64.0.12", "10.20.5.3", 6, 5432, "deny", "no-rule", ""),
        ("carol-laptop", "10.64.0.13", "10.20.5.4", 6, 22, "deny", "denied", "nobody-logs-in-to-databases"),
        ("monitor", "10.64.0.22", "10.20.0.80", 6, 9100, "allow", "allowed", "monitor-scrapes"),
        ("erin-desktop", "10.64.0.15", "10.20.9.9", 17, 53, "deny", "no-rule", ""),
    ]
    told = []
    for number in range(168):
        client, source, to, protocol, port, verdict, reason, rule = wanted[
            (number * number + number // 3) % len(wanted)
        ]
        second = now - 85_000 + number * 500
        event = {
            "@timestamp": format_instant(second)[:-1] + ".000000000Z",
            "observer.name": "fra1",
            "tidegate.epoch": EPOCH,
            "event.sequence": number + (number > 80) * 3,
            "tidegate.monotonic_ns": number * 1_000_000_000,
            "event.action": "flow-open" if verdict == "allow" else "deny",
            "tidegate.mode": "enforce",
            "tidegate.verdict": verdict,
            "event.reason": reason,
            "tidegate.generation": 3,
            "tidegate.client.id": ids[client],
            "source.address": source,
            "source.port": 40000 + number,
            "destination.address": to,
            "destination.port": port,
            "network.iana_number": protocol,
            "network.transport": "tcp" if protocol == 6 else "udp",
            "source.packets": 1 + number % 5,
            "source.bytes": 60 * (1 + number % 50),
        }
        told.append(event | ({"rule.name": rule} if rule else {}))
    return told


def observed(site: Site, now: int) -> list[dict[str, Any]]:
    """Return that day as a gateway in observe records it: what no policy admits was let through, too."""
    seen = {
        "tidegate.mode": "observe",
        "tidegate.verdict": "allow",
        "event.reason": "observed",
        "event.action": "flow-open",
    }
    return [{key: one[key] for key in one if key != "rule.name"} | seen for one in flows(site, now)]
