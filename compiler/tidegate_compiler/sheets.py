"""Clients and groups of a file read the fast way, as rows: of these there are hundreds of thousands.

A row is a plain tuple of plain values, made at once from what the schema has accepted, and read by the same rules
as a single field (`fields`): whatever is not right beyond doubt makes no row but sends its file to the careful reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from ipaddress import ip_network
from itertools import repeat
from socket import AF_INET, AF_INET6, inet_ntop, inet_pton
from typing import Any, TypeAlias

from tidegate_compiler import fields
from tidegate_compiler.diagnostics import Where
from tidegate_compiler.model import At, Client, ClientRow, Group, GroupRow
from tidegate_schema.keys import parse_public_key

Rows: TypeAlias = Mapping[str, ClientRow] | Mapping[str, GroupRow]

KINDS = frozenset({"clients", "groups"})
_MAPPED = bytes(10) + b"\xff\xff"


def read(kind: str, objects: Mapping[str, Mapping[str, Any]]) -> Rows | None:
    """Return the rows of a file of clients or groups that its schema has accepted; None when a value is refused."""
    try:
        return _clients(objects) if kind == "clients" else _groups(objects)
    except ValueError:
        return None


def _clients(objects: Mapping[str, Mapping[str, Any]]) -> dict[str, ClientRow]:
    lists: dict[tuple[str, ...], tuple[str, ...]] = {}  # few, shared by many clients
    return {
        name: (
            parse_public_key(client["public_key"]),
            tuple(map(packed, client["addresses"])),
            lists.setdefault(gateways := tuple(client["gateways"]), gateways),
        )
        for name, client in objects.items()
    }


def packed(text: str) -> bytes:
    """Return the bytes of a host's address as `fields.host` reads it; ValueError when it would refuse it."""
    try:
        if text.endswith("/32"):
            address = text[:-3]
            found = inet_pton(AF_INET, address)
            if inet_ntop(AF_INET, found) == address:
                return found
        elif text.endswith("/128") and "." not in text:
            found = inet_pton(AF_INET6, text[:-4])
            if not found.startswith(_MAPPED):
                return found
    except OSError:
        pass
    return fields.host(text).network_address.packed


def _groups(objects: Mapping[str, Mapping[str, Any]]) -> dict[str, GroupRow]:
    return {
        name: (
            tuple(group["members"]),
            _instants(group.get("not_before", {})),
            _instants(group.get("expires", {})),
        )
        for name, group in objects.items()
    }


def _instants(times: Mapping[str, str]) -> dict[str, int]:
    return {member: fields.instant(text) for member, text in times.items()}


def client(name: str, row: ClientRow, where: Where, rough: Where) -> Client:
    """Return the object a row stands for; `rough` is the place of each of its values."""
    key, addresses, gateways = row
    return Client(
        name,
        where,
        At(key, rough),
        tuple(At(ip_network(address), rough) for address in addresses),
        tuple(At(gateway, rough) for gateway in gateways),
    )


def group(name: str, row: GroupRow, where: Where, rough: Where) -> Group:
    """Return the object a row stands for; `rough` is the place of each of its values."""
    members, not_before, expires = row
    return Group(
        name,
        where,
        tuple(map(At, members, repeat(rough))),  # the largest group has half of all clients
        {member: At(time, rough) for member, time in not_before.items()},
        {member: At(time, rough) for member, time in expires.items()},
    )


MAKERS: Mapping[str, Callable[[str, Any, Where, Where], Client | Group]] = {
    "clients": client,
    "groups": group,
}
