"""A change of keys: the next key is tried on an interface of its own until a gateway knows it, then taken up.

The session under the key in use is not disturbed before. The second interface has neither address nor route and its
peers carry nothing: it does handshakes and nothing else. When one is answered, the key files change over, the interface
in use is given the new key and shakes hands at once. The key before is kept until the new one has carried for a while.
If no gateway answers the new one any more by then, the previous key is tried in the same way, and taken back.

docs/adr/0013-a-second-interface-tries-the-next-key.md says why not by turns on one interface.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tidegate_agents import wireguard
from tidegate_agents.client import interface, keyfiles
from tidegate_agents.client.failover import Failover
from tidegate_agents.client.keyfiles import CURRENT, NEXT, PREVIOUS
from tidegate_agents.client.reconcile import Observed
from tidegate_agents.host import HostError, Places
from tidegate_agents.hostevents import Tell
from tidegate_agents.watch import POLL_SECONDS
from tidegate_agents.wireguard import SESSION_SECONDS, PeerConfig
from tidegate_schema.wgquick import ClientConfig

log = logging.getLogger("tidegate.client")

FAST_SECONDS = 1.0
"""Between two tries of the other key while what is sent is not answered, as when a gateway has dropped the old key."""
SLOW_SECONDS = 15.0
"""The same otherwise: each try costs a gateway that does not know the key a computation."""
_SILENCE_SECONDS = {NEXT: 0.0, PREVIOUS: 1.0}
"""So long nothing may come back before the tries are fast."""
_GIVE_UP_SECONDS = 3.0  # WireGuard itself would try again every 5 s for 90 s
CONFIRM_SECONDS = 600.0
"""So long a new key has to carry before the one before it is destroyed."""
_LOOK_SECONDS, _LOOK_FAST_SECONDS = 0.5, 0.2


class Rotation:
    """What is known of a change of keys. `look` again and again; `close` at the end."""

    def __init__(self, places: Places, name: str, probe_name: str, tell: Tell) -> None:
        self._places, self._name, self._probe = places, name, probe_name
        self._tell = tell
        self._tries: str | None = None
        """The key that the second interface has: NEXT or PREVIOUS, with its public key."""
        self._public = ""
        self._shaken = -math.inf
        self._asked: tuple[str, ...] = ()
        self._switched = (time.time(), time.monotonic())
        self._handshakes: Mapping[str, int] | None = None
        """What the device said of them at the last look since the change-over."""
        self._heard = -math.inf
        """When one of them was another, so that the key in use carries; by the clock that no one sets."""
        self._keys: dict[str, str] = {}
        self._problem: str | None = None
        self.wait_seconds = POLL_SECONDS
        """How long to wait before the next look."""

    def look(self, now: float, observed: Observed, config: ClientConfig, failover: Failover) -> None:
        """Go on with what is pending, if anything is."""
        try:
            self._look(now, observed, config, failover)
            self._problem = None
        except (HostError, OSError) as error:
            if self._problem != str(error):
                log.error("change of keys: %s; trying again", error)
            self._problem = str(error)

    def _look(self, now: float, observed: Observed, config: ClientConfig, failover: Failover) -> None:
        self._keys = dict(keyfiles.public_keys(self._places))
        which = NEXT if NEXT in self._keys else PREVIOUS if PREVIOUS in self._keys else None
        if which is None or self._public != self._keys[which]:
            self._down()
        if which == PREVIOUS and self._confirmed(observed, now):
            keyfiles.destroy(self._places, PREVIOUS)
            self._tell("key-rotated", public_key=self._keys[CURRENT], destroyed=self._keys.pop(PREVIOUS))
            self._down()
            which = None
        if which is None:
            self.wait_seconds = POLL_SECONDS
            return
        self._up(which, observed.fwmark)
        self._try(which, [group.carrier for group in failover.groups], observed, config, failover, now)

    def _try(
        self,
        which: str,
        carriers: Sequence[str],
        observed: Observed,
        config: ClientConfig,
        failover: Failover,
        now: float,
    ) -> None:
        silences = [failover.health[key].unanswered() for key in carriers]
        # One gateway that knows the next key is enough to go forward; to go back, none may be left that knows this one.
        some = any if which == NEXT else all
        unanswered = some(since is not None and now - since >= _SILENCE_SECONDS[which] for since in silences)
        self.wait_seconds = _LOOK_FAST_SECONDS if unanswered else _LOOK_SECONDS
        if self._answered():
            self._change_over(which, carriers, observed, failover)
            return
        every = FAST_SECONDS if unanswered else SLOW_SECONDS if which == NEXT else math.inf
        if now - self._shaken >= every and every < math.inf:
            self._ask(carriers, config)
            self._shaken = now
        elif now - self._shaken > _GIVE_UP_SECONDS and self._asked:
            wireguard.remove_peers(self._probe, self._asked)
            self._asked = ()

    def _ask(self, carriers: Sequence[str], config: ClientConfig) -> None:
        endpoints = {peer.public_key: peer.endpoint for peer in config.peers}
        for key in carriers:
            interface.shake(self._probe, key, PeerConfig(frozenset(), endpoints[key], 1))
        self._asked = tuple(carriers)

    def _answered(self) -> bool:
        if not self._asked:
            return False
        return any(peer.latest_handshake for peer in wireguard.show(self._probe).peers.values())

    def _change_over(
        self, which: str, carriers: Sequence[str], observed: Observed, failover: Failover
    ) -> None:
        self._down()  # first, so that the gateway's session is not drawn back to it
        (keyfiles.take_up_next if which == NEXT else keyfiles.go_back)(self._places)
        use(self._places, self._name, carriers, observed)
        failover.forget()
        self._switched = (time.time(), time.monotonic())
        self._handshakes, self._heard = _handshakes(observed), -math.inf
        self._keys = dict(keyfiles.public_keys(self._places))
        self._tell("key-rotated", public_key=self._keys[CURRENT], back=which == PREVIOUS)

    def _confirmed(self, observed: Observed, now: float) -> bool:
        # Handshakes are told by a clock that may be set back or ahead, so what counts is that there was another one.
        handshakes = _handshakes(observed)
        before, self._handshakes = self._handshakes, handshakes
        if before is not None and any(then not in (0, before.get(key)) for key, then in handshakes.items()):
            self._heard = now
        return now - self._heard < SESSION_SECONDS and now - self._switched[1] > CONFIRM_SECONDS

    def _up(self, which: str, fwmark: int) -> None:
        if self._tries == which and interface.exists(self._probe):
            return
        if interface.exists(self._probe):
            if not interface.is_ours(self._places, self._probe):
                raise HostError(
                    f"{self._probe} is there and not ours; remove it, or name another 'probe_interface'"
                )
            self._down()
        lines = [
            "# Written by 'tidegate client run' while a change of keys is pending.",
            "[Interface]",
            "Table = off",
        ]
        lines += [f"FwMark = {fwmark}"] if fwmark else []
        lines += [f"PostUp = wg set %i private-key {keyfiles.path(self._places, which)}"]
        interface.up(self._places, self._probe, "\n".join(lines) + "\n")
        self._tries, self._public, self._shaken, self._asked = which, self._keys[which], -math.inf, ()

    def _down(self) -> None:
        interface.down(self._places, self._probe)
        self._tries, self._public, self._shaken, self._asked = None, "", -math.inf, ()

    def close(self) -> None:
        """Take the second interface away."""
        self._down()

    def status(self) -> dict[str, Any] | None:
        """Return what a status says of a pending or unconfirmed change, None when there is none."""
        if NEXT not in self._keys and PREVIOUS not in self._keys and self._problem is None:
            return None
        return {
            "next": self._keys.get(NEXT),
            "previous": self._keys.get(PREVIOUS),
            "since": self._switched[0] if PREVIOUS in self._keys else None,
            "problem": self._problem,
        }


def _handshakes(observed: Observed) -> dict[str, int]:
    return {key: peer.latest_handshake for key, peer in observed.peers.items()}


def use(places: Places, name: str, carriers: Sequence[str], observed: Observed) -> None:
    """Give the interface the key in use, and make it shake hands with whoever carries, as its sessions end by that."""
    wireguard.run("set", name, "private-key", str(places.key))
    for key in carriers:
        keepalive = observed.peers[key].config.persistent_keepalive if key in observed.peers else 0
        for seconds in (0, 1, keepalive):  # one that is switched on is sent at once
            wireguard.run("set", name, "peer", key, "persistent-keepalive", str(seconds))
