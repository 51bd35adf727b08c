"""The gateway agent's main loop: look at the inputs, compare with what is applied, take the steps between them.

    wake ─► read settings ─► read bundle ─► desired ─► steps, in an order that never opens a gap ─► status

Order of start: rules, then the forwarder, then WireGuard up. Order of stop: WireGuard down, then the rest. Order of
a change: peers that leave go first, then a new generation takes the TUN over (its predecessor drains what was
queued), then connections that are no longer allowed are cut, then peers that come are added. So no packet is ever
judged as somebody else's, and what the status calls the current generation holds for every packet.
"""

from __future__ import annotations

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
from tidegate_agents.datapath import offload
from tidegate_agents.events import ring
from tidegate_agents.gateway import conntrack, generation, network, nft, ruleset, traces
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
        chosen = ("authz_mode", "logging_enabled", "flow_cache", "flow_timeout")
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
        self._offloads = 0
        self._applied: Desired | None = None
        self._generation = 0
        self._next_change = FAR_FUTURE
        self._live_until = 0.0
        # What runs may be half of a change: then the next one is applied whole, also when it is the one before again.
        self._is_unsettled = False
        self._restarts = {"forwarder": 0, "wireguard": 0}
        self._trouble: str | None = None
        self._status: dict[str, Any] = {}

    # The run ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start, follow the inputs until told to stop, stop. HostError when the start fails."""
        with ExitStack() as undo:
            undo.callback(os.close, host.lock(self._places))
            undo.callback(os.close, host.lock_network("gateway"))
            waker = undo.enter_context(Waker([self._inbox.directory, self._places.etc]))
            try:
                self._start(waker, undo)
            except NetlinkError as error:
                raise host.HostError(f"the kernel refused a link, route or rule: {error}") from None
            while not waker.stopping:
                waker.wait(self._patience())
                self._turn(waker)

    def _turn(self, waker: Waker) -> None:
        # First, and whatever else is in trouble. Where it fails, the rules are not there, which is mended next.
        with suppress(host.HostError):
            self._stay_live()
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
        """Set everything up. The stop is the start in reverse, and is noted before anything is made.

        So a start that fails half-way, after a kill -9 for instance, takes WireGuard down before the rules too.
        """
        self._device.refuse_foreign()
        before = traces.read(self._places.run)
        undo.callback(traces.forget, self._places.run)
        undo.callback(self._places.status.unlink, missing_ok=True)
        undo.callback(self._inbox.remember_time, at_once=True)
        undo.callback(self._remove_rules)
        undo.callback(self._close_tun)
        undo.callback(network.lead_nowhere, self._fixed)
        undo.callback(self._stop_children, waker)
        undo.callback(self._forwarding.restore)
        undo.callback(self._device.down)
        traces.sweep(before, self._fixed, host.public_key(self._places))
        self._forwarding.look(before.get("forwarding", ()))
        traces.write(self._places.run, self._fixed, self._forwarding.were_off)
        generation.directory(self._places).mkdir(mode=0o700, exist_ok=True)
        self._inbox.directory.mkdir(parents=True, exist_ok=True)
        self._generation = generation.last(self._places)
        desired = self._desired()
        # Rules first: from here on, whatever comes up later finds them there.
        self._load_rules(desired)
        self._open_tun()
        network.lead_into_tun(desired.settings, enforce=desired.enforce)
        self._forwarding.enable()
        self._device.ensure()
        self._inbox.look()
        desired = self._desired()
        self._apply(desired, waker)
        self._device.up()
        network.set_routes(self._device.name, routes(desired.bundle))
        self._write_status()
        self._log_generation()

    def _open_tun(self) -> None:
        self._tun, self._offloads = network.open_tun(self._fixed)

    def _close_tun(self) -> None:
        if self._tun >= 0:
            os.close(self._tun)
            self._tun = -1

    def _remove_rules(self) -> None:
        if network.is_up(self._device.name):
            log.error("%s could not be taken down, so its rules stay", self._device.name)
        else:
            nft.remove()

    def _stop_children(self, waker: Waker) -> None:
        if self._forwarder is not None:
            waker.discard(self._forwarder.child.pidfd)
            self._forwarder.child.stop()
            self._forwarder.close()
        self._flusher.stop(waker)

    def _follow(self, waker: Waker) -> None:
        self._inbox.look()
        desired = self._desired()
        if desired != self._applied or self._is_unsettled:
            self._apply(desired, waker)
            self._log_generation()
        elif self._inbox.now() >= self._next_change:
            self._forget_flows(desired)
            self._revoke(desired)
        self._inbox.remember_time()

    def _patience(self) -> float:
        if self._trouble is not None:
            return POLL_SECONDS  # what is due and fails is tried again, but not in a loop without a rest
        return max(0.0, min(POLL_SECONDS, self._next_change - self._inbox.now()))

    def _desired(self) -> Desired:
        current = self._inbox.settings(self._applied.settings if self._applied else None)
        return Desired(
            {**current, **self._fixed}, self._inbox.content or GatewayBundle(), self._inbox.release
        )

    # The steps ----------------------------------------------------------------------------------------------

    def _apply(self, desired: Desired, waker: Waker) -> None:
        was_unsettled, self._is_unsettled = self._is_unsettled, True
        observed = {key: peer.config for key, peer in wireguard.show(self._device.name).peers.items()}
        change = wireguard.difference(observed, desired.bundle.peers)
        wireguard.remove_peers(self._device.name, change.remove)
        wireguard.set_peers(self._device.name, change.shrink)
        if was_unsettled or self._applied is None or desired.judgement() != self._applied.judgement():
            self._new_generation(desired, waker)
        elif desired.settings["masquerade"] != self._applied.settings["masquerade"]:
            self._load_rules(desired, bypass=self._is_bypassed(desired))
        wireguard.set_peers(self._device.name, change.grow)
        if network.is_up(self._device.name):
            network.set_routes(self._device.name, routes(desired.bundle))
        self._applied = desired  # last: what failed on the way is tried again at the next turn
        self._is_unsettled = False
        self._flusher.keep(desired.settings, waker)

    def _new_generation(self, desired: Desired, waker: Waker) -> None:
        was_unsettled, self._is_unsettled = self._is_unsettled, True
        number = self._generation + 1
        tables = desired.bundle.tables(number, desired.enforce, self._inbox.now())
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
        self._forget_flows(desired)
        self._revoke(desired)
        generation.forget_before(self._places, number)
        self._is_unsettled = was_unsettled

    def _load_rules(self, desired: Desired, *, bypass: bool = False) -> None:
        mine = self._forwarding.were_off
        self._live_until = 0.0
        self._rules.load(
            ruleset.render(desired.settings, enforce=desired.enforce, bypass=bypass, only_ours=mine)
        )

    def _forget_flows(self, desired: Desired) -> None:
        """Have every flow judged again, by its next packet."""
        if ruleset.has_flows(desired.settings) and not self._is_bypassed(desired):
            nft.load(ruleset.forget_flows())

    def _is_bypassed(self, desired: Desired) -> bool:
        return self._forwarder is None and not desired.enforce

    def _stay_live(self) -> None:
        """Let replies pass for another while; when nobody does, they end."""
        applied = self._applied
        if applied is not None and applied.enforce and time.monotonic() >= self._live_until:
            timeout = applied.settings["flow_timeout"]
            nft.load(ruleset.stay_live(timeout))
            self._live_until = time.monotonic() + timeout / 4

    def _revoke(self, desired: Desired) -> None:
        """Cut connections that are no longer allowed, or whose client's address is another's now.

        Notes when that may next be due; when it fails, it is due still.
        """
        if not desired.enforce:
            self._next_change = FAR_FUTURE
            return
        now = self._inbox.now()
        self._next_change = min(self._next_change, now)
        before = self._applied.bundle.clients if self._applied else desired.bundle.clients
        moved = {a for a, client in desired.bundle.clients.items() if before.get(a, client) != client}

        def allowed(source: bytes, destination: bytes, protocol: int, port: int) -> bool:
            return source not in moved and desired.bundle.allows(source, destination, protocol, port, now)

        revoked = conntrack.revoke(allowed)
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
            self._close_tun()
            self._open_tun()
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
            if applied.enforce:
                self._forget_flows(applied)
            else:
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
            "offloads": offload.NAMES[self._offloads],
            "wireguard_go": self._device.userspace.pid if self._device.userspace else None,
            "restarts": {**self._restarts, "flusher": self._flusher.restarts},
        }
        if status != self._status:
            host.write_status(self._places, status)
            self._status = status
