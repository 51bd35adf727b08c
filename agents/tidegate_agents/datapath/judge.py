"""From an inner packet to a verdict: source address -> client ID -> policy, with a reason in every case.

WireGuard's cryptokey routing lets a peer use only its own AllowedIPs as source (wg(8)), so the source address
names the client that WireGuard confirmed. `observe` is not here: it asks nobody.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from tidegate_agents.datapath.packet import LATER, WHOLE, Packet, parse_embedded
from tidegate_schema.policy import PolicyTable, Reason, Verdict

FRAGMENT_SECONDS = 30.0  # as long as Linux keeps an incomplete packet (net.ipv4.ipfrag_time)
FRAGMENTS_MAX = 4096

_UNPARSEABLE = Verdict(False, Reason.UNPARSEABLE, None)
_UNKNOWN_SOURCE = Verdict(False, Reason.UNKNOWN_SOURCE, None)
_FRAGMENT = Verdict(False, Reason.FRAGMENT, None)


@dataclass(frozen=True)
class Tables:
    """All that one generation of the forwarder knows; written once, never changed."""

    generation: int
    enforce: bool
    clients: Mapping[bytes, str]
    """Source address, 4 or 16 bytes -> client ID."""
    policy: PolicyTable
    not_earlier_than: float = 0.0
    """The highest time this gateway has seen: a clock set back revives no grant."""

    @classmethod
    def parse(cls, data: bytes) -> Tables:
        """Read what the supervisor wrote for this generation (`gateway.generation.write`)."""
        document: dict[str, Any] = json.loads(data)
        return cls(
            document["generation"],
            document["enforce"],
            {bytes.fromhex(address): client for address, client in document["clients"].items()},
            PolicyTable(document["policy"]),
            document["not_earlier_than"],
        )


class _Seen(NamedTuple):
    verdict: Verdict
    until: float


class Judge:
    """Judges packets in enforce. Its only state is the bounded, timed memory of first fragments."""

    def __init__(self, tables: Tables) -> None:
        self._clients = tables.clients
        self._decide = tables.policy.decide
        self._fragments: dict[tuple[bytes, bytes, int, int], _Seen] = {}

    def judge(self, packet: Packet | None, now: float) -> Verdict:
        """Return the verdict for one packet (None: unparseable) at Unix time `now`."""
        if packet is None:
            return _UNPARSEABLE
        client = self._clients.get(packet.source)
        if client is None:
            return _UNKNOWN_SOURCE
        if packet.fragment == WHOLE:
            return self._whole(client, packet, now)
        key = (packet.source, packet.destination, packet.protocol, packet.fragment_id)
        seen = self._fragments.get(key)
        if packet.fragment == LATER:
            return seen.verdict if seen is not None and now < seen.until else _FRAGMENT
        verdict = self._whole(client, packet, now)
        if seen is not None and now < seen.until and not seen.verdict.allow:
            verdict = seen.verdict  # a second first fragment never turns a denial around
        self._remember(key, _Seen(verdict, now + FRAGMENT_SECONDS))
        return verdict

    def _whole(self, client: str, packet: Packet, now: float) -> Verdict:
        if packet.embedded is None:
            return self._decide(client, packet.destination, packet.protocol, packet.port, now)
        # An ICMP error is part of the conversation it reports on: the quoted packet came from the destination to
        # this client, so the error is allowed where the client may talk to that packet's sender and port. The
        # kernel then still wants the quoted flow to exist (ruleset: `ct state related`).
        quoted = parse_embedded(packet.embedded)
        if quoted is None or quoted.source != packet.destination or quoted.destination != packet.source:
            return _UNPARSEABLE
        return self._decide(client, quoted.source, quoted.protocol, quoted.source_port, now)

    def _remember(self, key: tuple[bytes, bytes, int, int], seen: _Seen) -> None:
        if len(self._fragments) >= FRAGMENTS_MAX and key not in self._fragments:
            self._fragments.pop(
                next(iter(self._fragments))
            )  # the oldest, and with it nothing but its later parts
        self._fragments[key] = seen
