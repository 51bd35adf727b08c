"""The gateway agent's main loop: look at the inputs, compare with what is applied, take the steps between them.

    wake ─► read settings ─► read bundle ─► desired ─► steps, in an order that never opens a gap ─► status

Order of start: rules, then the forwarder, then WireGuard up. Order of stop: WireGuard down, then the rest. Order of
a change: peers that leave go first, then a new generation takes the TUN over (its predecessor drains what was
queued), then connections that are no longer allowed are cut, then peers that come are added. So no packet is ever
judged as somebody else's, and what the status calls the current generation holds for every packet.
"""

from __future__ import annotations

import functools
import logging
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from tidegate_agents import host, wireguard
from tidegate_agents.events import ring
from tidegate_agents.gateway import conntrack, generation, network, nft, ruleset
from tidegate_agents.gateway.desired import FIXED, GatewayBundle, read_bundle, routes
from tidegate_agents.gateway.device import Device
from tidegate_agents.gateway.flushing import FlusherKeeper
from tidegate_agents.gateway.processes import Backoff, Forwarder, ProcessError, replace_forwarder
from tidegate_agents.inbox import Inbox
from tidegate_agents.watch import POLL_SECONDS, Waker
from tidegate_schema.policy import FAR_FUTURE

log = logging.getLogger("tidegate.gateway")


@dataclass(frozen=True)
class Desired:
    """What the gateway should be now."""

    settings: Mapping[str, Any]
    bundle: GatewayBundle
    release: Mapping[str, Any] | None
    """What `status` says of the release the bundle came from."""

    @property
    def enforce(self) -> bool:
        """Whether policy decides."""
        return bool(self.settings["authz_mode"] == "enforce")

    def judgement(self) -> tuple[object, ...]:
        """Return everything a forwarder depends on: when it differs, a new generation is due."""
        chosen = ("authz_mode", "logging_enabled")
        return (*(self.settings[name] for name in chosen), self.bundle.clients, self.bundle.policy.document)


class Supervisor:
    """Owns the gateway's state on this host from `start` to `stop`."""

    def __init__(self, places: host.Places, bundle_directory: Path) -> None:
        self._places = places
        self._inbox = Inbox(places, bundle_directory, read_bundle)
        first = self._inbox.settings()
        self._fixed = {name: first[name] for name in FIXED}
        self._device = Device(places, first)
        self._forwarding = network.Forwarding()
        self._flusher = FlusherKeeper(places.run, generation.directory(places), self._inbox.identity.host)
        self._forwarder: Forwarder | None = None
        self._backoff = Backoff()
        self._rules = nft.Rules()
        self._tun = -1
        self._applied: Desired | None = None
        self._generation = 0
        self._next_change = FAR_FUTURE
        self._restarts = {"forwarder": 0, "wireguard": 0}
        self._trouble: str | None = None
        self._status: dict[str, Any] = {}

    # The run ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start, follow the inputs until told to stop, stop. HostError when the start fails."""
        with ExitStack() as undo:
            undo.callback(os.close, host.lock(self._places))
            waker = undo.enter_context(Waker([self._inbox.directory, self._places.etc]))
            try:
                self._start(waker, undo)
            except NetlinkError as error:
                raise host.HostError(f"the kernel refused a link, route or rule: {error}") from None
            while not waker.stopping:
                waker.wait(self._patience())
                self._turn(waker)

    def _turn(self, waker: Waker) -> None:
        try:
            self._mend_kernel(waker)
            self._mend_children(waker)
            self._follow(waker)
            self._trouble = None
            self._write_status()
        except (host.HostError, NetlinkError, OSError) as error:
            # What runs goes on; the next turn compares again and tries again.
            if self._trouble != str(error):
                log.error("not applied, trying again: %s", error)
            self._trouble = str(error)
            with suppress(OSError):  # a full /run is itself such a trouble
                self._write_status()

    def _start(self, waker: Waker, undo: ExitStack) -> None:
        """Set everything up, and note for each thing how it is undone: the stop is the start in reverse."""
        generation.directory(self._places).mkdir(mode=0o700, exist_ok=True)
        self._inbox.directory.mkdir(parents=True, exist_ok=True)
        self._generation = generation.last(self._places)
        desired = self._desired()
        self._device.refuse_foreign()
        undo.callback(self._places.status.unlink, missing_ok=True)
        undo.callback(self._inbox.remember_time, at_once=True)
        # Rules first: from here on, whatever comes up later finds them there.
        undo.callback(nft.remove)
        self._load_rules(desired)
        self._tun = network.open_tun(desired.settings)
        undo.callback(lambda: os.close(self._tun))
        undo.callback(network.lead_nowhere, self._fixed)
        network.lead_into_tun(desired.settings, enforce=desired.enforce)
        undo.callback(self._stop_children, waker)
        undo.callback(self._forwarding.restore)
        self._forwarding.enable()
        undo.callback(self._device.down)
        self._device.ensure()
        self._inbox.look()
        desired = self._desired()
        self._apply(desired, waker)
        self._device.up()
        network.set_routes(self._device.name, routes(desired.bundle))
        self._write_status()
        self._log_generation()

    def _stop_children(self, waker: Waker) -> None:
        if self._forwarder is not None:
            waker.discard(self._forwarder.child.pidfd)
            self._forwarder.child.stop()
            self._forwarder.close()
        self._flusher.stop(waker)

    def _follow(self, waker: Waker) -> None:
        self._inbox.look()
        desired = self._desired()
        if desired != self._applied:
            self._apply(desired, waker)
            network.set_routes(self._device.name, routes(desired.bundle))
            self._log_generation()
        elif self._inbox.now() >= self._next_change:
            self._revoke(desired)
        self._inbox.remember_time()

    def _patience(self) -> float:
        return max(0.0, min(POLL_SECONDS, self._next_change - self._inbox.now()))

    def _desired(self) -> Desired:
        current = self._inbox.settings(self._applied.settings if self._applied else None)
        return Desired(
            {**current, **self._fixed}, self._inbox.content or GatewayBundle(), self._inbox.release
        )

    # The steps ----------------------------------------------------------------------------------------------

    def _apply(self, desired: Desired, waker: Waker) -> None:
        observed = {key: peer.config for key, peer in wireguard.show(self._device.name).peers.items()}
        change = wireguard.difference(observed, desired.bundle.peers)
        wireguard.remove_peers(self._device.name, change.remove)
        wireguard.set_peers(self._device.name, change.shrink)
        if self._applied is None or desired.judgement() != self._applied.judgement():
            self._new_generation(desired, waker)
        elif desired.settings["masquerade"] != self._applied.settings["masquerade"]:
            self._load_rules(desired, bypass=self._forwarder is None and not desired.enforce)
        wireguard.set_peers(self._device.name, change.grow)
        self._applied = desired
        self._flusher.keep(desired.settings, waker)

    def _new_generation(self, desired: Desired, waker: Waker) -> None:
        number = self._generation + 1
        tables = desired.bundle.tables(number, desired.enforce, self._inbox.memory.time)
        generation.write(self._places, tables)
        log_ring = self._ensure_ring(desired) if desired.settings["logging_enabled"] else None
        # Towards enforce the rules come first, so that a forwarder that cannot be started leaves the gateway closed;
        # towards observe they come last.
        if desired.enforce:
            network.lead_into_tun(self._fixed, enforce=True)
            self._load_rules(desired)
        if self._forwarder is not None:
            waker.discard(self._forwarder.child.pidfd)
        try:
            self._forwarder = replace_forwarder(
                self._forwarder,
                self._tun,
                generation.file(self._places, number),
                self._counters(),
                log_ring,
            )
        finally:
            if self._forwarder is not None:
                waker.add(self._forwarder.child.pidfd)
        self._generation = number
        if not desired.enforce:
            self._load_rules(desired)
            network.lead_into_tun(self._fixed, enforce=False)
        self._revoke(desired)
        generation.forget_before(self._places, number)

    def _load_rules(self, desired: Desired, *, bypass: bool = False) -> None:
        self._rules.load(ruleset.render(desired.settings, enforce=desired.enforce, bypass=bypass))

    def _revoke(self, desired: Desired) -> None:
        """Cut connections that the policy no longer allows, and note when that may next be due."""
        self._next_change = FAR_FUTURE
        if not desired.enforce:
            return
        now = self._inbox.now()
        revoked = conntrack.revoke(functools.partial(desired.bundle.allows, now=now))
        if revoked:
            log.info("cut %d connections that are no longer allowed", revoked)
        self._next_change = desired.bundle.policy.next_change(now)

    def _ensure_ring(self, desired: Desired) -> Path:
        problem = ring.open_or_replace(self._flusher.ring, desired.settings["ring_records"])
        if problem:
            log.error("event ring set aside: %s", problem)
        return self._flusher.ring

    # What others took away ----------------------------------------------------------------------------------

    def _mend_kernel(self, waker: Waker) -> None:
        applied = self._applied
        assert applied is not None
        if self._rules.mend():
            log.error("the nftables table was changed by somebody else; loaded again")
        if network.index(self._fixed["tun"]) is None:
            log.error("%s is gone; making it again", self._fixed["tun"])
            os.close(self._tun)
            self._tun = network.open_tun(self._fixed)
            network.lead_into_tun(self._fixed, enforce=applied.enforce)
            self._new_generation(applied, waker)
        if self._device.lost():
            log.error("%s is gone; making it again", self._device.name)
            self._restarts["wireguard"] += 1
            self._device.ensure()
            wireguard.set_peers(self._device.name, applied.bundle.peers)
            self._device.up()
            network.set_routes(self._device.name, routes(applied.bundle))

    # The children -------------------------------------------------------------------------------------------

    def _mend_children(self, waker: Waker) -> None:
        applied = self._applied
        assert applied is not None
        if self._forwarder is not None and self._forwarder.child.ended():
            log.error(
                "forwarder ended with status %s; starting it again", self._forwarder.child.popen.returncode
            )
            self._restarts["forwarder"] += 1
            waker.discard(self._forwarder.child.pidfd)
            self._backoff.after_death(time.monotonic() - self._forwarder.child.started)
            self._forwarder.close()
            self._forwarder = None
            if not applied.enforce:
                self._load_rules(applied, bypass=True)  # observe fails open
        if self._forwarder is None and time.monotonic() >= self._backoff.not_before:
            try:
                self._new_generation(applied, waker)
            except ProcessError as error:
                log.error("%s", error)
                self._backoff.after_death(0)
        self._flusher.keep(applied.settings, waker)

    # What it says -------------------------------------------------------------------------------------------

    def _counters(self) -> Path:
        return self._places.run / "counters"

    def _peers(self) -> int:
        return len(self._applied.bundle.peers) if self._applied else 0

    def _log_generation(self) -> None:
        assert self._applied is not None
        mode, logging_on = (self._applied.settings[name] for name in ("authz_mode", "logging_enabled"))
        what = (self._generation, mode, "on" if logging_on else "off", self._peers())
        log.info("generation %d: %s, logging %s, %d peers", *what)

    def _write_status(self) -> None:
        assert self._applied is not None
        current = self._applied.settings
        status = {
            "pid": os.getpid(),
            "kind": "gateway",
            "host": self._inbox.identity.host,
            "fleet": self._inbox.identity.fleet,
            "interface": self._device.name,
            "generation": self._generation,
            "authz_mode": current["authz_mode"],
            "logging_enabled": current["logging_enabled"],
            "settings_problem": self._inbox.settings_problem,
            "trouble": self._trouble,
            "release": self._applied.release,
            "refusal": asdict(self._inbox.refusal) if self._inbox.refusal else None,
            "policy": self._applied.bundle.policy.document is not None,
            "peers": self._peers(),
            "forwarder": self._forwarder.child.pid if self._forwarder else None,
            "flusher": self._flusher.pid,
            "wireguard_go": self._device.userspace.pid if self._device.userspace else None,
            "restarts": {**self._restarts, "flusher": self._flusher.restarts},
        }
        if status != self._status:
            host.write_status(self._places, status)
            self._status = status
