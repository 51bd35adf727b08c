"""The bundles of a side: the bytes that its hosts are sent, and which of them differ from another side's.

Those of an inventory are rendered when somebody asks for one. A change touches few of a hundred thousand, and the
others are told by the values that they are rendered from.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Set
from typing import TYPE_CHECKING, TypeAlias

from tidegate_compiler import parallel
from tidegate_compiler.plan.objects import ADDED, CHANGED, REMOVED
from tidegate_compiler.render import of_client, of_gateway

if TYPE_CHECKING:  # a plan of compile outputs does without the compiler
    from tidegate_compiler.resolve import ClientHost, Fleet

# What makes a fork worth its while: the clients of a fleet, and the gateways whose policies have to be made.
_LARGE, _MANY = 20_000, 20

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

    def __contains__(self, key: object) -> bool:
        """Tell whether there is such a host, without rendering it."""
        kind, name = key if isinstance(key, tuple) else ("", "")
        return name in {"client": self.fleet.clients, "gateway": self.fleet.gateways}.get(kind, ())

    def __iter__(self) -> Iterator[Key]:
        """Yield every host."""
        yield from (("client", name) for name in self.fleet.clients)
        yield from (("gateway", name) for name in self.fleet.gateways)

    def __len__(self) -> int:
        """Return how many hosts there are."""
        return len(self.fleet.clients) + len(self.fleet.gateways)


def make_policies(old: Hosts, new: Hosts) -> None:
    """Make the policies of the gateways that may differ, of many the old ones in another process meanwhile.

    Whoever asks for one of them gets it at once then; without this it would be made when asked for.
    """
    fleets = _shared(old, new)
    if fleets is None:
        return
    before, after = fleets
    names = after.changed_gateways
    is_large = len(before.clients) >= _LARGE and len(names) >= _MANY
    with parallel.beside(lambda: before.policies(names), is_large) as theirs:
        after.policies(names)
        before.remember(theirs())


def differing(old: Hosts, new: Hosts) -> dict[Key, dict[str, str]]:
    """Return what happened to the files of each host that has not the same on both sides, in order of hosts."""
    fleets = _shared(old, new)
    if fleets is None:
        return {
            key: _changes(old.get(key, {}), new.get(key, {}))
            for key in sorted({*old, *new})
            if old.get(key) != new.get(key)
        }
    after = fleets[1]
    found: dict[Key, dict[str, str]] = {}
    for name in sorted(after.changed_clients):
        found["client", name] = _changes(*[_client_files(fleet.clients.get(name)) for fleet in fleets])
    for name in sorted(after.changed_gateways):
        files = [
            {"peers.json": told, "policy.json": fleet.gateways[name].policy} if name in fleet.gateways else {}
            for fleet, told in zip(fleets, peers(old, new, name), strict=True)
        ]
        found["gateway", name] = _changes(
            *[{f: value for f, value in one.items() if value is not None} for one in files]
        )
    return {key: changes for key, changes in found.items() if changes}


def peers(old: Hosts, new: Hosts, gateway: str) -> tuple[Mapping[str, object], Mapping[str, object]]:
    """Return what both sides' gateways are told of clients by ID, of those that may differ."""
    fleets = _shared(old, new)
    if fleets is None:
        before, after = (
            {peer["client_id"]: peer for peer in json.loads(side["gateway", gateway]["peers.json"])["peers"]}
            for side in (old, new)
        )
        return before, after
    moved = fleets[1].changed_clients
    before, after = (
        {
            fleet.ids[name]: sorted(fleet.inventory.client_rows[name][1])
            for name in (fleet.gateways[gateway].members if gateway in fleet.gateways else ())
            if name in moved
        }
        for fleet in fleets
    )
    return before, after


def _shared(old: Hosts, new: Hosts) -> tuple[Fleet, Fleet] | None:
    """Return the fleets of two sides of which the second was made like the first; None otherwise."""
    if isinstance(old, Rendered) and isinstance(new, Rendered) and new.fleet.like is old.fleet:
        return old.fleet, new.fleet
    return None


def _changes(old: Mapping[str, object], new: Mapping[str, object]) -> dict[str, str]:
    """Return what happened to files, given as their bytes or the values that these are rendered from."""
    return {
        file: ADDED if file not in old else REMOVED if file not in new else CHANGED
        for file in sorted({*old, *new})
        if file not in old or file not in new or old[file] != new[file]
    }


def _client_files(host: ClientHost | None) -> dict[str, object]:
    if host is None:
        return {}
    return {"wg0.conf": (host.addresses, [peer for _, peer in host.peers])}  # no gateway's name is told


def changed_clients(old: Hosts, new: Hosts) -> Set[str] | None:
    """Return the clients that may differ between two sides; None when every one may."""
    fleets = _shared(old, new)
    return None if fleets is None else fleets[1].changed_clients


def changed_gateways(old: Hosts, new: Hosts) -> Set[str] | None:
    """Return the gateways that may differ between two sides; None when every one may.

    With a gateway that differs go all the others of its clients, which have their ways through these, too.
    """
    fleets = _shared(old, new)
    if fleets is not None:
        return fleets[1].changed_gateways
    if isinstance(old, Rendered) or isinstance(new, Rendered) or not old or not new:
        return None
    changed = {
        name
        for kind, name in {*old, *new}
        if kind == "gateway" and old.get((kind, name)) != new.get((kind, name))
    }
    sides = [
        {
            name: peer_addresses(files["peers.json"])
            for (kind, name), files in side.items()
            if kind == "gateway"
        }
        for side in (old, new)
    ]
    clients = {client for side in sides for name in changed & side.keys() for client, _ in side[name]}
    return changed | {
        name
        for side in sides
        for name, peers in side.items()
        if any(client in clients for client, _ in peers)
    }


@functools.lru_cache(maxsize=1024)
def peer_addresses(file: bytes) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Return each peer's client ID and addresses, of a peers.json that is known to be right."""
    return tuple((peer["client_id"], tuple(peer["allowed_ips"])) for peer in json.loads(file)["peers"])


def has_peers(hosts: Hosts, gateway: str) -> bool:
    """Tell whether a gateway has any client."""
    if isinstance(hosts, Rendered):
        return bool(hosts.fleet.gateways[gateway].members)
    files = hosts.get(("gateway", gateway))
    return files is not None and bool(json.loads(files["peers.json"])["peers"])
