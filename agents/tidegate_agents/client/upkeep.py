"""What an agent does for an interface that is up: drift, failover and rotation, from one look at it each time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from tidegate_agents import wireguard
from tidegate_agents.client import interface, probe, reconcile, render
from tidegate_agents.client.drift import Drift
from tidegate_agents.client.failover import Failover, Traffic
from tidegate_agents.client.reconcile import Link, Observed
from tidegate_agents.client.rotation import Rotation
from tidegate_agents.host import HostError, Places
from tidegate_agents.hostevents import Tell
from tidegate_agents.watch import POLL_SECONDS
from tidegate_schema.wgquick import ClientConfig

_LINK_SECONDS = 30.0  # what the kernel tells of is looked at when it does
_STANDBY_SECONDS, _SOON_SECONDS = 1.0, 0.5


class Upkeep:
    """Keeps one interface going between two releases. `follow` before each `look`."""

    def __init__(self, places: Places, name: str, probe_name: str, tell: Tell) -> None:
        self._places, self._name, self._tell = places, name, tell
        self._failover = Failover()
        self._drift = Drift(tell)
        self._rotation = Rotation(places, name, probe_name, tell)
        self._bundle: ClientConfig | None = None
        self._link: tuple[Link, float] | None = None
        self._heard = False
        self._moved: dict[str, float] = {}
        self.wait_seconds = POLL_SECONDS
        """How long to wait before the next look."""

    def follow(self, bundle: ClientConfig) -> ClientConfig:
        """Return the bundle with each group's networks at the gateway that carries them now."""
        if bundle != self._bundle:
            peers = probe.peers(self._name) if self._bundle is None else {}
            holding = {key: peer.config.allowed_ips for key, peer in peers.items()}
            self._failover.follow(bundle, holding or None)
            self._bundle = bundle
        return self._failover.assigned(bundle)

    def applied(self) -> None:
        """Take in that the interface was made as wanted."""
        self._link = None
        self._drift.found(())

    def heard_of_a_change(self) -> None:
        """Take in that the kernel has told of some link, address or route: it is looked at next."""
        self._link, self._heard = None, True

    def look(self, config: ClientConfig, settings: Mapping[str, Any]) -> bool:
        """Look at the interface, probe what is to be probed; tell whether it is to be made as wanted again."""
        now, repair = time.monotonic(), bool(settings["repair"] == "on")
        observed = self._observe(now)
        if observed is not None:
            interface.refuse_strangers(self._places, self._name, observed.key)
        target = interface.wanted(self._places, config, settings)
        drift = reconcile.plan(target, observed, time.time())
        self._drift.found(drift)
        if observed is None:
            return repair
        if self._heard:
            interface.find_source_anew(self._name, observed.peers)
            self._heard = False
        peers = render.peers(config, settings)
        traffic = {
            key: Traffic(peer.latest_handshake, peer.received, peer.sent)
            for key, peer in observed.peers.items()
        }
        keepalives = {key: peer.config.persistent_keepalive for key, peer in observed.peers.items()}
        orders = self._failover.look(now, traffic, keepalives, settings["failback_after"])
        for key in orders.probe:
            if key in observed.peers:
                interface.shake(self._name, key, peers[key])
        for move in orders.moves:
            self._moved[move.target] = time.time()
            self._tell("failover", before=move.source, gateway=move.target, reason=move.why)
        self._rotation.look(now, observed, config, self._failover)
        self.wait_seconds = min(self._rotation.wait_seconds, self._pace(soon=orders.soon))
        return bool(orders.moves) or (repair and bool(drift))

    def _pace(self, *, soon: bool) -> float:
        if soon:
            return _SOON_SECONDS
        standbys = any(len(group.gateways) > 1 for group in self._failover.groups)
        return _STANDBY_SECONDS if standbys else POLL_SECONDS

    def _observe(self, now: float) -> Observed | None:
        if self._link is None or now - self._link[1] > _LINK_SECONDS or not interface.exists(self._name):
            observed = interface.observe(self._name)
            self._link = None if observed is None else (observed.link, now)
            return observed
        try:
            device = wireguard.show(self._name)
        except HostError:
            if interface.exists(self._name):
                raise
            return None
        return Observed(device.public_key, device.peers, self._link[0], device.fwmark)

    def close(self) -> None:
        """Take away what is only for the upkeep."""
        self._rotation.close()

    def status(self) -> dict[str, Any]:
        """Return what a status says: groups with the gateway in use, drift, rotation."""
        groups = []
        for group in self._failover.groups:
            since = self._moved.get(group.carrier) if group.changed is not None else None
            groups.append(
                {"gateways": list(group.gateways), "active": group.carrier, "since": since, "why": group.why}
            )
        last = self._drift.last
        return {
            "groups": groups,
            "drift": None if last is None else asdict(last) | {"count": self._drift.count},
            "rotation": self._rotation.status(),
        }
