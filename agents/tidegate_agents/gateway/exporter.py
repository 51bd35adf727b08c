"""The metrics' place in the supervisor: what it says of itself, gathered with the rest into a page."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from tidegate_agents.gateway import metrics
from tidegate_agents.gateway.facts import Gatherer
from tidegate_agents.gateway.metrics import Told
from tidegate_agents.host import Places
from tidegate_agents.metricserver import MetricServer


class Exporter:
    """It is told what is so, and serves it where `metrics_listen` says."""

    def __init__(self, places: Places, interface: str, tun: str) -> None:
        self._gatherer = Gatherer(places, interface, tun)
        self._server = MetricServer(places, self._page)
        self._started = time.time()
        self._swaps, self._swap_seconds, self._last_swap = 0, 0.0, 0.0
        self._told: Told | None = None

    def swapped(self, seconds: float) -> None:
        """Count a forwarder that took over, after so many seconds."""
        self._swaps += 1
        self._swap_seconds += seconds
        self._last_swap = seconds

    def follow(self, listen: str, status: Mapping[str, Any]) -> None:
        """Take in what is so now, and serve where `listen` says; what cannot be is logged and tried again."""
        self._told = Told(status, self._started, self._swaps, self._swap_seconds, self._last_swap)
        self._server.follow(listen)

    def stop(self) -> None:
        """Serve no more."""
        self._server.stop()

    def _page(self) -> bytes:
        assert self._told is not None
        return metrics.page(self._gatherer.gather(self._told))
