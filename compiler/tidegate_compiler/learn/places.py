"""Which resource of an inventory an address belongs to. Pure."""

from __future__ import annotations

import ipaddress

from tidegate_compiler.model import Inventory, Network
from tidegate_compiler.networks import Covering


class Places:
    """Answers by address; resources may overlap, so there may be several."""

    def __init__(self, inventory: Inventory) -> None:
        self._of: dict[Network, list[str]] = {}
        for name, resource in inventory.resources.items():
            for address in resource.addresses:
                self._of.setdefault(address.value, []).append(name)
        self._covering = Covering(self._of)
        self._known: dict[str, tuple[str, ...]] = {}

    def resources(self, address: str) -> tuple[str, ...]:
        """Return every resource that holds a written address, the one of the longest prefix first; () for none."""
        if address not in self._known:
            network = ipaddress.ip_network(address) if address else None
            held = list(self._covering.of(network)) if network else []
            self._known[address] = tuple(
                dict.fromkeys(name for prefix in reversed(held) for name in sorted(self._of[prefix]))
            )
        return self._known[address]

    def resource(self, address: str) -> str | None:
        """Return the resource with the longest prefix that holds an address."""
        return next(iter(self.resources(address)), None)
