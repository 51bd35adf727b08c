"""Files of clients and groups in the forms that `fmt` and `add` write, recognised without a parser of YAML.

    NAME: {public_key: "KEY", addresses: [10.64.0.1/32, "fd64::1/128"], gateways: [NAME, NAME]}

    NAME:                                               NAME: {members: [NAME, NAME]}
      public_key: KEY
      addresses: [10.64.0.1/32, "fd64::1/128"]          NAME:
      gateways:                                           members:
        - NAME                                              - NAME

Of these there are hundreds of thousands. One regular expression says all that an object in such a form may be, in
printable ASCII that means the same to every parser of every version of YAML; between objects stand blank lines and
whole lines of comment, and nothing else. A file with anything besides is not judged here: `quick` and the careful
reader do so, as they would this one. A property test holds all three together.
"""

from __future__ import annotations

import functools
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any

from tidegate_compiler.model import ClientRow, GroupRow
from tidegate_compiler.sheets import Rows
from tidegate_compiler.yamlplain import is_plain
from tidegate_schema import validation
from tidegate_schema.keys import CANONICAL_PATTERN, LOW_ORDER_KEYS

_BETWEEN = re.compile(r"(?:#[^\n]*\n|\n)*")
_FIRST = re.compile(r"^[^#\n]", re.MULTILINE)
_KEY = rf' (?:"{CANONICAL_PATTERN}"|{CANONICAL_PATTERN})'
# IPv4 without a zero that leads, IPv6 without a dot and without the zeros that an IPv4-mapped one begins with: of these
# the system's own reader thinks as `fields.host` does. A colon stands in quotes, for old parsers count minutes by it.
_IPV4 = r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}/32"
_ADDRESS = rf'(?:{_IPV4}|"(?:{_IPV4}|[1-9a-fA-F][0-9a-fA-F:]*/128)")'
_DASH = "\n    - "
# Of all that begins with a letter, what some parser takes for a boolean or for nothing.
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


def rows(kind: str, text: str) -> Rows | None:
    """Return the rows of a file of clients or groups; None when it is in none of the forms, or not right.

    The text holds no control characters but tabs and line ends.
    """
    first = _FIRST.search(text)
    form = next((form for form in _forms(kind) if first and form.match(text, first.start())), None)
    if form is None:
        return None
    parts = form.split(text)
    between, names, *values = (parts[n :: form.groups + 1] for n in range(form.groups + 1))
    if not _BETWEEN.fullmatch("".join(between)):  # whole lines, for a match begins a line and ends one
        return None
    try:
        return dict(zip(_different(names), _READERS[kind](*values), strict=True))
    except (ValueError, OSError):
        return None


def _clients(keys: list[str], addresses: list[str], gateways: list[str]) -> list[ClientRow]:
    raw = [a2b_base64(key.strip(' "')) for key in keys]
    if not LOW_ORDER_KEYS.isdisjoint(raw):
        raise ValueError("a low-order key")
    own = [_packed(_items(text.replace('"', ""))) for text in addresses]
    if len(set(chain.from_iterable(own))) != sum(map(len, own)):
        raise ValueError("an address twice")
    lists = {text: _different(_items(text)) for text in set(gateways)}  # few, shared by many clients
    return list(zip(raw, own, map(lists.__getitem__, gateways), strict=True))


def _packed(hosts: list[str]) -> tuple[bytes, ...]:
    return tuple(
        [inet_pton(AF_INET, one[:-3]) if one[-3] == "/" else inet_pton(AF_INET6, one[:-4]) for one in hosts]
    )


def _groups(members: list[str]) -> list[GroupRow]:
    return [(_different(_items(text)), {}, {}) for text in members]


_READERS: Mapping[str, Callable[..., Iterable[Any]]] = {"clients": _clients, "groups": _groups}
_FIELDS = {"clients": ("public_key", "addresses", "gateways"), "groups": ("members",)}


def _items(written: str) -> list[str]:
    """Return what a list holds that is written in brackets, or with a dash before each."""
    return written[2:-1].split(", ") if written[1] == "[" else written[len(_DASH) :].split(_DASH)


def _different(names: list[str]) -> tuple[str, ...]:
    """Return names of which no two are the same and each is text to every parser; ValueError otherwise."""
    distinct = set(names)
    if len(distinct) != len(names) or not distinct.isdisjoint(_WORDS):
        raise ValueError("a name twice, or none")
    if min(names) < "a" and not all(map(is_plain, names)):
        raise ValueError("a number or a date")
    return tuple(names)


@functools.cache
def _forms(kind: str) -> tuple[re.Pattern[str], re.Pattern[str]]:
    """Return an object on one line, and one on several: a group for its name, and one for each value."""
    schema = validation.schema(kind)
    name = validation.pattern(schema["propertyNames"])
    one_line, several = [], []
    for field in _FIELDS[kind]:
        part = schema["additionalProperties"]["properties"][field]
        in_line = in_lines = _KEY
        if part["type"] == "array":
            item = _ADDRESS if field == "addresses" else validation.pattern(part["items"])
            more = f"{{0,{part['maxItems'] - 1}}}" if "maxItems" in part else "*"
            in_line = rf" \[{item}(?:, {item}){more}\]"
            in_lines = rf"{in_line}|{_DASH}{item}(?:{_DASH}{item}){more}"
        one_line.append(f"{field}:({in_line})")
        several.append(f"  {field}:({in_lines})\n")
    return (
        re.compile(rf"^({name}): \{{{', '.join(one_line)}\}}\n", re.MULTILINE),
        re.compile(rf"^({name}):\n{''.join(several)}", re.MULTILINE),
    )
