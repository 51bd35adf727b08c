"""Speak with WireGuard through wg(8), kernel and userspace devices alike.

`wg setconf` and `syncconf` clear what their input leaves out: the private key, the listen port, the fwmark. So
neither is used. `wg addconf` only adds and changes peers, and `wg set … peer … remove` only removes; together they
turn the observed peers into the desired ones without touching the device or another peer's session.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from tidegate_agents import tools
from tidegate_agents.host import HostError

SESSION_SECONDS = 180.0
"""A session is not used for longer: REJECT_AFTER_TIME, section 6.1 of https://www.wireguard.com/papers/wireguard.pdf."""
_SECONDS = 20.0  # a device that hangs must not hang its supervisor for good
_SET_AT_ONCE = 5000  # peers; wireguard-go took 2 s for as many on a busy machine
_REMOVE_AT_ONCE = 500  # peers named on one command line: far below ARG_MAX


class WireGuardError(HostError):
    """wg(8) refused; the message is its own line."""


@dataclass(frozen=True)
class PeerConfig:
    """A peer as it should be, or as it is. An endpoint of None is left as it is."""

    allowed_ips: frozenset[str]
    endpoint: str | None = None
    persistent_keepalive: int = 0


@dataclass(frozen=True)
class PeerState:
    """What a device says of one peer; `latest_handshake` in Unix seconds, 0 for never."""

    config: PeerConfig
    latest_handshake: int
    received: int
    sent: int

    def has_session(self, now: float) -> bool:
        """Tell whether it has shaken hands so lately that its session may still live; `now` in Unix seconds.

        A device tells of handshakes by the clock of their time: one that was set back a little ends no session, and by
        one that was set back far every session has ended, else none ever would.
        """
        return self.latest_handshake > 0 and abs(now - self.latest_handshake) < SESSION_SECONDS


@dataclass(frozen=True)
class DeviceState:
    """What `wg show DEVICE dump` says."""

    public_key: str
    listen_port: int
    fwmark: int
    peers: Mapping[str, PeerState]


def run(*command: str, text: str | None = None) -> str:
    """Run one wg(8) command; WireGuardError with its last line when it fails."""
    try:
        done = tools.run("wg", *command, text=text, seconds=_SECONDS)
    except subprocess.TimeoutExpired:
        raise WireGuardError(f"wg {command[0]}: no answer within {_SECONDS:.0f} s") from None
    if done.returncode:
        raise WireGuardError((done.stderr.strip() or f"wg {command[0]} failed").splitlines()[-1])
    return done.stdout


def identity(device: str) -> tuple[str, int]:
    """Return a device's public key and listen port, without its peers."""
    port = run("show", device, "listen-port").strip()
    return run("show", device, "public-key").strip(), int(port)


def show(device: str) -> DeviceState:
    """Read a device's state."""
    lines = run("show", device, "dump").splitlines()
    # The first field of the first line is the private key: it is skipped here and kept nowhere.
    _, public_key, listen_port, fwmark = lines[0].split("\t")
    peers = {}
    for line in lines[1:]:
        key, _, endpoint, allowed, handshake, received, sent, keepalive = line.split("\t")
        config = PeerConfig(
            frozenset() if allowed == "(none)" else frozenset(allowed.split(",")),
            None if endpoint == "(none)" else endpoint,
            0 if keepalive == "off" else int(keepalive),
        )
        peers[key] = PeerState(config, int(handshake), int(received), int(sent))
    return DeviceState(public_key, int(listen_port), 0 if fwmark == "off" else int(fwmark, 16), peers)


@dataclass(frozen=True)
class PeerChange:
    """The way from observed to desired peers: first `shrink`, then `grow`, so that an address moves safely."""

    remove: tuple[str, ...]
    shrink: Mapping[str, PeerConfig]
    grow: Mapping[str, PeerConfig]

    def __bool__(self) -> bool:
        return bool(self.remove or self.shrink or self.grow)


def difference(observed: Mapping[str, PeerConfig], desired: Mapping[str, PeerConfig]) -> PeerChange:
    """Return what to change; peers that are as desired are in no part of it."""
    remove = tuple(sorted(observed.keys() - desired.keys()))
    shrink, grow = {}, {}
    for key, want in desired.items():
        have = observed.get(key)
        if have is not None and not have.allowed_ips <= want.allowed_ips:
            shrink[key] = replace(have, allowed_ips=have.allowed_ips & want.allowed_ips)
        if have is None or _differs(have, want):
            grow[key] = want
    return PeerChange(remove, shrink, grow)


def _differs(have: PeerConfig, want: PeerConfig) -> bool:
    if want.endpoint is not None and want.endpoint != have.endpoint:
        return True
    return have.allowed_ips != want.allowed_ips or have.persistent_keepalive != want.persistent_keepalive


def remove_peers(device: str, keys: Iterable[str]) -> None:
    """Take peers off a device."""
    every = list(keys)
    for start in range(0, len(every), _REMOVE_AT_ONCE):
        chunk = every[start : start + _REMOVE_AT_ONCE]
        run("set", device, *(word for key in chunk for word in ("peer", key, "remove")))


def set_peers(device: str, peers: Mapping[str, PeerConfig]) -> None:
    """Add peers, or change them to this; other peers and the device itself stay untouched."""
    sections = [_section(key, peer) for key, peer in peers.items()]
    for start in range(0, len(sections), _SET_AT_ONCE):
        run("addconf", device, "/dev/stdin", text="".join(sections[start : start + _SET_AT_ONCE]))


def _section(key: str, peer: PeerConfig) -> str:
    lines = ["[Peer]", f"PublicKey = {key}"]
    if peer.endpoint is not None:
        lines.append(f"Endpoint = {peer.endpoint}")
    if peer.allowed_ips:
        lines.append(f"AllowedIPs = {', '.join(sorted(peer.allowed_ips))}")
    lines.append(f"PersistentKeepalive = {peer.persistent_keepalive}")
    return "\n".join(lines) + "\n"
