"""The client agent's loop: wake, read settings and bundle, apply what changed, say so in the status."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tidegate_agents import bundles, host, settings, wireguard
from tidegate_agents.client import interface
from tidegate_agents.watch import POLL_SECONDS, Waker
from tidegate_schema import wgquick
from tidegate_schema.release import ReleaseError

log = logging.getLogger("tidegate.client")


class ClientAgent:
    """Keeps one client's interface as its bundle says."""

    def __init__(self, places: host.Places, bundle_directory: Path) -> None:
        self._places = places
        self._problems: dict[str, str | None] = {"settings": None, "release": None, "interface": None}
        self._identity = host.load_identity(places)
        host.public_key(places)
        self._directory = bundles.host_directory(bundle_directory, self._identity)
        self._memory = host.load_memory(places)
        self._settings = self._read_settings(settings.defaults("client"))
        self._name: str = self._settings["interface"]
        self._seen: tuple[object, ...] | None = None
        self._accepted: bundles.Accepted | None = None
        self._config: wgquick.ClientConfig | None = None
        self._applied: tuple[wgquick.ClientConfig, Mapping[str, Any]] | None = None

    def run(self) -> None:
        """Follow the bundle directory until told to stop, then take the interface down."""
        held = host.lock(self._places)
        self._directory.mkdir(parents=True, exist_ok=True)
        with Waker([self._directory, self._places.etc]) as waker:
            try:
                while not waker.stopping:
                    self._turn()
                    waker.wait(POLL_SECONDS)
            finally:
                interface.down(self._places, self._name)
                self._places.status.unlink(missing_ok=True)
                os.close(held)

    def _turn(self) -> None:
        # The interface's name takes effect at the next start.
        self._settings = {**self._read_settings(self._settings), "interface": self._name}
        self._read_bundle()
        if self._config is not None and (
            self._applied != (self._config, self._settings) or not interface.exists(self._name)
        ):
            try:
                interface.apply(self._places, self._config, self._settings)
            except (host.HostError, wireguard.WireGuardError, OSError) as error:
                self._note("interface", str(error))
            else:
                self._note("interface", None)
                self._applied = (self._config, self._settings)
                log.info("%s: %d gateways", self._name, len(self._config.peers))
        self._write_status()

    def _read_settings(self, running: Mapping[str, Any]) -> dict[str, Any]:
        try:
            current = settings.load("client", self._places.settings)
        except settings.SettingsError as error:
            self._note("settings", str(error))
            return dict(running)
        self._note("settings", None)
        return current

    def _read_bundle(self) -> None:
        offered = bundles.fingerprint(self._directory)
        if offered is None or offered == self._seen:
            return
        now = max(time.time(), self._memory.time)
        try:
            accepted = bundles.read_current(self._directory, self._identity, self._memory.serial, now)
            config = wgquick.parse(accepted.files["wg0.conf"])
        except ReleaseError as error:
            self._note("release", str(error))
        except wgquick.ConfigError as error:
            self._note("release", f"invalid-bundle: wg0.conf: {error}")
        else:
            self._memory = self._memory.later(accepted.release.serial, time.time())
            try:
                host.save_memory(self._places, self._memory)
            except OSError as error:  # what would be forgotten could be replayed, so it is not applied
                self._note("release", f"not applied, trying again: {error}")
                return
            self._note("release", None)
            self._seen, self._accepted, self._config = offered, accepted, config

    def _note(self, what: str, problem: str | None) -> None:
        if problem and self._problems.get(what) != problem:
            log.error("%s: %s", what, problem)
        self._problems[what] = problem

    def _write_status(self) -> None:
        accepted = self._accepted
        host.write_status(
            self._places,
            {
                "pid": os.getpid(),
                "kind": "client",
                "host": self._identity.host,
                "fleet": self._identity.fleet,
                "interface": self._name,
                "applied": self._applied is not None and self._applied[0] == self._config,
                "release": bundles.summary(accepted) if accepted else None,
                "problems": self._problems,
            },
        )
