"""Files as the cache keeps them: a JSON document of each, checked as it is read.

    clients  {names, keys, addresses, shape, list, shapes, lists}   keys and addresses packed, in base64
    groups   {names, members, not_before, expires}                  members one to a line
    others   their objects, as `quick` reads them

What is read holds no more than a file that its schema has accepted could: names are names, keys have their length.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Callable, Mapping
from itertools import accumulate, chain
from typing import Any, TypeAlias

from tidegate_compiler.model import ClientRow, GroupRow
from tidegate_compiler.quick import Objects
from tidegate_compiler.sheets import Rows
from tidegate_schema import validation
from tidegate_schema.keys import KEY_BYTES, LOW_ORDER_KEYS
from tidegate_schema.names import NAME_PATTERN

Content: TypeAlias = Objects | Rows
_NAMES = re.compile(rf"{NAME_PATTERN}(?:\n{NAME_PATTERN})*")


def encode(kind: str, content: Content) -> bytes:
    """Return the content of a file of a kind as bytes."""
    written = WRITERS[kind](content) if kind in WRITERS else content
    return json.dumps(written, separators=(",", ":")).encode("ascii")


def decode(kind: str, data: bytes) -> Any:
    """Return the content that `encode` made bytes of; ValueError for anything else."""
    try:
        read = json.loads(data)
        if kind in READERS:
            return READERS[kind](read)
        if validation.is_valid(kind, read):
            return read
        raise ValueError("no such objects")
    except (KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise ValueError("no rows") from None


def _clients_written(rows: Mapping[str, ClientRow]) -> dict[str, Any]:
    lists: dict[tuple[str, ...], int] = {}
    shapes: dict[tuple[int, ...], int] = {}
    return {
        "names": "\n".join(rows),
        "keys": _base64(b"".join([key for key, _, _ in rows.values()])),
        "addresses": _base64(b"".join(chain.from_iterable(addresses for _, addresses, _ in rows.values()))),
        "shape": [
            shapes.setdefault(tuple(map(len, addresses)), len(shapes)) for _, addresses, _ in rows.values()
        ],
        "list": [lists.setdefault(gateways, len(lists)) for _, _, gateways in rows.values()],
        "shapes": list(shapes),
        "lists": list(lists),
    }


def _clients_read(entry: Mapping[str, Any]) -> dict[str, ClientRow]:
    names = _names(entry["names"])
    keys = _cut(_bytes(entry["keys"]), [KEY_BYTES] * len(names))
    if not LOW_ORDER_KEYS.isdisjoint(keys):
        raise ValueError("a low-order key")
    shapes = _by_number(entry["shape"], [tuple(shape) for shape in entry["shapes"]])
    if not {4, 16}.issuperset(chain.from_iterable(shapes)) or not all(shapes):
        raise ValueError("no addresses")
    lists = _by_number(entry["list"], [tuple(_names("\n".join(gateways))) for gateways in entry["lists"]])
    addresses = iter(_cut(_bytes(entry["addresses"]), list(chain.from_iterable(shapes))))
    own = [tuple([next(addresses) for _ in shape]) for shape in shapes]
    return dict(zip(names, zip(keys, own, lists, strict=True), strict=True))


def _groups_written(rows: Mapping[str, GroupRow]) -> dict[str, Any]:
    return {
        "names": "\n".join(rows),
        "members": ["\n".join(members) for members, _, _ in rows.values()],
        "not_before": {name: dict(times) for name, (_, times, _) in rows.items() if times},
        "expires": {name: dict(times) for name, (_, _, times) in rows.items() if times},
    }


def _groups_read(entry: Mapping[str, Any]) -> dict[str, GroupRow]:
    names = _names(entry["names"])
    members = [tuple(_names(text)) for text in entry["members"]]
    times = [
        {name: _instants(found) for name, found in entry[end].items()} for end in ("not_before", "expires")
    ]
    rows: dict[str, GroupRow] = {
        name: (mine, times[0].get(name, {}), times[1].get(name, {}))
        for name, mine in zip(names, members, strict=True)
    }
    if not rows.keys() >= times[0].keys() | times[1].keys():
        raise ValueError("times of a group that is not there")
    return rows


def _instants(times: Mapping[str, Any]) -> dict[str, int]:
    if not all(type(second) is int and second >= 0 for second in times.values()):
        raise ValueError("no Unix seconds")
    _names("\n".join(times))
    return dict(times)


def _names(text: str) -> list[str]:
    if not _NAMES.fullmatch(text):
        raise ValueError("no names")
    names = text.split("\n")
    if len(set(names)) != len(names):
        raise ValueError("a name twice")
    return names


def _by_number(numbers: list[int], values: list[Any]) -> list[Any]:
    if numbers and min(numbers) < 0:
        raise ValueError("no such number")
    return [values[number] for number in numbers]


def _cut(data: bytes, lengths: list[int]) -> list[bytes]:
    """Return the pieces of these lengths, which are all of it."""
    ends = list(accumulate(lengths))
    if (ends[-1] if ends else 0) != len(data):
        raise ValueError("too many bytes, or too few")
    return [data[end - length : end] for end, length in zip(ends, lengths, strict=True)]


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")


def _bytes(text: str) -> bytes:
    return binascii.a2b_base64(text, strict_mode=True)


READERS: Mapping[str, Callable[[Mapping[str, Any]], Rows]] = {
    "clients": _clients_read,
    "groups": _groups_read,
}
WRITERS: Mapping[str, Callable[[Any], dict[str, Any]]] = {
    "clients": _clients_written,
    "groups": _groups_written,
}
