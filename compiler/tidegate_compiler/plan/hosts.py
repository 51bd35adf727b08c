"""The bundles of a side: the bytes that its hosts are sent, and which of them differ from another side's.

Those of an inventory are rendered when somebody asks for one. A change touches few of a hundred thousand, and the
others are told by the values that they are rendered from.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import TypeAlias, TypeVar

from tidegate_compiler.render import of_client, of_gateway
from tidegate_compiler.resolve import ClientHost, Fleet, GatewayHost

Key: TypeAlias = tuple[str, str]
"""A host: its kind, client or gateway, and its name."""
Hosts: TypeAlias = Mapping[Key, Mapping[str, bytes]]


class Rendered(Hosts):
    """The bundles of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        """Hold those of every host of `fleet`."""
        self.fleet = fleet
        self._known: dict[Key, Mapping[str, bytes]] = {}

    def __getitem__(self, key: Key) -> Mapping[str, bytes]:
        """Return a host's files, rendered once."""
        if key not in self._known:
            kind, name = key
            if kind == "client":
                self._known[key] = of_client(self.fleet.clients[name])
            else:
                self._known[key] = of_gateway(self.fleet.gateways[name])
        return self._known[key]

    def __iter__(self) -> Iterator[Key]:
        """Yield every host."""
        yield from (("client", name) for name in self.fleet.clients)
        yield from (("gateway", name) for name in self.fleet.gateways)

    def __len__(self) -> int:
        """Return how many hosts there are."""
        return len(self.fleet.clients) + len(self.fleet.gateways)


def differing(old: Hosts, new: Hosts) -> list[Key]:
    """Return the hosts whose bundles differ or are on one side only, in order."""
    if isinstance(old, Rendered) and isinstance(new, Rendered):
        return sorted(
            [("client", name) for name in _unlike(old.fleet.clients, new.fleet.clients)]
            + [("gateway", name) for name in _unlike(old.fleet.gateways, new.fleet.gateways)]
        )
    return sorted(key for key in {*old, *new} if old.get(key) != new.get(key))


_H = TypeVar("_H", ClientHost, GatewayHost)


def _unlike(old: Mapping[str, _H], new: Mapping[str, _H]) -> Iterator[str]:
    yield from (name for name in new if name not in old)
    for name, before in old.items():
        after = new.get(name)
        if before is not after and (after is None or _sent(before) != _sent(after)):
            yield name


def _sent(host: ClientHost | GatewayHost) -> object:
    """Return the values that a host's files are rendered from."""
    if isinstance(host, ClientHost):
        return host.addresses, [peer for _, peer in host.peers]  # no client is told its gateways' names
    return [(peer.client_id, peer.public_key, peer.addresses) for peer in host.peers], host.policy


def has_peers(hosts: Hosts, gateway: str) -> bool:
    """Tell whether a gateway has any client."""
    if isinstance(hosts, Rendered):
        return bool(hosts.fleet.gateways[gateway].peers)
    files = hosts.get(("gateway", gateway))
    return files is not None and bool(json.loads(files["peers.json"])["peers"])
