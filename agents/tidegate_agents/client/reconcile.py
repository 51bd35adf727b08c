"""From the interface that is there to the one that is wanted: a list of actions, in the order that is safe. Pure.

What is ours on the interface: its peers, its addresses of global scope, its routes of protocol `boot`, its MTU, that it
is up, and its key. Whatever of these is not wanted goes; whatever is missing comes. Listen port and fwmark, and routes
that some other program has put there under its own protocol, are nobody's business here.

The order: what narrows comes first and what widens last, and between two actions everything is old or new, so that no
packet goes to a gateway that neither the old nor the new state would have sent it to. A link that is down takes no
routes, so it comes up before them.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from tidegate_agents import wireguard
from tidegate_agents.wireguard import PeerConfig, PeerState

DEFAULTS = frozenset({"0.0.0.0/0", "::/0"})
"""Prefixes that wg-quick(8) routes by rules and a table of its own, and nobody else here."""


class Verb(StrEnum):
    """What an action does; in the order in which they are done."""

    CREATE = "create-interface"
    RECREATE = "recreate-interface"
    REMOVE_ROUTE = "remove-route"
    REMOVE_PEER = "remove-peer"
    NARROW_PEER = "narrow-peer"
    SET_KEY = "set-key"
    SET_PEER = "set-peer"
    ADD_ADDRESS = "add-address"
    REMOVE_ADDRESS = "remove-address"
    SET_MTU = "set-mtu"
    SET_UP = "set-up"
    ADD_ROUTE = "add-route"


@dataclass(frozen=True)
class Action:
    """One step; `subject` is the prefix, the peer's key, the MTU or the interface's public key. `text` is one line."""

    verb: Verb
    subject: str
    text: str
    peer: PeerConfig | None = None


@dataclass(frozen=True)
class Wanted:
    """The interface as it should be; `key` is its public key, base64."""

    key: str
    peers: Mapping[str, PeerConfig]
    addresses: frozenset[str]
    routes: frozenset[str]
    mtu: int


@dataclass(frozen=True)
class Link:
    """What ip(8) says of the interface."""

    addresses: frozenset[str]
    routes: frozenset[str]
    mtu: int
    up: bool


@dataclass(frozen=True)
class Observed:
    """The interface as it is."""

    key: str
    peers: Mapping[str, PeerState]
    link: Link
    fwmark: int = 0


def plan(wanted: Wanted, observed: Observed | None, roaming_at: float | None = None) -> list[Action]:
    """Return what is to be done, nothing when all is as wanted; `observed` is None when there is no interface.

    With `roaming_at`, the time now in Unix seconds, a peer with a live session keeps the endpoint that it has: only
    its holder can have moved it (WireGuard, section 2.1), and setting it back would cut it off.
    """
    if observed is None:
        return [Action(Verb.CREATE, "", f"bring the interface up: {_sum(wanted)}")]
    link = observed.link
    if (wanted.routes ^ link.routes) & DEFAULTS:
        text = f"take the interface down and bring it up, as its default route changes: {_sum(wanted)}"
        return [Action(Verb.RECREATE, "", text)]
    actions = [
        Action(Verb.REMOVE_ROUTE, one, f"remove route {one}") for one in _sorted(link.routes - wanted.routes)
    ]
    actions += _peers(wanted, observed, roaming_at)
    gone, new = link.addresses - wanted.addresses, wanted.addresses - link.addresses
    actions += [Action(Verb.ADD_ADDRESS, one, f"add address {one}") for one in _sorted(new)]
    actions += [Action(Verb.REMOVE_ADDRESS, one, f"remove address {one}") for one in _sorted(gone)]
    if link.mtu != wanted.mtu:
        actions.append(Action(Verb.SET_MTU, str(wanted.mtu), f"set MTU {wanted.mtu}, which is {link.mtu}"))
    if not link.up:
        actions.append(Action(Verb.SET_UP, "", "set the link up"))
    return actions + [
        Action(Verb.ADD_ROUTE, one, f"add route {one}") for one in _sorted(wanted.routes - link.routes)
    ]


def _peers(wanted: Wanted, observed: Observed, roaming_at: float | None) -> list[Action]:
    have = {key: state.config for key, state in observed.peers.items()}
    want = dict(wanted.peers)
    if roaming_at is not None:
        for key, state in observed.peers.items():
            if key in want and state.has_session(roaming_at):
                want[key] = replace(want[key], endpoint=state.config.endpoint)
    change = wireguard.difference(have, want)
    actions = [Action(Verb.REMOVE_PEER, key, f"remove peer {key}") for key in change.remove]
    for key, peer in change.shrink.items():
        gone = ", ".join(_sorted(have[key].allowed_ips - peer.allowed_ips))
        actions.append(Action(Verb.NARROW_PEER, key, f"take {gone} from peer {key}", peer))
    if observed.key != wanted.key:
        actions.append(Action(Verb.SET_KEY, wanted.key, f"set the private key of {wanted.key}"))
    for key, peer in change.grow.items():
        old = change.shrink.get(key, have.get(key))
        text = f"add peer {key}: {_says(peer)}" if old is None else _difference(key, old, peer)
        if text:
            actions.append(Action(Verb.SET_PEER, key, text, peer))
    return actions


def _difference(key: str, old: PeerConfig, new: PeerConfig) -> str:
    said = []
    if new.endpoint is not None and new.endpoint != old.endpoint:
        said.append(f"endpoint {new.endpoint}, which is {old.endpoint or 'not set'}")
    if more := new.allowed_ips - old.allowed_ips:
        said.append(f"give it {', '.join(_sorted(more))}")
    if new.persistent_keepalive != old.persistent_keepalive:
        said.append(f"keepalive {new.persistent_keepalive} s, which is {old.persistent_keepalive} s")
    return f"peer {key}: {'; '.join(said)}" if said else ""


def _says(peer: PeerConfig) -> str:
    return f"{peer.endpoint}, {', '.join(_sorted(peer.allowed_ips)) or 'standby'}"


def _sum(wanted: Wanted) -> str:
    return f"{', '.join(_sorted(wanted.addresses))}, {len(wanted.peers)} gateways, MTU {wanted.mtu}"


def _sorted(prefixes: Iterable[str]) -> list[str]:
    return sorted(prefixes, key=lambda text: ((net := ipaddress.ip_network(text)).version, net))
