"""A client's metrics: of its releases, and of each gateway."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from tidegate_agents import metricpage, wireguard
from tidegate_agents.host import Places
from tidegate_agents.metricpage import COMMON, Family, Sample
from tidegate_agents.metricserver import MetricServer
from tidegate_agents.wireguard import PeerState

FAMILIES: dict[str, Family] = {
    **COMMON,
    "tidegate_gateways": Family("gauge", "gateways", (), "Gateways on the interface, standbys among them."),
    "tidegate_gateway_handshake_age_seconds": Family(
        "gauge",
        "seconds",
        ("public_key",),
        "Time since the last handshake with a gateway; none before the first.",
    ),
    "tidegate_gateway_received_bytes_total": Family(
        "counter", "bytes", ("public_key",), "Received from a gateway, as WireGuard counts."
    ),
    "tidegate_gateway_sent_bytes_total": Family(
        "counter", "bytes", ("public_key",), "Sent to a gateway, as WireGuard counts."
    ),
}
"""Every metric of a client, in the order of the page."""


def samples(
    status: Mapping[str, Any], started: float, gateways: Mapping[str, PeerState], now: float
) -> Iterator[Sample]:
    """Yield the samples; times in Unix seconds."""
    yield from metricpage.of_agent(status, started)
    yield "tidegate_gateways", (), len(gateways)
    for key, peer in gateways.items():
        if peer.latest_handshake:
            yield "tidegate_gateway_handshake_age_seconds", (key,), max(0.0, now - peer.latest_handshake)
        yield "tidegate_gateway_received_bytes_total", (key,), peer.received
        yield "tidegate_gateway_sent_bytes_total", (key,), peer.sent


class Exporter:
    """The metrics' place in the agent."""

    def __init__(self, places: Places, interface: str) -> None:
        self._interface, self._started = interface, time.time()
        self._status: Mapping[str, Any] = {}
        self._server = MetricServer(places, self._page)

    def follow(self, listen: str, status: Mapping[str, Any]) -> None:
        """Take in what is so now, and serve where `listen` says."""
        self._status = status
        self._server.follow(listen)

    def stop(self) -> None:
        """Serve no more."""
        self._server.stop()

    def _page(self) -> bytes:
        try:
            gateways = wireguard.show(self._interface).peers
        except wireguard.WireGuardError:
            gateways = {}
        return metricpage.page(FAMILIES, samples(self._status, self._started, gateways, time.time()))
