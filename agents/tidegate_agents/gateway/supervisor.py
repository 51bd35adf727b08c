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
from pathlib import Path
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError

from tidegate_agents import host, wireguard
from tidegate_agents.datapath import offload
from tidegate_agents.datapath.judge import Tables
from tidegate_agents.events import ring
from tidegate_agents.files import FileRefused
from tidegate_agents.gateway import generation, network, nft, ruleset, traces
from tidegate_agents.gateway.accounting import Accounting
from tidegate_agents.gateway.desired import FIXED, NOTHING, Desired, common, read_bundle, without_rights
from tidegate_agents.gateway.device import Device
from tidegate_agents.gateway.drift import Drifts, Kernel
from tidegate_agents.gateway.exporter import Exporter
from tidegate_agents.gateway.flowrecorder import FlowRecorder, is_wanted
from tidegate_agents.gateway.flushing import FlusherKeeper
from tidegate_agents.gateway.hostnews import HostNews
from tidegate_agents.gateway.processes import (
    Backoff,
    Forwarder,
    Log,
    ProcessError,
    Station,
    Survivor,
    log_of,
    replace_forwarder,
    survivor,
)
from tidegate_agents.gateway.revoking import Revoker
from tidegate_agents.gateway.tuns import Tuns
from tidegate_agents.hearing import Evidence, Hearing, Outcome
from tidegate_agents.inbox import Inbox
from tidegate_agents.notify import Notifier
from tidegate_agents.trial import is_host_s
from tidegate_agents.watch import POLL_SECONDS, Waker

log = logging.getLogger("tidegate.gateway")

_RING_SECONDS = 60.0  # between two tries to make a ring that /run had no room for
_SETTLE_SECONDS = 2.0  # a release has to be at work for so long, so that a forwarder that dies of it is seen


class Supervisor:
    """Owns the gateway's state on this host from `start` to `stop`."""

    def __init__(self, places: host.Places, bundle_directory: Path) -> None:
        self._places = places
        self._manager = Notifier.of(os.environ)
        self._inbox = Inbox(places, bundle_directory, read_bundle, common, self._was_well)
        first = self._inbox.settings()
        self._fixed = {name: first[name] for name in FIXED}
        self._device = Device(places, first)
        self._forwarding, self._accounting = network.Forwarding(), Accounting()
        self._flusher = FlusherKeeper(places, self._inbox.identity.host, self._fixed["flusher_uid"])
        self._flows = FlowRecorder(places)
        self._news = HostNews(places, self._inbox.events)
        self._exporter = Exporter(places, self._device.name, self._fixed["tun"])
        self._forwarder: Forwarder | Survivor | None = None
        self._backoff = Backoff()
        self._rules = nft.Rules()
        self._tuns = Tuns(self._fixed)
        self._kernel = Kernel(self._fixed, self._device, self._tuns, self._rules)
        self._drifts = Drifts(self._inbox.events)
        self._hearing, self._deaths_before = Hearing(self._inbox.succession), 0
        self._revoker = Revoker(self._flows)
        self._applied: Desired | None = None
        self._forwarder_enforces = False
        self._generation = 0
        self._live_until = 0.0
        # What runs may be half of a change: then the next one is applied whole, also when it is the one before again.
        self._is_unsettled = False
        self._restarts = {"forwarder": 0, "wireguard": 0}
        self._trouble: str | None = None
        self._is_host_s = False
        """Whether the trouble is the host's, and no release's."""
        self._ring_problem: str | None = None
        """Why the forwarder has no ring for its events."""
        self._ring_due = 0.0
        self._status: dict[str, Any] = {}

    # The run ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Start, follow the inputs until told to stop, stop. HostError when the start fails."""
        with ExitStack() as undo:
            undo.callback(os.close, host.lock(self._places))
            undo.callback(os.close, host.lock_network("gateway"))
            paths = [self._inbox.directory, self._places.etc]
            waker = undo.enter_context(Waker(paths, may_leave=True))
            try:
                self._start(waker, undo)
            except Exception as error:
                if isinstance(self._forwarder, Survivor) and self._may_go_on():
                    undo.pop_all()
                if isinstance(error, NetlinkError):
                    raise host.HostError(f"the kernel refused a link, route or rule: {error}") from None
                raise
            while not waker.stopping:
                self._manager.turned(self._line())
                waker.wait(self._patience())
                self._turn(waker)
            self._manager.stopping()
            self._inbox.end()
            if waker.leaving:
                undo.pop_all()  # first: whatever becomes of the rest, what is at work is left so
                self._leave(waker)

    def _turn(self, waker: Waker) -> None:
        # First, and whatever else is in trouble. Where it fails, the rules are not there, which is mended next, or no
        # process can be started, which is named there.
        applied = self._applied
        assert applied is not None
        self._meanwhile(applied)
        self._step(waker)
        with suppress(OSError, FileRefused):  # it cannot be written down: the next turn judges again
            if self._judge():
                self._step(waker)
        # Last: whatever happened in this turn, and whatever is in trouble.
        self._news.keep((self._applied or applied).settings)

    def _step(self, waker: Waker) -> None:
        try:
            self._mend_kernel(waker)
            self._mend_children(waker)
            self._follow(waker)
            self._keep_events(waker)
            self._inbox.remember_time()  # last: a full disk holds up nothing but that
            self._trouble = None
            self._write_status()
        except (host.HostError, FileRefused, NetlinkError, OSError) as error:
            # What runs goes on; the next turn compares again and tries again.
            if self._trouble != str(error):
                log.error("not applied, trying again: %s", error)
            self._trouble = str(error)
            self._is_host_s = is_host_s(error)
            with suppress(OSError, FileRefused):  # a full /run is itself such a trouble
                self._write_status()

    # A release on trial -------------------------------------------------------------------------------------

    def _was_well(self) -> bool:
        if self._applied is None:  # at a start; the good release did its work here before
            return self._inbox.succession.has_good
        return self._trouble is None and self._forwarder is not None

    def _judge(self) -> bool:
        """Judge the release on trial, by local facts alone; tells whether another one is in force for it now.

        Nobody outside can force a rollback: nothing that a client or a network does is asked for.
        """
        if self._inbox.succession.on_trial is None:
            return False
        if self._hearing.begins():
            self._deaths_before = self._restarts["forwarder"]
        applied = self._applied
        assert applied is not None
        died = self._restarts["forwarder"] != self._deaths_before
        self._deaths_before = self._restarts["forwarder"]
        evidence = Evidence(
            works=self._trouble is None
            and not self._is_unsettled
            and applied.release == self._inbox.release
            and self._forwarder is not None
            and not died
            and self._kernel.are_loaded(applied.bundle),
            counts=not (self._trouble is not None and self._is_host_s),
            seconds=applied.settings["confirm_timeout"],
            settle=_SETTLE_SECONDS,
        )
        said = self._trouble or "the forwarder does not stay up, or peers are not as they should be"
        why = f"not at work within {evidence.seconds} s: {said}"
        outcome = self._hearing.judge(time.monotonic(), evidence, why)
        if outcome is Outcome.CONFIRMED:
            self._write_status()
        return outcome is Outcome.TAKEN_BACK

    # The start and the end ----------------------------------------------------------------------------------

    def _start(self, waker: Waker, undo: ExitStack) -> None:
        """Set everything up. The stop is the start in reverse, and is noted before anything is made.

        So a start that fails half-way, after a kill -9 for instance, takes WireGuard down before the rules too.
        """
        self._device.refuse_foreign()
        before = traces.read(self._places.run)
        undo.callback(traces.forget, self._places.run)
        undo.callback(self._places.status.unlink, missing_ok=True)
        undo.callback(self._exporter.stop)
        undo.callback(self._inbox.end)
        undo.callback(self._remove_rules)
        undo.callback(self._tuns.close)
        undo.callback(network.lead_nowhere, self._fixed)
        undo.callback(self._accounting.restore)
        undo.callback(self._stop_children, waker)
        undo.callback(self._forwarding.restore)
        undo.callback(self._device.down)
        self._forwarder = self._adopt(before)
        if self._forwarder is None:
            for path in (self._places.rings.events, self._places.rings.flows):
                ring.forget_if_resized(path, self._fixed["ring_records"])
        traces.sweep(before, self._fixed, host.public_key(self._places))
        self._forwarding.look(before.get("forwarding", ()))
        self._accounting.look(before.get("accounting"))
        traces.write(self._places.run, self._fixed, self._forwarding.were_off, self._accounting.were)
        generation.prepare(self._places, self._fixed["flusher_uid"])
        self._inbox.directory.mkdir(parents=True, exist_ok=True)
        self._generation = generation.last(self._places)
        self._remember_generation()
        desired = self._desired()
        self._news.keep(
            desired.settings
        )  # before anything happens: with logging off, none of it is ever sent
        self._accounting.enable()
        # Rules first: from here on, whatever comes up later finds them there.
        self._load_rules(desired)
        self._tuns.open()
        network.lead_into_tun(desired.settings, enforce=desired.enforce)
        self._forwarding.enable()
        self._device.ensure()
        self._inbox.look()
        desired = self._desired()
        self._apply(desired, waker)
        self._device.up()
        network.set_routes(self._device.name, desired.bundle.routes)
        self._write_status()
        self._log_generation()

    def _remember_generation(self) -> None:
        """Take up what the last generation of an earlier agent was: connections of that time may still be open."""
        if self._generation:
            try:
                tables = Tables.parse(generation.file(self._places, self._generation).read_bytes())
            except (OSError, ValueError, KeyError, TypeError):
                self._revoker.remember(None)
            else:
                self._revoker.remember(tables.clients)
                self._forwarder_enforces = tables.enforce

    def _may_go_on(self) -> bool:
        """Tell whether what an earlier agent left at work may go on without this one: not with less than is wanted."""
        return self._forwarder_enforces or not self._desired().enforce

    def _leave(self, waker: Waker) -> None:
        """End, and leave everything in force for the next start."""
        self._flows.stop(leaving=True)
        self._flusher.stop(waker)
        log.info("left as it runs, for the next start")

    def _adopt(self, before: Mapping[str, Any]) -> Survivor | None:
        """Return the forwarder that an earlier agent left at work; one that cannot be taken over is ended."""
        found = survivor(self._places.run)
        if found is None:
            return None
        if self._tuns.take_over(found, before.get("fixed", {})):
            return found
        found.child.stop()
        found.close()
        return None

    def _remove_rules(self) -> None:
        if network.is_up(self._device.name):
            log.error("%s could not be taken down, so its rules stay", self._device.name)
        else:
            nft.remove()

    def _stop_children(self, waker: Waker) -> None:
        if self._forwarder is not None:
            waker.discard(self._forwarder.child.pidfd)
            self._end_forwarder()
        self._flows.stop()
        self._flusher.stop(waker)
        if self._applied is not None:
            self._news.keep(
                self._applied.settings
            )  # what has arrived is noted, and not sent again after a reboot

    def _end_forwarder(self) -> None:
        if self._forwarder is not None:
            self._forwarder.child.stop()
            self._forwarder.close()
            self._forwarder = None

    def _follow(self, waker: Waker) -> None:
        self._inbox.look()
        desired = self._desired()
        if desired != self._applied or self._is_unsettled:
            self._apply(desired, waker)
            self._log_generation()
        elif self._ring_problem is not None and time.monotonic() >= self._ring_due:
            self._new_generation(desired, waker)
        else:
            self._end_in_time(desired, desired)

    def _end_in_time(self, desired: Desired, loaded: Desired) -> None:
        """End what a rule's time ended; the rules in the kernel are those of `loaded`."""
        if self._revoker.is_due(self._inbox.now()):
            self._forget_flows(loaded)
            self._revoke(desired)

    def _revoke(self, desired: Desired) -> None:
        self._revoker.judge(desired, self._generation, self._inbox.now())

    def _meanwhile(self, desired: Desired) -> None:
        """Do what cannot wait, for a forwarder of `desired` to load, say: let replies pass, and end what is over."""
        applied = self._applied
        if applied is not None:
            with suppress(host.HostError, OSError):  # the next turn tries again, and says so
                self._stay_live()
                self._end_in_time(applied, desired if desired.enforce else applied)

    def _while_loading(self, desired: Desired) -> None:
        self._manager.alive()  # a forwarder has a minute to load, after which it is given up
        self._meanwhile(desired)

    def _patience(self) -> float:
        if self._trouble is not None:
            return POLL_SECONDS  # what is due and fails is tried again, but not in a loop without a rest
        return max(0.0, min(POLL_SECONDS, self._revoker.seconds_left(self._inbox.now())))

    def _desired(self) -> Desired:
        current = self._inbox.settings(self._applied.settings if self._applied else None)
        bundle = self._inbox.content or NOTHING
        if self._inbox.is_stale() and current["on_stale"] == "deny":
            bundle = without_rights(bundle)
        return Desired({**current, **self._fixed}, bundle, self._inbox.release)

    # The steps ----------------------------------------------------------------------------------------------

    def _apply(self, desired: Desired, waker: Waker) -> None:
        self._device.room_for(len(desired.bundle.peers))
        was_unsettled, self._is_unsettled = self._is_unsettled, True
        if self._applied is None or was_unsettled:
            change = self._kernel.peer_change(desired.bundle)
        else:
            change = wireguard.difference(self._applied.bundle.peers, desired.bundle.peers)
        wireguard.remove_peers(self._device.name, change.remove)
        wireguard.set_peers(self._device.name, change.shrink)
        if is_wanted(desired.settings):
            self._flows.keep(desired.settings)  # before a forwarder tells of the first one
        if was_unsettled or self._applied is None or desired.judgement() != self._applied.judgement():
            self._new_generation(desired, waker)
        elif desired.rules() != self._applied.rules():
            self._load_rules(desired, bypass=self._is_bypassed(desired))
        if desired.enforce:
            self._stay_live()  # a hundred thousand peers may take as long as replies are let through
        wireguard.set_peers(self._device.name, change.grow)
        if network.is_up(self._device.name):
            network.set_routes(self._device.name, desired.bundle.routes)
        self._applied = desired  # last: what failed on the way is tried again at the next turn
        self._is_unsettled = False
        self._keep_events(waker)

    def _new_generation(self, desired: Desired, waker: Waker) -> None:
        was_unsettled, self._is_unsettled = self._is_unsettled, True
        number = self._generation + 1
        tables = desired.bundle.tables(number, desired.enforce, self._inbox.now())
        generation.write(self._places, tables)
        self._ring_problem = None
        events = self._log(desired) if desired.settings["logging_enabled"] else None
        # Towards enforce the rules come first, so that a forwarder that cannot be started leaves the gateway closed;
        # towards observe they come last.
        if desired.enforce:
            network.lead_into_tun(self._fixed, enforce=True)
            self._load_rules(desired)
        if self._forwarder is not None:
            waker.discard(self._forwarder.child.pidfd)
        station = Station(self._tuns.tun, self._tuns.denied, self._places.run, self._fixed["forwarder_uid"])
        began = time.monotonic()
        try:
            self._forwarder = replace_forwarder(
                self._forwarder,
                station,
                generation.file(self._places, number),
                events,
                tell_denied=ruleset.has_limits(desired.settings, enforce=desired.enforce),
                meanwhile=lambda: self._while_loading(desired),
            )
            self._forwarder_enforces = desired.enforce
        except ProcessError:
            if self._forwarder is not None and self._forwarder.child.ended():
                self._end_forwarder()
            if desired.enforce and not self._forwarder_enforces:
                self._end_forwarder()  # it lets everything pass, which from here on nothing may
            raise
        finally:
            if self._forwarder is not None:
                waker.add(self._forwarder.child.pidfd)
        self._exporter.swapped(time.monotonic() - began)
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
            nft.load(ruleset.forget_flows(desired.settings, enforce=desired.enforce))

    def _is_bypassed(self, desired: Desired) -> bool:
        return self._forwarder is None and not desired.enforce

    def _stay_live(self) -> None:
        """Let replies pass for another while; when nobody does, they end."""
        applied = self._applied
        if applied is not None and applied.enforce and time.monotonic() >= self._live_until:
            timeout = applied.settings["flow_timeout"]
            nft.load(ruleset.stay_live(timeout))
            self._live_until = time.monotonic() + timeout / 4

    def _log(self, desired: Desired) -> Log | None:
        """Return where a forwarder's events go; None where there is no room for a ring, which holds up nothing else."""
        path = self._places.rings.events
        try:
            problem = ring.open_or_replace(path, desired.settings["ring_records"])
        except OSError as error:
            log.error("no events: %s: %s", path, error.strerror)
            self._ring_problem, self._ring_due = f"{path}: {error.strerror}", time.monotonic() + _RING_SECONDS
            return None
        if problem:
            log.error("event ring set aside: %s", problem)
        return log_of(path, desired.settings)

    # What others took away ----------------------------------------------------------------------------------

    def _judged(self, applied: Desired) -> Desired:
        """Return what a forwarder that has to be made again follows: what is applied; on the way to enforce, that."""
        desired = self._desired() if self._is_unsettled else applied
        return desired if desired.enforce and not applied.enforce else applied

    def _mend_kernel(self, waker: Waker) -> None:
        applied = self._applied
        assert applied is not None
        self._accounting.enable()
        judged = self._judged(applied)

        def remake_tun() -> None:
            self._tuns.remake()
            network.lead_into_tun(self._fixed, enforce=judged.enforce)
            self._new_generation(judged, waker)

        def remake_device() -> None:
            self._restarts["wireguard"] += 1
            self._device.ensure()
            wireguard.set_peers(self._device.name, applied.bundle.peers)

        def make_whole() -> None:
            self._is_unsettled = True  # the next step of this turn applies everything

        checks = self._kernel.checks(
            applied.bundle,
            enforce=judged.enforce,
            remake_tun=remake_tun,
            remake_device=remake_device,
            make_whole=None if self._is_unsettled else make_whole,
        )
        self._drifts.go_through(checks, repair=applied.settings["repair"] == "on")

    # The children -------------------------------------------------------------------------------------------

    def _mend_children(self, waker: Waker) -> None:
        applied = self._applied
        assert applied is not None
        judged = self._judged(applied)
        if self._forwarder is not None and self._forwarder.child.ended():
            log.error("forwarder ended with status %s; starting it again", self._forwarder.child.status)
            self._restarts["forwarder"] += 1
            waker.discard(self._forwarder.child.pidfd)
            self._backoff.after_death(time.monotonic() - self._forwarder.child.started)
            self._forwarder.close()
            self._forwarder = None
            if judged.enforce:
                self._forget_flows(judged)
            else:
                self._load_rules(judged, bypass=True)  # observe fails open
        if self._forwarder is None and time.monotonic() >= self._backoff.not_before:
            try:
                self._new_generation(judged, waker)
            except ProcessError as error:
                log.error("%s", error)
                self._backoff.after_death(0)

    def _keep_events(self, waker: Waker) -> None:
        assert self._applied is not None
        self._flows.keep(self._applied.settings)
        self._news.keep(self._applied.settings)
        self._flusher.keep(self._applied.settings, waker)

    # What it says -------------------------------------------------------------------------------------------

    def _peers(self) -> int:
        return len(self._applied.bundle.peers) if self._applied else 0

    def _log_generation(self) -> None:
        assert self._applied is not None
        mode, logging_on = (self._applied.settings[name] for name in ("authz_mode", "logging_enabled"))
        what = (self._generation, mode, "on" if logging_on else "off", self._peers())
        log.info("generation %d: %s, logging %s, %d peers", *what)

    def _line(self) -> str:
        mode = self._applied.settings["authz_mode"] if self._applied else "starting"
        line = f"generation {self._generation}: {mode}, {self._peers()} peers"
        return line + (f": {self._trouble}" if self._trouble else "")

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
            "settings": {name: value for name, value in current.items() if name not in FIXED},
            **self._inbox.status(),
            "trouble": self._trouble,
            "drift": dict(self._drifts.standing),
            "log_problem": self._ring_problem or self._news.problem or self._flusher.problem,
            "release": self._applied.release,
            "policy": self._applied.bundle.policy.document is not None,
            "peers": self._peers(),
            "forwarder": self._forwarder.child.pid if self._forwarder else None,
            "flusher": self._flusher.pid,
            "flow_records": self._flows.status(),
            "offloads": offload.NAMES[self._tuns.offloads],
            "wireguard_go": self._device.userspace.pid if self._device.userspace else None,
            "restarts": {**self._restarts, "flusher": self._flusher.restarts},
        }
        self._exporter.follow(current["metrics_listen"], status)
        if status != self._status:
            host.write_status(self._places, status)
            self._status = status
