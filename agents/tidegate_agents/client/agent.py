"""The client agent's loop: wake, read settings and bundle, apply what changed, say so in the status."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tidegate_agents import bundles, host
from tidegate_agents.client import interface
from tidegate_agents.inbox import Inbox
from tidegate_agents.watch import POLL_SECONDS, Waker
from tidegate_schema import wgquick
from tidegate_schema.release import ReleaseError

log = logging.getLogger("tidegate.client")


def read_bundle(accepted: bundles.Accepted) -> wgquick.ClientConfig:
    """Read the file of an accepted release; ReleaseError "invalid-bundle" names the line that does not belong."""
    try:
        return wgquick.parse(accepted.files["wg0.conf"])
    except wgquick.ConfigError as error:
        raise ReleaseError("invalid-bundle", f"wg0.conf: {error}") from None


class ClientAgent:
    """Keeps one client's interface as its bundle says."""

    def __init__(self, places: host.Places, bundle_directory: Path) -> None:
        self._places = places
        self._inbox = Inbox(places, bundle_directory, read_bundle)
        self._settings = self._inbox.settings()
        self._name: str = self._settings["interface"]
        self._applied: tuple[wgquick.ClientConfig, Mapping[str, Any]] | None = None
        self._trouble: str | None = None

    def run(self) -> None:
        """Follow the bundle directory until told to stop, then take the interface down."""
        held = host.lock(self._places)
        self._inbox.directory.mkdir(parents=True, exist_ok=True)
        with Waker([self._inbox.directory, self._places.etc]) as waker:
            try:
                while not waker.stopping:
                    self._turn()
                    waker.wait(POLL_SECONDS)
            finally:
                interface.down(self._places, self._name)
                self._places.status.unlink(missing_ok=True)
                os.close(held)

    def _turn(self) -> None:
        try:
            self._follow()
            self._trouble = None
            self._write_status()
        except (host.HostError, OSError) as error:
            if self._trouble != str(error):
                log.error("not applied, trying again: %s", error)
            self._trouble = str(error)
            with suppress(OSError):  # a full /run is itself such a trouble
                self._write_status()

    def _follow(self) -> None:
        # The interface's name takes effect at the next start.
        self._settings = {**self._inbox.settings(self._settings), "interface": self._name}
        self._inbox.look()
        config = self._inbox.content
        if config is None or (self._applied == (config, self._settings) and interface.exists(self._name)):
            return
        interface.apply(self._places, config, self._settings)
        self._applied = (config, self._settings)
        log.info("%s: %d gateways", self._name, len(config.peers))

    def _write_status(self) -> None:
        inbox = self._inbox
        host.write_status(
            self._places,
            {
                "pid": os.getpid(),
                "kind": "client",
                "host": inbox.identity.host,
                "fleet": inbox.identity.fleet,
                "interface": self._name,
                "applied": self._applied is not None and self._applied[0] == inbox.content,
                "settings_problem": inbox.settings_problem,
                "trouble": self._trouble,
                "release": inbox.release,
                "refusal": asdict(inbox.refusal) if inbox.refusal else None,
            },
        )
