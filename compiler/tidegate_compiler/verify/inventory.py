"""The inventory as plain facts, every reference followed.

A reference that leads nowhere, two hosts with one key or address, ports said by neither side, a route with two
ways: what leaves a meaning open is refused here. All else that `tidegate validate` finds is its matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from tidegate_compiler.verify import sources, words
from tidegate_compiler.verify.space import EVER, Span, clip
from tidegate_compiler.verify.words import Net, RefusalError

_T = TypeVar("_T")
_DEFAULT_FLEET = "default"


@dataclass(frozen=True)
class Gateway:
    """A gateway as its file describes it."""

    key: bytes
    endpoint: words.Endpoint
    networks: frozenset[Net]


@dataclass(frozen=True)
class Client:
    """A client as its file describes it; `gateways` in order."""

    key: bytes
    addresses: frozenset[Net]
    gateways: tuple[str, ...]

    @property
    def families(self) -> frozenset[int]:
        """Return the IP versions it has an address of."""
        return frozenset(address.version for address in self.addresses)


@dataclass(frozen=True)
class Policy:
    """A policy with its references followed: when for whom, and which services at which prefix."""

    name: str
    deny: bool
    clients: Mapping[str, frozenset[Span]]
    destinations: tuple[tuple[Net, tuple[Span, ...]], ...]


@dataclass(frozen=True)
class Facts:
    """All that an output has to say; `policies` is None when the inventory has no file of them."""

    fleet: str
    digest: str
    gateways: Mapping[str, Gateway]
    clients: Mapping[str, Client]
    policies: tuple[Policy, ...] | None


def facts(files: Mapping[str, bytes]) -> Facts:
    """Return what the files say. Raises RefusalError, one line, on whatever leaves a meaning open."""
    of_kind, overlay = sources.objects(files)
    gateways = {name: _named(name, _gateway, item) for name, item in of_kind["gateways"].items()}
    clients = {name: _named(name, _client, item) for name, item in of_kind["clients"].items()}
    _refuse_two_in_one(clients, gateways)
    policies = tuple(_named(name, _policy, name, item, of_kind) for name, item in of_kind["policies"].items())
    has_policies = any(path.startswith("policies/") for path in files)
    return Facts(
        overlay.get("fleet", _DEFAULT_FLEET),
        sources.digest(files),
        gateways,
        clients,
        policies if has_policies else None,
    )


def _named(subject: str, reader: Callable[..., _T], *arguments: Any) -> _T:
    try:
        return reader(*arguments)
    except RefusalError as refusal:
        raise RefusalError(f"{subject}: {refusal}") from None


def _gateway(item: Mapping[str, Any]) -> Gateway:
    return Gateway(
        words.key(item["public_key"]),
        words.endpoint(item["endpoint"]),
        frozenset(map(words.net, item["networks"])),
    )


def _client(item: Mapping[str, Any]) -> Client:
    addresses = frozenset(map(words.net, item["addresses"]))
    if any(address.num_addresses != 1 for address in addresses):
        raise RefusalError("a client has single addresses")
    return Client(words.key(item["public_key"]), addresses, tuple(item["gateways"]))


def _refuse_two_in_one(clients: Mapping[str, Client], gateways: Mapping[str, Gateway]) -> None:
    keys = [host.key for hosts in (clients, gateways) for host in hosts.values()]
    addresses = [address for client in clients.values() for address in client.addresses]
    if len(set(keys)) < len(keys) or len(set(addresses)) < len(addresses):
        raise RefusalError("two hosts have one key or one address")
    for name, client in clients.items():
        if unknown := set(client.gateways) - set(gateways):
            raise RefusalError(f"{name}: there is no gateway {min(unknown)}")
        distinct = {gateways[gateway].networks for gateway in client.gateways}
        if len(frozenset().union(*distinct)) < sum(map(len, distinct)):
            raise RefusalError(f"{name}: two of its gateways have a network in common and differ in others")


def _policy(name: str, item: Mapping[str, Any], of_kind: Mapping[str, Mapping[str, Any]]) -> Policy:
    window = _window(item.get("not_before"), item.get("expires"))
    clients: dict[str, set[Span]] = {}
    for source in item["from"]:
        for client, time in _sources(source, of_kind):
            if client not in of_kind["clients"]:
                raise RefusalError(f"there is no client {client}")
            clients.setdefault(client, set()).update(clip([time], [window]))
    destinations = [found for to in item["to"] for found in _destinations(to, item.get("ports"), of_kind)]
    found = {client: frozenset(times) for client, times in clients.items() if times}
    return Policy(name, item["action"] == "deny", found, tuple(destinations))


def _window(begin: str | None, end: str | None) -> Span:
    return Span(
        EVER.low if begin is None else words.instant(begin), EVER.high if end is None else words.instant(end)
    )


def _sources(source: str, of_kind: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, Span]]:
    kind, _, name = source.partition(":")
    if kind != "group":
        return [(client, EVER) for client in (of_kind["clients"] if kind == "all-clients" else [name])]
    if name not in of_kind["groups"]:
        raise RefusalError(f"there is no group {name}")
    group = of_kind["groups"][name]
    begins, ends = group.get("not_before", {}), group.get("expires", {})
    if stray := (begins.keys() | ends.keys()) - set(group["members"]):
        raise RefusalError(f"{min(stray)} has a time in group {name} and is no member of it")
    return [(member, _window(begins.get(member), ends.get(member))) for member in group["members"]]


def _destinations(
    to: str, ports: list[str] | None, of_kind: Mapping[str, Mapping[str, Any]]
) -> Iterable[tuple[Net, tuple[Span, ...]]]:
    prefixes, served = [to], None
    if to.startswith("resource:"):
        resource = of_kind["resources"].get(to.removeprefix("resource:"))
        if resource is None:
            raise RefusalError(f"there is no {to}")
        prefixes, served = resource["addresses"], resource.get("ports")
    said = [texts for texts in (ports, served) if texts is not None]
    if not said:
        raise RefusalError(f"neither it nor {to} says ports")
    for prefix in map(words.net, prefixes):
        first, *second = [[words.service(text, prefix.version) for text in texts] for texts in said]
        yield prefix, clip(first, second[0]) if second else tuple(first)
