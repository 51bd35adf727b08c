"""The names of drift, as `status`, metrics and events have them; what each means, `gateway.drift` says."""

from __future__ import annotations

NAMES = ("rules", "tun", "way", "device", "link", "peers", "routes", "forwarding")
