"""What others changed of the gateway's in the kernel: found by comparing, named, told, and repaired.

    rules        the nftables table          tun     a TUN is gone           way     rule, routes, address into the TUN
    device       WireGuard's interface       link    it is down              peers   its peers and their AllowedIPs
    routes       routes to clients           forwarding                      the kernel's switch

With `repair: report` drift is only told of, but for what would open something in enforce: rules, without which the
kernel forwards by itself, and peers, since an address that another key was given counts as its client's. And but for
TUNs, without which no forwarder starts, and so no later release, which may take access away, could be applied.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tidegate_agents import wireguard
from tidegate_agents.gateway import network, nft
from tidegate_agents.gateway.desired import GatewayBundle
from tidegate_agents.gateway.device import Device
from tidegate_agents.gateway.tuns import Tuns
from tidegate_agents.hostevents import HostEvent, HostEvents

# How often the routes to clients are compared, and up to how many: 512 of them took 0.11 s (one run).
_ROUTES_SECONDS, _ROUTES_LOOKED_AT = 10.0, 512
# How often the peers are: wireguard-go takes more than a second to tell 50,000, and holds packets up meanwhile.
_PEERS_SECONDS, _MANY_PEERS_SECONDS, _MANY_PEERS = 10.0, 600.0, 1000


class Check(NamedTuple):
    """One comparison: what is wrong, or None; and what makes it right. `always`: also when it is only to be told of."""

    name: str
    look: Callable[[], str | None]
    repair: Callable[[], None]
    always: bool = False


class Drifts:
    """What was found, and has not gone since; tells each once."""

    def __init__(self, events: HostEvents) -> None:
        self._events = events
        self.standing: dict[str, str] = {}
        """What is wrong now, by name."""

    def go_through(self, checks: Iterable[Check], *, repair: bool) -> None:
        """Look at everything in order, and repair what is to be; whatever a repair raises ends the round."""
        for check in checks:
            found = check.look()
            if found is None:
                self.standing.pop(check.name, None)
                continue
            if self.standing.get(check.name) != found:
                self.standing[check.name] = found
                self._events.tell(HostEvent.DRIFT_FOUND, name=check.name, what=found)
            if repair or check.always:
                check.repair()
                del self.standing[check.name]
                self._events.tell(HostEvent.DRIFT_REPAIRED, name=check.name)


class Kernel:
    """The gateway's parts in the kernel, as they can be compared with what they should be."""

    def __init__(self, fixed: Mapping[str, Any], device: Device, tuns: Tuns, rules: nft.Rules) -> None:
        self._fixed, self._device, self._tuns, self._rules = fixed, device, tuns, rules
        self._routes_due = self._peers_due = 0.0

    def peer_change(self, bundle: GatewayBundle) -> wireguard.PeerChange:
        """Look at the peers that there are, and return what makes them those of a bundle."""
        few = len(bundle.peers) <= _MANY_PEERS
        self._peers_due = time.monotonic() + (_PEERS_SECONDS if few else _MANY_PEERS_SECONDS)
        return self._difference(bundle)

    def _difference(self, bundle: GatewayBundle) -> wireguard.PeerChange:
        observed = {key: peer.config for key, peer in wireguard.show(self._device.name).peers.items()}
        return wireguard.difference(observed, bundle.peers)

    def are_loaded(self, bundle: GatewayBundle) -> bool:
        """Tell whether the peers are those of a bundle; of very many it is not asked again what wg(8) has taken.

        A device that does not answer has not loaded them.
        """
        if len(bundle.peers) > _MANY_PEERS:
            return True
        try:
            return not self._difference(bundle)
        except wireguard.WireGuardError:
            return False

    def rules(self) -> str | None:
        """Compare the nftables table with how it was left."""
        return "the nftables table was changed by somebody else" if self._rules.are_changed() else None

    def tun(self) -> str | None:
        """Look whether the TUNs are there."""
        gone = self._tuns.gone()
        return f"{' and '.join(gone)} is gone" if gone else None

    def way(self, *, enforce: bool) -> str | None:
        """Compare the way into the TUN; not while there is none."""
        if self._tuns.gone() or network.is_led(self._fixed, enforce=enforce):
            return None
        return f"the way into {self._fixed['tun']} was changed by somebody else"

    def lead(self, *, enforce: bool) -> None:
        """Make the way again."""
        self._tuns.bring_up()
        network.give_address(self._fixed)
        network.lead_into_tun(self._fixed, enforce=enforce)

    def device(self) -> str | None:
        """Look whether the interface, and the process behind it, is there."""
        return f"{self._device.name} is gone" if self._device.lost() else None

    def link(self) -> str | None:
        """Look whether the interface is up; not while there is none."""
        if self._device.lost() or network.is_up(self._device.name):
            return None
        return f"{self._device.name} is down"

    def peers(self, bundle: GatewayBundle) -> str | None:
        """Compare the peers."""
        return "peers were changed by somebody else" if self.peer_change(bundle) else None

    def routes(self, bundle: GatewayBundle) -> str | None:
        """Compare the routes to clients."""
        self._routes_due = time.monotonic() + _ROUTES_SECONDS
        if network.client_routes(self._device.name) == bundle.routes:
            return None
        return "routes to clients were changed by somebody else"

    @staticmethod
    def forwarding() -> str | None:
        """Look whether this host forwards."""
        off = network.Forwarding.off()
        return f"forwarding of {' and '.join(sorted(off))} is off" if off else None

    def checks(
        self,
        bundle: GatewayBundle,
        *,
        enforce: bool,
        remake_tun: Callable[[], None],
        remake_device: Callable[[], None],
        make_whole: Callable[[], None] | None,
    ) -> Iterator[Check]:
        """Yield what is compared now, in an order in which each rests on those before it.

        `make_whole` mends peers; without it they are not compared. What is not due, or cannot be told while something
        else is gone, is left out, and stands as it was found last.
        """
        has_died = self._device.has_died()

        def bring_up() -> None:
            self._device.up()
            network.set_routes(self._device.name, bundle.routes)

        yield Check("rules", self.rules, self._rules.reload, enforce)
        yield Check("tun", self.tun, remake_tun, True)
        yield Check("way", lambda: self.way(enforce=enforce), lambda: self.lead(enforce=enforce))
        yield Check("device", self.device, remake_device, has_died)
        yield Check("link", self.link, bring_up, has_died)
        is_there = not self._device.lost()
        if make_whole is not None and is_there and time.monotonic() >= self._peers_due:
            yield Check("peers", lambda: self.peers(bundle), make_whole, enforce)
        are_due = time.monotonic() >= self._routes_due and len(bundle.routes) <= _ROUTES_LOOKED_AT
        if are_due and network.is_up(self._device.name):
            repair_routes = functools.partial(network.set_routes, self._device.name, bundle.routes)
            yield Check("routes", lambda: self.routes(bundle), repair_routes)
        yield Check("forwarding", self.forwarding, network.Forwarding.enable)
