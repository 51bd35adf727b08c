"""The client agent's loop: wake, read settings and bundle, apply what changed, watch it, say so in the status."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tidegate_agents import bundles, host, wireguard
from tidegate_agents.client import interface, probe, render
from tidegate_agents.client.common import common, without_gateways
from tidegate_agents.client.linknews import LinkNews
from tidegate_agents.client.metrics import Exporter
from tidegate_agents.client.upkeep import Upkeep
from tidegate_agents.files import FileRefused
from tidegate_agents.hearing import Evidence, Hearing, Outcome
from tidegate_agents.inbox import Inbox
from tidegate_agents.notify import Notifier
from tidegate_agents.trial import is_host_s
from tidegate_agents.watch import Waker
from tidegate_agents.wireguard import PeerState
from tidegate_schema import wgquick
from tidegate_schema.release import ReleaseError

log = logging.getLogger("tidegate.client")

_PAUSE_SECONDS = 0.2  # between two looks, however much the kernel has to tell


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
        self._manager = Notifier.of(os.environ)
        self._inbox = Inbox(places, bundle_directory, read_bundle, common, self._was_well)
        self._settings = self._inbox.settings()
        self._fixed = {name: self._settings[name] for name in ("interface", "probe_interface")}
        self._name: str = self._settings["interface"]
        self._upkeep = Upkeep(places, self._name, self._settings["probe_interface"], self._inbox.events.tell)
        self._applied: tuple[wgquick.ClientConfig, Mapping[str, Any]] | None = None
        self._bundle: wgquick.ClientConfig | None = None
        """What `_applied` was made of."""
        self._trouble: str | None = None
        self._is_host_s = False
        """Whether the trouble is the host's, and no release's."""
        self._exporter = Exporter(places, self._name)
        self._hearing = Hearing(self._inbox.succession)
        self._before: Mapping[str, PeerState] = {}
        """What the device said before the release on trial."""

    def run(self) -> None:
        """Follow the bundle directory until told to stop, then take the interface down."""
        held = host.lock(self._places)
        self._inbox.directory.mkdir(parents=True, exist_ok=True)
        news = LinkNews()
        with Waker([self._inbox.directory, self._places.etc]) as waker:
            waker.add(news.fileno())
            try:
                while not waker.stopping:
                    self._turn()
                    self._manager.turned(self._line())
                    waker.wait(self._upkeep.wait_seconds)
                    if news.any() and not waker.stopping:
                        self._upkeep.heard_of_a_change()
                        time.sleep(_PAUSE_SECONDS)
                self._manager.stopping()
                self._inbox.end()
            finally:
                news.close()
                with suppress(host.HostError, OSError):
                    self._upkeep.close()
                interface.down(self._places, self._name)
                self._exporter.stop()
                self._places.status.unlink(missing_ok=True)
                os.close(held)

    def _turn(self) -> None:
        try:
            self._follow()
            self._trouble = None
        except (host.HostError, FileRefused, OSError) as error:
            if self._trouble != str(error):
                log.error("not applied, trying again: %s", error)
            self._trouble, self._is_host_s = str(error), is_host_s(error)
        try:
            if self._judge():
                self._follow()
            self._write_status()
            self._inbox.remember_time()  # last: a full disk holds up nothing but that
        except (host.HostError, FileRefused, OSError) as error:
            self._trouble, self._is_host_s = str(error), is_host_s(error)
            with suppress(OSError, FileRefused):  # a full /run is itself such a trouble
                self._write_status()

    def _follow(self) -> None:
        # The interfaces' names take effect at the next start.
        self._settings = {**self._inbox.settings(self._settings), **self._fixed}
        self._inbox.look()
        has_begun = self._begin_trial()
        bundle = self._desired()
        if bundle is None:
            return
        config = self._upkeep.follow(bundle)
        if self._applied != (config, self._settings):
            self._apply(config)
            self._bundle = bundle
        elif has_begun:
            self._nudge(config)
        if self._upkeep.look(config, self._settings):
            self._apply(self._upkeep.follow(bundle))

    def _apply(self, config: wgquick.ClientConfig) -> None:
        interface.apply(self._places, config, self._settings)
        self._applied = (config, self._settings)
        self._upkeep.applied()
        log.info("%s: %d gateways", self._name, len(config.peers))
        if self._hearing.is_on:
            self._nudge(config)

    def _nudge(self, config: wgquick.ClientConfig) -> None:
        """Have the gateways of a release on trial say whether they are there."""
        wanted, good = render.peers(config, self._settings), self._inbox.succession.good()
        with suppress(wireguard.WireGuardError):  # then it is silent, which is judged
            probe.nudge(self._name, wanted, good, self._before, time.time())

    def _begin_trial(self) -> bool:
        if not self._hearing.begins():
            return False
        self._before = probe.peers(self._name)
        return self._hearing.is_on

    def _desired(self) -> wgquick.ClientConfig | None:
        config = self._inbox.content
        if config is not None and self._inbox.is_stale() and self._settings["on_stale"] == "deny":
            return without_gateways(config)
        return config

    def _was_well(self) -> bool:
        return probe.has_session(probe.peers(self._name), time.time())

    def _judge(self) -> bool:
        """Judge the release on trial; tells whether another one is in force for it now."""
        config = self._desired()
        if config is None or not self._hearing.is_on:
            return False
        is_applied = self._trouble is None and self._bundle == config
        found, good = probe.peers(self._name), self._inbox.succession.good()
        evidence = Evidence(
            works=is_applied and probe.works(found, config, good, self._before, time.time()),
            counts=probe.is_online(config) and not (self._trouble is not None and self._is_host_s),
            seconds=self._settings["confirm_timeout"],
        )
        why = f"no handshake with a gateway within {evidence.seconds} s"
        return self._hearing.judge(time.monotonic(), evidence, why) is Outcome.TAKEN_BACK

    def _line(self) -> str:
        release = f"release {self._inbox.release['serial']}" if self._inbox.release else "no release yet"
        return f"{release}, {self._name}" + (f": {self._trouble}" if self._trouble else "")

    def _write_status(self) -> None:
        inbox = self._inbox
        status = {
            "pid": os.getpid(),
            "kind": "client",
            "host": inbox.identity.host,
            "fleet": inbox.identity.fleet,
            "interface": self._name,
            "applied": self._bundle is not None and self._bundle == self._desired(),
            "trouble": self._trouble,
            "release": inbox.release,
            **inbox.status(),
            **self._upkeep.status(),
        }
        self._exporter.follow(self._settings["metrics_listen"], status)
        host.write_status(self._places, status)
